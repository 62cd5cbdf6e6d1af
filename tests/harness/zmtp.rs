//! ZMTP by hand over plain TCP, for what no ZeroMQ library would send: halves of handshakes, old versions, frames that never end.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

const GREETING_BYTES: usize = 64;

/// With what a ZMTP 3.0 peer without security begins.
pub(crate) fn greeting() -> Vec<u8> {
    greeting_of("NULL")
}

/// The same with a security mechanism.
pub(crate) fn greeting_of(mechanism: &str) -> Vec<u8> {
    let mut bytes = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0];
    bytes.extend(mechanism.as_bytes());
    bytes.resize(GREETING_BYTES, 0);
    bytes
}

/// The READY command of a DEALER that claims `identity`; empty lets the broker choose.
pub(crate) fn ready(identity: &[u8]) -> Vec<u8> {
    ready_with(identity, &[])
}

/// The same with more properties.
pub(crate) fn ready_with(identity: &[u8], more: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = b"\x05READY".to_vec();
    for (name, value) in [("Socket-Type", &b"DEALER"[..]), ("Identity", identity)].iter().chain(more) {
        body.push(u8::try_from(name.len()).unwrap());
        body.extend(name.as_bytes());
        body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(*value);
    }
    let mut command = vec![4, u8::try_from(body.len()).unwrap()];
    command.extend(body);
    command
}

pub(crate) fn frame(body: &[u8], more: bool) -> Vec<u8> {
    let mut bytes = match u8::try_from(body.len()) {
        Ok(length) => vec![u8::from(more), length],
        Err(_) => [&[u8::from(more) | 2][..], &(body.len() as u64).to_be_bytes()].concat(),
    };
    bytes.extend(body);
    bytes
}

/// A connection that says what it is told.
pub(crate) struct Wire<S = TcpStream>(pub(crate) S);

impl Wire<UnixStream> {
    pub(crate) fn connect_ipc(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(super::DEADLINE)).unwrap();
        Self(stream)
    }
}

impl Wire {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    pub(crate) fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(super::DEADLINE))?;
        stream.set_write_timeout(Some(super::DEADLINE))?;
        Ok(Self(stream))
    }

    /// A peer whose handshake is through on both sides: what is said before libzmq has sent its own READY ends the connection.
    pub(crate) fn dealer(address: SocketAddr, identity: &[u8]) -> Self {
        let mut wire = Self::connect(address);
        wire.say(&[greeting(), ready(identity)].concat());
        wire.skip_handshake().ok();
        wire
    }
}

impl<S: Read + Write> Wire<S> {
    pub(crate) fn skip_handshake(&mut self) -> std::io::Result<()> {
        self.0.read_exact(&mut [0; GREETING_BYTES])?;
        let mut command = [0; 2];
        self.0.read_exact(&mut command)?;
        self.0.read_exact(&mut vec![0; usize::from(command[1])])
    }

    /// False when the broker has closed the connection.
    pub(crate) fn say(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// The frames of the next message. Only short ones, as answers without payloads are.
    pub(crate) fn hear_message(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        loop {
            let mut head = [0; 2];
            self.0.read_exact(&mut head).unwrap();
            assert!(head[0] <= 1, "a short frame of a message: {head:?}");
            let mut body = vec![0; usize::from(head[1])];
            self.0.read_exact(&mut body).unwrap();
            frames.push(body);
            if head[0] == 0 {
                return frames;
            }
        }
    }

    /// Whether the broker closes the connection before the deadline of all tests.
    pub(crate) fn is_closed_in_time(&mut self) -> bool {
        let mut piece = [0; 4096];
        loop {
            match self.0.read(&mut piece) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            }
        }
    }
}
