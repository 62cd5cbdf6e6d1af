//! Those who submit, wait and look.

use laneway_protocol::message::{
    Answer, Cursor, End, Final, Hello, NewTask, OnConflict, Outcome, Progress, Ready, Request, Status, Tasks, WaitFor,
};
use laneway_protocol::{Code, Epoch, Lease, Payload, TaskState};

use super::world::{World, done, id, kind, plain, ready, session, submit, wait_for};
use crate::ConnId;
use crate::action::OpResult;
use crate::event::Event;

fn task(key: Option<&str>) -> NewTask {
    NewTask { unique_key: key.map(Into::into), ..NewTask::new(kind("a"), None) }
}

/// A worker takes the next task and gives its lease.
pub(super) fn take(world: &mut World) -> Lease {
    let reply = world.ask(1, Request::Ready(plain("w", &["a"])));
    world.commit();
    let lease = world.lease(reply);
    world.take();
    lease
}

pub(super) fn finish(world: &mut World, n: u64, lease: Lease) {
    let outcome = Outcome { result: Some(Payload::json("42")), ..done(n, lease) };
    world.ask(1, Request::Ready(Ready { outcomes: vec![outcome], wait_ms: 0, ..plain("w", &["a"]) }));
}

pub(super) fn progress(world: &mut World, n: u64, lease: Lease, done: u64) {
    world.ask(1, Request::Progress(Progress { done: Some(done), ..word(n, lease) }));
}

/// A progress that says nothing.
pub(super) fn word(n: u64, lease: Lease) -> Progress {
    Progress {
        session: session("w"),
        task: id(n),
        lease,
        done: None,
        total: None,
        note: None,
        extend_ms: None,
        data: None,
        log: None,
        checkpoint: None,
        parents: None,
    }
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
fn a_submit_to_a_lane_that_nobody_knows_says_which_task_it_was() {
    // The store finds out; the code tells it from a task that makes no sense.
    for (field, code) in [("lane", Code::UnknownLane), ("max_attempts", Code::BadTask)] {
        let mut world = World::new();
        let reply = world.ask(9, submit(vec![task(None), task(None)], 0));
        let (op, _) = world.table.inbox.pop_front().unwrap();
        let refused = OpResult::Refused { index: 1, field, reason: "no".into() };
        world.event(Event::Committed(vec![(op.unwrap(), refused)]));
        let Answer::Error(error) = &world.answers[&reply] else { panic!("it was taken") };
        assert_eq!((error.code, error.field.clone()), (code, Some(format!("tasks[1].{field}"))));
    }
}

fn replacing(key: &str) -> NewTask {
    NewTask { on_conflict: OnConflict::Replace, payload: Some(Payload::json("2")), ..task(Some(key)) }
}

#[test]
fn a_queued_task_is_replaced_before_anybody_starts_it() {
    // Read ahead or read while the submit is on its way, it is kept from the worker that asks meanwhile.
    let mut world = World::new();
    world.hello("w", 1, &["a"]);
    world.ask(1, Request::Ready(Ready { wait_ms: 0, ..ready("w") }));
    world.insert_with("normal", "a", |row| row.unique_key = Some("x".into()));
    world.commit();
    world.take();
    world.ask(9, submit(vec![replacing("x")], 0));
    assert_eq!(world.take(), ["find twins x"]);
    world.commit_ops();
    assert!(world.take().contains(&"submit 1 replacing 1".into()));
    let reply = world.ask(1, Request::Ready(ready("w")));
    world.load();
    assert!(!world.answers.contains_key(&reply), "the task is to be replaced");
    world.commit();
    let said = world.said();
    assert!(said.iter().any(|line| line.ends_with("SUBMITTED [1 replaced] finals []")), "{said:?}");
    let Answer::Tasks(tasks) = &world.answers[&reply] else { panic!("it waits") };
    assert_eq!(tasks.tasks[0].payload, Some(Payload::json("2")));
}

#[test]
fn a_task_that_a_worker_has_is_not_replaced() {
    // Whether the row shows the hand-out or not.
    for recorded in [false, true] {
        let mut world = World::new();
        world.insert_with("normal", "a", |row| row.unique_key = Some("x".into()));
        let reply = world.ask(1, Request::Ready(plain("w", &["a"])));
        world.load();
        assert_eq!(world.tasks(reply).len(), 1);
        if recorded {
            world.commit();
        }
        world.ask(9, submit(vec![replacing("x")], 0));
        world.commit();
        let said = world.said();
        assert!(said.iter().any(|line| line.ends_with("SUBMITTED [1 known] finals []")), "{said:?}");
    }
}

#[test]
fn a_conflict_is_told_by_its_own_code() {
    // A caller tells it from a task that makes no sense; asking again unchanged is no use.
    let mut world = World::new();
    let reply = world.ask(9, submit(vec![task(Some("x"))], 0));
    let (op, _) = world.table.inbox.pop_front().unwrap();
    let refused = OpResult::Refused { index: 0, field: "on_conflict", reason: "taken".into() };
    world.event(Event::Committed(vec![(op.unwrap(), refused)]));
    let Answer::Error(error) = &world.answers[&reply] else { panic!("it was taken") };
    assert_eq!((error.code, error.retry), (Code::Conflict, false));
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
fn words_of_progress_are_written_together() {
    // What a later word does not say is kept of the earlier ones.
    let mut world = World::new();
    world.insert("low", "a", 1);
    let lease = take(&mut world);
    progress(&mut world, 1, lease, 10);
    let note = Some("half".into());
    world.ask(1, Request::Progress(Progress { done: Some(20), total: Some(40), note, ..word(1, lease) }));
    progress(&mut world, 1, lease, 30);
    world.pass(500);
    world.commit();
    assert_eq!(world.row(1).progress, (Some(30), Some(40), Some("half".into())));
}

#[test]
fn each_sort_of_progress_goes_where_it_belongs() {
    // Numbers and words to those who wait and to the row, partial data and lines of a log to those who wait, a checkpoint to the row, which has
    // it at once; what says nothing goes nowhere.
    type With = fn(Progress, Option<Payload>) -> Progress;
    let bytes = || Some(Payload::bin(vec![0; 3]));
    let cases: [(&str, With, bool, bool); 7] = [
        ("done", |word, _| Progress { done: Some(7), ..word }, true, true),
        ("total", |word, _| Progress { total: Some(7), ..word }, true, true),
        ("note", |word, _| Progress { note: Some("half".into()), ..word }, true, true),
        ("data", |word, data| Progress { data, ..word }, true, false),
        ("log", |word, _| Progress { log: Some("a line".into()), ..word }, true, false),
        ("checkpoint", |word, checkpoint| Progress { checkpoint, ..word }, false, true),
        ("nothing", |word, _| word, false, false),
    ];
    for (name, with, told, written) in cases {
        let mut world = World::new();
        world.insert("low", "a", 1);
        let lease = take(&mut world);
        let waiter = world.ask(9, Request::WaitFor(wait_for(&[1], 5_000)));
        world.commit();
        world.take();
        world.ask(1, Request::Progress(with(word(1, lease), bytes())));
        let said = world.take();
        assert_eq!(said.iter().any(|line| line.starts_with("noted 1")), written, "{name}: {said:?}");
        assert_eq!(!world.open.contains(&waiter), told, "{name}: {said:?}");
        // Within the interval only a checkpoint is written at once.
        world.ask(1, Request::Progress(Progress { done: Some(1), ..word(1, lease) }));
        world.take();
        world.ask(1, Request::Progress(with(word(1, lease), bytes())));
        let urgent = world.take().iter().any(|line| line.starts_with("noted 1"));
        assert_eq!(urgent, name == "checkpoint", "{name}");
    }
}

#[test]
fn a_checkpoint_is_answered_when_it_is_on_disk() {
    // And what it tells beside that is heard then, once, though it is said again.
    let mut world = World::new();
    world.insert("low", "a", 1);
    let lease = take(&mut world);
    let waiter = world.ask(9, Request::WaitFor(wait_for(&[1], 60_000)));
    world.commit();
    world.take();
    let saves = || Progress { done: Some(1), checkpoint: Some(Payload::bin("x")), ..word(1, lease) };
    let reply = world.ask(1, Request::Progress(saves()));
    assert_eq!(world.said(), ["noted 1 Some(1)"]);
    world.pass(999);
    assert!(world.open.contains(&reply) && world.open.contains(&waiter));
    world.pass(1);
    assert_eq!(world.said(), [format!("#{} ERR storage", reply.0)], "the commit is late");
    world.ask(1, Request::Progress(saves()));
    world.commit();
    let said = world.said();
    let [written, answered, _, heard] = &said[..] else { panic!("{said:?}") };
    assert_eq!(written, "noted 1 Some(1)");
    assert!(answered.ends_with("OK cancel false") && heard.contains("events [(1, Some(1))]"), "{said:?}");
    assert_eq!(world.row(1).checkpoint, Some(Payload::bin("x")));
}

#[test]
fn who_has_lost_its_task_before_its_checkpoint_is_on_disk_is_stale() {
    // The run has ended meanwhile, or an app has finished the row. A store that is known to fail is told at once, and nothing is taken.
    for by_app in [false, true] {
        let mut world = World::new();
        world.insert("low", "a", 1);
        let lease = take(&mut world);
        world.commit();
        if by_app {
            world.table.rows.get_mut(&id(1)).unwrap().lease = None;
        }
        let saves = Progress { done: Some(1), checkpoint: Some(Payload::bin("x")), ..word(1, lease) };
        let reply = world.ask(1, Request::Progress(saves));
        if !by_app {
            finish(&mut world, 1, lease);
        }
        world.commit();
        let Answer::Error(error) = &world.answers[&reply] else { panic!("{by_app}: taken") };
        assert_eq!(error.code, Code::Stale, "{by_app}");
    }
    let mut world = World::new();
    world.insert("low", "a", 1);
    let lease = take(&mut world);
    world.commit();
    world.event(Event::StoreFailed("the disk is full".into()));
    world.take();
    let reply = world.ask(1, Request::Progress(Progress { checkpoint: Some(Payload::bin("x")), ..word(1, lease) }));
    assert_eq!(world.said(), [format!("#{} ERR storage", reply.0)]);
}

#[test]
fn progress_over_the_limit_is_refused_with_the_field_that_is_too_large() {
    // 1,024 bytes are allowed for each of the two.
    let mut world = World::new();
    world.insert("low", "a", 1);
    let lease = take(&mut world);
    let mut refused = |data: usize, checkpoint: usize| {
        let (data, checkpoint) = (Payload::bin(vec![0; data]), Payload::bin(vec![0; checkpoint]));
        let progress = Progress { data: Some(data), checkpoint: Some(checkpoint), ..word(1, lease) };
        let reply = world.ask(1, Request::Progress(progress));
        world.commit();
        match &world.answers[&reply] {
            Answer::Error(error) => Some((error.code, error.field.clone().unwrap())),
            _ => None,
        }
    };
    let too_large = |field: &str| Some((Code::TooLarge, field.into()));
    assert_eq!(refused(1_024, 1_024), None);
    assert_eq!(refused(1_025, 1_024), too_large("data"));
    assert_eq!(refused(1_024, 1_025), too_large("checkpoint"));
    assert_eq!(refused(1_026, 1_025), too_large("data"), "the larger one");
    assert_eq!(refused(1_025, 1_026), too_large("checkpoint"), "the larger one");
}

#[test]
fn a_progress_is_believed_of_those_who_are_known() {
    // Before the last page of its HELLO a session is not; under another lease nothing changes, and it is counted.
    let mut world = World::new();
    world.insert("low", "a", 1);
    let lease = take(&mut world);
    world.ask(1, Request::Progress(word(1, Lease::new(12))));
    let Request::Hello(hello) = super::world::hello("v", &["a"], &[]) else { unreachable!() };
    world.ask(2, Request::Hello(Hello { more: true, ..hello }));
    world.ask(2, Request::Progress(Progress { session: session("v"), ..word(1, lease) }));
    world.ask(3, Request::Progress(Progress { session: session("x"), ..word(1, lease) }));
    let said = world.said();
    assert_eq!(
        said,
        ["#2 ERR stale", "session v up", "#3 WELCOME lost []", "#4 ERR hello_first", "#5 ERR hello_first"]
    );
    assert_eq!(world.broker.stats.stale, 1);
}

#[test]
fn the_progress_of_a_row_is_news_for_a_wait_that_has_heard_nothing() {
    // Whatever of it the row has; it is told before newer words come, and the newer words stand for it.
    for progress in [(Some(7), None, None), (None, Some(7), None), (None, None, Some("half".to_owned()))] {
        let mut world = World::new();
        world.insert("low", "a", 1);
        world.table.rows.get_mut(&id(1)).unwrap().progress = progress.clone();
        let reply = world.ask(9, Request::WaitFor(wait_for(&[1], 5_000)));
        world.commit();
        let Answer::WaitFor(waited) = &world.answers[&reply] else { panic!("no news") };
        let told: Vec<_> = waited.events.iter().map(|event| (event.done, event.total, event.note.clone())).collect();
        assert_eq!(told, [progress]);
    }
    let mut world = World::new();
    world.insert("low", "a", 2);
    let lease = take(&mut world);
    progress(&mut world, 1, lease, 10);
    world.table.rows.get_mut(&id(2)).unwrap().progress = (Some(5), None, None);
    world.commit();
    world.ask(9, Request::WaitFor(wait_for(&[1, 2], 5_000)));
    world.commit();
    let said = world.said();
    assert!(said.last().unwrap().contains("events [(2, Some(5)), (1, Some(10))]"), "{said:?}");
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
        "#3 WAITED n 0 gap true events [(1, Some(10))] finals [] pending [1] not found [] pruned []"
    );
    let cursor = Some(Cursor { epoch: Epoch(2), n: 0 });
    world.ask(9, Request::WaitFor(WaitFor { cursor, ..wait_for(&[1], 5_000) }));
    world.commit();
    assert!(!world.said().iter().any(|line| line.contains("WAITED")), "heard that already");
}

#[test]
fn the_last_words_of_a_run_come_with_its_end() {
    // Those who wait ask in rounds: between two of them a run may go on, end and come to the disk.
    let mut world = World::new();
    world.insert("low", "a", 1);
    let lease = take(&mut world);
    for n in 1..=3 {
        progress(&mut world, 1, lease, n);
    }
    finish(&mut world, 1, lease);
    world.commit();
    world.take();
    let cursor = Some(Cursor { epoch: Epoch(1), n: 1 });
    world.ask(9, Request::WaitFor(WaitFor { cursor, ..wait_for(&[1], 5_000) }));
    world.commit();
    let said = world.said();
    assert!(
        said.last().unwrap().contains("gap false events [(2, Some(2)), (3, Some(3))] finals [1 done 42]"),
        "{said:?}"
    );
}

#[test]
fn what_a_failed_run_said_is_told_before_what_the_next_one_says() {
    let mut world = World::new();
    world.insert("low", "a", 1);
    let lease = take(&mut world);
    progress(&mut world, 1, lease, 1);
    let failed = Outcome { end: End::Fail, error: Some("no".into()), ..done(1, lease) };
    world.ask(1, Request::Ready(Ready { outcomes: vec![failed], wait_ms: 0, ..plain("w", &["a"]) }));
    world.commit();
    world.pass(600_000);
    let lease = take(&mut world);
    progress(&mut world, 1, lease, 2);
    world.commit();
    world.take();
    world.ask(9, Request::WaitFor(wait_for(&[1], 5_000)));
    world.commit();
    let said = world.said();
    assert!(said.last().unwrap().contains("gap false events [(1, Some(1)), (2, Some(2))] finals []"), "{said:?}");
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
    let cursor = Some(Cursor { epoch: Epoch(1), n: 2 });
    for cursor in [cursor, None] {
        world.ask(9, Request::WaitFor(WaitFor { cursor, ..wait_for(&[1], 0) }));
        world.commit();
        let said = world.said();
        assert!(
            said.last().unwrap().contains("gap false events [(3, "),
            "nothing is missed after {cursor:?}: {said:?}"
        );
    }
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
    world.ask(9, Request::WaitFor(wait_for(&[], 0)));
    assert_eq!(world.said(), ["find key k", "find key none", "#3 ERR bad_body", "#4 ERR bad_body"]);
    world.commit();
    let said = world.said();
    assert!(said.contains(&"#2 ERR not_found".into()), "{said:?}");
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
    let rejected = |n| Final { task: id(n), state: TaskState::Dead, result: None, error: None };
    world.event(Event::EndedByStore(vec![ended, rejected(8), rejected(9)]));
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
    world.ask(9, submit(vec![task(None)], 0));
    assert_eq!(world.said(), ["submit 1"], "that does not wait for its task");
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
