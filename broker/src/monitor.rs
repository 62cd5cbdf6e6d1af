//! The ROUTER's socket monitor: which descriptor was accepted, which was closed. Says so in the log when peers are turned
//! away for want of descriptors.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::error::Error;

/// What happened to a connection, by its descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnEvent {
    Accepted(i32),
    /// Closed, reset, or silent for longer than the heartbeat timeout.
    Disconnected(i32),
}

/// Between two lines in the log about peers that were turned away: they come again and again.
const REFUSED_EVERY: Duration = Duration::from_mins(1);

/// The receiving end of the monitor; lives in the router's thread.
pub(crate) struct Monitor {
    socket: zmq::Socket,
    /// When the log last had a line about a peer that was turned away.
    refused: Cell<Option<Instant>>,
}

impl Monitor {
    /// Call it before the ROUTER is bound, so that no connection is missed.
    pub(crate) fn start(context: &zmq::Context, router: &zmq::Socket) -> Result<Self, Error> {
        let fail = |error: zmq::Error| Error::other("monitor the socket", error);
        let wanted = [zmq::SocketEvent::ACCEPTED, zmq::SocketEvent::ACCEPT_FAILED, zmq::SocketEvent::DISCONNECTED];
        let events = wanted.iter().fold(0, |events, event| events | event.to_raw());
        let endpoint = "inproc://router-monitor";
        router.monitor(endpoint, i32::from(events)).map_err(fail)?;
        let socket = context.socket(zmq::PAIR).map_err(fail)?;
        // Without a bound, and set before connect: a full pipe would stop libzmq's I/O thread in a connection storm.
        socket.set_rcvhwm(0).map_err(fail)?;
        socket.set_linger(0).map_err(fail)?;
        socket.connect(endpoint).map_err(fail)?;
        Ok(Self { socket, refused: Cell::default() })
    }

    /// The next event, if there is one.
    pub(crate) fn next(&self) -> Result<Option<ConnEvent>, zmq::Error> {
        loop {
            let frame = match self.socket.recv_msg(zmq::DONTWAIT) {
                Ok(frame) => frame,
                Err(zmq::Error::EAGAIN) => return Ok(None),
                Err(zmq::Error::EINTR) => continue,
                Err(error) => return Err(error),
            };
            let mut rest = frame.get_more();
            while rest {
                rest = self.socket.recv_msg(0)?.get_more();
            }
            match parse(&frame) {
                Some(Seen::Conn(event)) => return Ok(Some(event)),
                Some(Seen::Refused(cause)) => self.tell_refused(cause),
                None => {}
            }
        }
    }

    fn tell_refused(&self, cause: i32) {
        let is_out = matches!(cause, libc::EMFILE | libc::ENFILE);
        if is_out && self.refused.get().is_none_or(|at| at.elapsed() >= REFUSED_EVERY) {
            self.refused.set(Some(Instant::now()));
            tracing::warn!(
                target: "laneway",
                "out of file descriptors: new peers are turned away, those that are there go on; raise the limit \
                 (ulimit -n, LimitNOFILE of the unit) and start the broker anew"
            );
        }
    }

    pub(crate) fn poll_item(&self) -> zmq::PollItem<'_> {
        self.socket.as_poll_item(zmq::POLLIN)
    }
}

/// What one event says.
enum Seen {
    Conn(ConnEvent),
    /// A connection could not be taken in: the error's number.
    Refused(i32),
}

/// 2 bytes of event and 4 bytes of value, in the machine's order (`zmq_socket_monitor(3)`).
fn parse(frame: &[u8]) -> Option<Seen> {
    let event = u16::from_ne_bytes(frame.get(0..2)?.try_into().ok()?);
    let value = i32::from_ne_bytes(frame.get(2..6)?.try_into().ok()?);
    if event == zmq::SocketEvent::ACCEPTED.to_raw() {
        Some(Seen::Conn(ConnEvent::Accepted(value)))
    } else if event == zmq::SocketEvent::DISCONNECTED.to_raw() {
        Some(Seen::Conn(ConnEvent::Disconnected(value)))
    } else if event == zmq::SocketEvent::ACCEPT_FAILED.to_raw() {
        Some(Seen::Refused(value))
    } else {
        None
    }
}
