//! Questions of one list that are sent before the answers to those before them have come: while the broker stores one message, the
//! next is encoded, on its way and decoded.
//!
//! A DEALER does it, whose questions look to the broker like those of a REQ socket, each with a number of its own. One connection
//! keeps their order, and there is no other one: behind what was lost with it the rest would be stored first. It goes well or stops: what has
//! no answer then is asked one by one over a REQ socket, by those who know what to do about brokers that are away or full.

use std::time::Duration;

use laneway_protocol::codec::{decode_answer, encode_request};
use laneway_protocol::{Answer, Request};

use crate::conn::{Conn, Miss};

/// Questions on their way. Two would do on an idle machine; the others bridge what takes its time.
const ON_THEIR_WAY_MAX: usize = 4;
/// For the connection. The broker was there a moment ago, and one attempt is made.
const CONNECTED_WITHIN: Duration = Duration::from_secs(1);
/// Frames before those of an answer: its number, and an empty one.
const ENVELOPE: usize = 2;

/// Asks these in order over a connection of their own and tells `heard` the place of each that is answered. Returns when all are,
/// when something goes wrong, or when `heard` says no and no other is on its way.
pub(crate) fn ask(
    conn: &Conn,
    requests: impl Iterator<Item = Request>,
    patience: Duration,
    mut heard: impl FnMut(usize, Answer) -> bool,
) -> Result<(), Miss> {
    let mut conn = conn.dealer();
    conn.open().map_err(|_| Miss::NotConnected)?;
    let mut requests = requests.enumerate();
    let (mut on_their_way, mut goes_on, mut connect) = (0, true, patience.min(CONNECTED_WITHIN));
    loop {
        while goes_on && on_their_way < ON_THEIR_WAY_MAX {
            let Some((place, request)) = requests.next() else {
                goes_on = false;
                break;
            };
            let mut frames = vec![number(place), Vec::new()];
            frames.extend(encode_request(request).map_err(Miss::Unsendable)?);
            conn.send(frames, connect, &mut || true)?;
            connect = Duration::ZERO;
            on_their_way += 1;
        }
        if on_their_way == 0 {
            return Ok(());
        }
        let mut frames = conn.receive_frames(patience, &mut || true)?;
        let answer = frames.split_off(ENVELOPE.min(frames.len()));
        let answer = decode_answer(answer).map_err(Miss::Unreadable)?;
        let place = frames.first().and_then(|number| place(number)).ok_or(Miss::Late)?;
        on_their_way -= 1;
        goes_on &= heard(place, answer);
    }
}

/// As a REQ socket that correlates numbers its questions.
fn number(place: usize) -> Vec<u8> {
    u32::try_from(place).unwrap_or(u32::MAX).to_be_bytes().into()
}

fn place(number: &[u8]) -> Option<usize> {
    usize::try_from(u32::from_be_bytes(number.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use laneway_protocol::codec::encode_answer;
    use laneway_protocol::{Code, WireError};

    use super::*;
    use crate::conn::Address;

    /// As long as a socket takes to connect again, and some more.
    const CONNECTS_WITHIN: Duration = Duration::from_millis(400);

    /// A broker of one moment, which ends with its context.
    fn bind(endpoint: &str) -> (zmq::Socket, zmq::Context) {
        let context = zmq::Context::new();
        let router = context.socket(zmq::ROUTER).unwrap();
        router.set_linger(0).unwrap();
        router.set_rcvtimeo(100).unwrap();
        router.bind(endpoint).unwrap();
        (router, context)
    }

    #[test]
    fn nothing_goes_ahead_to_a_broker_that_was_started_anew() {
        // Proves that a broker which dies between an answer and the next question, and is there again at once, gets none of the
        // questions behind those that were lost with it.
        let dir = tempfile::tempdir().unwrap();
        let endpoint = format!("ipc://{}/b", dir.path().display());
        let first = bind(&endpoint);
        let (is_back, back) = mpsc::channel();
        let (over, is_over) = mpsc::channel::<()>();
        let (here, there) = (endpoint.as_str(), endpoint.clone());
        let broker = thread::spawn(move || {
            let (router, context) = first;
            let mut questions = std::iter::repeat_with(|| router.recv_multipart(0)).flatten().take(ON_THEIR_WAY_MAX);
            let mut answer = questions.next().unwrap();
            assert_eq!(questions.count(), ON_THEIR_WAY_MAX - 1);
            answer.truncate(1 + ENVELOPE);
            answer.extend(encode_answer(Answer::Error(WireError::new(Code::Full, "full"))).unwrap());
            router.send_multipart(answer, 0).unwrap();
            thread::sleep(Duration::from_millis(50));
            drop((router, context));
            let (router, _context) = bind(&there);
            is_back.send(()).unwrap();
            is_over.recv().ok();
            router.recv_multipart(0).is_ok()
        });
        let address = Address { endpoint: here.into(), curve: None };
        let conn = Conn::new(zmq::Context::new(), address);
        let questions = std::iter::repeat_n(Request::Ping, 2 * ON_THEIR_WAY_MAX);
        let asked = ask(&conn, questions, Duration::from_secs(5), |place, _| {
            assert_eq!(place, 0);
            back.recv().unwrap();
            thread::sleep(CONNECTS_WITHIN);
            true
        });
        assert!(matches!(asked, Err(Miss::NotConnected)), "{asked:?}");
        over.send(()).unwrap();
        assert!(!broker.join().unwrap(), "the new broker got a question ahead of those that were lost");
    }
}
