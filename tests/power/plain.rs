//! A worker written from PROTOCOL.md: one strict REQ socket, one task at a time, and each outcome said again until it is
//! answered. So it knows which outcomes were acknowledged, and leaves a mark for each.

use std::time::Duration;

use laneway_protocol::codec;
use laneway_protocol::message::{Answer, End, HandOut, HandedTask, Outcome, OutcomeCode, Ready, Request};

use super::log::Marker;
use super::said::{Said, To};
use crate::harness::{RawPeer, plain_ready};

/// An answer that takes longer will not come: the broker was killed.
const ANSWER_MS: i32 = 1_500;
const PARKED_MS: u64 = 200;

pub(crate) struct Plain<'a> {
    pub(crate) session: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) committed: bool,
    pub(crate) to: To,
}

/// Works until `is_over` and nothing is left to be answered; `finish` runs a task, `on_end` follows each answered outcome.
pub(crate) fn run_plain(
    endpoint: &str,
    marker: &Marker,
    plain: &Plain<'_>,
    mut finish: impl FnMut(&HandedTask) -> Outcome,
    is_over: impl Fn() -> bool,
    on_end: impl Fn(),
) {
    let mut peer = connect(endpoint);
    let mut last: Option<HandOut> = None;
    let mut open: Vec<(Outcome, u32)> = Vec::new();
    while !(is_over() && open.is_empty()) {
        let outcomes = open.iter().map(|(outcome, _)| outcome.clone()).collect();
        let base = plain_ready(plain.session, plain.kind, last.as_ref().map_or(0, |last| last.seq), PARKED_MS);
        let epoch = last.as_ref().map(|last| last.epoch);
        peer.send(Request::Ready(Ready {
            epoch,
            outcomes,
            committed: plain.committed,
            max: u32::from(!is_over()),
            ..base
        }));
        let codes = match receive(&peer) {
            Some(Answer::Tasks(tasks)) => {
                let codes = tasks.outcomes.clone();
                last = Some(tasks);
                codes
            }
            Some(Answer::Wait(wait)) => {
                std::thread::sleep(Duration::from_millis(wait.after_ms.min(PARKED_MS)));
                wait.outcomes
            }
            Some(Answer::Error(_)) => {
                // Of another broker than the one that handed out last: its count begins anew.
                last = None;
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            Some(other) => panic!("no answer to READY: {other:?}"),
            None => {
                peer = connect(endpoint);
                continue;
            }
        };
        for ((outcome, run), code) in open.drain(..).zip(codes) {
            note(marker, plain, &outcome, run, code);
            on_end();
        }
        if let Some(tasks) = &mut last {
            open.extend(tasks.tasks.drain(..).map(|task| {
                note_taken(marker, &task, tasks.epoch.0);
                (finish(&task), task.run)
            }));
        }
    }
}

fn connect(endpoint: &str) -> RawPeer {
    let peer = RawPeer::req(endpoint);
    peer.socket.set_rcvtimeo(ANSWER_MS).unwrap();
    peer
}

fn receive(peer: &RawPeer) -> Option<Answer> {
    let frames = peer.socket.recv_multipart(0).ok()?;
    Some(codec::decode_answer(frames).unwrap())
}

fn note(marker: &Marker, plain: &Plain<'_>, outcome: &Outcome, run: u32, code: OutcomeCode) {
    if !matches!(code, OutcomeCode::Ok | OutcomeCode::Recorded) {
        return;
    }
    let id = outcome.task.value().cast_signed();
    match outcome.end {
        End::Fail => marker.say(&Said::Failed { id, run }),
        _ => marker.say(&Said::Ended { id, state: "done".into(), to: plain.to }),
    }
}

fn note_taken(marker: &Marker, task: &HandedTask, epoch: u64) {
    let (id, lease) = (task.task.value().cast_signed(), task.lease.value());
    marker.say(&Said::Taken { id, run: task.run, lease, epoch });
}
