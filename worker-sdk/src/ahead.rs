//! Questions of one list that are sent before the answers to those before them have come: while the broker stores one message, the
//! next is encoded, on its way and decoded.
//!
//! A DEALER does it, whose questions look to the broker like those of a REQ socket, each with a number of its own; one connection
//! keeps their order. It goes well or stops: what has no answer then is asked one by one over a REQ socket, by those who know what to
//! do about brokers that are away or full.

use std::time::Duration;

use laneway_protocol::codec::{decode_answer, encode_request};
use laneway_protocol::{Answer, Request};

use crate::conn::{Conn, Miss};

/// Questions on their way. Two would do on an idle machine; the others bridge what takes its time.
const ON_THEIR_WAY_MAX: usize = 4;
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
    let (mut on_their_way, mut goes_on) = (0, true);
    loop {
        while goes_on && on_their_way < ON_THEIR_WAY_MAX {
            let Some((place, request)) = requests.next() else {
                goes_on = false;
                break;
            };
            let mut frames = vec![number(place), Vec::new()];
            frames.extend(encode_request(request).map_err(Miss::Unsendable)?);
            conn.send(frames, patience, &mut || true)?;
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
