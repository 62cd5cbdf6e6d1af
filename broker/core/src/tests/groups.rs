//! What those who wait for a group hear: each word of its tasks once and in order, or a gap, and how its last task ended.

use laneway_protocol::message::{Answer, Cursor, End, Outcome, Progress, Ready, Request, WaitFor, Waited};
use laneway_protocol::{Epoch, Lease, Payload, TaskState};

use super::clients::word;
use super::world::{World, done, id, plain, session, wait_for};
use crate::event::{Event, ReplyTo};
use crate::{ConnId, action::Op};

const GROUP: u64 = 5;

/// A world with a group of tasks from id 1 on.
fn grouped(n: u64) -> World {
    let mut world = World::new();
    let tasks = world.insert("low", "a", n);
    world.table.groups.insert(GROUP, tasks);
    world
}

/// A plain worker of its own takes the next task.
fn take(world: &mut World, worker: &str) -> Lease {
    let reply = world.ask(1, Request::Ready(plain(worker, &["a"])));
    world.commit();
    world.lease(reply)
}

fn say(world: &mut World, worker: &str, n: u64, lease: Lease, done: u64) {
    say_at_length(world, worker, n, lease, done, None);
}

fn say_at_length(world: &mut World, worker: &str, n: u64, lease: Lease, done: u64, note: Option<usize>) {
    let note = note.map(|n_bytes| "x".repeat(n_bytes));
    world.ask(1, Request::Progress(Progress { session: session(worker), done: Some(done), note, ..word(n, lease) }));
}

fn finish(world: &mut World, worker: &str, n: u64, lease: Lease) {
    let outcome = Outcome { result: Some(Payload::json("42")), ..done(n, lease) };
    world.ask(1, Request::Ready(Ready { outcomes: vec![outcome], wait_ms: 0, ..plain(worker, &["b"]) }));
    world.commit();
}

fn question(cursor: impl Into<Option<Cursor>>, wait_ms: u64) -> Request {
    Request::WaitFor(WaitFor { cursor: cursor.into(), group: Some(GROUP), ..wait_for(&[], wait_ms) })
}

/// What is answered to this question, if anything is.
fn answered(world: &World, reply: ReplyTo) -> Option<Waited> {
    match world.answers.get(&reply)? {
        Answer::WaitFor(waited) => Some(waited.clone()),
        other => panic!("{other:?}"),
    }
}

/// Asks for the next news, which there are.
fn ask(world: &mut World, cursor: impl Into<Option<Cursor>>, wait_ms: u64) -> Waited {
    let reply = world.ask(9, question(cursor, wait_ms));
    world.commit();
    answered(world, reply).expect("there are news")
}

/// Which task, and how far it is.
fn told(waited: &Waited) -> Vec<(u64, u64)> {
    waited.events.iter().map(|event| (event.task.value(), event.done.unwrap_or(0))).collect()
}

#[test]
fn words_of_a_group_are_told_as_they_are_said() {
    // In the order of all its tasks, each once, with where the group stands then; those of others are no news.
    let mut world = grouped(3);
    world.insert("low", "a", 1);
    let leases = ["w1", "w2", "w3", "w4"].map(|worker| take(&mut world, worker));
    say(&mut world, "w1", 1, leases[0], 10);
    say(&mut world, "w2", 2, leases[1], 20);
    say(&mut world, "w1", 1, leases[0], 11);
    let first = ask(&mut world, None, 5_000);
    assert_eq!((told(&first), first.gap), (vec![(1, 10), (2, 20), (1, 11)], false));
    assert_eq!((first.group.unwrap().running, first.pending.len()), (3, 3));
    let reply = world.ask(9, question(first.cursor, 5_000));
    world.commit();
    say(&mut world, "w4", 4, leases[3], 40);
    world.commit();
    assert!(answered(&world, reply).is_none(), "the fourth is not of the group");
    say(&mut world, "w3", 3, leases[2], 30);
    finish(&mut world, "w1", 1, leases[0]);
    let next = answered(&world, reply).expect("the third has spoken");
    assert_eq!((told(&next), next.gap), (vec![(3, 30)], false));
    // A lost answer is asked for again, and goes on where it was.
    assert_eq!(ask(&mut world, first.cursor, 5_000).events, next.events);
    let reply = world.ask(9, question(next.cursor, 1_000));
    world.commit();
    world.pass(1_000);
    world.commit();
    let silent = answered(&world, reply).expect("its time is over");
    let row = silent.group.unwrap();
    assert_eq!((silent.events.len(), silent.gap, row.done, row.running), (0, false, 1, 2));
}

#[test]
fn a_word_said_while_the_store_is_asked_is_not_lost() {
    // At each of the operations between a question and its answer.
    for n_before in 0..4 {
        let mut world = grouped(2);
        let lease = take(&mut world, "w1");
        world.commit();
        let at = Cursor { epoch: Epoch(1), n: 0 };
        let reply = world.ask(9, question(at, 5_000));
        (0..n_before).for_each(|_| _ = world.commit_first(world.table.inbox.len().min(1)));
        say(&mut world, "w1", 1, lease, 7);
        world.commit();
        let waited = answered(&world, reply).expect("it was said");
        assert_eq!((told(&waited), waited.gap), (vec![(1, 7)], false), "after {n_before} operations");
    }
}

#[test]
fn the_progress_of_the_rows_comes_first() {
    // Of those that run before that of those that do not, if there are more than are looked at; each once, and none that an event
    // tells better.
    let mut world = grouped(600);
    for n in [1, 550, 600] {
        world.table.rows.get_mut(&id(n)).unwrap().progress = (Some(n), None, None);
    }
    for n in [599, 600] {
        let row = world.table.rows.get_mut(&id(n)).unwrap();
        (row.state, row.runs, row.lease) = (TaskState::Running, 1, Some(Lease::new(1)));
    }
    let lease = take(&mut world, "w1");
    let first = ask(&mut world, None, 5_000);
    assert_eq!(told(&first), [(1, 1), (600, 600)]);
    assert_eq!(first.pending.len(), 512);
    say(&mut world, "w1", 1, lease, 2);
    let next = ask(&mut world, first.cursor, 5_000);
    assert_eq!(told(&next), [(1, 2)]);
    assert_eq!(told(&ask(&mut world, None, 0)), [(600, 600), (1, 2)], "the word stands for the row");
}

#[test]
fn a_restart_is_a_gap_and_then_what_the_rows_say() {
    // With the words of tasks that run on under their leases behind it.
    let mut world = grouped(2);
    let leases = ["w1", "w2"].map(|worker| take(&mut world, worker));
    say(&mut world, "w1", 1, leases[0], 10);
    say(&mut world, "w2", 2, leases[1], 20);
    world.commit();
    let first = ask(&mut world, None, 5_000);
    world.restart(true);
    let again = ask(&mut world, first.cursor, 5_000);
    assert_eq!((told(&again), again.gap), (vec![(1, 10), (2, 20)], true));
    let reply = world.ask(9, question(again.cursor, 5_000));
    world.commit();
    assert!(answered(&world, reply).is_none(), "nothing is told twice");
    say(&mut world, "w2", 2, leases[1], 21);
    world.commit();
    let next = answered(&world, reply).expect("the second has spoken");
    assert_eq!((told(&next), next.gap), (vec![(2, 21)], false));
}

#[test]
fn the_end_comes_behind_all_words_with_that_of_the_last_task() {
    // Words without room come first, then the result without room beside them; something is pending until all is told.
    let mut world = grouped(2);
    world.table.lasts.insert(GROUP, id(2));
    let leases = ["w1", "w2"].map(|worker| take(&mut world, worker));
    for n in 1..=12 {
        let at = usize::from(n % 2 == 0);
        say_at_length(&mut world, ["w1", "w2"][at], 1 + at as u64, leases[at], n, Some(7_000));
    }
    finish(&mut world, "w1", 1, leases[0]);
    finish(&mut world, "w2", 2, leases[1]);
    let (mut all, mut cursor, mut n_answers) = (Vec::new(), None, 0);
    let end = loop {
        let waited = ask(&mut world, cursor, 5_000);
        assert_eq!(waited.group.as_ref().unwrap().live(), 0);
        assert!(!waited.gap);
        all.extend(told(&waited).into_iter().map(|(_, done)| done));
        (cursor, n_answers) = (Some(waited.cursor), n_answers + 1);
        if waited.pending.is_empty() {
            break waited;
        }
        assert!(waited.finals.is_empty());
    };
    assert_eq!((all, n_answers), ((1..=12).collect(), 3));
    let last = &end.finals[..];
    assert!(matches!(last, [end] if end.task == id(2) && end.result == Some(Payload::json("42"))), "{last:?}");
    // Whoever comes later hears the end, too.
    assert_eq!(ask(&mut world, cursor, 5_000).finals.len(), 1);
}

#[test]
fn what_is_not_kept_of_a_group_is_a_gap() {
    // A full buffer of a task; and last words of any group, for whose they were is not kept. Newcomers have missed nothing.
    let mut world = grouped(1);
    let lease = take(&mut world, "w1");
    for n in 1..=100 {
        say(&mut world, "w1", 1, lease, n);
    }
    let at = |n| Cursor { epoch: Epoch(1), n };
    let waited = ask(&mut world, at(1), 5_000);
    assert_eq!((waited.gap, waited.events.len(), waited.events[0].n), (true, 64, 37));
    assert!(!ask(&mut world, at(36), 5_000).gap && !ask(&mut world, None, 5_000).gap);
    for in_a_group in [false, true] {
        let mut world = grouped(1);
        take(&mut world, "w1");
        for n in 2..=20 {
            let tasks = world.insert("low", "a", 1);
            world.table.groups.extend(in_a_group.then_some((6, tasks)));
            let lease = take(&mut world, "w2");
            (0..32).for_each(|done| say_at_length(&mut world, "w2", n, lease, done, Some(8_000)));
            finish(&mut world, "w2", n, lease);
        }
        assert_eq!(ask(&mut world, at(0), 0).gap, in_a_group);
    }
}

#[test]
fn events_dropped_while_the_store_is_asked_are_a_gap() {
    // A listener is told at once, and yet the buffer overflows before the store has answered.
    let mut world = grouped(1);
    let lease = take(&mut world, "w1");
    let reply = world.ask(9, question(None, 5_000));
    world.commit();
    for n in 1..=70 {
        say(&mut world, "w1", 1, lease, n);
    }
    world.commit();
    let waited = answered(&world, reply).expect("it has spoken");
    assert_eq!((waited.gap, waited.events.len()), (true, 64));
}

#[test]
fn a_word_costs_one_question_however_many_listen() {
    // All of them are told, and the next word costs nothing until they have asked again.
    let mut world = grouped(1);
    let lease = take(&mut world, "w1");
    let replies: Vec<ReplyTo> = (0..20).map(|conn| world.ask(100 + conn, question(None, 5_000))).collect();
    world.commit();
    for n in 1..=3 {
        say(&mut world, "w1", 1, lease, n);
    }
    let asked = world.table.inbox.iter().filter(|(_, op)| matches!(op, Op::Group { .. }));
    assert_eq!(asked.count(), 1);
    // One that has gone meanwhile is told nothing.
    world.event(Event::Disconnected(ConnId(100)));
    world.commit();
    assert!(answered(&world, replies[0]).is_none());
    for reply in &replies[1..] {
        assert_eq!(told(&answered(&world, *reply).expect("it has spoken")), [(1, 1), (1, 2), (1, 3)]);
    }
    world.pass(500);
    assert_eq!(world.table.watched.len(), 0, "nobody is watched for nothing");
}

#[test]
fn words_of_a_run_that_is_over_are_told_with_the_others() {
    // Of one that goes back to its queue, too, and of those that have ended while others run.
    let mut world = grouped(3);
    let leases = ["w1", "w2"].map(|worker| take(&mut world, worker));
    say(&mut world, "w1", 1, leases[0], 10);
    say(&mut world, "w2", 2, leases[1], 20);
    let snoozed = Outcome { end: End::Snooze, after_ms: Some(600_000), ..done(1, leases[0]) };
    world.ask(1, Request::Ready(Ready { outcomes: vec![snoozed], wait_ms: 0, ..plain("w1", &["b"]) }));
    finish(&mut world, "w2", 2, leases[1]);
    let waited = ask(&mut world, Cursor { epoch: Epoch(1), n: 0 }, 5_000);
    assert_eq!((told(&waited), waited.gap, waited.pending.len()), (vec![(1, 10), (2, 20)], false, 2));
}

/// How many questions the core has for the store.
fn n_asked(world: &World) -> usize {
    world.table.inbox.iter().filter(|(_, op)| matches!(op, Op::Group { .. } | Op::Endings(_))).count()
}

#[test]
fn whoever_asks_again_at_once_has_nothing_looked_at() {
    // While the tasks of the group are watched: for those who listen, and for a moment after the last of them was answered.
    let mut world = grouped(3);
    let lease = take(&mut world, "w1");
    let first = world.ask(9, question(None, 5_000));
    assert_eq!(n_asked(&world), 1);
    world.commit();
    say(&mut world, "w1", 1, lease, 1);
    assert_eq!(n_asked(&world), 1, "where the group stands, and no task");
    world.commit();
    let mut cursor = answered(&world, first).unwrap().cursor;
    for n in 2..5 {
        world.pass(400);
        let reply = world.ask(9, question(cursor, 5_000));
        assert_eq!(n_asked(&world), 0);
        say(&mut world, "w1", 1, lease, n);
        assert_eq!(n_asked(&world), 1);
        world.commit();
        let waited = answered(&world, reply).unwrap();
        assert_eq!((told(&waited), waited.pending.len()), (vec![(1, n)], 3));
        cursor = waited.cursor;
    }
    world.pass(500);
    assert_eq!(world.table.watched.len(), 0);
    world.ask(9, question(cursor, 5_000));
    assert_eq!(n_asked(&world), 1, "too late");
}

#[test]
fn a_crowd_asks_once_when_what_is_watched_has_ended() {
    // Those that have joined meanwhile are watched then; and at the end all are told.
    let mut world = grouped(1);
    let lease = take(&mut world, "w1");
    let at = Cursor { epoch: Epoch(1), n: 0 };
    let replies: Vec<ReplyTo> = (0..5).map(|conn| world.ask(100 + conn, question(at, 60_000))).collect();
    world.commit();
    let late = world.insert("low", "a", 1);
    world.table.groups.get_mut(&GROUP).unwrap().extend(late);
    finish(&mut world, "w1", 1, lease);
    assert!(replies.iter().all(|reply| answered(&world, *reply).is_none()), "another is live");
    let lease = take(&mut world, "w2");
    finish(&mut world, "w2", 2, lease);
    for reply in replies {
        let waited = answered(&world, reply).expect("all have ended");
        assert_eq!((waited.pending.len(), waited.group.unwrap().done), (0, 2));
    }
    assert_eq!(world.table.watched.len(), 0);
    // One that vanishes counts as one that has ended.
    let mut world = grouped(2);
    let reply = world.ask(9, question(at, 60_000));
    world.commit();
    world.table.groups.get_mut(&GROUP).unwrap().clear();
    world.overtake(1, None);
    world.overtake(2, None);
    world.commit();
    assert!(answered(&world, reply).is_some_and(|waited| waited.pending.is_empty()));
}

#[test]
fn a_task_is_not_given_up_while_somebody_listens_to_its_group() {
    // Once nobody does, the grace begins.
    let mut world = grouped(2);
    let at = Cursor { epoch: Epoch(1), n: 0 };
    world.pass(15_000);
    world.ask(8, question(at, 60_000));
    world.ask(9, Request::WaitFor(WaitFor { abandon: true, ..wait_for(&[1], 60_000) }));
    world.commit();
    world.event(Event::Disconnected(ConnId(9)));
    world.pass(20_000);
    world.commit();
    assert!(!world.row(1).cancel_requested && world.state(1) == TaskState::Queued, "one listens");
    world.event(Event::Disconnected(ConnId(8)));
    world.pass(5_400);
    world.commit();
    assert_eq!(world.state(1), TaskState::Queued, "that was a moment ago");
    world.pass(100);
    world.commit();
    assert!(world.state(1) == TaskState::Cancelled && world.state(2) == TaskState::Queued);
}
