//! What those who wait are told over many rounds: each event once and in order, or a gap; across a restart the progress of the rows.

use laneway_protocol::message::{Answer, Cursor, End, Outcome, Progress, Ready, Request, WaitFor, Waited};
use laneway_protocol::{Epoch, Lease, TaskState};

use super::clients::{finish, progress, take, word};
use super::world::{World, done, id, plain, wait_for};

/// Asks for the next news of these tasks.
fn ask(world: &mut World, tasks: &[u64], cursor: impl Into<Option<Cursor>>, wait_ms: u64) -> Waited {
    let cursor = cursor.into();
    let reply = world.ask(9, Request::WaitFor(WaitFor { cursor, ..wait_for(tasks, wait_ms) }));
    world.commit();
    match world.answers.get(&reply) {
        Some(Answer::WaitFor(waited)) => waited.clone(),
        other => panic!("{other:?}"),
    }
}

/// Asks until an answer tells nothing any more. Gives each (task, done) that was told, and how often a gap was.
fn hear(world: &mut World, tasks: &[u64], cursor: impl Into<Option<Cursor>>) -> (Vec<(u64, u64)>, usize) {
    let (mut told, mut n_gaps, mut cursor) = (Vec::new(), 0, cursor.into());
    loop {
        let waited = ask(world, tasks, cursor, 0);
        n_gaps += usize::from(waited.gap);
        if waited.events.is_empty() && Some(waited.cursor) == cursor {
            return (told, n_gaps);
        }
        told.extend(waited.events.iter().map(|event| (event.task.value(), event.done.unwrap_or(0))));
        cursor = Some(waited.cursor);
    }
}

/// Says `n_bytes` of a note, and that so much is done.
fn note(world: &mut World, n: u64, lease: Lease, done: u64, n_bytes: usize) {
    let said = Progress { done: Some(done), note: Some("x".repeat(n_bytes)), ..word(n, lease) };
    world.ask(1, Request::Progress(said));
}

fn at(epoch: u64, n: u64) -> Cursor {
    Cursor { epoch: Epoch(epoch), n }
}

/// Twenty rows with long notes; the broker is restarted, and then the first, whose note is short, says three more words.
fn restarted() -> World {
    let mut world = World::new();
    world.insert("low", "a", 20);
    for n in 1..=20 {
        let row = world.table.rows.get_mut(&id(n)).unwrap();
        row.progress = (Some(100 + n), None, Some("x".repeat(8_000)));
    }
    world.restart(true);
    let lease = take(&mut world);
    for n in 1..=3 {
        progress(&mut world, 1, lease, 200 + n);
    }
    world.commit();
    world
}

#[test]
fn an_answer_cut_short_after_a_restart_loses_nothing() {
    // The rows have more progress than one answer takes: each is told once, then every fresh event, with one gap before all of it.
    let mut world = restarted();
    let tasks: Vec<u64> = (1..=20).collect();
    let (told, n_gaps) = hear(&mut world, &tasks, at(1, 31));
    let rows = (2..=20).map(|n| (n, 100 + n));
    assert_eq!(told, rows.chain([(1, 201), (1, 202), (1, 203)]).collect::<Vec<_>>());
    assert_eq!(n_gaps, 1);
    // A newcomer hears the same, and has missed nothing.
    assert_eq!(hear(&mut world, &tasks, None), (told, 0));
}

#[test]
fn a_restart_in_the_middle_of_the_rows_is_a_gap_of_its_own() {
    // What was told of the rows was told by another broker, whose events nobody has any more.
    let mut world = restarted();
    let tasks: Vec<u64> = (1..=20).collect();
    let first = ask(&mut world, &tasks, None, 0);
    assert!(!first.gap && !first.events.is_empty() && first.events.len() < 19);
    world.restart(true);
    let (told, n_gaps) = hear(&mut world, &tasks, first.cursor);
    assert_eq!((told.len(), n_gaps), (20, 1), "{told:?}");
}

#[test]
fn numbers_of_two_brokers_are_not_compared() {
    // The cursor is of a broker that had said more than this one has, or as much.
    for n in [0, 1, 31] {
        let mut world = World::new();
        world.insert("low", "a", 1);
        let lease = take(&mut world);
        progress(&mut world, 1, lease, 10);
        world.commit();
        world.restart(true);
        let first = ask(&mut world, &[1], at(1, n), 5_000);
        assert!(first.gap);
        assert_eq!(first.events.iter().map(|event| event.done).collect::<Vec<_>>(), [Some(10)]);
        progress(&mut world, 1, lease, 11);
        let next = ask(&mut world, &[1], first.cursor, 5_000);
        assert!(!next.gap);
        assert_eq!(next.events.iter().map(|event| event.done).collect::<Vec<_>>(), [Some(11)]);
    }
}

#[test]
fn a_row_tells_what_lines_of_a_log_do_not() {
    // After a restart the fresh events may say nothing of how far the task is.
    let mut world = World::new();
    world.insert("low", "a", 1);
    world.table.rows.get_mut(&id(1)).unwrap().progress = (Some(5), None, None);
    let lease = take(&mut world);
    world.ask(1, Request::Progress(Progress { log: Some("a line".into()), ..word(1, lease) }));
    let waited = ask(&mut world, &[1], at(9, 9), 5_000);
    let told: Vec<_> = waited.events.iter().map(|event| (event.done, event.log.as_deref())).collect();
    assert_eq!(told, [(Some(5), None), (None, Some("a line"))]);
    progress(&mut world, 1, lease, 6);
    world.table.rows.get_mut(&id(1)).unwrap().progress = (Some(6), None, None);
    let waited = ask(&mut world, &[1], at(9, 9), 5_000);
    let told: Vec<_> = waited.events.iter().map(|event| event.done).collect();
    assert_eq!(told, [None, Some(6)], "the event stands for the row");
}

#[test]
fn a_full_buffer_is_a_gap_from_the_first_event_on() {
    // A cursor before every event: 36 of 100 are gone.
    let mut world = World::new();
    world.insert("low", "a", 1);
    let lease = take(&mut world);
    for n in 1..=100 {
        progress(&mut world, 1, lease, n);
    }
    let waited = ask(&mut world, &[1], at(1, 0), 5_000);
    assert_eq!((waited.gap, waited.events.len(), waited.events[0].n), (true, 64, 37));
    assert!(!ask(&mut world, &[1], None, 5_000).gap, "who comes now has missed nothing");
}

#[test]
fn events_dropped_while_the_store_is_asked_are_a_gap() {
    // The buffer overflows between the question and the look at the table.
    let mut world = World::new();
    world.insert("low", "a", 1);
    let lease = take(&mut world);
    progress(&mut world, 1, lease, 1);
    let reply = world.ask(9, Request::WaitFor(WaitFor { cursor: Some(at(1, 1)), ..wait_for(&[1], 5_000) }));
    for n in 2..=70 {
        progress(&mut world, 1, lease, n);
    }
    world.commit();
    let Answer::WaitFor(waited) = &world.answers[&reply] else { panic!("no news") };
    assert_eq!((waited.gap, waited.events.len()), (true, 64));
}

/// Task 1 says a word and its run ends so; then others say so much that nothing is kept of it. Gives their number.
fn evicted(world: &mut World, end: End) -> u64 {
    let lease = take(world);
    progress(world, 1, lease, 1);
    let ended = Outcome { end, after_ms: Some(600_000), ..done(1, lease) };
    world.ask(1, Request::Ready(Ready { outcomes: vec![ended], wait_ms: 0, ..plain("w", &["a"]) }));
    world.commit();
    let n_others = 18;
    for n in 2..2 + n_others {
        world.insert("low", "a", 1);
        let lease = take(world);
        (0..32).for_each(|done| note(world, n, lease, done, 8_000));
        finish(world, n, lease);
        world.commit();
    }
    assert_eq!(world.state(1 + n_others), TaskState::Done);
    n_others
}

#[test]
fn last_words_that_had_to_go_are_a_gap() {
    // The end is told, and that what came before it is not known any more.
    let mut world = World::new();
    world.insert("low", "a", 1);
    evicted(&mut world, End::Done);
    let waited = ask(&mut world, &[1], at(1, 0), 5_000);
    assert!(waited.gap && waited.events.is_empty() && waited.finals.len() == 1, "{waited:?}");
    // Of one that goes on, too, whether it has begun again or not.
    for begins in [false, true] {
        let mut world = World::new();
        world.insert("low", "a", 1);
        let n_others = evicted(&mut world, End::Snooze);
        if begins {
            world.pass(600_000);
            take(&mut world);
        }
        let waited = ask(&mut world, &[1], at(1, 0), 5_000);
        assert!(waited.gap && waited.finals.is_empty(), "{waited:?}");
        assert!(!ask(&mut world, &[1], waited.cursor, 0).gap, "told once");
        let (newest, last) = (waited.cursor.n, 1 + n_others);
        assert!(!ask(&mut world, &[last], at(1, newest - 1), 5_000).gap, "the last ones are kept");
    }
}

#[test]
fn what_a_failed_run_said_is_news_at_once() {
    // It waits for its next run, which may be long in coming.
    let mut world = World::new();
    world.insert("low", "a", 1);
    let lease = take(&mut world);
    progress(&mut world, 1, lease, 1);
    progress(&mut world, 1, lease, 2);
    let failed = Outcome { end: End::Fail, error: Some("no".into()), ..done(1, lease) };
    world.ask(1, Request::Ready(Ready { outcomes: vec![failed], wait_ms: 0, ..plain("w", &["a"]) }));
    world.commit();
    let waited = ask(&mut world, &[1], at(1, 1), 5_000);
    assert_eq!(waited.events.iter().map(|event| event.n).collect::<Vec<_>>(), [2]);
    assert!(!waited.gap);
}
