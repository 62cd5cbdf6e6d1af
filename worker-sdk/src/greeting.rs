//! Greetings by hand: who greets at an endpoint right now, with CURVE or without, and does the broker there know why a peer went
//! away? Knows as much of ZMTP (ZeroMQ's RFC 23) as that needs: both sides begin with a greeting of 64 bytes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

/// For the greeting. A broker that is well takes a millisecond.
const GREETS_WITHIN: Duration = Duration::from_millis(250);
/// It stays open for so long while nothing is said: one that is full, or a forwarder in front of nobody, closes it.
const STAYS_FOR: Duration = Duration::from_millis(100);
const GREETING_BYTES: usize = 64;
/// Signature and version: whoever has them says its whole greeting, mechanism and all. A libzmq that has all of another's may
/// close before its own is out, so the rest is said when theirs is here.
pub(crate) const OPENING_BYTES: usize = 11;

/// Who greets at an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greeter {
    /// Nobody, or not in time, or one that closes at once, or where it cannot be tried in this way.
    Nobody,
    /// Takes peers without keys only.
    Plain,
    /// Takes peers with keys only.
    Curve,
}

/// A look under way, on a thread of its own: a name that nobody resolves, or a broker that stands still, holds up nothing else.
pub(crate) struct Look(Receiver<Greeter>);

impl Look {
    /// `has_keys`: what this peer says of itself. Where the two do not fit the broker's log has a line about it then, which a
    /// socket does not always bring about: libzmq closes such a connection before it has said its own part.
    pub(crate) fn at(endpoint: &str, has_keys: bool) -> Self {
        let (tell, told) = mpsc::channel();
        let endpoint = endpoint.to_owned();
        // Without a thread there is no answer, which is told as one. Nobody may wait for it.
        let look = move || tell.send(greeter(&endpoint, has_keys)).unwrap_or_default();
        thread::Builder::new().name("laneway-look".into()).spawn(look).ok();
        Self(told)
    }

    /// `None` while it is under way.
    pub(crate) fn answer(&self) -> Option<Greeter> {
        match self.0.try_recv() {
            Ok(greeter) => Some(greeter),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Greeter::Nobody),
        }
    }
}

fn greeter(endpoint: &str, has_keys: bool) -> Greeter {
    connect(endpoint).and_then(|stream| greet(stream, has_keys).ok()).unwrap_or(Greeter::Nobody)
}

fn connect(endpoint: &str) -> Option<TcpStream> {
    match endpoint.split_once("://")? {
        ("tcp", address) => tcp(address),
        ("ipc", path) => ipc(path),
        _ => None,
    }
}

fn tcp(address: &str) -> Option<TcpStream> {
    // As the socket of the connection does.
    let with_ipv6 = address.contains('[');
    let address = address.to_socket_addrs().ok()?.find(|address| with_ipv6 || address.is_ipv4())?;
    TcpStream::connect_timeout(&address, GREETS_WITHIN).ok()
}

fn ipc(path: &str) -> Option<TcpStream> {
    // What is done with it is the same for both sorts of sockets.
    UnixStream::connect(path).ok().map(|stream| TcpStream::from(OwnedFd::from(stream)))
}

fn greet(mut stream: TcpStream, has_keys: bool) -> io::Result<Greeter> {
    let until = Instant::now() + GREETS_WITHIN;
    let ours = greeting(has_keys);
    let (opening, rest) = ours.split_at(OPENING_BYTES);
    stream.write_all(opening)?;
    let mut heard = [0; GREETING_BYTES];
    let mut n = 0;
    while n < GREETING_BYTES {
        // No time is left when it is zero, which sets no timeout but fails.
        stream.set_read_timeout(Some(until.saturating_duration_since(Instant::now())))?;
        match stream.read(&mut heard[n..])? {
            0 => return Ok(Greeter::Nobody),
            more => n += more,
        }
    }
    let greeter = match &heard[12..18] {
        b"CURVE\0" => Greeter::Curve,
        b"NULL\0\0" => Greeter::Plain,
        _ => return Ok(Greeter::Nobody),
    };
    stream.write_all(rest)?;
    // Where the two fit it is our turn with CURVE, and one that is well says nothing. Where they do not it closes.
    stream.set_read_timeout(Some(STAYS_FOR))?;
    let more = stream.read(&mut [0]);
    let is_silent = more.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
    Ok(if has_keys && greeter == Greeter::Curve && !is_silent { Greeter::Nobody } else { greeter })
}

/// Of a client that speaks ZMTP 3.0, with CURVE or without.
pub(crate) fn greeting(has_keys: bool) -> [u8; GREETING_BYTES] {
    let mut bytes = [0; GREETING_BYTES];
    bytes[..11].copy_from_slice(&[0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3]);
    let mechanism = if has_keys { &b"CURVE"[..] } else { b"NULL" };
    bytes[12..12 + mechanism.len()].copy_from_slice(mechanism);
    bytes
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// An endpoint at which `serve` gets the one connection.
    fn served_by(serve: impl FnOnce(TcpStream) + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
        thread::spawn(move || serve(listener.accept().unwrap().0));
        endpoint
    }

    #[test]
    fn only_a_server_of_curve_that_waits_for_us_is_one() {
        // Proves that what only accepts, closes, hangs, or speaks something else is not taken for a broker that refuses keys.
        let context = zmq::Context::new();
        let server = context.socket(zmq::ROUTER).unwrap();
        let pair = zmq::CurveKeyPair::new().unwrap();
        server.bind("tcp://127.0.0.1:*").unwrap();
        let plain = server.get_last_endpoint().unwrap().unwrap();
        server.set_curve_server(true).unwrap();
        server.set_curve_secretkey(&pair.secret_key).unwrap();
        server.bind("tcp://127.0.0.1:*").unwrap();
        let curve = server.get_last_endpoint().unwrap().unwrap();
        for has_keys in [false, true] {
            assert_eq!(greeter(&curve, has_keys), Greeter::Curve);
            assert_eq!(greeter(&plain, has_keys), Greeter::Plain);
        }
        let is_curve_served = |endpoint: &str| greeter(endpoint, true) == Greeter::Curve;
        assert!(!is_curve_served(&served_by(drop)), "a forwarder in front of nobody");
        let greet_and_close = |mut stream: TcpStream| stream.write_all(&greeting(true)).unwrap();
        assert!(!is_curve_served(&served_by(greet_and_close)), "one that is full");
        let (let_go, waits) = mpsc::channel::<()>();
        let hang = move |_stream: TcpStream| _ = waits.recv();
        assert!(!is_curve_served(&served_by(hang)), "one that stands still");
        drop(let_go);
        let trickle = |mut stream: TcpStream| {
            for byte in greeting(true) {
                if stream.write_all(&[byte]).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(20));
            }
        };
        let begun = Instant::now();
        assert!(!is_curve_served(&served_by(trickle)), "one that is slow");
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        for nobody in ["tcp://127.0.0.1:1", "ipc:///nobody", "inproc://x", "tcp://"] {
            assert!(!is_curve_served(nobody));
        }
    }
}
