//! Checkpoints: what a run has saved is there for the next one, whoever runs it and however the one before ended.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::sync::{Arc, Mutex};

use harness::{Broker, Place, RawPeer, Table, plain_ready, wait_until};
use laneway::{Context, Failure, Worker};
use laneway_protocol::message::{Answer, End, HandedTask, Outcome, Progress, Ready, Request};
use laneway_protocol::{Code, Epoch, Payload, SessionName};

/// Retries at once.
const AT_ONCE: [&str; 2] = ["defaults.backoff_base_ms=0", "defaults.backoff_max_ms=0"];

#[test]
fn a_handler_goes_on_where_an_earlier_attempt_stopped() {
    // Proves it for the Rust library: nothing at first, then what was saved last, also after several in one run; and that the
    // end of the task does not depend on it.
    let place = Place::new();
    let _broker = Broker::start_with(&place, &AT_ONCE);
    let table = Table::open(&place);
    let task = table.insert("count", r#"{"to": 3}"#);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seen_by = Arc::clone(&seen);
    let count = move |_: serde_json::Value, ctx: &Context| -> Result<u32, Failure> {
        let from: Option<u32> = ctx.checkpoint()?;
        seen_by.lock().unwrap().push(from);
        let next = from.unwrap_or(0) + 1;
        ctx.save_checkpoint(&(next * 100))?;
        ctx.save_checkpoint(&next)?;
        if next < 3 { Err(Failure::new("not yet")) } else { Ok(next) }
    };
    let worker = Worker::builder(place.endpoint()).handle("count", count).build().unwrap();
    let stopper = worker.stopper();
    let running = std::thread::spawn(move || worker.run().unwrap());
    table.wait_for_state(task, "done");
    stopper.stop();
    running.join().unwrap();
    assert_eq!(*seen.lock().unwrap(), [None, Some(1), Some(2)]);
    assert_eq!(table.column::<String>(task, "result || ' ' || attempts"), "3 3");
}

#[test]
fn a_plain_worker_saves_and_finds_checkpoints() {
    // Proves it from a plain REQ socket: bytes in either format, kept when the run fails, when the worker is gone without a word,
    // and when the broker is killed once they are in the row; and that a stale lease saves nothing.
    let place = Place::new();
    let broker = Broker::start_with(&place, &[&AT_ONCE[..], &["disconnect_grace_ms=0"]].concat());
    let table = Table::open(&place);
    let task = table.insert("copy", "{}");
    let mut worker = Plain::new(&place, "first");
    let run = worker.take();
    assert_eq!(run.checkpoint, None);
    assert_eq!(worker.save(&run, Payload::json(r#"{"at": 1}"#)), Ok(()));
    let failed = Outcome { error: Some("half way".into()), ..Outcome::new(run.task, run.lease, End::Fail) };

    // The same worker, behind its failure.
    let again = worker.take_behind(failed);
    assert_eq!(again.checkpoint, Some(Payload::json(r#"{"at": 1}"#)));
    assert_eq!(worker.save(&run, Payload::json("0")), Err(Code::Stale));
    assert_eq!(worker.save(&again, Payload::bin([0, 159, 146, 150])), Ok(()));
    drop(worker);

    // Another one, after the loss of the first; and after the end of the broker.
    let mut other = Plain::new(&place, "other");
    let lost = other.take();
    assert_eq!((lost.checkpoint.clone(), lost.attempt), (Some(Payload::bin([0, 159, 146, 150])), 2));
    assert_eq!(other.save(&lost, Payload::json("3")), Ok(()));
    wait_until("the checkpoint to be in the row", || table.column::<String>(task, "hex(checkpoint)") == "33");
    broker.kill();
    let _broker = Broker::start_with(&place, &AT_ONCE);
    let mut other = other.reconnected(&place);
    let again = other.take_behind(Outcome::new(lost.task, lost.lease, End::Release));
    assert_eq!(again.checkpoint, Some(Payload::json("3")));
    other.ask(&Ready { outcomes: vec![Outcome::new(again.task, again.lease, End::Done)], max: 0, ..other.ready(0) });
    assert_eq!(table.column::<String>(task, "state || ' ' || runs || ' ' || losses"), "done 4 1");
}

/// A worker as PROTOCOL.md describes the plain one.
struct Plain {
    peer: RawPeer,
    session: String,
    place: (u64, Option<Epoch>),
}

impl Plain {
    fn new(place: &Place, session: &str) -> Self {
        Self { peer: RawPeer::req(&place.endpoint()), session: session.into(), place: (0, None) }
    }

    fn reconnected(self, place: &Place) -> Self {
        Self { peer: RawPeer::req(&place.endpoint()), place: (0, None), ..self }
    }

    fn ready(&self, wait_ms: u64) -> Ready {
        let (ack, epoch) = self.place;
        Ready { epoch, ..plain_ready(&self.session, "copy", ack, wait_ms) }
    }

    fn ask(&self, ready: &Ready) -> Answer {
        self.peer.ask(Request::Ready(ready.clone()))
    }

    fn take(&mut self) -> HandedTask {
        self.take_with(Vec::new())
    }

    fn take_behind(&mut self, outcome: Outcome) -> HandedTask {
        self.take_with(vec![outcome])
    }

    fn take_with(&mut self, mut outcomes: Vec<Outcome>) -> HandedTask {
        loop {
            match self.ask(&Ready { outcomes: std::mem::take(&mut outcomes), ..self.ready(10_000) }) {
                Answer::Tasks(mut hand_out) => {
                    self.place = (hand_out.seq, Some(hand_out.epoch));
                    return hand_out.tasks.remove(0);
                }
                Answer::Wait(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn save(&self, run: &HandedTask, checkpoint: Payload) -> Result<(), Code> {
        let progress = Progress {
            session: SessionName::new(&self.session).unwrap(),
            task: run.task,
            lease: run.lease,
            done: None,
            total: None,
            note: None,
            extend_ms: None,
            data: None,
            log: None,
            checkpoint: Some(checkpoint),
            parents: None,
        };
        match self.peer.ask(Request::Progress(progress)) {
            Answer::Progress(_) => Ok(()),
            Answer::Error(error) => Err(error.code),
            other => panic!("{other:?}"),
        }
    }
}
