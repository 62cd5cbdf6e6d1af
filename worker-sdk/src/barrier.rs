//! Tells a broker that is away from one that is there and does not let this peer in: what libzmq's monitor says about the
//! handshakes of one socket. Without it both look the same, and a wrong key would be waited for.

use std::fmt;

/// Why a broker that is there does not let this peer in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Barrier {
    /// The broker does not know this peer's key, or knows it no more.
    UnknownKey,
    /// The endpoint takes peers with keys only, and this one came without.
    NeedsKeys,
    /// The endpoint takes peers without keys only, and this one came with some.
    TakesNoKeys,
    /// The broker broke the handshake off. Mostly the public key that this peer has for it is another one's.
    BrokenOff,
}

impl fmt::Display for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownKey => {
                "it does not know this key; put the .public file into its folder of keys and send it SIGHUP, or use another key"
            }
            Self::NeedsKeys => "it takes peers with keys only; give a secret file and the broker's public file",
            Self::TakesNoKeys => "it takes peers without keys only; leave them away, or name its CURVE endpoint",
            Self::BrokenOff => "it broke the handshake off; is the broker's public file that of the broker which runs there?",
        })
    }
}

/// Handshakes in a row that end without a reason before that is one: a broker that is just being restarted ends one.
const BROKEN_OFF_MAX: u32 = 2;
/// Of `zmq.h`: one side speaks CURVE, the other does not.
const MECHANISM_MISMATCH: i32 = 0x1100_0002;

/// The receiving end of one socket's monitor.
pub(crate) struct Watch {
    events: zmq::Socket,
    has_keys: bool,
    broken_off: u32,
}

impl Watch {
    /// Call it before the socket connects, so that no event is missed.
    pub(crate) fn start(context: &zmq::Context, socket: &zmq::Socket, has_keys: bool) -> Result<Self, zmq::Error> {
        let wanted = [
            zmq::SocketEvent::HANDSHAKE_SUCCEEDED,
            zmq::SocketEvent::HANDSHAKE_FAILED_AUTH,
            zmq::SocketEvent::HANDSHAKE_FAILED_PROTOCOL,
            zmq::SocketEvent::HANDSHAKE_FAILED_NO_DETAIL,
        ];
        let wanted = wanted.iter().fold(0, |events, event| events | event.to_raw());
        let endpoint = format!("inproc://watch-{:016x}", crate::worker::random());
        socket.monitor(&endpoint, i32::from(wanted))?;
        let events = context.socket(zmq::PAIR)?;
        // Without a bound: a full pipe would stop libzmq's I/O thread. It grows by an event for each handshake, at most.
        events.set_rcvhwm(0)?;
        events.set_linger(0)?;
        events.connect(&endpoint)?;
        Ok(Self { events, has_keys, broken_off: 0 })
    }

    /// What the handshakes since the last call say, if they say anything for sure.
    pub(crate) fn barrier(&mut self) -> Result<Option<Barrier>, zmq::Error> {
        let mut barrier = None;
        loop {
            match self.events.recv_multipart(zmq::DONTWAIT) {
                Ok(frames) => barrier = frames.first().and_then(|event| self.take(event)),
                Err(zmq::Error::EAGAIN) => return Ok(barrier),
                Err(zmq::Error::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// 2 bytes of event and 4 bytes of value, in the machine's order (`zmq_socket_monitor(3)`).
    fn take(&mut self, event: &[u8]) -> Option<Barrier> {
        let kind = u16::from_ne_bytes(event.get(0..2)?.try_into().ok()?);
        let value = i32::from_ne_bytes(event.get(2..6)?.try_into().ok()?);
        if kind == zmq::SocketEvent::HANDSHAKE_SUCCEEDED.to_raw() {
            self.broken_off = 0;
            return None;
        }
        if kind == zmq::SocketEvent::HANDSHAKE_FAILED_AUTH.to_raw() {
            return Some(Barrier::UnknownKey);
        }
        if kind == zmq::SocketEvent::HANDSHAKE_FAILED_PROTOCOL.to_raw() && value == MECHANISM_MISMATCH {
            return Some(if self.has_keys { Barrier::TakesNoKeys } else { Barrier::NeedsKeys });
        }
        self.broken_off += 1;
        (self.has_keys && self.broken_off >= BROKEN_OFF_MAX).then_some(Barrier::BrokenOff)
    }
}
