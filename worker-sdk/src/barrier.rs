//! Tells a broker that is away from one that is there and does not let this peer in: what libzmq's monitor says about the
//! handshakes of one socket. Without it both look the same, and a wrong key would be waited for.

use std::fmt;
use std::sync::Arc;

use crate::greeting::{Greeter, Look};

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
        let greeter = self.look.as_ref()?.answer()?;
        self.look = None;
        if self.was_admitted {
            return None;
        }
        match (self.has_keys, greeter) {
            (true, Greeter::Plain) => Some(Barrier::TakesNoKeys),
            (false, Greeter::Curve) => Some(Barrier::NeedsKeys),
            (true, Greeter::Curve) => {
                self.broken_off += 1;
                (self.broken_off >= BROKEN_OFF_MAX).then_some(Barrier::BrokenOff)
            }
            (false, Greeter::Plain) | (_, Greeter::Nobody) => {
                self.broken_off = 0;
                None
            }
        }
    }

    pub(crate) fn was_admitted(&self) -> bool {
        self.was_admitted
    }

    fn judge(&mut self, last: Handshake) -> Option<Barrier> {
        match last {
            Handshake::Done => None,
            Handshake::NotListed => Some(Barrier::UnknownKey),
            Handshake::Mismatch => {
                // For the broker's log.
                Look::at(&self.endpoint, self.has_keys);
                Some(if self.has_keys { Barrier::TakesNoKeys } else { Barrier::NeedsKeys })
            }
            // Whoever was let in with these keys has the right ones: the broker is away, or full, or hangs.
            Handshake::BrokenOff if self.was_admitted => None,
            // So may be one that never let this peer in, unless it is seen to greet at this very time. With what it greets must be
            // looked at: of two that do not fit the faster one closes, and the other may never hear why.
            Handshake::BrokenOff => {
                self.look.get_or_insert_with(|| Look::at(&self.endpoint, self.has_keys));
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::greeting::{OPENING_BYTES, greeting};

    /// A broker that always has the whole greeting of a peer before its own is out, and closes, as the two do not fit.
    fn quicker(is_curve: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
        let serve = move |mut stream: TcpStream| {
            let greeting = greeting(is_curve);
            let (opening, rest) = greeting.split_at(OPENING_BYTES);
            let mut heard = [0; 64];
            stream.write_all(opening)?;
            stream.read_exact(&mut heard[..OPENING_BYTES])?;
            // libzmq says all the rest at once.
            stream.set_read_timeout(Some(Duration::from_millis(50)))?;
            if stream.read(&mut heard).is_err() {
                stream.write_all(rest)?;
            }
            Ok::<_, std::io::Error>(())
        };
        thread::spawn(move || listener.incoming().flatten().for_each(|stream| _ = serve(stream)));
        endpoint
    }

    #[test]
    fn a_peer_that_is_always_the_slower_one_is_told_why() {
        // Proves that a broker which closes before its greeting was heard is not tried for ever: a loaded machine has such ones.
        for (has_keys, barrier) in [(false, Barrier::NeedsKeys), (true, Barrier::TakesNoKeys)] {
            let endpoint = quicker(!has_keys);
            let context = zmq::Context::new();
            let socket = context.socket(zmq::REQ).unwrap();
            socket.set_linger(0).unwrap();
            if has_keys {
                let (broker, ours) = (zmq::CurveKeyPair::new().unwrap(), zmq::CurveKeyPair::new().unwrap());
                socket.set_curve_serverkey(&broker.public_key).unwrap();
                socket.set_curve_publickey(&ours.public_key).unwrap();
                socket.set_curve_secretkey(&ours.secret_key).unwrap();
            }
            let mut watch = Watch::start(&context, &socket, endpoint.as_str().into(), (has_keys, false)).unwrap();
            socket.connect(&endpoint).unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            let told = loop {
                if let Some(barrier) = watch.barrier().unwrap() {
                    break barrier;
                }
                assert!(Instant::now() < deadline, "nothing is told");
                thread::sleep(Duration::from_millis(5));
            };
            assert_eq!(told, barrier);
        }
    }
}
