//! A guest for WasmEdge that answers OpenAI's API with models of WASI-NN. It speaks with the router by frames over stdin
//! and stdout; it has no files, no network and no environment. See docs/wasm.md.

#![cfg_attr(not(target_family = "wasm"), allow(dead_code))] // what only the guest uses, which is built for WasmEdge only

mod choose;
mod error;
mod frames;
#[cfg(target_family = "wasm")]
mod guest;
#[cfg(target_family = "wasm")]
mod nn;
mod request;
mod schema;
#[cfg(target_family = "wasm")]
mod slot;
mod template;
mod text;
mod tools;
#[cfg(target_family = "wasm")]
mod wasi;
mod wire;

#[cfg(target_family = "wasm")]
fn main() {
    std::process::exit(run::run());
}

/// Without WASI-NN there is nothing to run: elsewhere only the tests are built.
#[cfg(not(target_family = "wasm"))]
fn main() {}

#[cfg(target_family = "wasm")]
mod run {
    use std::io::{Read, Write};

    use crate::frames::{self, CONFIGURE, FAILED, READY, put};
    use crate::guest::Guest;
    use crate::wasi;

    /// Serves until stdin ends. It returns the status to exit with.
    pub fn run() -> i32 {
        let mut out = Vec::new();
        let ended = serve(&mut out);
        if let Err(why) = &ended {
            put(&mut out, FAILED, 0, why.as_bytes());
        }
        flush(&mut out);
        i32::from(ended.is_err())
    }

    fn serve(out: &mut Vec<u8>) -> Result<(), String> {
        let mut input = Vec::new();
        let first = loop {
            if let Some(frame) = frames::take(&mut input)? {
                break frame;
            }
            if !read(&mut input) {
                return Ok(());
            }
        };
        if first.kind != CONFIGURE {
            return Err("the first frame is no configuration".into());
        }
        let mut guest = Guest::new(&first.payload)?;
        put(out, READY, 0, guest.describe().as_bytes());
        loop {
            while let Some(frame) = frames::take(&mut input)? {
                guest.take(frame, out);
            }
            if guest.busy() {
                guest.step(out);
            }
            flush(out);
            while !guest.busy() || wasi::stdin_ready() {
                if !read(&mut input) {
                    return Ok(());
                }
                if !guest.busy() {
                    break;
                }
            }
        }
    }

    /// Reads what is there. It reports false at the end.
    fn read(input: &mut Vec<u8>) -> bool {
        let mut buffer = [0; 16384];
        match std::io::stdin().lock().read(&mut buffer) {
            Ok(0) | Err(_) => false,
            Ok(n) => {
                input.extend_from_slice(&buffer[..n]);
                true
            }
        }
    }

    /// Sends what has collected. A router that is gone is noticed by the end of stdin.
    fn flush(out: &mut Vec<u8>) {
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(out).and_then(|()| stdout.flush());
        out.clear();
    }
}
