//! The thread that libzmq asks at each handshake (ZeroMQ's RFC 27, ZAP): is this key on the list?
//!
//! What it answers as the user id travels with every message of the connection: a mark that only this process knows, and the
//! key in Z85, or [`PLAIN`]. By the mark a user id that the peer itself claims is told apart, should libzmq ever let one in unasked.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use laneway::curve::PublicKey;

use super::KeyList;
use crate::error::Error;
use crate::telemetry::Seldom;

/// The user id of a peer without a key. Shorter than any key.
pub(super) const PLAIN: &str = "plain";
/// Where libzmq looks for whoever answers, in each context.
const ENDPOINT: &str = "inproc://zeromq.zap.01";
/// How soon the thread sees that it is to end.
const LOOK_MS: i32 = 100;

pub(super) struct Zap {
    keys: Sender<Arc<KeyList>>,
    thread: JoinHandle<()>,
}

impl Zap {
    pub(super) fn start(context: &zmq::Context, keys: Arc<KeyList>, mark: String) -> Result<Self, Error> {
        let fail = |error: zmq::Error| Error::other("answer for keys", error);
        let socket = context.socket(zmq::REP).map_err(fail)?;
        socket.set_linger(0).map_err(fail)?;
        socket.set_rcvtimeo(LOOK_MS).map_err(fail)?;
        socket.bind(ENDPOINT).map_err(fail)?;
        let (sender, news) = bounded(1);
        let thread = std::thread::Builder::new().name("access".into());
        let thread = thread.spawn(move || run(&socket, keys, &mark, &news));
        Ok(Self { keys: sender, thread: thread.map_err(|error| Error::other("start the access thread", error))? })
    }

    /// Handshakes that come after this are judged by the new list.
    pub(super) fn replace(&self, keys: Arc<KeyList>) {
        // Fails when the thread has ended, which ends the broker.
        self.keys.send(keys).ok();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    pub(super) fn stop(self) {
        drop(self.keys);
        // A panic there has been printed, and nothing is left to be done about it.
        self.thread.join().ok();
    }
}

/// Ends when the sender of lists is gone, or when the socket fails.
fn run(socket: &zmq::Socket, mut keys: Arc<KeyList>, mark: &str, news: &Receiver<Arc<KeyList>>) {
    let mut told = Seldom::default();
    loop {
        let question = match socket.recv_multipart(0) {
            Ok(question) => Some(question),
            Err(zmq::Error::EAGAIN | zmq::Error::EINTR) => None,
            Err(error) => return tracing::error!(target: "laneway::access", %error, "no more handshakes are judged"),
        };
        // After the question: a list that was replaced before it was asked must count.
        match news.try_recv() {
            Ok(replaced) => keys = replaced,
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return,
        }
        let Some(question) = question else { continue };
        let verdict = judge(&question, &keys);
        if let Verdict::Refused { key, address } = &verdict
            && let Some(left_out) = told.now()
        {
            tracing::warn!(target: "laneway::access", key, address, left_out, "a key that is not on the list");
        }
        let id = question.get(1).map_or(&[][..], Vec::as_slice);
        if let Err(error) = socket.send_multipart(verdict.frames(id, mark), 0) {
            return tracing::error!(target: "laneway::access", %error, "no more handshakes are judged");
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// With this user id behind the mark.
    Admitted(String),
    Refused {
        key: String,
        address: String,
    },
    /// libzmq asks in one form only, so this is not libzmq.
    Senseless,
}

/// The frames are version, request id, domain, address, identity, mechanism and credentials.
fn judge(question: &[Vec<u8>], keys: &KeyList) -> Verdict {
    let [version, _, _, address, _, mechanism, credentials @ ..] = question else { return Verdict::Senseless };
    match (version.as_slice(), mechanism.as_slice(), credentials) {
        (b"1.0", b"NULL", _) => Verdict::Admitted(PLAIN.into()),
        (b"1.0", b"CURVE", [key]) => match PublicKey::from_bytes(key).map(|key| key.to_string()) {
            Some(key) if keys.find(&key).is_some() => Verdict::Admitted(key),
            Some(key) => Verdict::Refused { key, address: String::from_utf8_lossy(address).into_owned() },
            None => Verdict::Senseless,
        },
        _ => Verdict::Senseless,
    }
}

impl Verdict {
    /// Version, request id, status, text, user id, metadata.
    fn frames(self, id: &[u8], mark: &str) -> [Vec<u8>; 6] {
        let (status, text, user_id) = match self {
            Self::Admitted(user_id) => ("200", "OK", format!("{mark}{user_id}")),
            Self::Refused { .. } => ("400", "the key is not on the list", String::new()),
            Self::Senseless => ("500", "not understood", String::new()),
        };
        [b"1.0".into(), id.into(), status.into(), text.into(), user_id.into(), Vec::new()]
    }
}

#[cfg(test)]
mod tests {
    use laneway::curve::KeyPair;

    use super::super::Listed;
    use super::*;

    fn question(mechanism: &[u8], credentials: &[&[u8]]) -> Vec<Vec<u8>> {
        let head: [&[u8]; 6] = [b"1.0", b"7", b"laneway", b"10.0.0.9", b"", mechanism];
        head.iter().chain(credentials).map(|frame| frame.to_vec()).collect()
    }

    #[test]
    fn only_listed_keys_and_plain_peers_are_admitted() {
        // Proves that a key is judged by the list alone, that a plain peer gets a user id which is no key, and that what libzmq
        // would not ask is not admitted.
        let bytes = |pair: &KeyPair| zmq::z85_decode(&pair.public().to_string()).unwrap();
        let (known, unknown) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let key = known.public().to_string();
        let keys = KeyList::of(vec![Listed { name: "known".into(), key: key.clone(), roles: Vec::new() }]);
        assert_eq!(judge(&question(b"CURVE", &[&bytes(&known)]), &keys), Verdict::Admitted(key.clone()));
        let refused = judge(&question(b"CURVE", &[&bytes(&unknown)]), &keys);
        assert_eq!(refused, Verdict::Refused { key: unknown.public().to_string(), address: "10.0.0.9".into() });
        assert_eq!(refused.frames(b"7", "mark:")[2], b"400");
        assert_eq!(Verdict::Admitted(key.clone()).frames(b"7", "mark:")[4], format!("mark:{key}").as_bytes());
        assert_eq!(judge(&question(b"NULL", &[]), &keys), Verdict::Admitted(PLAIN.into()));
        assert_ne!(PLAIN.len(), key.len());
        let short = question(b"CURVE", &[&bytes(&known)[..31]]);
        let mut old = question(b"NULL", &[]);
        old[0] = b"2.0".to_vec();
        for senseless in [short, old, question(b"CURVE", &[]), question(b"PLAIN", &[b"user", b"word"]), Vec::new()] {
            assert_eq!(judge(&senseless, &keys), Verdict::Senseless, "{senseless:?}");
        }
        assert_eq!(Verdict::Senseless.frames(b"", "")[2], b"500");
    }
}
