//! The frames that router and guest exchange, see docs/wasm.md.

const MARKER: u8 = 0;
const HEADER: usize = 10;

/// Kinds of frames.
pub const CONFIGURE: u8 = b'C';
pub const REQUEST: u8 = b'Q';
pub const CANCEL: u8 = b'X';
pub const READY: u8 = b'R';
pub const FAILED: u8 = b'F';
pub const HEAD: u8 = b'H';
pub const DATA: u8 = b'D';
pub const END: u8 = b'E';

/// One message. It is about a stream, which is one request and its answer; 0 is the guest as a whole.
#[derive(Debug, PartialEq)]
pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// Appends a frame to what is to be sent.
pub fn put(out: &mut Vec<u8>, kind: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&[MARKER, kind]);
    out.extend_from_slice(&stream.to_le_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(payload);
}

/// Takes the first whole frame off what has come. `None`: there is no whole one yet. An error: what has come is no frame.
pub fn take(input: &mut Vec<u8>) -> Result<Option<Frame>, String> {
    if input.first().is_some_and(|&b| b != MARKER) {
        return Err("what came on stdin is no frame".into());
    }
    if input.len() < HEADER {
        return Ok(None);
    }
    let number = |at: usize| u32::from_le_bytes([input[at], input[at + 1], input[at + 2], input[at + 3]]);
    let (kind, stream, length) = (input[1], number(2), number(6) as usize);
    if input.len() - HEADER < length {
        return Ok(None);
    }
    let rest = input.split_off(HEADER + length);
    let payload = std::mem::replace(input, rest).split_off(HEADER);
    Ok(Some(Frame { kind, stream, payload }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_in_pieces() {
        let mut wire = Vec::new();
        put(&mut wire, REQUEST, 7, b"/v1/x\n{}");
        put(&mut wire, CANCEL, 7, b"");
        let mut input = Vec::new();
        let mut got = Vec::new();
        for byte in wire {
            input.push(byte);
            while let Some(frame) = take(&mut input).unwrap() {
                got.push(frame);
            }
        }
        assert_eq!(got, [Frame { kind: REQUEST, stream: 7, payload: b"/v1/x\n{}".to_vec() }, Frame { kind: CANCEL, stream: 7, payload: vec![] }]);
        assert!(input.is_empty());
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        assert!(take(&mut b"hello".to_vec()).is_err());
        assert_eq!(take(&mut vec![0, b'Q']), Ok(None));
    }
}
