//! Unique keys: windows after the end, submits that are refused, and rows that are replaced.

use laneway_core::{Op, OpResult};
use laneway_protocol::message::{Held, NewTask, OnConflict, Payload, Stored};
use laneway_protocol::{Lease, RequestId, TaskState};
use rusqlite::types::Value;

use super::subject::{Subject, World, key, kind, new_task, task, text};
use crate::store::Store;

fn keyed(change: impl FnOnce(&mut NewTask)) -> NewTask {
    let mut task = NewTask { unique_key: Some("one".into()), ..new_task("k") };
    change(&mut task);
    task
}

fn stored(result: OpResult) -> Vec<Stored> {
    let OpResult::Submitted(stored) = result else { panic!("not stored: {result:?}") };
    stored
}

pub(super) fn a_done_task_answers_for_its_key_as_long_as_asked<T: Subject>(world: &mut World<T>) {
    // Within the window of the one who asks; only the newest counts, and only when it is done.
    let within = |ms| keyed(|task| task.unique_for_ms = Some(ms));
    let id = world.submit_one(within(1_000));
    let run = world.started(id);
    world.end(run.done());
    world.later(999);
    assert_eq!(stored(world.submit(vec![within(1_000)])), [Stored::met(task(id))]);
    world.later(1);
    assert_eq!(stored(world.submit(vec![within(1_001)])), [Stored::met(task(id))], "the asker's own window");
    let plain = stored(world.submit(vec![keyed(|_| ())]))[0];
    assert!(plain.new, "who asks for no window gets a new task");
    let id = i64::try_from(plain.task.value()).unwrap();
    let run = world.started(id);
    world.end(laneway_core::Ended { error: None, ..run.ended(laneway_core::Next::Dead, laneway_core::Count::Attempt) });
    assert!(stored(world.submit(vec![within(600_000)]))[0].new, "a dead one answers for nothing");
}

pub(super) fn a_row_is_kept_for_its_window<T: Subject>(world: &mut World<T>) {
    // Pruning leaves it alone until the longest window that a submit asked for is over.
    let prune = |world: &mut World<T>| world.prune(10);
    let id = world.submit_one(keyed(|task| task.unique_for_ms = Some(100)));
    let run = world.started(id);
    world.end(run.done());
    assert!(!stored(world.submit(vec![keyed(|task| task.unique_for_ms = Some(500))]))[0].new);
    world.later(400);
    assert_eq!(prune(world), 0);
    world.later(200);
    assert_eq!(prune(world), 1);
    assert!(world.subject.rows().is_empty());
}

pub(super) fn a_submit_can_ask_to_be_refused<T: Subject>(world: &mut World<T>) {
    // The text names who has the key; nothing of the submit is stored.
    let reject = || keyed(|task| task.on_conflict = OnConflict::Reject);
    let id = world.submit_one(reject());
    let refused = |by: &str| {
        let reason = format!("the unique key 'one' of kind 'k' is taken by {by}");
        OpResult::Refused { index: 1, field: "on_conflict", reason }
    };
    assert_eq!(world.submit(vec![new_task("k"), reject()]), refused(&format!("task {id}")));
    let run = world.started(id);
    world.end(run.done());
    let windowed = NewTask { unique_for_ms: Some(1_000), ..reject() };
    assert_eq!(world.submit(vec![new_task("k"), windowed]), refused(&format!("task {id}")), "done counts, too");
    assert_eq!(world.submit(vec![reject(), reject()]), refused("task number 0 of the same message"));
    assert_eq!(world.subject.rows().len(), 1);
    assert!(stored(world.submit(vec![reject()]))[0].new);
}

pub(super) fn a_task_replaces_none_of_its_own_message<T: Subject>(world: &mut World<T>) {
    // The first payload would be gone before anybody could see it; nothing of the submit is stored.
    let replace = || keyed(|task| task.on_conflict = OnConflict::Replace);
    for first in [keyed(|_| ()), replace()] {
        let refused = world.submit(vec![first, new_task("k"), replace()]);
        let OpResult::Refused { index: 2, field: "unique_key", reason } = refused else { panic!("{refused:?}") };
        assert!(reason.starts_with("it would replace task number 0 of the same message"), "{reason}");
    }
    assert!(world.subject.rows().is_empty());
}

pub(super) fn a_spawned_task_can_be_refused_and_replaces_none<T: Subject>(world: &mut World<T>) {
    // Both fail the run for good, with the reason.
    let id = world.submit_one(keyed(|_| ()));
    for (on_conflict, said) in
        [(OnConflict::Reject, format!("taken by task {id}")), (OnConflict::Replace, "cannot replace".into())]
    {
        let (other, run) = world.running();
        let spawn = vec![keyed(|task| task.on_conflict = on_conflict)];
        world.end(laneway_core::Ended { spawn, ..run.done() });
        assert_eq!(world.state(other), TaskState::Dead);
        let Value::Text(error) = world.cell(other, "error") else { panic!("no error") };
        assert!(error.contains(&said), "{error}");
    }
}

pub(super) fn a_queued_row_is_replaced_when_it_is_secured<T: Subject>(world: &mut World<T>) {
    // Payload and time, and the mark in place of a lease; another id, a running row and a plain submit leave it alone.
    let id = world.submit_one(keyed(|task| task.max_attempts = Some(7)));
    let at = world.now.wall.0 + 50;
    let other = keyed(|task| {
        (task.on_conflict, task.run_at, task.max_attempts) = (OnConflict::Replace, Some(at), Some(9));
        task.payload = Some(Payload::json("2"));
    });
    let mut request = 0;
    let mut replace = |world: &mut World<T>, secured: &[i64]| {
        request += 1;
        let (tasks, secured) = (vec![other.clone()], secured.iter().map(|id| Held(task(*id), Lease::new(7))).collect());
        stored(world.ask(Op::Submit { request: RequestId([request; 16]), tasks, group: None, secured }))
    };
    assert_eq!(replace(world, &[]), [Stored::met(task(id))]);
    assert_eq!(replace(world, &[id + 1]), [Stored::met(task(id))]);
    assert_eq!((world.cell(id, "run_at"), world.cell(id, "lease")), (Value::Null, Value::Null));
    assert_eq!(replace(world, &[id]), [Stored { replaced: true, ..Stored::met(task(id)) }]);
    assert_eq!((world.cell(id, "payload"), world.cell(id, "run_at")), (text("2"), Value::Integer(at)));
    assert_eq!((world.cell(id, "max_attempts"), world.cell(id, "lease")), (Value::Integer(7), Value::Integer(7)));
    assert!(world.load(&key("normal", "k"), 9).tasks.is_empty(), "it is due later now");
    world.later(50);
    let read = world.load(&key("normal", "k"), 9).tasks.remove(0);
    assert_eq!(read.payload, Some(Payload::json("2")));
    // The mark outlives a cancel and a requeue.
    world.ask(Op::Cancel(vec![task(id)]));
    world.ask(Op::Requeue(vec![task(id)]));
    assert_eq!((world.state(id), world.cell(id, "lease")), (TaskState::Queued, Value::Integer(7)));
    let _run = world.started(id);
    assert_eq!(replace(world, &[id]), [Stored::met(task(id))], "it runs");
}

pub(super) fn a_replaced_row_is_told_to_its_queue<T: Subject>(world: &mut World<T>) {
    // The next intake names the queue and the time, as for a new row. Said again, the submit is answered as the first time, and
    // the queue is named again: the row was kept from being read ahead for it.
    let id = world.submit_one(keyed(|_| ()));
    world.turn(|store, now| store.intake(10, now).unwrap());
    let tasks = vec![keyed(|task| (task.on_conflict, task.run_at) = (OnConflict::Replace, Some(1_900_000_000_000)))];
    let submit =
        Op::Submit { request: RequestId([9; 16]), tasks, group: None, secured: vec![Held(task(id), Lease::new(7))] };
    let replaced = [Stored { replaced: true, ..Stored::met(task(id)) }];
    assert_eq!(stored(world.ask(submit.clone())), replaced);
    let intake = world.turn(|store, now| store.intake(10, now).unwrap());
    let told: Vec<_> = intake.later.iter().map(|(key, at)| (key.clone(), at.0)).collect();
    assert_eq!(told, [(key("normal", "k"), 1_900_000_000_000)]);
    assert_eq!(stored(world.ask(submit)), replaced);
    let intake = world.turn(|store, now| store.intake(10, now).unwrap());
    assert_eq!(intake.due, [key("normal", "k")]);
}

pub(super) fn live_twins_are_found<T: Subject>(world: &mut World<T>) {
    // By kind and key, ended ones not.
    let id = world.submit_one(keyed(|_| ()));
    let ended = world.submit_one(NewTask { unique_key: Some("two".into()), ..new_task("k") });
    let run = world.started(ended);
    world.end(run.done());
    let keys = [("k", "one"), ("k", "two"), ("other", "one")].map(|(name, key)| (kind(name), key.to_owned()));
    let OpResult::Found(found) = world.ask(Op::FindTwins(keys.to_vec())) else { panic!("not found") };
    assert_eq!(super::subject::found_ids(&found), [id]);
}

pub(super) fn wishes_without_a_key_make_no_sense<T: Subject>(world: &mut World<T>) {
    // Each with a reason that names the fix.
    let reason = |world: &mut World<T>, change: fn(&mut NewTask)| {
        let mut task = new_task("k");
        change(&mut task);
        match world.submit(vec![task]) {
            OpResult::Refused { reason, .. } => reason,
            other => panic!("taken: {other:?}"),
        }
    };
    assert!(reason(world, |task| task.unique_for_ms = Some(1)).contains("give unique_key"));
    assert!(reason(world, |task| task.on_conflict = OnConflict::Reject).contains("give unique_key"));
    assert!(reason(world, |task| task.unique_by_payload = true).contains("leave one of them out"));
    let zero = |task: &mut NewTask| (task.unique_key, task.unique_for_ms) = (Some("k".into()), Some(0));
    assert!(reason(world, zero).contains("unique_for_ms 0 is not 1 to"), "{}", reason(world, zero));
}
