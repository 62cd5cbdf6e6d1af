//! The ROUTER's socket monitor: which descriptor was accepted, which was closed.

use crate::error::Error;

/// What happened to a connection, by its descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnEvent {
    Accepted(i32),
    /// Closed, reset, or silent for longer than the heartbeat timeout.
    Disconnected(i32),
}

/// The receiving end of the monitor; lives in the router's thread.
pub(crate) struct Monitor {
    socket: zmq::Socket,
}

impl Monitor {
    /// Call it before the ROUTER is bound, so that no connection is missed.
    pub(crate) fn start(context: &zmq::Context, router: &zmq::Socket) -> Result<Self, Error> {
        let fail = |error: zmq::Error| Error::other("monitor the socket", error);
        let events = zmq::SocketEvent::ACCEPTED.to_raw() | zmq::SocketEvent::DISCONNECTED.to_raw();
        let endpoint = "inproc://router-monitor";
        router.monitor(endpoint, i32::from(events)).map_err(fail)?;
        let socket = context.socket(zmq::PAIR).map_err(fail)?;
        // Without a bound, and set before connect: a full pipe would stop libzmq's I/O thread in a connection storm.
        socket.set_rcvhwm(0).map_err(fail)?;
        socket.set_linger(0).map_err(fail)?;
        socket.connect(endpoint).map_err(fail)?;
        Ok(Self { socket })
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
            if let Some(event) = parse(&frame) {
                return Ok(Some(event));
            }
        }
    }

    pub(crate) fn poll_item(&self) -> zmq::PollItem<'_> {
        self.socket.as_poll_item(zmq::POLLIN)
    }
}

/// 2 bytes of event and 4 bytes of value, in the machine's order (`zmq_socket_monitor(3)`).
fn parse(frame: &[u8]) -> Option<ConnEvent> {
    let event = u16::from_ne_bytes(frame.get(0..2)?.try_into().ok()?);
    let fd = i32::from_ne_bytes(frame.get(2..6)?.try_into().ok()?);
    if event == zmq::SocketEvent::ACCEPTED.to_raw() {
        Some(ConnEvent::Accepted(fd))
    } else if event == zmq::SocketEvent::DISCONNECTED.to_raw() {
        Some(ConnEvent::Disconnected(fd))
    } else {
        None
    }
}
