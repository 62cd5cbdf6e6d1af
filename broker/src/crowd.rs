//! How many connections there may be, and what happens to one more: it is shut at once, so that a flood of them takes neither
//! the descriptors that the database needs nor the peers that are there. A listener without descriptors would be worse: libzmq
//! tries to accept again and again, and one that is unbound closes every connection that it ever took.
//!
//! Owned by the router, which tells each accepted connection.

use nix::sys::socket::{Shutdown, shutdown};

/// Ends the connection on descriptor `fd`.
pub(crate) fn shut(fd: i32) {
    // The descriptor is libzmq's, which sees the end and closes it. Meanwhile it may stand for another connection, which then
    // is made again by its peer; that costs less than a look at each.
    shutdown(fd, Shutdown::Both).ok();
}

#[derive(Debug)]
pub(crate) struct Crowd {
    connections_max: usize,
    /// Shut since there were fewer than may be.
    n_shut: u64,
}

impl Crowd {
    pub(crate) fn new(connections_max: usize) -> Self {
        Self { connections_max, n_shut: 0 }
    }

    /// A connection was accepted on descriptor `fd`, and is one of `n_connections`.
    pub(crate) fn on_accepted(&mut self, fd: i32, n_connections: usize) {
        if n_connections <= self.connections_max {
            return self.end(n_connections);
        }
        shut(fd);
        self.n_shut += 1;
        if self.n_shut == 1 {
            tracing::warn!(
                target: "laneway::router",
                connections = n_connections,
                "as many connections as may be: new ones are shut (connections_max)"
            );
        }
    }

    fn end(&mut self, n_connections: usize) {
        // A bit of distance, so that a crowd at the bound is told once and not all the time.
        if self.n_shut > 0 && n_connections < self.connections_max - self.connections_max / 16 {
            tracing::warn!(target: "laneway::router", shut = self.n_shut, "new connections are taken again");
            self.n_shut = 0;
        }
    }
}
