//! Seeds the C library's `rand()`, from which libzmq draws identities, correlation ids and reconnect jitter.
//!
//! libzmq never does it itself, so without this every process would draw the same ones. The only `unsafe` code of the
//! project. Called by everything that opens a socket, before the first one.

use std::sync::Once;

/// Seeds libzmq's source of random numbers from the system, once in this process. Cheap to call again.
#[doc(hidden)]
pub fn seed_libzmq() {
    static SEEDED: Once = Once::new();
    SEEDED.call_once(|| {
        let mut bytes = [0; 4];
        if let Err(error) = getrandom::fill(&mut bytes) {
            // Without random bytes from the system the process id still tells processes apart.
            tracing::warn!(%error, "no random bytes from the system");
            bytes = std::process::id().to_ne_bytes();
        }
        seed(u32::from_ne_bytes(bytes));
    });
}

#[expect(unsafe_code, reason = "no safe crate reaches the C library's srand")]
fn seed(seed: u32) {
    // SAFETY: srand takes any number and touches only the C library's own state, which glibc and musl guard or keep in
    // one word; the caller runs it once, before the first libzmq socket draws from it.
    unsafe { libc::srand(seed) }
}
