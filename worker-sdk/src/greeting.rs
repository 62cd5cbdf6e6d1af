//! Greetings by hand: does somebody greet with CURVE at an endpoint right now, and does the broker there know why a peer went
//! away? Knows as much of ZMTP (ZeroMQ's RFC 23) as that needs: both sides begin with a greeting of 64 bytes.

use std::io::{ErrorKind, Read, Write};
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

/// A look under way, on a thread of its own: a name that nobody resolves, or a broker that stands still, holds up nothing else.
pub(crate) struct Look(Receiver<bool>);

impl Look {
    pub(crate) fn at(endpoint: &str) -> Self {
        let (tell, told) = mpsc::channel();
        let endpoint = endpoint.to_owned();
        // Without a thread there is no answer, which is told as one.
        let look = move || tell.send(is_curve_served(&endpoint)).unwrap_or_default();
        thread::Builder::new().name("laneway-look".into()).spawn(look).ok();
        Self(told)
    }

    /// `None` while it is under way.
    pub(crate) fn answer(&self) -> Option<bool> {
        match self.0.try_recv() {
            Ok(is_served) => Some(is_served),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(false),
        }
    }
}

/// Says once how this peer meant to speak, and waits for the end: libzmq closes a connection whose two sides do not fit before it has
/// said its own part, so that the broker's log would have no line about it. Returns at once.
pub(crate) fn introduce(endpoint: &str, has_keys: bool) {
    let endpoint = endpoint.to_owned();
    let introduce = move || {
        let Some(mut stream) = connect(&endpoint) else { return };
        let said = stream.set_read_timeout(Some(GREETS_WITHIN)).and_then(|()| stream.write_all(&greeting(has_keys)));
        if said.is_ok() {
            // The broker closes it. Whatever comes before is its greeting.
            std::io::copy(&mut stream, &mut std::io::sink()).ok();
        }
    };
    // Without a thread the log has a line less.
    thread::Builder::new().name("laneway-look".into()).spawn(introduce).ok();
}

/// False where nobody greets in time, or not with CURVE, and where it cannot be tried in this way.
fn is_curve_served(endpoint: &str) -> bool {
    connect(endpoint).is_some_and(greets)
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

fn greets(mut stream: TcpStream) -> bool {
    let until = Instant::now() + GREETS_WITHIN;
    let mut heard = [0; GREETING_BYTES];
    let mut n = 0;
    if stream.write_all(&greeting(true)).is_err() {
        return false;
    }
    while n < GREETING_BYTES {
        let left = until.saturating_duration_since(Instant::now());
        // No time is left when it is zero, which sets no timeout but fails.
        match stream.set_read_timeout(Some(left)).and_then(|()| stream.read(&mut heard[n..])) {
            Ok(more @ 1..) => n += more,
            Ok(0) | Err(_) => return false,
        }
    }
    if heard[12..18] != *b"CURVE\0" || stream.set_read_timeout(Some(STAYS_FOR)).is_err() {
        return false;
    }
    // It is our turn, so a broker that is well says nothing.
    let more = stream.read(&mut [0]);
    more.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

/// Of a client that speaks ZMTP 3.0, with CURVE or without.
fn greeting(has_keys: bool) -> [u8; GREETING_BYTES] {
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
        assert!(is_curve_served(&curve));
        assert!(!is_curve_served(&plain));
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
