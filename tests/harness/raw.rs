//! A peer that speaks the wire itself: plain REQ, correlated REQ or DEALER.

use laneway_protocol::message::{Answer, Ready, Request};
use laneway_protocol::{Kind, SessionName, codec};

use super::DEADLINE;

pub(crate) struct RawPeer {
    pub(crate) socket: zmq::Socket,
    dealer: bool,
    // After the socket, which must be closed before its context ends.
    _context: zmq::Context,
}

impl RawPeer {
    /// A strict REQ, as any language has it.
    pub(crate) fn req(endpoint: &str) -> Self {
        Self::connect(endpoint, zmq::REQ, false)
    }

    /// A REQ that may abandon its question and ask another.
    pub(crate) fn correlated(endpoint: &str) -> Self {
        Self::connect(endpoint, zmq::REQ, true)
    }

    pub(crate) fn dealer(endpoint: &str) -> Self {
        Self::connect(endpoint, zmq::DEALER, false)
    }

    fn connect(endpoint: &str, kind: zmq::SocketType, correlated: bool) -> Self {
        let context = zmq::Context::new();
        let socket = context.socket(kind).unwrap();
        socket.set_linger(0).unwrap();
        socket.set_rcvtimeo(i32::try_from(DEADLINE.as_millis()).unwrap()).unwrap();
        if correlated {
            socket.set_req_relaxed(true).unwrap();
            socket.set_req_correlate(true).unwrap();
        }
        socket.connect(endpoint).unwrap();
        Self { socket, dealer: kind == zmq::DEALER, _context: context }
    }

    pub(crate) fn send(&self, request: Request) {
        self.send_frames(codec::encode_request(request).unwrap());
    }

    pub(crate) fn send_frames(&self, mut frames: Vec<Vec<u8>>) {
        if self.dealer {
            frames.insert(0, Vec::new());
        }
        self.socket.send_multipart(frames, 0).unwrap();
    }

    pub(crate) fn receive(&self) -> Answer {
        let mut frames = self.socket.recv_multipart(0).unwrap();
        if self.dealer {
            assert!(frames.remove(0).is_empty(), "the envelope comes back byte for byte");
        }
        codec::decode_answer(frames).unwrap()
    }

    pub(crate) fn ask(&self, request: Request) -> Answer {
        self.send(request);
        self.receive()
    }
}

/// A READY of a plain worker for one kind.
pub(crate) fn plain_ready(session: &str, kind: &str, ack: u64, wait_ms: u64) -> Ready {
    Ready {
        session: SessionName::new(session).unwrap(),
        slot: 0,
        epoch: None,
        ack: Some(ack),
        n: None,
        max: 1,
        wait_ms,
        outcomes: Vec::new(),
        batch: None,
        committed: false,
        kinds: Some(vec![Kind::new(kind).unwrap()]),
        lanes: None,
    }
}
