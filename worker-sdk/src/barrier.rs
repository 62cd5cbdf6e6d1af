//! Tells a broker that is away from one that is there and does not let this peer in: what libzmq's monitor says about the
//! handshakes of one socket. Without it both look the same, and a wrong key would be waited for.

use std::fmt;
use std::sync::Arc;

use crate::greeting::{self, Look};

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
    /// The broker breaks every handshake off, and has not finished one since this peer came. Mostly the public key that
    /// this peer has for it is another one's.
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
            Self::BrokenOff => "it breaks the handshake off; is the broker's public file that of the broker which runs there, and our own pair one?",
        })
    }
}

/// How often that must be seen before it is a reason: a broker that is just being restarted breaks one handshake off too.
const BROKEN_OFF_MAX: u32 = 2;
/// Of `zmq.h`: one side speaks CURVE, the other does not.
const MECHANISM_MISMATCH: i32 = 0x1100_0002;
/// What a broker says of a key that is not on its list (ZeroMQ's RFC 27). Other numbers are troubles of its own.
const NOT_LISTED: i32 = 400;

/// The receiving end of one socket's monitor.
pub(crate) struct Watch {
    events: zmq::Socket,
    endpoint: Arc<str>,
    has_keys: bool,
    was_admitted: bool,
    /// How often a handshake broke off and the broker was seen to be well then.
    broken_off: u32,
    /// Under way.
    look: Option<Look>,
}

impl Watch {
    /// Call it before the socket connects, so that no event is missed. `was_admitted`: with these keys, at another time.
    pub(crate) fn start(
        context: &zmq::Context,
        socket: &zmq::Socket,
        endpoint: Arc<str>,
        (has_keys, was_admitted): (bool, bool),
    ) -> Result<Self, zmq::Error> {
        let wanted = [
            zmq::SocketEvent::HANDSHAKE_SUCCEEDED,
            zmq::SocketEvent::HANDSHAKE_FAILED_AUTH,
            zmq::SocketEvent::HANDSHAKE_FAILED_PROTOCOL,
            zmq::SocketEvent::HANDSHAKE_FAILED_NO_DETAIL,
        ];
        let wanted = wanted.iter().fold(0, |events, event| events | event.to_raw());
        let monitor = format!("inproc://watch-{:016x}", crate::worker::random());
        socket.monitor(&monitor, i32::from(wanted))?;
        let events = context.socket(zmq::PAIR)?;
        // Without a bound: a full pipe would stop libzmq's I/O thread. It grows by an event for each handshake, at most.
        events.set_rcvhwm(0)?;
        events.set_linger(0)?;
        events.connect(&monitor)?;
        Ok(Self { events, endpoint, has_keys, was_admitted, broken_off: 0, look: None })
    }

    /// What the handshakes since the last call say, if they say anything for sure. To be called again and again: where they broke
    /// off, a look at the broker takes a moment.
    pub(crate) fn barrier(&mut self) -> Result<Option<Barrier>, zmq::Error> {
        let mut seen = None;
        loop {
            match self.events.recv_multipart(zmq::DONTWAIT) {
                Ok(frames) => {
                    seen = frames.first().and_then(|event| handshake(event)).or(seen);
                    self.was_admitted |= seen == Some(Handshake::Done);
                }
                Err(zmq::Error::EAGAIN) => break,
                Err(zmq::Error::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(seen.and_then(|handshake| self.judge(handshake)).or_else(|| self.take_look()))
    }

    /// What the look at the broker has shown, once it is over.
    fn take_look(&mut self) -> Option<Barrier> {
        let is_well = self.look.as_ref()?.answer()?;
        self.look = None;
        self.broken_off = if is_well { self.broken_off + 1 } else { 0 };
        (self.broken_off >= BROKEN_OFF_MAX && !self.was_admitted).then_some(Barrier::BrokenOff)
    }

    pub(crate) fn was_admitted(&self) -> bool {
        self.was_admitted
    }

    fn judge(&mut self, last: Handshake) -> Option<Barrier> {
        match last {
            Handshake::Done => None,
            Handshake::NotListed => Some(Barrier::UnknownKey),
            Handshake::Mismatch => {
                greeting::introduce(&self.endpoint, self.has_keys);
                Some(if self.has_keys { Barrier::TakesNoKeys } else { Barrier::NeedsKeys })
            }
            // Whoever was let in with these keys has the right ones: the broker is away, or full, or hangs.
            Handshake::BrokenOff if self.was_admitted || !self.has_keys => None,
            // So may be one that never let this peer in, unless it is seen to greet others at this very time.
            Handshake::BrokenOff => {
                self.look.get_or_insert_with(|| Look::at(&self.endpoint));
                None
            }
        }
    }
}

/// How one handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handshake {
    Done,
    NotListed,
    Mismatch,
    BrokenOff,
}

/// 2 bytes of event and 4 bytes of value, in the machine's order (`zmq_socket_monitor(3)`).
fn handshake(event: &[u8]) -> Option<Handshake> {
    let kind = u16::from_ne_bytes(event.get(0..2)?.try_into().ok()?);
    let value = i32::from_ne_bytes(event.get(2..6)?.try_into().ok()?);
    let is = |event: zmq::SocketEvent| kind == event.to_raw();
    Some(if is(zmq::SocketEvent::HANDSHAKE_SUCCEEDED) {
        Handshake::Done
    } else if is(zmq::SocketEvent::HANDSHAKE_FAILED_AUTH) && value == NOT_LISTED {
        Handshake::NotListed
    } else if is(zmq::SocketEvent::HANDSHAKE_FAILED_PROTOCOL) && value == MECHANISM_MISMATCH {
        Handshake::Mismatch
    } else {
        Handshake::BrokenOff
    })
}
