//! An image that comes to life: the real broker opens what the loss of power has left, the workers of before come back with
//! every lease that they ever had, and all that is left to do is done.

use std::collections::HashSet;

use laneway_protocol::message::{Answer, End, Outcome, OutcomeCode, Payload, Ready, Request};
use laneway_protocol::{Lease, TaskId};

use super::promise::{Known, Lost};
use super::table::{self, Found};
use crate::harness::{Broker, Place, RawPeer, Table, WorkerProcess, plain_ready, wait_until};

/// Nobody is waited for; what no worker resumes goes back after a second.
const SETTINGS: [&str; 3] = ["restart_hold_ms=0", "resume_grace_ms=1000", "defaults.backoff_base_ms=10"];
const WORKER: &str = "slots=8 kinds=echo,fail,fail_once,plain,sql";
/// Sessions of the recorded run that say no HELLO.
const PLAIN: [&str; 3] = ["plain-1", "plain-2", "sql"];
/// Outcomes in one message.
const OUTCOMES: usize = 50;

/// Who speaks first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// Those who had the tasks: a hand-out that the disk has forgotten is recognised by its lease.
    OldWorkers,
    /// Others: what the disk has forgotten is run again, and whoever had it before comes too late.
    NewWorkers,
}

/// Runs everything in the image at `place`; gives the promises that are lost in the end, and how many hand-outs the disk had
/// forgotten.
pub(crate) fn revive(place: &Place, found: &Found, known: &Known<'_>, first: First) -> (Vec<Lost>, usize) {
    let broker = Broker::start_with(place, &SETTINGS);
    let worker = (first == First::NewWorkers).then(|| {
        let worker = WorkerProcess::start(place, WORKER);
        // Without HELLO a worker keeps its lease until it speaks.
        wait_until_done(place, &format!("AND NOT (state = 'running' AND worker IN ('{}'))", PLAIN.join("', '")));
        worker
    });
    let forgotten = say_again(&broker, found, known, first);
    let worker = worker.unwrap_or_else(|| WorkerProcess::start(place, WORKER));
    wait_until_done(place, "");
    worker.kill();
    assert_eq!(broker.stop(), 0);
    let after = table::read(&place.db()).and_then(|after| table::is_whole(&after).map(|()| after)).unwrap();
    (known.lost(&after, 0), forgotten)
}

/// Whether workers have tasks of which the table does not know that they do.
pub(crate) fn has_forgotten(found: &Found, known: &Known<'_>) -> bool {
    let mut codes = known.taken().map(|(id, run, lease)| expected(found, id, run, lease, First::OldWorkers).0);
    codes.any(|code| code == Code::Adopted)
}

fn wait_until_done(place: &Place, but: &str) {
    let table = Table::open(place);
    let live = format!("state IN ('queued', 'running') AND kind <> 'never' {but}");
    wait_until("all tasks of the image to end", || table.count(&live) == 0);
}

/// Says `done` under every lease that any worker was given, and proves that only the right ones are heard.
fn say_again(broker: &Broker, found: &Found, known: &Known<'_>, first: First) -> usize {
    let mut taken: Vec<(i64, u32, i64)> = known.taken().collect();
    let leases: HashSet<i64> = taken.iter().map(|&(.., lease)| lease).collect();
    // On the way to its worker, or received and not marked yet.
    let running = found.tasks.iter().filter(|(_, task)| task.state == "running" && PLAIN.contains(&task.worker()));
    let unmarked = running.filter_map(|(&id, task)| Some((id, task.runs, task.lease?)));
    taken.extend(unmarked.filter(|(.., lease)| !leases.contains(lease)));
    let expected = taken.into_iter().map(|(id, run, lease)| expected(found, id, run, lease, first));
    let expected: Vec<(Code, Outcome)> = expected.collect();
    let peer = RawPeer::req(broker.endpoint());
    for said in expected.chunks(OUTCOMES) {
        let outcomes: Vec<Outcome> = said.iter().map(|(_, outcome)| outcome.clone()).collect();
        let ready = Ready { max: 0, outcomes, ..plain_ready("back", "none", 0, 0) };
        let Answer::Wait(wait) = peer.ask(Request::Ready(ready)) else { panic!("no answer to the outcomes") };
        for ((code, outcome), answered) in said.iter().zip(wait.outcomes) {
            let row = found.tasks.get(&outcome.task.value().cast_signed()).map(|task| (&task.state, task.runs));
            assert_eq!(answered, code.answer(), "task {}, in the image {row:?}: {code:?}", outcome.task);
        }
    }
    expected.iter().filter(|(code, _)| matches!(code, Code::Adopted | Code::TooLate)).count()
}

/// What a lease is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    /// The row runs under it.
    Runs,
    /// The row has ended under it.
    Ended,
    /// The one hand-out that the disk has forgotten.
    Adopted,
    /// The same, after others have run the task.
    TooLate,
    /// Of an earlier hand-out, or of a row that is lost.
    Stale,
}

impl Code {
    fn answer(self) -> OutcomeCode {
        match self {
            Self::Runs | Self::Adopted => OutcomeCode::Ok,
            Self::Ended => OutcomeCode::Recorded,
            Self::TooLate | Self::Stale => OutcomeCode::Stale,
        }
    }
}

fn expected(found: &Found, id: i64, run: u32, lease: i64, first: First) -> (Code, Outcome) {
    let task = found.tasks.get(&id);
    let code = match task {
        Some(task) if task.lease == Some(lease) && task.has_ended() => Code::Ended,
        Some(task) if task.lease == Some(lease) && task.state == "running" => Code::Runs,
        Some(task) if task.state == "queued" && task.runs + 1 == run => match first {
            First::OldWorkers => Code::Adopted,
            First::NewWorkers => Code::TooLate,
        },
        _ => Code::Stale,
    };
    let mut outcome = Outcome::new(TaskId::new(id.cast_unsigned()).unwrap(), Lease::new(lease), End::Done);
    outcome.result = task.map(|task| Payload::json(task.payload.as_str()));
    (code, outcome)
}
