//! What of WASI the standard library does not have: to ask whether stdin has something, and for random numbers.

mod host {
    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        pub fn poll_oneoff(subscriptions: *const [u8; 48], events: *mut [u8; 32], count: u32, stored: *mut u32) -> u32;
        pub fn random_get(buffer: *mut u8, size: usize) -> u32;
    }
}

const STDIN: u64 = 1; // our own names of the two events
const CLOCK: u64 = 2;

/// Can stdin be read without waiting? Its end can.
pub fn stdin_ready() -> bool {
    // struct subscription: userdata at 0, what at 8, then for a read the file's number at 16, for a clock its id at 16 and
    // the time to wait at 24.
    let mut subscriptions = [[0u8; 48]; 2];
    subscriptions[0][..8].copy_from_slice(&STDIN.to_le_bytes());
    subscriptions[0][8] = 1; // eventtype fd_read, of file 0
    subscriptions[1][..8].copy_from_slice(&CLOCK.to_le_bytes());
    subscriptions[1][16] = 1; // the monotonic clock, now
    let mut events = [[0u8; 32]; 2];
    let mut stored = 0;
    let errno = unsafe { host::poll_oneoff(subscriptions.as_ptr(), events.as_mut_ptr(), 2, &mut stored) };
    errno == 0 && events[..stored.min(2) as usize].iter().any(|e| e[..8] == STDIN.to_le_bytes())
}

/// A random number, for names.
pub fn random() -> u128 {
    let mut bytes = [0; 16];
    unsafe { host::random_get(bytes.as_mut_ptr(), bytes.len()) };
    u128::from_le_bytes(bytes)
}
