//! The ROUTER's socket monitor: which descriptor was accepted, which was closed. Says so in the log when peers are turned
//! away for want of descriptors, or for a handshake that cannot succeed.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::telemetry::Seldom;

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
    /// One for each sort of failed handshake, so that none of them hides the other.
    handshakes: [RefCell<Seldom>; 2],
}

impl Monitor {
    /// Call it before the ROUTER is bound, so that no connection is missed.
    pub(crate) fn start(context: &zmq::Context, router: &zmq::Socket) -> Result<Self, Error> {
        let fail = |error: zmq::Error| Error::other("monitor the socket", error);
        let wanted = [
            zmq::SocketEvent::ACCEPTED,
            zmq::SocketEvent::ACCEPT_FAILED,
            zmq::SocketEvent::DISCONNECTED,
            zmq::SocketEvent::HANDSHAKE_FAILED_PROTOCOL,
        ];
        let events = wanted.iter().fold(0, |events, event| events | event.to_raw());
        let endpoint = "inproc://router-monitor";
        router.monitor(endpoint, i32::from(events)).map_err(fail)?;
        let socket = context.socket(zmq::PAIR).map_err(fail)?;
        // Without a bound, and set before connect: a full pipe would stop libzmq's I/O thread in a connection storm.
        socket.set_rcvhwm(0).map_err(fail)?;
        socket.set_linger(0).map_err(fail)?;
        socket.connect(endpoint).map_err(fail)?;
        Ok(Self { socket, refused: Cell::default(), handshakes: Default::default() })
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
            let mut endpoint = zmq::Message::new();
            let mut rest = frame.get_more();
            while rest {
                endpoint = self.socket.recv_msg(0)?;
                rest = endpoint.get_more();
            }
            match parse(&frame) {
                Some(Seen::Conn(event)) => return Ok(Some(event)),
                Some(Seen::Refused(cause)) => self.tell_refused(cause),
                Some(Seen::BadHandshake(cause)) => self.tell_handshake(cause, &endpoint),
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

    /// What a person does wrong with keys. Peers that are no ZeroMQ at all are nobody's mistake here.
    fn tell_handshake(&self, cause: i32, endpoint: &[u8]) {
        let (seldom, reason) = match cause {
            MECHANISM_MISMATCH => (
                &self.handshakes[0],
                "a peer came without a key where keys are needed, or with one where none is taken",
            ),
            CRYPTOGRAPHIC => {
                (&self.handshakes[1], "a peer has a wrong public key for this broker, or a key pair that is none")
            }
            _ => return,
        };
        if let Some(left_out) = seldom.borrow_mut().now() {
            let endpoint = String::from_utf8_lossy(endpoint);
            tracing::warn!(target: "laneway::access", %endpoint, left_out, "{reason}");
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
    /// One of `zmq.h`'s protocol errors.
    BadHandshake(i32),
}

/// Of `zmq.h`: one side speaks CURVE, the other does not.
const MECHANISM_MISMATCH: i32 = 0x1100_0002;
/// Of `zmq.h`: what a peer encrypted cannot be opened.
const CRYPTOGRAPHIC: i32 = 0x1100_0001;

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
    } else if event == zmq::SocketEvent::HANDSHAKE_FAILED_PROTOCOL.to_raw() {
        Some(Seen::BadHandshake(value))
    } else {
        None
    }
}
