//! BULK: what people do to tasks, and what follows for those that were read ahead, run or are waited for.

use laneway_protocol::message::{Answer, Batch, Bulk, BulkFilter, Bulked, Change, Ready, Request, Verdict};
use laneway_protocol::{Code, TaskState};

use super::world::{World, done, id, lane, plain, ready, wait_for};
use crate::event::{Event, ReplyTo};

fn bulk(change: Change, tasks: &[u64]) -> Bulk {
    let lane = (change == Change::Move).then(|| lane("low"));
    Bulk { change: Some(change), lane, tasks: tasks.iter().map(|&n| id(n)).collect(), ..Bulk::default() }
}

fn all() -> BulkFilter {
    BulkFilter { all: true, ..BulkFilter::default() }
}

fn by_filter(change: Change, filter: BulkFilter) -> Bulk {
    Bulk { filter: Some(filter.into()), ..bulk(change, &[]) }
}

/// Where a batch stands, of one that was just started or is looked at.
fn stand(world: &mut World, bulk: Bulk) -> Batch {
    let reply = world.ask(9, Request::Bulk(bulk));
    match world.answers.remove(&reply) {
        Some(Answer::Bulk(Bulked { batch: Some(batch), .. })) => batch,
        other => panic!("no batch: {other:?}"),
    }
}

fn look(world: &mut World, number: u64, stop: bool) -> Batch {
    stand(world, Bulk { batch: Some(number), stop, ..Bulk::default() })
}

fn refusal(world: &World, reply: ReplyTo) -> Option<(Code, Option<&str>)> {
    match world.answers.get(&reply)? {
        Answer::Error(error) => Some((error.code, error.field.as_deref())),
        _ => None,
    }
}

#[test]
fn a_change_that_makes_no_sense_is_refused() {
    // Before anything is asked of the store; nor while that takes no writes.
    let mut world = World::new();
    let ask = |world: &mut World, bulk| {
        let reply = world.ask(9, Request::Bulk(bulk));
        world.take();
        reply
    };
    for (asked, expected) in [
        (bulk(Change::Purge, &[]), (Code::BadBody, Some("tasks"))),
        (Bulk { dry_run: true, ..bulk(Change::Purge, &[1]) }, (Code::BadBody, Some("dry_run"))),
        (Bulk { filter: Some(all().into()), ..bulk(Change::Purge, &[1]) }, (Code::BadBody, Some("tasks"))),
        (Bulk { batch: Some(1), ..bulk(Change::Purge, &[1]) }, (Code::BadBody, Some("batch"))),
        (Bulk::default(), (Code::BadBody, Some("change"))),
        (by_filter(Change::Purge, BulkFilter::default()), (Code::BadBody, Some("filter"))),
        (
            by_filter(Change::Purge, BulkFilter { error: Some("x".repeat(513)), ..all() }),
            (Code::BadBody, Some("filter.error")),
        ),
        (
            by_filter(Change::Purge, BulkFilter { workers: vec!["a".into(); 65], ..all() }),
            (Code::BadBody, Some("filter.workers")),
        ),
        (
            by_filter(Change::Purge, BulkFilter { attempts_min: Some(3), attempts_max: Some(2), ..all() }),
            (Code::BadBody, Some("filter.attempts_min")),
        ),
        (Bulk { batch: Some(1), ..Bulk::default() }, (Code::NotFound, Some("batch"))),
        (Bulk { lane: None, ..bulk(Change::Move, &[1]) }, (Code::BadBody, Some("lane"))),
        (Bulk { lane: Some(lane("none")), ..bulk(Change::Move, &[1]) }, (Code::UnknownLane, Some("lane"))),
        (Bulk { lane: Some(lane("low")), ..bulk(Change::Purge, &[1]) }, (Code::BadBody, Some("lane"))),
    ] {
        let reply = ask(&mut world, asked);
        assert_eq!(refusal(&world, reply), Some(expected));
    }
    assert_eq!(world.broker.n_unsettled(), 0);
    world.event(Event::StoreFailed("disk full".into()));
    let reply = ask(&mut world, bulk(Change::Purge, &[1]));
    assert_eq!(refusal(&world, reply), Some((Code::Storage, None)));
}

#[test]
fn a_task_that_was_read_ahead_moves_at_once() {
    // It is taken out of where it stood, and comes with the lane that it was moved to, behind what is more urgent.
    let mut world = World::new();
    world.insert("high", "a", 3);
    let first = world.ask(1, Request::Ready(plain("w", &["a"])));
    world.commit();
    assert_eq!(world.tasks(first)[0].0, 1);
    world.take();
    world.ask(9, Request::Bulk(bulk(Change::Move, &[1, 2])));
    assert_eq!(world.take(), [r#"edit Move(LaneName("low")) 1 2"#]);
    world.commit();
    assert_eq!(world.take(), ["#2 BULK [Unchanged, Moved]"], "1 runs");
    let second = world.ask(1, Request::Ready(Ready { slot: 1, ..plain("w", &["a"]) }));
    let third = world.ask(1, Request::Ready(Ready { slot: 2, ..plain("w", &["a"]) }));
    world.commit();
    assert_eq!((world.tasks(second)[0].0, world.tasks(third)[0].0), (3, 2));
}

#[test]
fn a_task_handed_out_while_it_is_moved_runs_on() {
    // The hand-out came behind the move on its way to the store: its lease holds.
    let mut world = World::new();
    world.insert("high", "a", 1);
    world.hello("w", 1, &["a"]);
    world.commit();
    world.ask(1, Request::Ready(Ready { max: 0, wait_ms: 0, ..ready("w") }));
    world.commit();
    let moved = world.ask(9, Request::Bulk(bulk(Change::Move, &[1])));
    let reply = world.ask(1, Request::Ready(ready("w")));
    let (task, lease) = world.tasks(reply)[0];
    world.commit();
    assert_eq!(world.answers[&moved], Answer::Bulk(Bulked { verdicts: vec![Verdict::Moved], batch: None }));
    world.ask(1, Request::Ready(Ready { outcomes: vec![done(task, lease)], ..ready("w") }));
    world.commit();
    assert_eq!(world.table.rows[&id(1)].state, TaskState::Done);
    assert_eq!(world.table.rows[&id(1)].lane, lane("low"));
}

#[test]
fn who_waits_for_a_purged_task_hears_it() {
    // A task that ended by SQL a moment ago, say, before the waiter was told.
    let mut world = World::new();
    world.insert("low", "a", 1);
    let asked = world.ask(9, Request::WaitFor(wait_for(&[1], 10_000)));
    world.commit();
    world.table.rows.get_mut(&id(1)).unwrap().state = TaskState::Dead;
    world.ask(8, Request::Bulk(bulk(Change::Purge, &[1])));
    world.commit();
    let Some(Answer::WaitFor(told)) = world.answers.get(&asked) else { panic!("not told") };
    assert_eq!(told.pruned, [id(1)]);
}

#[test]
fn a_batch_goes_through_its_tasks_in_slices() {
    // The next slice is asked for when the last is on disk; others of the lane, and those that come later, are not touched.
    let mut world = World::new();
    world.insert("high", "a", 3);
    world.insert("normal", "a", 2);
    let low = BulkFilter { lane: Some("high".into()), ..BulkFilter::default() };
    let begun = stand(&mut world, by_filter(Change::Move, low.clone()));
    assert_eq!((begun.number, begun.seen, begun.over), (1_000_001, 0, false));
    world.take();
    world.commit_ops();
    world.insert("high", "a", 1);
    assert_eq!(world.take(), [r#"slice Move(LaneName("low")) behind Some(2)"#]);
    let now = look(&mut world, begun.number, false);
    assert_eq!((now.seen, now.changed, now.at, now.until, now.over, now.stopped), (2, 2, 2, 5, false, false));
    assert_eq!(stand(&mut world, by_filter(Change::Move, low)).number, begun.number, "said again it is the same");
    world.commit();
    let now = look(&mut world, begun.number, false);
    assert_eq!((now.seen, now.changed, now.at, now.until, now.over, now.stopped), (3, 3, 5, 5, true, false));
    let lanes: Vec<&str> = world.table.rows.values().map(|row| row.lane.as_str()).collect();
    assert_eq!(lanes, ["low", "low", "low", "normal", "normal", "high"]);
}

#[test]
fn a_batch_counts_what_it_left_alone() {
    // What ends by it is told to those who wait; what runs is asked to stop.
    let mut world = World::new();
    world.insert("low", "a", 3);
    world.table.rows.get_mut(&id(3)).unwrap().state = TaskState::Dead;
    let asked = world.ask(8, Request::WaitFor(wait_for(&[2], 10_000)));
    world.hello("w", 1, &["a"]);
    world.ask(1, Request::Ready(ready("w")));
    world.commit();
    let begun = stand(&mut world, by_filter(Change::Cancel, all()));
    world.commit();
    let now = look(&mut world, begun.number, false);
    assert_eq!((now.seen, now.changed, now.unchanged), (3, 2, 1));
    let Some(Answer::WaitFor(waited)) = world.answers.get(&asked) else { panic!("not told") };
    assert_eq!(waited.finals[0].state, TaskState::Cancelled);
    assert!(world.broker.running[&id(1)].stop.is_some());
}

#[test]
fn a_batch_is_stopped_behind_its_slice() {
    // What was done by then is done and counted; the same again goes on with the rest.
    let mut world = World::new();
    world.insert("high", "a", 5);
    let filter = BulkFilter { state: Some(TaskState::Queued), lane: Some("high".into()), ..BulkFilter::default() };
    let begun = stand(&mut world, by_filter(Change::Move, filter.clone()));
    assert!(!look(&mut world, begun.number, true).over, "a slice is on its way");
    world.commit();
    let now = look(&mut world, begun.number, false);
    assert_eq!((now.changed, now.over, now.stopped), (2, true, true));
    let again = stand(&mut world, by_filter(Change::Move, filter));
    assert_ne!(again.number, begun.number);
    world.commit();
    assert_eq!(look(&mut world, again.number, false).changed, 3);
}

#[test]
fn a_dry_run_changes_nothing() {
    let mut world = World::new();
    world.insert("high", "a", 3);
    world.hello("w", 1, &["a"]);
    world.ask(1, Request::Ready(ready("w")));
    world.commit();
    world.take();
    let begun = stand(&mut world, Bulk { dry_run: true, ..by_filter(Change::Cancel, all()) });
    world.commit();
    let now = look(&mut world, begun.number, false);
    assert_eq!((now.seen, now.changed, now.dry_run, now.over), (3, 3, true, true));
    assert!(world.table.rows.values().all(|row| row.state != TaskState::Cancelled));
    assert!(world.broker.running[&id(1)].stop.is_none());
}

#[test]
fn batches_are_bounded_and_the_last_ones_told() {
    // Four run; of those that are over sixteen are known, and none after a restart.
    let mut world = World::new();
    world.insert("high", "a", 3);
    let nth = |n: usize| BulkFilter { error: Some("x".repeat(n)), ..all() };
    let longest = BulkFilter { error: Some("x".repeat(512)), ..all() };
    stand(&mut world, by_filter(Change::Purge, longest));
    world.commit();
    let numbers: Vec<u64> = (0..4).map(|n| stand(&mut world, by_filter(Change::Purge, nth(n))).number).collect();
    let reply = world.ask(9, Request::Bulk(by_filter(Change::Purge, nth(4))));
    assert_eq!(refusal(&world, reply), Some((Code::Full, None)));
    world.commit();
    for n in 0..16 {
        stand(&mut world, by_filter(Change::Purge, nth(n)));
        world.commit();
    }
    let known = |world: &mut World, number| {
        let reply = world.ask(9, Request::Bulk(Bulk { batch: Some(number), ..Bulk::default() }));
        refusal(world, reply).is_none()
    };
    assert!(!known(&mut world, numbers[3]) && known(&mut world, numbers[3] + 1));
    world.restart(true);
    assert!(!known(&mut world, numbers[3] + 1));
    assert_eq!(stand(&mut world, by_filter(Change::Purge, all())).number, 2_000_001);
}
