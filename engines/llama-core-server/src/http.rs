//! As little of HTTP/1.1 as the router's client needs: one request a connection, bodies with a length or in chunks.

use std::io::{BufRead, BufReader, Read, Result, Write};

use wasmedge_wasi_socket::{TcpListener, TcpStream};

pub struct Request {
    pub method: String,
    pub path: String,
    pub body: Vec<u8>,
}

/// Where the answer goes.
pub struct Answer<'a>(&'a mut TcpStream);

/// Answers one request after the other, for ever.
pub fn serve(address: &str, answer: impl Fn(&Request, &mut Answer) -> Result<()>) -> std::result::Result<(), String> {
    let listener = TcpListener::bind(address, false).map_err(|e| format!("{address}: {e}"))?;
    eprintln!("Listening on {address}");
    loop {
        let (mut stream, _) = listener.accept(false).map_err(|e| e.to_string())?;
        if let Ok(Some(request)) = read(&mut stream) {
            let _ = answer(&request, &mut Answer(&mut stream)); // a client that leaves is its own affair
        }
    }
}

/// Reads a request; `None` if the client only looked whether somebody listens.
fn read(stream: &mut TcpStream) -> Result<Option<Request>> {
    let mut input = BufReader::new(stream);
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_string);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (mut length, mut chunked) = (0, false);
    loop {
        let mut header = String::new();
        if input.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').unwrap_or((&header, ""));
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "transfer-encoding" => chunked = true,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    if chunked {
        body = read_chunks(&mut input)?;
    } else {
        input.read_exact(&mut body)?;
    }
    Ok(Some(Request { method, path, body }))
}

fn read_chunks(input: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        input.read_line(&mut size)?;
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let mut chunk = vec![0; size + 2]; // and its end of line
        input.read_exact(&mut chunk)?;
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

impl Answer<'_> {
    fn whole(&mut self, status: u16, kind: &str, body: &[u8]) -> Result<()> {
        let head = format!(
            "HTTP/1.1 {status} -\r\nContent-Type: {kind}\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        self.0.write_all(&[head.as_bytes(), body].concat())
    }

    pub fn json(&mut self, body: &impl serde::Serialize) -> Result<()> {
        let body = serde_json::to_vec(body)?;
        self.whole(200, "application/json", &body)
    }

    pub fn text(&mut self, status: u16, text: &str) -> Result<()> {
        self.whole(status, "text/plain", text.as_bytes())
    }

    /// An error, as the original tells one.
    pub fn error(&mut self, status: u16, text: &str) -> Result<()> {
        let name = if status == 500 { "500 Internal Server Error".to_string() } else { status.to_string() };
        self.text(status, &format!("{name}: {text}"))
    }

    pub fn begin_stream(&mut self) -> Result<()> {
        self.0.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        )
    }

    pub fn chunk(&mut self, data: &[u8]) -> Result<()> {
        if data.is_empty() {
            return Ok(()); // it would be the end
        }
        self.0.write_all(&[format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat())
    }

    pub fn end_stream(&mut self) -> Result<()> {
        self.0.write_all(b"0\r\n\r\n")
    }
}
