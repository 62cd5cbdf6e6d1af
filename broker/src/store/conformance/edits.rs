//! What people do to tasks by id: move, run now, purge.

use laneway_core::{Count, Edit, Ended, Next, Op, OpResult};
use laneway_protocol::TaskState;
use laneway_protocol::message::{NewTask, Verdict};
use rusqlite::types::Value;

use super::subject::{Subject, World, ids, key, lane, new_task, task, text};
use crate::store::Store;

fn edit<T: Subject>(world: &mut World<T>, edit: Edit, tasks: &[i64]) -> Vec<Verdict> {
    match world.ask(Op::Edit { edit, tasks: tasks.iter().map(|id| task(*id)).collect() }) {
        OpResult::Verdicts(verdicts) => verdicts,
        other => panic!("no verdicts: {other:?}"),
    }
}

/// The queues that the next intake tells, as `lane/kind`.
fn told<T: Subject>(world: &mut World<T>) -> Vec<String> {
    let intake = world.turn(|store, now| store.intake(99, now).unwrap());
    let mut told: Vec<String> = intake.due.iter().map(|key| format!("{}/{}", key.lane, key.kind)).collect();
    told.extend(intake.later.iter().map(|(key, _)| format!("{}/{} later", key.lane, key.kind)));
    told.sort();
    told
}

fn queued<T: Subject>(world: &mut World<T>) -> Vec<(String, u64)> {
    match world.ask(Op::Counts) {
        OpResult::Counts(counts) => counts.queued.into_iter().map(|(lane, _, n)| (lane, n)).collect(),
        other => panic!("no counts: {other:?}"),
    }
}

pub(super) fn a_moved_row_is_read_in_its_new_lane_and_keeps_its_counters<T: Subject>(world: &mut World<T>) {
    // Whether it was due, is due later, or waits; the counts follow, and the new queue is told. What runs, has ended or is
    // there already is left alone.
    let (id, run) = world.running();
    world.end(run.failed(None));
    let later = world.submit_one(NewTask { run_at: Some(world.now.wall.0 + 500), ..new_task("k") });
    let cells = [("kind", text("k")), ("state", text("waiting"))];
    let waiting = world.subject.app_insert_waiting(&cells, &[(id, false)]).unwrap();
    let (busy, _) = world.running();
    let (ended, run) = world.running();
    world.end(run.done());
    told(world);
    let all = [id, later, waiting, busy, ended, 99];
    let left = [Verdict::Unchanged, Verdict::Unchanged, Verdict::NotFound];
    let verdicts = edit(world, Edit::Move(lane("low")), &all);
    assert_eq!(verdicts, [&[Verdict::Moved; 3][..], &left].concat());
    assert_eq!(world.counters(id), [1, 1, 0, 0]);
    assert_eq!(world.cell(waiting, "lane"), text("low"));
    assert_eq!(told(world), ["low/k", "low/k later"]);
    assert_eq!(queued(world), [("low".into(), 2)]);
    assert!(world.load(&key("normal", "k"), 9).tasks.is_empty());
    assert_eq!(ids(&world.load(&key("low", "k"), 9).tasks), [id]);
    world.later(500);
    assert_eq!(ids(&world.load(&key("low", "k"), 9).tasks), [id, later]);
    assert_eq!(edit(world, Edit::Move(lane("low")), &[id]), [Verdict::Unchanged], "it is there");
    // A lane that the row leaves open is the default of its kind.
    let alarm = world.submit_one(new_task("alarm"));
    assert_eq!(edit(world, Edit::Move(lane("high")), &[alarm]), [Verdict::Unchanged]);
    assert_eq!(edit(world, Edit::Move(lane("normal")), &[alarm]), [Verdict::Moved]);
    assert_eq!(ids(&world.load(&key("normal", "alarm"), 9).tasks), [alarm]);
}

pub(super) fn a_row_that_is_due_later_can_be_due_at_once<T: Subject>(world: &mut World<T>) {
    // Whoever set the time: the one who submitted it, or a backoff. What is due anyway, runs or has ended is left alone.
    let later = world.submit_one(NewTask { run_at: Some(world.now.wall.0 + 500), ..new_task("k") });
    let (failed, run) = world.running();
    world.end(run.failed(Some(world.now.wall.after(900))));
    let due = world.plain();
    let (busy, _) = world.running();
    told(world);
    let verdicts = edit(world, Edit::RunNow, &[later, failed, due, busy, 99]);
    let left = [Verdict::Unchanged, Verdict::Unchanged, Verdict::NotFound];
    assert_eq!(verdicts, [&[Verdict::Due; 2][..], &left].concat());
    assert_eq!(world.cell(later, "run_at"), Value::Null);
    assert_eq!(world.counters(failed), [1, 1, 0, 0]);
    assert_eq!(told(world), ["normal/k"]);
    assert_eq!(queued(world), [("normal".into(), 3)]);
    assert_eq!(ids(&world.load(&key("normal", "k"), 9).tasks), [later, failed, due]);
}

pub(super) fn a_purge_deletes_what_has_ended<T: Subject>(world: &mut World<T>) {
    // Dead, done or cancelled, with its failures; dead ones are counted no more. The id is not given out again.
    let (dead, run) = world.running();
    world.end(Ended { next: Next::Dead, ..run.failed(None) });
    let (done, run) = world.running();
    world.end(run.done());
    let cancelled = world.plain();
    edit(world, Edit::Cancel, &[cancelled]);
    let (busy, _) = world.running();
    let queued = world.plain();
    assert_eq!(world.subject.failures().len(), 1);
    let verdicts = edit(world, Edit::Purge, &[dead, done, cancelled, busy, queued, 99]);
    let left = [Verdict::Unchanged, Verdict::Unchanged, Verdict::NotFound];
    assert_eq!(verdicts, [&[Verdict::Purged; 3][..], &left].concat());
    assert_eq!(world.subject.rows().keys().copied().collect::<Vec<_>>(), [busy, queued]);
    assert!(world.subject.failures().is_empty());
    let OpResult::Counts(counts) = world.ask(Op::Counts) else { panic!("no counts") };
    assert_eq!(counts.dead, 0);
    assert_eq!(edit(world, Edit::Requeue, &[dead]), [Verdict::NotFound]);
    assert!(world.plain() > queued);
}

pub(super) fn cancel_and_requeue_are_edits_too<T: Subject>(world: &mut World<T>) {
    // The same words as for CANCEL and REQUEUE.
    let (busy, _) = world.running();
    let queued = world.plain();
    assert_eq!(edit(world, Edit::Cancel, &[busy, queued]), [Verdict::Requested, Verdict::Cancelled]);
    assert_eq!(edit(world, Edit::Requeue, &[busy, queued]), [Verdict::Unchanged, Verdict::Requeued]);
    assert_eq!(world.state(queued), TaskState::Queued);
    let run = world.started(queued);
    world.end(run.ended(Next::Dead, Count::Attempt));
    assert_eq!(edit(world, Edit::Requeue, &[queued]), [Verdict::Requeued]);
    assert_eq!(world.counters(queued), [1, 0, 0, 0]);
}
