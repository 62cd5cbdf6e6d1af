//! BULK: what people do to tasks, and what follows for those that were read ahead, run or are waited for.

use laneway_protocol::message::{Answer, Bulk, Bulked, Change, Ready, Request, Verdict};
use laneway_protocol::{Code, TaskState};

use super::world::{World, done, id, lane, plain, ready, wait_for};
use crate::event::{Event, ReplyTo};

fn bulk(change: Change, tasks: &[u64]) -> Bulk {
    let lane = (change == Change::Move).then(|| lane("low"));
    Bulk { change, lane, tasks: tasks.iter().map(|&n| id(n)).collect() }
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
    assert_eq!(world.answers[&moved], Answer::Bulk(Bulked { verdicts: vec![Verdict::Moved] }));
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
    let waiter = world.ask(9, Request::WaitFor(wait_for(&[1], 10_000)));
    world.commit();
    world.table.rows.get_mut(&id(1)).unwrap().state = TaskState::Dead;
    world.ask(8, Request::Bulk(bulk(Change::Purge, &[1])));
    world.commit();
    let Some(Answer::WaitFor(waited)) = world.answers.get(&waiter) else { panic!("not told") };
    assert_eq!(waited.pruned, [id(1)]);
}
