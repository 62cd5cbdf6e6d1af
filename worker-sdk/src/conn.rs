//! One socket that asks a question and gets its answer, or says why there is none. A REQ socket, but where several questions are to be
//! on their way at once ([`ahead`](crate::ahead)).
//!
//! It never waits longer than a slice without asking its caller whether to go on, notices that the connection is gone
//! instead of waiting for the rest of the time, and heals itself: an abandoned question is simply followed by the next
//! one, and a socket that misbehaves is replaced. Used by one thread at a time: a slot, the control loop, a client.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use laneway_protocol::codec::{EncodeError, decode_answer, encode_request};
use laneway_protocol::limits::PAYLOAD_BYTES_MAX;
use laneway_protocol::{Answer, Request, WireError};

use crate::barrier::{Barrier, Watch};
use crate::curve::Curve;
use crate::error::Error;

/// How often a waiting caller is asked whether to go on. Shorter than the first reconnect, so that a connection cannot
/// go and come back between two looks without being noticed.
pub(crate) const SLICE: Duration = Duration::from_millis(80);

const RECONNECT_MS: i32 = 100;
/// A restarted broker is found within two seconds, however long it was away.
const RECONNECT_MAX_MS: i32 = 2_000;
const HEARTBEAT_MS: i32 = 5_000;
const HEARTBEAT_TIMEOUT_MS: i32 = 15_000;
const HANDSHAKE_MS: i32 = 3_000;
/// After so many questions in a row without an answer the socket is replaced.
const MISSES_MAX: u32 = 2;
/// Frames up to this size are copied into the message; longer ones are handed over as they are.
const COPY_BYTES_MAX: usize = 1024;

/// Where a broker listens, and with which keys it is spoken to.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(crate) endpoint: Arc<str>,
    pub(crate) curve: Option<Curve>,
}

/// See the file's head.
pub(crate) struct Conn {
    context: zmq::Context,
    address: Address,
    sort: zmq::SocketType,
    socket: Option<zmq::Socket>,
    /// Only where somebody asks why there is no connection: it is a socket more.
    watch: Option<Watch>,
    is_watched: bool,
    was_admitted: bool,
    slice: Duration,
    misses: u32,
}

/// Why a question has no answer.
#[derive(Debug)]
pub(crate) enum Miss {
    /// The caller chose not to go on.
    GivenUp,
    /// There was no connection to send it over.
    NotConnected,
    /// A broker is there and does not let this peer in. Only of a watched connection.
    Barred(Barrier),
    /// The connection was lost while waiting for the answer.
    Disconnected,
    /// The time was over.
    Late,
    /// The question does not fit the wire.
    Unsendable(EncodeError),
    /// The answer cannot be read.
    Unreadable(WireError),
    /// The system or libzmq refused.
    Socket(zmq::Error),
}

/// How long to try.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Until there is a connection.
    pub(crate) connect: Duration,
    /// From then until the answer.
    pub(crate) answer: Duration,
}

impl Conn {
    pub(crate) fn new(context: zmq::Context, address: Address) -> Self {
        Self {
            context,
            address,
            sort: zmq::REQ,
            socket: None,
            watch: None,
            is_watched: false,
            was_admitted: false,
            slice: SLICE,
            misses: 0,
        }
    }

    /// Tells a broker that is away from one that does not let this peer in.
    pub(crate) fn watched(self) -> Self {
        Self { is_watched: true, ..self }
    }

    /// Another one to the same endpoint, not watched.
    pub(crate) fn sibling(&self) -> Self {
        Self::new(self.context.clone(), self.address.clone())
    }

    /// Another one to the same endpoint that does not wait for answers before it sends; its user numbers its questions. Once its
    /// connection is lost there is no other.
    pub(crate) fn dealer(&self) -> Self {
        Self { sort: zmq::DEALER, ..self.sibling() }
    }

    /// Opens the socket now, to find out whether the endpoint can be used. A broker need not be there.
    pub(crate) fn open(&mut self) -> Result<(), Error> {
        if self.address.endpoint.contains('\0') {
            return Err(self.bad_endpoint("it has a zero byte"));
        }
        self.socket().map(drop).map_err(|error| match error {
            zmq::Error::EINVAL => self.bad_endpoint("expected tcp://HOST:PORT or ipc://PATH"),
            zmq::Error::EPROTONOSUPPORT | zmq::Error::ENOCOMPATPROTO => {
                self.bad_endpoint("its transport is not known; expected tcp://HOST:PORT or ipc://PATH")
            }
            zmq::Error::ENAMETOOLONG => {
                let bytes = self.address.endpoint.trim_start_matches("ipc://").len();
                self.bad_endpoint(&format!(
                    "its path has {bytes} bytes, at most 107 are allowed; let the broker listen at a shorter one, or at tcp://"
                ))
            }
            error => Error::System(format!("no socket: {error}")),
        })
    }

    /// Asks the caller of [`Conn::ask`] this often whether to go on; at most [`SLICE`].
    pub(crate) fn set_slice(&mut self, slice: Duration) {
        let slice = slice.min(SLICE);
        if slice != self.slice {
            self.slice = slice;
            if self.socket.as_ref().is_some_and(|socket| set_slice(socket, slice).is_err()) {
                self.close();
            }
        }
    }

    /// Whether a question could be sent right now.
    pub(crate) fn is_connected(&self) -> bool {
        self.socket.as_ref().is_some_and(is_connected)
    }

    /// Sends the question and waits for its answer. `go_on` is called about every [`SLICE`] of waiting.
    pub(crate) fn ask(
        &mut self,
        request: Request,
        patience: Patience,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Answer, Miss> {
        let frames = encode_request(request).map_err(Miss::Unsendable)?;
        self.socket().map_err(Miss::Socket)?;
        let asked = self.send(frames, patience.connect, go_on).and_then(|()| self.receive(patience.answer, go_on));
        match &asked {
            Ok(_) => (self.misses, self.was_admitted) = (0, true),
            Err(Miss::Late | Miss::Unreadable(_)) => {
                self.misses += 1;
                if self.misses >= MISSES_MAX {
                    self.close();
                }
            }
            // The next question tries a new handshake, and nobody tries one meanwhile.
            Err(Miss::Socket(_) | Miss::Barred(_)) => self.close(),
            Err(Miss::GivenUp | Miss::NotConnected | Miss::Disconnected | Miss::Unsendable(_)) => {}
        }
        asked
    }

    /// Sends a whole message, once there is a connection.
    pub(crate) fn send(
        &mut self,
        frames: Vec<Vec<u8>>,
        connect: Duration,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<(), Miss> {
        let Some(socket) = &self.socket else { return Err(Miss::NotConnected) };
        let until = Instant::now() + connect;
        let last = frames.len() - 1;
        for (at, frame) in frames.into_iter().enumerate() {
            let flags = if at < last { zmq::SNDMORE } else { 0 };
            if at > 0 {
                // The pipe that took the first frame takes the rest, or loses the whole message with its connection.
                send_frame(socket, frame, flags).map_err(Miss::Socket)?;
                continue;
            }
            while let Err(error) = socket.send(frame.as_slice(), flags) {
                if !matches!(error, zmq::Error::EAGAIN | zmq::Error::EINTR) {
                    return Err(Miss::Socket(error));
                }
                if !go_on() {
                    return Err(Miss::GivenUp);
                }
                if let Some(watch) = &mut self.watch
                    && let Some(barrier) = watch.barrier().map_err(Miss::Socket)?
                {
                    return Err(Miss::Barred(barrier));
                }
                if Instant::now() >= until {
                    return Err(Miss::NotConnected);
                }
            }
        }
        Ok(())
    }

    fn receive(&self, answer: Duration, go_on: &mut dyn FnMut() -> bool) -> Result<Answer, Miss> {
        decode_answer(self.receive_frames(answer, go_on)?).map_err(Miss::Unreadable)
    }

    /// The next message, whole.
    pub(crate) fn receive_frames(
        &self,
        answer: Duration,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<Vec<u8>>, Miss> {
        let Some(socket) = &self.socket else { return Err(Miss::NotConnected) };
        let until = Instant::now() + answer;
        let mut frame = zmq::Message::new();
        while let Err(error) = socket.recv(&mut frame, 0) {
            if !matches!(error, zmq::Error::EAGAIN | zmq::Error::EINTR) {
                return Err(Miss::Socket(error));
            }
            if !go_on() {
                return Err(Miss::GivenUp);
            }
            if Instant::now() >= until {
                return Err(Miss::Late);
            }
            if error == zmq::Error::EAGAIN && !is_connected(socket) {
                return Err(Miss::Disconnected);
            }
        }
        let mut frames = vec![frame.to_vec()];
        while frame.get_more() {
            socket.recv(&mut frame, 0).map_err(Miss::Socket)?;
            frames.push(frame.to_vec());
        }
        Ok(frames)
    }

    fn socket(&mut self) -> Result<&zmq::Socket, zmq::Error> {
        if self.socket.is_none() {
            crate::seed_libzmq();
            let socket = self.context.socket(self.sort)?;
            if self.sort == zmq::REQ {
                socket.set_req_relaxed(true)?;
                socket.set_req_correlate(true)?;
            }
            socket.set_immediate(true)?;
            socket.set_linger(0)?;
            // -1: never.
            socket.set_reconnect_ivl(if self.sort == zmq::DEALER { -1 } else { RECONNECT_MS })?;
            socket.set_reconnect_ivl_max(RECONNECT_MAX_MS)?;
            socket.set_heartbeat_ivl(HEARTBEAT_MS)?;
            socket.set_heartbeat_timeout(HEARTBEAT_TIMEOUT_MS)?;
            socket.set_handshake_ivl(HANDSHAKE_MS)?;
            // A frame of CURVE is a bit longer than what it holds.
            socket.set_maxmsgsize(i64::try_from(PAYLOAD_BYTES_MAX + 1_024).unwrap_or(i64::MAX))?;
            set_slice(&socket, self.slice)?;
            // Only where an address is written so: a name could resolve to an IPv6 address at which nobody listens.
            socket.set_ipv6(self.address.endpoint.contains('['))?;
            if let Some(curve) = &self.address.curve {
                curve.apply(&socket)?;
            }
            if self.is_watched {
                let endpoint = Arc::clone(&self.address.endpoint);
                let keys = (self.address.curve.is_some(), self.was_admitted);
                self.watch = Some(Watch::start(&self.context, &socket, endpoint, keys)?);
            }
            socket.connect(&self.address.endpoint)?;
            self.misses = 0;
            self.socket = Some(socket);
        }
        self.socket.as_ref().ok_or(zmq::Error::ENOTSOCK)
    }

    /// Closes the socket; the next question opens another one.
    pub(crate) fn close(&mut self) {
        self.socket = None;
        self.was_admitted |= self.watch.take().is_some_and(|watch| watch.was_admitted());
    }

    fn bad_endpoint(&self, text: &str) -> Error {
        Error::BadEndpoint { endpoint: self.address.endpoint.to_string(), text: text.into() }
    }
}

fn set_slice(socket: &zmq::Socket, slice: Duration) -> Result<(), zmq::Error> {
    let ms = i32::try_from(slice.as_millis()).unwrap_or(i32::MAX);
    socket.set_sndtimeo(ms)?;
    socket.set_rcvtimeo(ms)
}

/// With IMMEDIATE a socket can take a message only while it is connected.
fn is_connected(socket: &zmq::Socket) -> bool {
    socket.get_events().is_ok_and(|events| events.contains(zmq::POLLOUT))
}

fn send_frame(socket: &zmq::Socket, frame: Vec<u8>, flags: i32) -> Result<(), zmq::Error> {
    if frame.len() > COPY_BYTES_MAX {
        return socket.send(frame, flags);
    }
    while let Err(error) = socket.send(frame.as_slice(), flags) {
        if error != zmq::Error::EINTR {
            return Err(error);
        }
    }
    Ok(())
}

impl Miss {
    /// For a caller outside, who knows nothing of sockets.
    pub(crate) fn into_error(self, endpoint: &str, waited: Duration) -> Error {
        match self {
            Self::Unsendable(error) => Error::Refused(WireError::new(error.code(), error.to_string())),
            Self::Unreadable(error) => Error::BadAnswer(error.to_string()),
            Self::Socket(error) => Error::System(format!("socket to {endpoint}: {error}")),
            Self::Barred(barrier) => Error::NotAdmitted { endpoint: endpoint.into(), barrier },
            Self::GivenUp | Self::NotConnected | Self::Disconnected | Self::Late => {
                Error::NoBroker { endpoint: endpoint.into(), waited }
            }
        }
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GivenUp => f.write_str("given up"),
            Self::NotConnected => f.write_str("not connected"),
            Self::Barred(barrier) => write!(f, "not let in: {barrier}"),
            Self::Disconnected => f.write_str("the connection was lost"),
            Self::Late => f.write_str("no answer in time"),
            Self::Unsendable(error) => error.fmt(f),
            Self::Unreadable(error) => error.fmt(f),
            Self::Socket(error) => error.fmt(f),
        }
    }
}
