//! A look at an endpoint by hand: does somebody take CURVE handshakes there right now? Knows as much of ZMTP (ZeroMQ's RFC 23) as
//! that needs: both sides begin with a greeting of 64 bytes.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// For the connection and the greeting. A broker that is well takes a millisecond.
const GREETS_WITHIN: Duration = Duration::from_millis(250);
/// It stays open for so long while nothing is said: one that is full, or a forwarder in front of nobody, closes it.
const STAYS_FOR: Duration = Duration::from_millis(100);
const GREETING_BYTES: usize = 64;

/// False where nobody greets in time, or not with CURVE, and where it cannot be tried in this way. Takes half a second at most,
/// beside looking a name up.
pub(crate) fn is_curve_served(endpoint: &str) -> bool {
    match endpoint.split_once("://") {
        Some(("tcp", address)) => tcp(address).is_some_and(greets),
        Some(("ipc", path)) => ipc(path).is_some_and(greets),
        _ => false,
    }
}

fn tcp(address: &str) -> Option<TcpStream> {
    let address = address.to_socket_addrs().ok()?.next()?;
    TcpStream::connect_timeout(&address, GREETS_WITHIN).ok()
}

fn ipc(path: &str) -> Option<TcpStream> {
    // What is done with it is the same for both sorts of sockets.
    UnixStream::connect(path).ok().map(|stream| TcpStream::from(OwnedFd::from(stream)))
}

fn greets(mut stream: TcpStream) -> bool {
    let mut heard = [0; GREETING_BYTES];
    let greeted = stream
        .set_read_timeout(Some(GREETS_WITHIN))
        .and_then(|()| stream.set_write_timeout(Some(GREETS_WITHIN)))
        .and_then(|()| stream.write_all(&greeting()))
        .and_then(|()| stream.read_exact(&mut heard))
        .and_then(|()| stream.set_read_timeout(Some(STAYS_FOR)));
    if greeted.is_err() || heard[12..18] != *b"CURVE\0" {
        return false;
    }
    // It is our turn, so a broker that is well says nothing.
    let more = stream.read(&mut [0]);
    more.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

/// Of a client that speaks ZMTP 3.0 and CURVE.
fn greeting() -> [u8; GREETING_BYTES] {
    let mut bytes = [0; GREETING_BYTES];
    bytes[..11].copy_from_slice(&[0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3]);
    bytes[12..17].copy_from_slice(b"CURVE");
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
        std::thread::spawn(move || serve(listener.accept().unwrap().0));
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
        let greet_and_close = |mut stream: TcpStream| stream.write_all(&greeting()).unwrap();
        assert!(!is_curve_served(&served_by(greet_and_close)), "one that is full");
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let hang = move |_stream: TcpStream| _ = held.recv();
        assert!(!is_curve_served(&served_by(hang)), "one that stands still");
        drop(hold);
        for nobody in ["tcp://127.0.0.1:1", "ipc:///nobody", "inproc://x", "tcp://"] {
            assert!(!is_curve_served(nobody));
        }
    }
}
