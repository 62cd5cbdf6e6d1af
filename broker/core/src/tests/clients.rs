//! Those who submit, wait and look.

use laneway_protocol::message::{
    Answer, Cursor, End, Final, NewTask, Outcome, Progress, Ready, Request, Status, Tasks, WaitFor,
};
use laneway_protocol::{Epoch, Lease, Payload, TaskState};

use super::world::{World, done, id, kind, plain, ready, session, submit, wait_for};
use crate::ConnId;
use crate::event::Event;

fn task(key: Option<&str>) -> NewTask {
    NewTask { unique_key: key.map(Into::into), ..NewTask::new(kind("a"), None) }
}

/// A worker takes the next task and gives its lease.
fn take(world: &mut World) -> Lease {
    let reply = world.ask(1, Request::Ready(plain("w", &["a"])));
    world.commit();
    let lease = world.lease(reply);
    world.take();
    lease
}

fn finish(world: &mut World, n: u64, lease: Lease) {
    let outcome = Outcome { result: Some(Payload::json("42")), ..done(n, lease) };
    world.ask(1, Request::Ready(Ready { outcomes: vec![outcome], wait_ms: 0, ..plain("w", &["a"]) }));
}

fn progress(world: &mut World, n: u64, lease: Lease, done: u64) {
    world.ask(
        1,
        Request::Progress(Progress {
            session: session("w"),
            task: id(n),
            lease,
            done: Some(done),
            total: None,
            note: None,
            extend_ms: None,
            data: None,
            checkpoint: None,
        }),
    );
}

#[test]
fn a_submit_is_answered_after_its_commit() {
    // A known key is told as such; a task that makes no sense refuses the whole.
    let mut world = World::new();
    world.ask(9, submit(vec![task(Some("x")), task(Some("x")), task(None)], 0));
    assert_eq!(world.take(), ["submit 3"]);
    world.commit();
    assert_eq!(world.take(), ["#1 SUBMITTED [1, 1 known, 2] finals []"]);
    world.ask(9, submit(vec![task(None), NewTask { max_attempts: Some(0), ..task(None) }], 0));
    world.commit();
    world.ask(9, submit(Vec::new(), 0));
    assert_eq!(world.take(), ["submit 2", "#2 ERR bad_task", "#3 ERR bad_body"]);
}

#[test]
fn a_submit_that_waits_brings_the_results() {
    // They come after their commit, and a task that had ended before is told as well.
    let mut world = World::new();
    world.ask(9, submit(vec![task(None)], 5_000));
    world.commit();
    assert_eq!(world.take(), ["submit 1", "watch 1", "endings 1"]);
    let lease = take(&mut world);
    finish(&mut world, 1, lease);
    assert_eq!(world.said(), ["ended 1 done, attempt"]);
    world.commit();
    assert_eq!(world.said(), ["#3 WAIT Idle ok", "unwatch 1", "#1 SUBMITTED [1] finals [1 done 42]"]);
    world.ask(9, submit(vec![task(None)], 5_000));
    world.commit();
    world.take();
    world.pass(5_000);
    assert_eq!(world.take(), ["unwatch 2", "#4 SUBMITTED [2] finals []"], "in time, without a result");
}

#[test]
fn a_wait_that_began_while_the_end_was_on_its_way_has_the_result() {
    // Nobody waited when the run ended, so its result was not kept: it is looked up.
    let mut world = World::new();
    world.insert("low", "a", 1);
    let lease = take(&mut world);
    finish(&mut world, 1, lease);
    world.ask(9, Request::WaitFor(wait_for(&[1], 5_000)));
    world.commit();
    let said = world.said();
    assert_eq!(
        said.last().unwrap(),
        "#3 WAITED n 0 gap false events [] finals [1 done 42] pending [] not found [] pruned []"
    );
}

#[test]
fn a_wait_hears_progress_then_the_end() {
    // Each answer brings what came after the cursor of the one before.
    let mut world = World::new();
    world.insert("low", "a", 1);
    let lease = take(&mut world);
    world.ask(9, Request::WaitFor(wait_for(&[1], 5_000)));
    world.commit();
    assert_eq!(world.said(), ["watch 1", "endings 1"]);
    progress(&mut world, 1, lease, 10);
    assert_eq!(
        world.said(),
        [
            "noted 1 Some(10)",
            "#3 OK cancel false",
            "unwatch 1",
            "#2 WAITED n 1 gap false events [(1, Some(10))] finals [] pending [1] not found [] pruned []"
        ]
    );
    progress(&mut world, 1, lease, 20);
    let cursor = Some(Cursor { epoch: Epoch(1), n: 1 });
    world.ask(9, Request::WaitFor(WaitFor { cursor, ..wait_for(&[1], 5_000) }));
    world.commit();
    assert_eq!(
        world.said().last().unwrap(),
        "#5 WAITED n 2 gap false events [(2, Some(20))] finals [] pending [1] not found [] pruned []"
    );
    let cursor = Some(Cursor { epoch: Epoch(1), n: 2 });
    world.ask(9, Request::WaitFor(WaitFor { cursor, ..wait_for(&[1], 5_000) }));
    world.commit();
    assert!(!world.said().iter().any(|line| line.contains("WAITED")), "no news yet");
    finish(&mut world, 1, lease);
    world.commit();
    assert_eq!(
        world.said().last().unwrap(),
        "#6 WAITED n 2 gap false events [] finals [1 done 42] pending [] not found [] pruned []"
    );
}

#[test]
fn the_last_word_of_progress_reaches_the_row() {
    // Written at most every 500 ms, but never forgotten: by a timer while the task runs, and with its end.
    let mut world = World::new();
    world.insert("low", "a", 1);
    let lease = take(&mut world);
    progress(&mut world, 1, lease, 10);
    progress(&mut world, 1, lease, 20);
    progress(&mut world, 1, lease, 30);
    assert_eq!(world.take().iter().filter(|line| line.starts_with("noted")).collect::<Vec<_>>(), ["noted 1 Some(10)"]);
    world.pass(499);
    assert_eq!(world.take(), Vec::<String>::new());
    world.pass(1);
    assert_eq!(world.take(), ["noted 1 Some(30)"]);
    progress(&mut world, 1, lease, 40);
    world.take();
    finish(&mut world, 1, lease);
    assert_eq!(world.take(), ["noted 1 Some(40)", "ended 1 done, attempt"]);
}

#[test]
fn a_wait_of_no_time_still_looks() {
    // Polling with wait_ms 0 gets what the table has; it is not answered before the store has told.
    let mut world = World::new();
    world.insert("low", "a", 2);
    let lease = take(&mut world);
    finish(&mut world, 1, lease);
    world.commit();
    world.table.pruned.insert(id(7));
    world.take();
    world.ask(9, Request::WaitFor(wait_for(&[1, 2, 7, 8], 0)));
    world.pass(0);
    assert!(!world.said().iter().any(|line| line.contains("WAITED")));
    world.commit();
    assert_eq!(
        world.said().last().unwrap(),
        "#3 WAITED n 0 gap false events [] finals [1 done 42] pending [2] not found [8] pruned [7]"
    );
    world.ask(9, Request::WaitFor(wait_for(&[2], 0)));
    world.pass(1_000);
    assert_eq!(world.said().last().unwrap(), "#4 ERR storage", "the store did not tell in time");
}

#[test]
fn after_a_restart_a_cursor_has_a_gap_and_the_row_tells_the_progress() {
    // The buffer is gone with the epoch; the row's progress is what there is, and it is told once.
    let mut world = World::new();
    world.insert("low", "a", 1);
    let lease = take(&mut world);
    progress(&mut world, 1, lease, 10);
    world.commit();
    world.restart(true);
    let cursor = Some(Cursor { epoch: Epoch(1), n: 1 });
    world.ask(9, Request::WaitFor(WaitFor { cursor, ..wait_for(&[1], 5_000) }));
    world.commit();
    assert_eq!(
        world.said().last().unwrap(),
        "#3 WAITED n 0 gap true events [(0, Some(10))] finals [] pending [1] not found [] pruned []"
    );
    let cursor = Some(Cursor { epoch: Epoch(2), n: 0 });
    world.ask(9, Request::WaitFor(WaitFor { cursor, ..wait_for(&[1], 5_000) }));
    world.commit();
    assert!(!world.said().iter().any(|line| line.contains("WAITED")), "heard that already");
}

#[test]
fn a_full_buffer_of_events_is_a_gap() {
    // 65 events for 64 places: a cursor from before the first one misses one.
    let mut world = World::new();
    world.insert("low", "a", 1);
    let lease = take(&mut world);
    for n in 0..66 {
        progress(&mut world, 1, lease, n);
    }
    world.commit();
    let cursor = Some(Cursor { epoch: Epoch(1), n: 1 });
    world.ask(9, Request::WaitFor(WaitFor { cursor, ..wait_for(&[1], 0) }));
    world.commit();
    assert!(world.said().last().unwrap().contains("gap true events [(3, "));
}

#[test]
fn a_key_stands_for_its_newest_task() {
    // A key that nobody has is not found; half a name makes no sense.
    let mut world = World::new();
    world.insert_with("low", "a", |row| row.unique_key = Some("k".into()));
    let ask = |key: &str| WaitFor { kind: Some(kind("a")), unique_key: Some(key.into()), ..wait_for(&[], 0) };
    world.ask(9, Request::WaitFor(ask("k")));
    world.ask(9, Request::WaitFor(ask("none")));
    world.ask(9, Request::WaitFor(WaitFor { kind: None, ..ask("k") }));
    world.commit();
    let said = world.said();
    assert!(said.contains(&"#3 ERR bad_body".into()) && said.contains(&"#2 ERR not_found".into()), "{said:?}");
    assert_eq!(said.last().unwrap(), "#1 WAITED n 0 gap false events [] finals [] pending [1] not found [] pruned []");
}

#[test]
fn ends_by_another_hand_are_told() {
    // A watched row is cancelled by SQL, another one deleted.
    let mut world = World::new();
    world.insert("low", "a", 2);
    for n in [1, 2] {
        world.ask(9, Request::WaitFor(wait_for(&[n], 5_000)));
    }
    world.commit();
    world.take();
    world.overtake(1, Some(TaskState::Cancelled));
    world.overtake(2, None);
    assert_eq!(
        world.take(),
        [
            "unwatch 1",
            "#1 WAITED n 0 gap false events [] finals [1 cancelled] pending [] not found [] pruned []",
            "unwatch 2",
            "#2 WAITED n 0 gap false events [] finals [] pending [] not found [] pruned [2]"
        ]
    );
}

#[test]
fn a_cancelled_task_is_counted_once_however_it_came_to_be() {
    // By a CANCEL while it is queued, watched or not; by the store's own hand for an app or an expiry; by the end of its run,
    // as its worker says or as the row says. A look at a watched row that is cancelled already counts nothing.
    let mut world = World::new();
    world.insert("low", "a", 6);
    let cancelled = |world: &mut World| {
        let reply = world.ask(8, Request::Stats);
        world.commit();
        match world.answers.get(&reply) {
            Some(Answer::Stats(stats)) => (stats.cancelled, stats.failed),
            other => panic!("{other:?}"),
        }
    };
    world.ask(9, Request::WaitFor(wait_for(&[1], 5_000)));
    world.ask(8, Request::Cancel(Tasks { tasks: vec![id(1), id(2)] }));
    world.commit();
    assert_eq!(cancelled(&mut world), (2, 0));
    world.overtake(1, Some(TaskState::Cancelled));
    assert_eq!(cancelled(&mut world), (2, 0), "seen again");
    world.table.rows.get_mut(&id(3)).unwrap().state = TaskState::Cancelled;
    let ended = Final { task: id(3), state: TaskState::Cancelled, result: None, error: Some("expired".into()) };
    let rejected = Final { task: id(9), state: TaskState::Dead, result: None, error: None };
    world.event(Event::EndedByStore(vec![ended, rejected]));
    assert_eq!(cancelled(&mut world), (3, 0));

    world.hello("w", 1, &["a"]);
    for (n, end) in [(4, End::Cancelled), (5, End::Fail), (6, End::Done)] {
        let reply = world.ask(1, Request::Ready(ready("w")));
        world.commit();
        let lease = world.lease(reply);
        world.ask(8, Request::Cancel(Tasks { tasks: vec![id(n)] }));
        world.commit();
        world.ask(1, Request::Ready(Ready { max: 0, outcomes: vec![Outcome::new(id(n), lease, end)], ..ready("w") }));
        world.commit();
    }
    assert_eq!(world.state(6), TaskState::Done);
    assert_eq!(cancelled(&mut world), (5, 1), "done wins");
}

#[test]
fn a_cancel_of_a_queued_task_reaches_those_who_wait() {
    // The verdict is on disk; the waiter hears the end as the row has it.
    let mut world = World::new();
    world.insert("low", "a", 1);
    world.ask(9, Request::WaitFor(wait_for(&[1], 5_000)));
    world.ask(8, Request::Cancel(Tasks { tasks: vec![id(1)] }));
    world.commit();
    let said = world.take();
    assert!(said.contains(&"#2 VERDICTS [Cancelled]".into()), "{said:?}");
    assert!(said.iter().any(|line| line.contains("finals [1 cancelled]")), "{said:?}");
}

#[test]
fn a_waiter_whose_connection_is_gone_is_forgotten() {
    // Nothing is kept for it.
    let mut world = World::new();
    world.insert("low", "a", 1);
    world.ask(9, Request::WaitFor(wait_for(&[1], 5_000)));
    world.commit();
    world.take();
    world.event(Event::Disconnected(ConnId(9)));
    assert_eq!(world.take(), ["unwatch 1", "#1 forgotten"]);
    assert_eq!(world.broker.next_deadline(), None);
}

#[test]
fn waiters_are_bounded() {
    // One more is refused with a hint when to come again.
    let mut settings = super::world::settings();
    settings.waiters_max = 1;
    let mut world = World::with(settings);
    world.ask(9, Request::WaitFor(wait_for(&[1], 5_000)));
    world.ask(9, Request::WaitFor(wait_for(&[1], 5_000)));
    world.ask(9, submit(vec![task(None)], 1));
    assert_eq!(world.said(), ["watch 1", "endings 1", "#2 ERR full", "#3 ERR full"]);
}

#[test]
fn a_late_commit_is_told_as_a_storage_error() {
    // The question gets its answer in time; what comes later is not told again, and is not lost.
    let mut world = World::new();
    world.ask(9, submit(vec![task(None)], 0));
    world.ask(9, Request::Cancel(Tasks { tasks: vec![id(7)] }));
    world.pass(1_000);
    assert_eq!(world.said(), ["submit 1", "cancel 7", "#1 ERR storage", "#2 ERR storage"]);
    world.commit();
    assert!(world.said().is_empty());
    assert_eq!(world.state(1), TaskState::Queued);
}

#[test]
fn a_queued_task_is_explained() {
    // Why it does not run, from the nearest cause on.
    let mut world = World::new();
    world.insert("low", "a", 1);
    let explain = |world: &mut World| {
        world.ask(9, Request::Status(Status { tasks: vec![id(1)], filter: None, detail: true }));
        world.commit();
        world.said().pop().unwrap()
    };
    assert!(explain(&mut world).contains("no connected worker can run kind 'a'"));
    world.ask(1, Request::Ready(Ready { lanes: Some(vec![super::world::lane("high")]), ..plain("w", &["a"]) }));
    assert!(explain(&mut world).contains("none serves lane 'low'"));
    take(&mut world);
    assert!(explain(&mut world).contains("worker w runs it"));
}
