//! Wakes the router's poll when another thread has put something into a channel for it.
//!
//! A socket pair, for the router waits in `zmq::poll`, which knows descriptors and not channels. However many times it is
//! rung while the router is busy, at most one byte is on its way.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The ringing end; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Doorbell(Arc<Shared>);

/// The end that the router polls.
#[derive(Debug)]
pub(crate) struct DoorbellWait {
    stream: UnixStream,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    stream: UnixStream,
    rung: AtomicBool,
}

pub(crate) fn doorbell() -> Result<(Doorbell, DoorbellWait), io::Error> {
    let (ring, wait) = UnixStream::pair()?;
    ring.set_nonblocking(true)?;
    wait.set_nonblocking(true)?;
    let shared = Arc::new(Shared { stream: ring, rung: AtomicBool::new(false) });
    Ok((Doorbell(Arc::clone(&shared)), DoorbellWait { stream: wait, shared }))
}

impl Doorbell {
    /// Call it after the channel send.
    pub(crate) fn ring(&self) {
        if !self.0.rung.swap(true, Ordering::SeqCst) {
            // One byte always fits; when the other end is gone nobody is left to wake.
            (&self.0.stream).write_all(&[1]).ok();
        }
    }
}

impl DoorbellWait {
    /// Call it before the channel is drained: a ring from here on wakes the next poll. Reads only when the poll says so: a
    /// ring that came behind it does no more than wake the next one.
    pub(crate) fn clear(&mut self, readable: bool) {
        let mut bytes = [0; 8];
        while readable && self.stream.read(&mut bytes).is_ok_and(|n| n == bytes.len()) {}
        self.shared.rung.store(false, Ordering::SeqCst);
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}
