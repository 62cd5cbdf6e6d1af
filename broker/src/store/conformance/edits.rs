//! What people do to tasks by id: move, run now, purge.

use laneway_core::{BulkSlice, BulkSliced, Count, Edit, Ended, Next, Op, OpResult, UnixMillis};
use laneway_protocol::message::{BulkFilter, NewTask, Verdict};
use laneway_protocol::{FairKey, TaskState};
use rusqlite::types::Value;

use super::subject::{START, Subject, World, ids, key, lane, new_task, task, text};
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

pub(super) fn a_task_that_is_given_up_says_why<T: Subject>(world: &mut World<T>) {
    // Queued at once; running with its end, before what its own run says. Whoever asked first is the reason; a requeue forgets it.
    let reason = "its last waiter left";
    let queued = world.plain();
    let ((stopped, first), (failed, second), (asked, third)) = (world.running(), world.running(), world.running());
    assert_eq!(edit(world, Edit::Cancel, &[asked]), [Verdict::Requested]);
    let verdicts = edit(world, Edit::Abandon, &[queued, stopped, failed, asked]);
    assert_eq!(verdicts, [&[Verdict::Cancelled][..], &[Verdict::Requested; 3]].concat());
    assert_eq!(world.cell(queued, "error"), text(reason));
    let asked_by = [stopped, failed, asked].map(|id| world.cell(id, "cancel_requested"));
    assert_eq!(asked_by, [2, 2, 1].map(Value::Integer));
    let by_core = Some("cancelled while it ran".to_owned());
    world.end(Ended { error: by_core.clone(), ..first.ended(Next::Cancelled, Count::Nothing) });
    world.end(Ended { error: Some("no route".into()), ..second.failed(None) });
    world.end(Ended { error: by_core, ..third.ended(Next::Cancelled, Count::Nothing) });
    let why = [stopped, failed, asked].map(|id| world.cell(id, "error"));
    assert_eq!(why, [text(reason), text("its last waiter left; no route"), text("cancelled while it ran")]);
    assert_eq!(edit(world, Edit::Requeue, &[queued]), [Verdict::Requeued]);
    assert_eq!((world.cell(queued, "error"), world.cell(queued, "cancel_requested")), (Value::Null, Value::Integer(0)));
}

/// A slice from the start, over all that meets the filter.
fn slice(edit: Edit, filter: BulkFilter) -> BulkSlice {
    BulkSlice { edit, filter, before: None, after: None, until: None, rows: 99, dry_run: false }
}

fn walk<T: Subject>(world: &mut World<T>, slice: BulkSlice) -> BulkSliced {
    match world.ask(Op::Bulk(Box::new(slice))) {
        OpResult::Bulk(sliced) => sliced,
        other => panic!("no slice: {other:?}"),
    }
}

fn met(sliced: &BulkSliced) -> Vec<i64> {
    sliced.verdicts.iter().map(|(task, _)| i64::try_from(task.value()).unwrap()).collect()
}

pub(super) fn a_filter_meets_what_it_says<T: Subject>(world: &mut World<T>) {
    // Each condition alone and all together; the error letter for letter; the age by the end, or by the creation.
    let (dead, run) = world.running();
    world.later(100);
    world.end(Ended { next: Next::Dead, error: Some(" no such file: 100%\nat x".into()), ..run.failed(None) });
    let alarm = world.submit_one(new_task("alarm"));
    let high = world.submit_one(NewTask { lane: Some(lane("high")), ..new_task("k") });
    let bad = world.insert(&[("kind", text("k")), ("lane", Value::Blob(vec![1]))]);
    let (busy, _) = world.running();
    let keyed = NewTask { unique_key: Some("one".into()), fair_key: FairKey::new("acme").ok(), ..new_task("k") };
    let keyed = world.submit_one(keyed);
    let grouped = world.insert(&[("kind", text("k")), ("group_id", 7.into())]);
    let odd = world.insert(&[("kind", Value::Blob(vec![1]))]);
    let worker = world.cell(busy, "worker");
    let Value::Text(worker) = worker else { panic!("no worker: {worker:?}") };
    let now = world.now.wall;
    let all = BulkFilter { all: true, ..BulkFilter::default() };
    let by = |change: fn(&mut BulkFilter)| {
        let mut filter = BulkFilter::default();
        change(&mut filter);
        BulkSlice { dry_run: true, ..slice(Edit::Cancel, filter) }
    };
    let cases = [
        (by(|_| ()), vec![dead, alarm, high, bad, busy, keyed, grouped, odd]),
        (by(|f| f.state = Some(TaskState::Dead)), vec![dead]),
        (by(|f| f.state = Some(TaskState::Running)), vec![busy]),
        (by(|f| f.state = Some(TaskState::Queued)), vec![alarm, high, bad, keyed, grouped, odd]),
        (by(|f| f.kind = Some("k".into())), vec![dead, high, bad, busy, keyed, grouped]),
        (by(|f| f.kind = Some(String::new())), vec![odd]),
        (by(|f| f.lane = Some("high".into())), vec![alarm, high]),
        (by(|f| f.error = Some("file: 100%".into())), vec![dead]),
        (by(|f| f.error = Some("FILE".into())), vec![]),
        (by(|f| f.error_line = Some("no such file: 100%".into())), vec![dead]),
        (by(|f| f.error_line = Some("no such file".into())), vec![]),
        (by(|f| f.error_line = Some(String::new())), vec![alarm, high, bad, busy, keyed, grouped, odd]),
        (by(|f| (f.state, f.error) = (Some(TaskState::Queued), Some("file".into()))), vec![]),
        (BulkSlice { before: Some(now), ..by(|_| ()) }, vec![dead, alarm, high, bad, busy, keyed, grouped, odd]),
        (BulkSlice { before: Some(UnixMillis(now.0 - 1)), ..by(|_| ()) }, vec![dead]),
        (BulkSlice { before: Some(UnixMillis(START + 4)), ..by(|_| ()) }, vec![]),
        (BulkSlice { after: Some(task(dead)), until: Some(task(high)), ..by(|_| ()) }, vec![alarm, high]),
        (by(|f| f.unique_key = Some("one".into())), vec![keyed]),
        (by(|f| f.unique_key = Some("on".into())), vec![]),
        (by(|f| f.fair_key = Some("acme".into())), vec![keyed]),
        (by(|f| f.group = Some(7)), vec![grouped]),
        (by(|f| f.group = Some(8)), vec![]),
        (by(|f| f.workers = vec!["no such".into()]), vec![]),
        (by(|f| f.attempts_min = Some(1)), vec![dead]),
        (by(|f| f.attempts_min = Some(2)), vec![]),
        (by(|f| f.attempts_max = Some(0)), vec![alarm, high, bad, busy, keyed, grouped, odd]),
        (
            by(|f| (f.attempts_min, f.attempts_max) = (Some(0), Some(1))),
            vec![dead, alarm, high, bad, busy, keyed, grouped, odd],
        ),
        (
            BulkSlice {
                dry_run: true,
                ..slice(Edit::Cancel, BulkFilter { workers: vec!["no".into(), worker[..1].into()], ..all.clone() })
            },
            vec![dead, busy],
        ),
    ];
    for (asked, expected) in cases {
        let sliced = walk(world, asked.clone());
        assert_eq!((met(&sliced), sliced.over), (expected, true), "{asked:?}");
    }
    // What has not ended is never purged, however old.
    let old = walk(world, BulkSlice { before: Some(now), ..slice(Edit::Purge, all) });
    assert_eq!(old.verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Purged).count(), 1);
    assert!(old.verdicts.contains(&(task(dead), Verdict::Purged)));
}

pub(super) fn a_walk_goes_on_where_it_stopped<T: Subject>(world: &mut World<T>) {
    // In pieces of two, in the order of ids, up to the newest at its start; each row is met once, though it still meets.
    for _ in 0..5 {
        world.plain();
    }
    let all = BulkFilter { all: true, ..BulkFilter::default() };
    let mut next = BulkSlice { rows: 2, ..slice(Edit::Move(lane("low")), all) };
    let mut seen = Vec::new();
    for n in 0.. {
        let sliced = walk(world, next.clone());
        seen.push(met(&sliced));
        assert_eq!(sliced.until, Some(task(5)));
        (next.after, next.until) = (sliced.at, sliced.until);
        world.plain();
        if sliced.over {
            assert_eq!(n, 2);
            break;
        }
    }
    assert_eq!(seen, [vec![1, 2], vec![3, 4], vec![5]]);
    assert_eq!((world.cell(5, "lane"), world.cell(6, "lane")), (text("low"), Value::Null));
    assert_eq!(told(world), ["low/k", "normal/k"]);
}

pub(super) fn a_dry_run_says_what_would_be_done<T: Subject>(world: &mut World<T>) {
    // For each change the same as doing it, row for row, and it changes nothing.
    let keyed = || NewTask { unique_key: Some("one".into()), ..new_task("k") };
    let dead_twin = world.submit_one(keyed());
    let run = world.started(dead_twin);
    world.end(run.ended(Next::Dead, Count::Attempt));
    world.submit_one(keyed());
    let (dead, run) = world.running();
    world.end(run.ended(Next::Dead, Count::Attempt));
    let (done, run) = world.running();
    world.end(run.done());
    edit(world, Edit::Cancel, &[done]);
    world.submit_one(NewTask { run_at: Some(world.now.wall.0 + 500), ..new_task("k") });
    world.insert(&[("kind", text("k")), ("state", text("waiting")), ("open_dependencies", 1.into())]);
    world.insert(&[("kind", Value::Blob(vec![1])), ("run_at", Value::Integer(world.now.wall.0 + 500))]);
    world.submit_one(NewTask { lane: Some(lane("low")), ..new_task("alarm") });
    world.running();
    told(world);
    let all = || BulkFilter { all: true, ..BulkFilter::default() };
    for what in [Edit::Requeue, Edit::RunNow, Edit::Move(lane("low")), Edit::Cancel, Edit::Purge] {
        let before = (world.subject.rows(), world.subject.failures().len());
        let tried = walk(world, BulkSlice { dry_run: true, ..slice(what.clone(), all()) });
        assert_eq!((world.subject.rows(), world.subject.failures().len()), before, "{what:?}");
        assert!(told(world).is_empty(), "{what:?}");
        assert_eq!(walk(world, slice(what.clone(), all())), tried, "{what:?}");
        told(world);
    }
    assert!(!world.subject.rows().contains_key(&dead), "it was queued again, cancelled and deleted");
}
