//! Outcomes: what ends a run, what the worker hears, and when.

use laneway_protocol::message::{Bye, Drain, End, NewTask, Outcome, Ready, Request, Tasks};
use laneway_protocol::{Lease, Payload, TaskState};

use super::world::{World, beat, bye, done, failed, held, id, kind, plain, ready, settings, two_in_a_slot};
use crate::Settings;
use crate::event::Event;

/// A world where session w, known by HELLO, runs task 1 in slot 0.
fn running() -> (World, Lease) {
    let mut world = World::new();
    world.insert("low", "a", 1);
    world.hello("w", 1, &["a"]);
    let reply = world.ask(1, Request::Ready(ready("w")));
    world.commit();
    world.take();
    let lease = world.lease(reply);
    (world, lease)
}

fn say(world: &mut World, outcomes: Vec<Outcome>, batch: Option<u64>) -> Vec<String> {
    world.ask(1, Request::Ready(Ready { outcomes, batch, wait_ms: 0, ..ready("w") }));
    world.said()
}

#[test]
fn a_plain_answer_follows_the_commit_and_a_batch_is_settled_by_it() {
    // Without a batch nothing is said before the commit; with one the answer comes at once and `settled` later.
    let (mut world, lease) = running();
    assert_eq!(say(&mut world, vec![done(1, lease)], None), ["ended 1 done, attempt"]);
    world.commit();
    assert_eq!(world.said(), ["#3 WAIT Idle ok"]);

    let (mut world, lease) = running();
    assert_eq!(say(&mut world, vec![done(1, lease)], Some(1)), ["ended 1 done, attempt", "#3 WAIT Idle ok"]);
    assert_eq!(say(&mut world, Vec::new(), None), ["#4 WAIT Idle"], "nothing is settled before the commit");
    world.commit();
    assert_eq!(say(&mut world, Vec::new(), None), ["#5 WAIT Idle settled 1"]);
}

#[test]
fn an_idle_process_hears_by_its_beat_what_is_on_disk() {
    // Two slots bring outcomes and wait for tasks: one BEAT tells of both when they are committed, and tells it once. What a
    // slot was told by its own answer is no news, and neither is what was told of to a busy one: that is answered soon.
    let mut world = World::new();
    world.insert("low", "a", 3);
    world.hello("w", 1, &["a"]);
    let slot = |slot| Ready { slot, ..ready("w") };
    let leases = [0, 1].map(|n| {
        let reply = world.ask(1, Request::Ready(Ready { wait_ms: 0, ..slot(n) }));
        world.commit();
        if world.answers.get(&reply).is_some_and(|answer| matches!(answer, laneway_protocol::Answer::Tasks(_))) {
            return world.lease(reply);
        }
        let reply = world.ask(1, Request::Ready(slot(n)));
        world.lease(reply)
    });
    world.ask(2, beat("w", &[]));
    world.take();
    // Slot 0 gets the third task with its answer, so it is busy when its outcome comes to disk.
    world.ask(1, Request::Ready(Ready { outcomes: vec![done(1, leases[0])], batch: Some(1), ..slot(0) }));
    world.commit();
    assert!(world.said().iter().all(|line| !line.contains("BEAT")));
    let third = world.broker.running[&id(3)].lease;
    world.ask(1, Request::Ready(Ready { outcomes: vec![done(3, third)], batch: Some(2), ..slot(0) }));
    world.ask(1, Request::Ready(Ready { outcomes: vec![done(2, leases[1])], batch: Some(7), ..slot(1) }));
    assert!(world.said().iter().all(|line| !line.contains("BEAT")), "nothing is on disk yet");
    world.commit();
    let said = world.said();
    let beats: Vec<&String> = said.iter().filter(|line| line.contains("BEAT")).collect();
    assert_eq!(beats.len(), 1, "{said:?}");
    assert!(beats[0].ends_with("BEAT cancel [] stale [] settled 0:2 settled 1:7"), "{said:?}");
    let again = world.ask(2, beat("w", &[]));
    assert!(!world.answers.contains_key(&again), "it is told once");
    world.pass(10_000);
    assert!(world.said().contains(&format!("#{} BEAT cancel [] stale []", again.0)));
}

#[test]
fn a_beat_waits_while_more_of_its_slot_is_on_its_way_to_the_disk() {
    // The end of the second batch will be another message; one that tells of both is enough.
    let (mut world, leases) = two_in_a_slot();
    let beat = world.ask(2, beat("w", &[]));
    for (n, batch) in [(1, 1), (2, 2)] {
        let outcomes = vec![done(n, leases[usize::try_from(n).unwrap() - 1].1)];
        world.ask(1, Request::Ready(Ready { outcomes, batch: Some(batch), ..ready("w") }));
    }
    world.take();
    world.commit_first(1);
    assert!(world.said().is_empty());
    world.commit_first(1);
    assert_eq!(world.said(), [format!("#{} BEAT cancel [] stale [] settled 0:2", beat.0)]);
}

#[test]
fn a_beat_that_comes_after_the_commit_is_answered_at_once() {
    // The process said no BEAT while its outcome came to disk.
    let (mut world, lease) = running();
    world.ask(1, Request::Ready(Ready { outcomes: vec![done(1, lease)], batch: Some(1), ..ready("w") }));
    world.commit();
    world.take();
    let asked = world.ask(2, beat("w", &[]));
    assert_eq!(world.said(), [format!("#{} BEAT cancel [] stale [] settled 0:1", asked.0)]);
}

#[test]
fn each_end_is_recorded_as_what_it_is() {
    // One run for each way of ending: the next state and what is counted.
    let cases: [(End, Option<u64>, bool, &str); 8] = [
        (End::Done, None, false, "ended 1 done, attempt"),
        (End::Fail, Some(70), false, "ended 1 queued +70, attempt failed"),
        (End::Fail, None, true, "ended 1 dead, attempt failed"),
        (End::Snooze, Some(70), false, "ended 1 queued +70, release"),
        (End::Snooze, None, false, "ended 1 queued, release"),
        (End::Release, None, false, "ended 1 queued, release"),
        (End::Cancelled, None, false, "ended 1 cancelled, nothing"),
        (End::Already, None, false, "ended 1 already, nothing"),
    ];
    for (end, after_ms, dead, expected) in cases {
        let (mut world, lease) = running();
        let outcome = Outcome { after_ms, dead, ..Outcome::new(id(1), lease, end) };
        assert_eq!(say(&mut world, vec![outcome], None), [expected]);
    }
}

#[test]
fn attempts_end_dead_when_they_are_used_up() {
    // Two failures come back after the backoff, the third is the last.
    let mut world = World::new();
    world.insert("low", "a", 1);
    world.hello("w", 1, &["a"]);
    for attempt in 1..=3 {
        let reply = world.ask(1, Request::Ready(ready("w")));
        world.commit();
        let lease = world.lease(reply);
        say(&mut world, vec![failed(1, lease)], None);
        world.commit();
        assert_eq!(world.counts(1), [attempt, attempt, 0, 0]);
        world.pass(1_000);
    }
    assert_eq!(world.state(1), TaskState::Dead);
}

#[test]
fn a_result_over_the_limit_is_a_failure_that_says_so() {
    // It would not fit the row; trying again would not help.
    let (mut world, lease) = running();
    let outcome = Outcome { result: Some(Payload::bin(vec![0; 513])), ..done(1, lease) };
    say(&mut world, vec![outcome], None);
    world.commit();
    assert_eq!(world.state(1), TaskState::Dead);
    assert_eq!(
        world.row(1).error.as_deref(),
        Some("result of 513 bytes is over the limit of 512 (result_bytes_max): keep it elsewhere and return its place")
    );
}

#[test]
fn another_lease_is_stale_and_changes_nothing() {
    // While the task runs, while its end is on its way, and when it is on disk.
    let (mut world, lease) = running();
    let wrong = Lease::new(12);
    assert_eq!(say(&mut world, vec![done(1, wrong)], None), ["#3 WAIT Idle stale"]);
    say(&mut world, vec![done(1, lease)], Some(1));
    assert_eq!(say(&mut world, vec![failed(1, wrong)], None), ["#5 WAIT Idle stale"]);
    world.commit();
    assert_eq!(say(&mut world, vec![failed(1, wrong)], None), ["find 1"]);
    world.commit();
    assert_eq!(world.said(), ["#6 WAIT Idle stale settled 1"]);
    assert_eq!((world.state(1), world.broker.stats.stale), (TaskState::Done, 3));
}

#[test]
fn an_outcome_said_again_is_recorded_once() {
    // On its way: the second word waits for the same commit. On disk: it is `recorded`. Twice in one message: counted once.
    let (mut world, lease) = running();
    say(&mut world, vec![done(1, lease)], Some(1));
    world.ask(1, Request::Ready(Ready { slot: 1, outcomes: vec![done(1, lease)], wait_ms: 0, ..ready("w") }));
    assert!(world.said().is_empty());
    world.commit();
    assert_eq!(world.said(), ["#4 WAIT Idle ok"]);
    say(&mut world, vec![done(1, lease), done(1, lease)], Some(2));
    world.commit();
    assert_eq!(world.said(), ["#5 WAIT Idle recorded recorded settled 2"]);
    assert_eq!(world.counts(1), [1, 1, 0, 0]);
}

#[test]
fn a_word_after_the_broker_ended_the_run_is_stale_even_before_the_commit() {
    // The session was lost and its loss is on its way to the disk; a late `done` must not be told that it was taken.
    let (mut world, lease) = running();
    world.event(Event::Disconnected(crate::ConnId(1)));
    world.pass(500);
    assert_eq!(world.said(), ["ended 1 queued, loss lost", "session w gone"]);
    world.ask(2, super::world::hello("w", &["a"], &[held(1, lease)]));
    world.ask(2, Request::Ready(Ready { outcomes: vec![done(1, lease)], wait_ms: 0, ..plain("v", &["b"]) }));
    world.commit();
    let said = world.said();
    assert!(said.contains(&"#3 WELCOME lost [1]".into()), "{said:?}");
    assert!(said.contains(&"#4 WAIT Idle stale".into()), "{said:?}");
}

#[test]
fn hand_outs_after_ack_go_back_uncounted_for_that_slot_only() {
    // Slot 0 never received task 1, which was sent as its seq 1; slot 1 runs task 2.
    let mut world = World::new();
    world.insert("low", "a", 2);
    world.hello("w", 1, &["a"]);
    world.ask(1, Request::Ready(ready("w")));
    world.ask(1, Request::Ready(Ready { slot: 1, ..ready("w") }));
    world.commit();
    world.take();
    world.ask(1, Request::Ready(Ready { ack: Some(0), ..ready("w") }));
    assert_eq!(world.said(), ["ended 1 queued, nothing"]);
    world.commit();
    assert_eq!(world.said(), ["started 1 run 2 by w", "#4 TASKS seq 2 [1]"]);
    assert_eq!(world.counts(1), [2, 0, 0, 0]);
    assert_eq!(world.state(2), TaskState::Running);
}

#[test]
fn what_a_slot_has_received_stays_with_it() {
    // It brings the outcome of one of its two tasks and asks for more; what it says as `ack` is the hand-out of both.
    let (mut world, leases) = two_in_a_slot();
    world.take();
    let outcomes = vec![done(1, leases[0].1)];
    world.ask(1, Request::Ready(Ready { outcomes, ack: Some(1), ..ready("w") }));
    assert_eq!(world.said(), ["ended 1 done, attempt"]);
    assert_eq!(world.broker.n_running(), 1);
}

#[test]
fn a_hello_within_the_epoch_keeps_what_it_names_from_being_taken_back() {
    // After a HELLO the worker counts from ack 0 again; the task that it named is its own, the other was not received.
    let (mut world, leases) = two_in_a_slot();
    world.take();
    world.ask(1, super::world::hello("w", &["a"], &[held(1, leases[0].1)]));
    world.ask(1, Request::Ready(Ready { ack: Some(0), wait_ms: 0, max: 0, ..ready("w") }));
    assert_eq!(world.said(), ["#3 WELCOME lost []", "ended 2 queued, nothing", "#4 WAIT Idle"]);
}

#[test]
fn a_new_question_of_a_slot_replaces_the_old_one() {
    // Parked or waiting for a commit, the old one is forgotten; its outcomes are recorded all the same.
    let (mut world, lease) = running();
    world.ask(1, Request::Ready(ready("w")));
    world.ask(1, Request::Ready(Ready { outcomes: vec![done(1, lease)], ..ready("w") }));
    assert_eq!(world.said(), ["#3 forgotten", "ended 1 done, attempt"]);
    world.ask(1, Request::Ready(Ready { wait_ms: 0, ..ready("w") }));
    assert_eq!(world.said(), ["#4 forgotten", "#5 WAIT Idle"]);
    world.commit();
    assert_eq!(world.state(1), TaskState::Done);
    assert!(world.open.is_empty());
}

#[test]
fn an_undelivered_hand_out_goes_back_at_once() {
    // The socket refused it: nothing is counted, and another slot gets it.
    let mut world = World::new();
    world.insert("low", "a", 1);
    let reply = world.ask(1, Request::Ready(plain("w", &["a"])));
    world.commit();
    world.take();
    world.event(Event::Undelivered(reply));
    assert_eq!(world.said(), ["ended 1 queued, nothing"]);
    world.event(Event::Undelivered(reply));
    assert!(world.said().is_empty(), "only once");
    world.ask(2, Request::Ready(plain("v", &["a"])));
    world.commit();
    assert_eq!(world.counts(1), [2, 0, 0, 0]);
    assert_eq!(world.row(1).worker.as_deref(), Some("v"));
}

#[test]
fn a_hand_out_is_taken_back_although_others_followed_it() {
    // The socket refused the first of three; the two behind it arrived.
    let mut world = World::new();
    world.insert("low", "a", 3);
    let first = world.ask(1, Request::Ready(plain("u", &["a"])));
    world.ask(2, Request::Ready(plain("v", &["a"])));
    world.ask(3, Request::Ready(plain("w", &["a"])));
    world.commit();
    world.take();
    world.event(Event::Undelivered(first));
    assert_eq!(world.said(), ["ended 1 queued, nothing"]);
    assert_eq!(world.broker.n_running(), 2);
}

#[test]
fn committed_hand_outs_are_told_after_their_record() {
    // Task 1's row was deleted before its record: it is not told, and nothing is kept of it.
    let mut world = World::new();
    world.insert("low", "a", 2);
    world.ask(1, Request::Ready(Ready { wait_ms: 0, ..plain("w", &["a"]) }));
    world.load();
    world.take();
    world.ask(1, Request::Ready(Ready { committed: true, max: 2, ..plain("w", &["a"]) }));
    assert_eq!(world.said(), ["started 1 run 1 by w", "started 2 run 1 by w", "find 1 2"]);
    world.table.rows.remove(&id(1));
    world.commit();
    assert_eq!(world.said(), ["#2 TASKS seq 1 [2]"]);
    assert_eq!(world.broker.n_running(), 1);
}

#[test]
fn committed_hand_outs_that_cannot_be_told_go_back() {
    // The question was replaced, or its commit came too late: nobody knows of the task.
    for late in [false, true] {
        let mut world = World::new();
        world.insert("low", "a", 1);
        world.ask(1, Request::Ready(Ready { wait_ms: 0, ..plain("w", &["a"]) }));
        world.load();
        world.take();
        world.ask(1, Request::Ready(Ready { committed: true, ..plain("w", &["a"]) }));
        world.take();
        if late {
            world.pass(1_000);
            assert_eq!(world.said(), ["#2 ERR storage"]);
        } else {
            world.ask(1, Request::Ready(Ready { wait_ms: 0, max: 0, ..plain("w", &["a"]) }));
            assert_eq!(world.said(), ["#2 forgotten", "#3 WAIT Idle"]);
        }
        world.commit();
        assert_eq!(world.state(1), TaskState::Queued);
        assert_eq!(world.broker.n_running(), 0);
    }
}

#[test]
fn a_lease_that_runs_out_is_told_first_and_fails_after_the_grace() {
    // 60 s lease, 5 s grace: the parked BEAT hears it, then the attempt is counted.
    let (mut world, lease) = running();
    for _ in 0..5 {
        world.ask(1, beat("w", &[held(1, lease)]));
        world.pass(10_000);
    }
    world.ask(1, beat("w", &[held(1, lease)]));
    world.take();
    world.pass(10_000);
    assert_eq!(world.said(), ["#8 BEAT cancel [1] stale []"]);
    world.pass(5_000);
    assert_eq!(world.said(), [format!("ended 1 queued +{}, attempt timeout", backoff(&world))]);
    world.ask(1, beat("w", &[held(1, lease)]));
    assert_eq!(world.said(), ["#9 BEAT cancel [] stale [1]"]);
    assert_eq!(say(&mut world, vec![done(1, lease)], None), ["#10 WAIT Idle stale"]);
    world.commit();
    assert_eq!(world.counts(1), [1, 1, 0, 0]);
}

/// The delay of the only retry in the table, which jitter chose.
fn backoff(world: &World) -> String {
    let mut probe = crate::retry::Random::new(1);
    crate::retry::delay_ms(1, &world.settings.defaults, &mut probe).to_string()
}

#[test]
fn progress_extends_a_lease_and_hears_a_cancel() {
    // An extension moves the deadline; a task that is to stop hears it and is extended no more.
    let (mut world, lease) = running();
    let progress = |extend_ms| {
        Request::Progress(laneway_protocol::message::Progress {
            session: super::world::session("w"),
            task: id(1),
            lease,
            done: None,
            total: None,
            note: None,
            extend_ms,
            data: None,
            log: None,
            checkpoint: None,
            parents: None,
        })
    };
    world.ask(1, progress(Some(100_000)));
    world.pass(99_000);
    world.event(Event::CancelRequested(vec![id(1)]));
    world.ask(1, progress(Some(100_000)));
    assert_eq!(world.said(), ["#3 OK cancel false", "#4 OK cancel true"]);
    world.pass(5_000);
    assert_eq!(world.said(), ["ended 1 cancelled, nothing"]);
    world.ask(1, progress(None));
    assert_eq!(world.said(), ["#5 ERR stale"]);
}

#[test]
fn with_a_cancel_requested_done_wins_and_anything_else_is_cancelled() {
    // The worker hears the cancel in its parked BEAT and ends one way or the other.
    for (end, expected) in
        [(End::Done, TaskState::Done), (End::Fail, TaskState::Cancelled), (End::Snooze, TaskState::Cancelled)]
    {
        let (mut world, lease) = running();
        world.ask(1, beat("w", &[held(1, lease)]));
        world.ask(9, Request::Cancel(Tasks { tasks: vec![id(1)] }));
        assert_eq!(world.said(), ["cancel 1"]);
        world.commit();
        assert_eq!(world.said(), ["#3 BEAT cancel [1] stale []", "#4 VERDICTS [Requested]"]);
        say(&mut world, vec![Outcome::new(id(1), lease, end)], None);
        world.commit();
        assert_eq!(world.state(1), expected);
    }
}

#[test]
fn what_a_worker_says_when_it_was_told_to_stop_counts_as_why_it_was_told() {
    // After a cancel all but `done` is cancelled, a failure with its attempt; after a timeout the worker that says that it
    // has stopped has used its attempt up, and the error tells how long it ran.
    let cases = [
        (true, Some(End::Done), "ended 1 done, attempt"),
        (true, Some(End::Fail), "ended 1 cancelled, attempt failed"),
        (true, Some(End::Cancelled), "ended 1 cancelled, nothing"),
        (true, None, "ended 1 cancelled, nothing"),
        (false, Some(End::Done), "ended 1 done, attempt"),
        (false, Some(End::Fail), "ended 1 queued +, attempt failed"),
        (false, Some(End::Cancelled), "ended 1 queued +, attempt timeout"),
        (false, None, "ended 1 queued +, attempt timeout"),
    ];
    for (cancelled, end, expected) in cases {
        let (mut world, lease) = running();
        if cancelled {
            world.event(Event::CancelRequested(vec![id(1)]));
        } else {
            world.pass(60_000);
        }
        let mut said = if let Some(end) = end {
            say(&mut world, vec![Outcome::new(id(1), lease, end)], Some(1))
        } else {
            world.pass(5_000);
            world.said()
        };
        let expected = expected.replace('+', &format!("+{}", backoff(&world)));
        assert_eq!(said.remove(0), expected);
        world.commit();
        if expected.ends_with("timeout") {
            let ms = if end.is_some() { 60_000 } else { 65_000 };
            assert_eq!(world.row(1).error, Some(format!("timed out: it ran for {ms} ms")));
        }
    }
}

#[test]
fn a_result_at_the_limit_is_kept() {
    // 512 bytes are allowed.
    let (mut world, lease) = running();
    say(&mut world, vec![Outcome { result: Some(Payload::bin(vec![0; 512])), ..done(1, lease) }], None);
    world.commit();
    assert_eq!(world.state(1), TaskState::Done);
}

#[test]
fn a_question_is_told_late_when_it_has_waited_and_the_store_is_silent() {
    // A READY and a SUBMIT have a second more than they would wait anyway.
    let (mut world, lease) = running();
    let ready = world.ask(1, Request::Ready(Ready { outcomes: vec![done(1, lease)], ..ready("w") }));
    let submit = world.ask(9, super::world::submit(vec![NewTask::new(kind("a"), None)], 10_000));
    world.take();
    world.pass(10_999);
    assert!(world.said().is_empty());
    world.pass(1);
    assert_eq!(world.said(), [format!("#{} ERR storage", ready.0), format!("#{} ERR storage", submit.0)]);
}

#[test]
fn a_cancelled_task_that_was_read_ahead_is_not_handed_out() {
    // The row was cancelled under the read-ahead; and one that was handed out before its record loses its lease, and is given back
    // behind the record.
    let mut world = World::new();
    world.insert("low", "a", 2);
    world.ask(1, Request::Ready(Ready { wait_ms: 0, ..plain("w", &["a"]) }));
    world.load();
    world.take();
    world.ask(9, Request::Cancel(Tasks { tasks: vec![id(1), id(2)] }));
    let reply = world.ask(1, Request::Ready(plain("w", &["a"])));
    let lease = world.lease(reply);
    world.ask(1, beat("w", &[held(1, lease)]));
    world.commit();
    world.ask(1, Request::Ready(Ready { wait_ms: 0, ..plain("w", &["a"]) }));
    assert_eq!(
        world.said(),
        [
            "cancel 1 2",
            "started 1 run 1 by w",
            "#3 TASKS seq 1 [1]",
            "ended 1 queued, nothing",
            "#4 BEAT cancel [] stale [1]",
            "#2 VERDICTS [Cancelled, Cancelled]",
            "#5 WAIT Idle"
        ]
    );
    assert_eq!(world.broker.n_running(), 0);
}

#[test]
fn a_running_row_that_an_app_takes_away_loses_its_lease_without_a_write() {
    // Deleted or finished by SQL: the worker hears `stale`, nothing is written, its outcome changes nothing.
    for state in [None, Some(TaskState::Done)] {
        let (mut world, lease) = running();
        world.ask(1, beat("w", &[held(1, lease)]));
        world.overtake(1, state);
        assert_eq!(world.said(), ["#3 BEAT cancel [] stale [1]"]);
        say(&mut world, vec![failed(1, lease)], None);
        world.commit();
        assert_eq!(world.said(), ["#4 WAIT Idle stale"]);
        assert_eq!(world.table.rows.get(&id(1)).map(|row| row.state), state);
    }
}

#[test]
fn a_stale_record_is_told_as_such() {
    // The row was deleted and nobody noticed: the store finds out when the end is to be written.
    let (mut world, lease) = running();
    world.table.rows.remove(&id(1));
    say(&mut world, vec![done(1, lease)], None);
    world.commit();
    assert_eq!(world.said(), ["#3 WAIT Idle stale"]);
    assert_eq!(world.broker.stats.stale, 1);
}

#[test]
fn a_failing_store_refuses_new_work_and_keeps_outcomes() {
    // New work is refused at once, a plain outcome is answered late, nothing is handed out; then all goes on.
    let (mut world, lease) = running();
    world.insert("low", "a", 1);
    world.event(Event::StoreFailed("disk full".into()));
    world.ask(9, super::world::submit(vec![NewTask::new(kind("a"), None)], 0));
    assert_eq!(world.said(), ["#3 ERR storage"]);
    say(&mut world, vec![done(1, lease)], None);
    world.pass(1_000);
    assert_eq!(world.said(), ["#4 ERR storage"]);
    let parked = world.ask(1, Request::Ready(Ready { slot: 1, ..ready("w") }));
    world.load();
    assert!(world.open.contains(&parked), "nothing is handed out that could not be recorded");
    world.event(Event::StoreRecovered);
    assert_eq!(world.tasks(parked)[0].0, 2);
    world.commit();
    assert_eq!(world.state(1), TaskState::Done);
    world.take();
    assert_eq!(say(&mut world, vec![done(1, lease)], None), ["find 1"], "said again, it is looked up");
    world.commit();
    assert_eq!(world.said(), ["#6 WAIT Idle recorded"]);
}

#[test]
fn a_drain_sends_everybody_away_and_can_be_taken_back() {
    // Parked READYs and BEATs hear it at once, later ones when they ask; a stronger drain is told again.
    let (mut world, _) = running();
    world.ask(1, Request::Ready(Ready { slot: 1, ..ready("w") }));
    world.ask(1, beat("w", &[]));
    world.ask(9, Request::Drain(Drain::default()));
    assert_eq!(
        world.said(),
        ["#3 WAIT Draining", "#4 BEAT cancel [] stale [] drain", "#5 DRAINED true workers 1 running 1"]
    );
    world.ask(1, beat("w", &[]));
    assert!(world.said().is_empty(), "told once");
    world.ask(9, Request::Drain(Drain { release: true, off: false, worker: None }));
    assert_eq!(world.said(), ["#6 BEAT cancel [] stale [] release", "#7 DRAINED true workers 1 running 1"]);
    world.ask(9, Request::Drain(Drain { release: false, off: true, worker: None }));
    world.ask(9, Request::Drain(Drain::default()));
    world.take();
    world.ask(1, beat("w", &[]));
    assert_eq!(world.said(), ["#10 BEAT cancel [] stale [] drain"], "a new drain is news");
    world.ask(9, Request::Drain(Drain { release: false, off: true, worker: None }));
    world.insert("low", "a", 1);
    let reply = world.ask(1, Request::Ready(Ready { slot: 1, ..ready("w") }));
    world.commit();
    assert_eq!(world.tasks(reply)[0].0, 2);
}

#[test]
fn a_drain_that_releases_is_not_weakened_by_a_later_one() {
    // Nobody is told anew, and whoever asks hears of the release.
    let (mut world, _) = running();
    world.ask(9, Request::Drain(Drain { release: true, off: false, worker: None }));
    world.ask(1, beat("w", &[]));
    world.ask(1, beat("w", &[]));
    world.take();
    world.ask(9, Request::Drain(Drain::default()));
    assert_eq!(world.said(), ["#6 DRAINED true workers 1 running 1"]);
    world.pass(10_000);
    assert_eq!(world.said(), ["#5 BEAT cancel [] stale [] release"]);
}

#[test]
fn a_stop_hands_out_nothing_and_settles_what_comes() {
    // READYs are answered with WAIT, outcomes are still recorded.
    let (mut world, lease) = running();
    world.insert("low", "a", 1);
    world.ask(1, Request::Ready(Ready { slot: 1, ..ready("w") }));
    world.event(Event::Stop);
    assert_eq!(world.said(), ["#3 WAIT Stopping"]);
    say(&mut world, vec![done(1, lease)], None);
    world.commit();
    assert_eq!(world.said(), ["#4 WAIT Stopping ok"]);
    assert_eq!((world.state(1), world.state(2)), (TaskState::Done, TaskState::Queued));
}

#[test]
fn a_full_list_of_operations_stops_hand_outs_until_it_is_half_empty() {
    // With the disk standing, submits are refused first, while outcomes are still taken; a peer cannot fill the memory.
    let mut world = World::new();
    world.insert("low", "a", 1);
    let parked = world.ask(1, Request::Ready(plain("w", &["a"])));
    let submit = || super::world::submit(vec![NewTask::new(kind("a"), None)], 0);
    let mut refused = 0;
    for _ in 0..=crate::limits::OPS_MAX {
        let reply = world.broker_only(7, submit());
        refused += usize::from(reply);
    }
    assert_eq!(refused, 1);
    for n in 1_000..1_003 {
        let outcomes = vec![done(n, Lease::new(1))];
        assert!(!world.broker_only(8, Request::Ready(Ready { outcomes, wait_ms: 0, ..plain("v", &["b"]) })), "{n}");
    }
    world.load();
    assert!(world.open.contains(&parked), "no hand-out while its record would not fit");
    // The first of them tells who is there and has no result; three are the words about unknown tasks.
    world.commit_first(1 + crate::limits::OPS_MAX / 2 + 3);
    assert!(world.open.contains(&parked), "half are left");
    world.commit_first(1);
    assert_eq!(world.tasks(parked)[0].0, 1);
}

#[test]
fn a_backlog_of_many_bytes_refuses_submits_and_then_the_words_of_strangers() {
    // With the disk standing, large payloads fill the memory long before their number says so: submits are refused at the
    // bound, outcomes of unknown tasks at twice the bound, and everything is taken again after a commit.
    let mut world = World::with(Settings { backlog_bytes_max: 100_000, ..settings() });
    let payload = || Some(Payload::bin(vec![0; 1_000]));
    let submit = || super::world::submit(vec![NewTask::new(kind("a"), payload())], 0);
    let refused = (0..200).filter(|_| world.broker_only(7, submit())).count();
    assert_eq!(refused, 200 - 100_000_usize.div_ceil(1_000 + 2 * 256), "refused at the bound");
    let outcome = |n| Outcome { result: payload(), ..done(n, Lease::new(1)) };
    let mut said = |n| {
        world.broker_only(8, Request::Ready(Ready { outcomes: vec![outcome(n)], wait_ms: 0, ..plain("w", &["a"]) }))
    };
    let refused = (1_000..1_200).filter(|n| said(*n)).count();
    assert!((100..150).contains(&refused), "{refused} of 200 are refused at twice the bound");
    world.commit();
    assert!(!world.broker_only(7, submit()));
}

#[test]
fn a_bad_batch_or_lane_costs_nothing_else() {
    // Each is answered with a code that names the field; no session is made for a plain worker that makes no sense.
    let mut world = World::new();
    world.ask(1, Request::Ready(Ready { batch: Some(0), ..plain("w", &["a"]) }));
    world.ask(1, Request::Ready(Ready { lanes: Some(vec![super::world::lane("none")]), ..plain("w", &["a"]) }));
    world.ask(1, Request::Ready(Ready { lanes: Some(Vec::new()), ..plain("w", &["a"]) }));
    world.ask(1, Request::Ready(plain("w", &[])));
    world.ask(1, Request::Ready(ready("w")));
    assert_eq!(
        world.take(),
        ["#1 ERR bad_body", "#2 ERR unknown_lane", "#3 ERR bad_body", "#4 ERR bad_body", "#5 ERR bad_body"]
    );
    let mut few = settings();
    few.kinds_max = 1;
    let mut world = World::with(few);
    world.ask(1, Request::Ready(plain("w", &["a", "b"])));
    assert_eq!(world.take(), ["#1 ERR full"]);
}

#[test]
fn a_goodbye_settles_and_gives_back_what_it_names_and_what_it_holds() {
    // Task 1 is done, 2 is named, twice, 3 is not named; all is on disk before the answer, and said again it stays so.
    let mut world = World::new();
    world.insert("low", "a", 3);
    world.hello("w", 1, &["a"]);
    let reply = world.ask(1, Request::Ready(Ready { max: 3, ..ready("w") }));
    world.commit();
    let leases = world.tasks(reply);
    let parked = world.ask(1, Request::Ready(Ready { slot: 1, ..ready("w") }));
    world.take();
    let twice = vec![held(2, leases[1].1), held(2, leases[1].1)];
    let goodbye = || Request::Bye(Bye { release: twice.clone(), outcomes: vec![done(1, leases[0].1)], ..bye("w") });
    world.ask(1, goodbye());
    world.ask(1, goodbye());
    assert_eq!(world.said(), ["ended 1 done, attempt", "ended 2 queued, release", "ended 3 queued, release"]);
    world.commit();
    assert_eq!(
        world.said(),
        [format!("#{} WAIT Idle", parked.0), "session w gone".into(), "#5 BYE ok".into(), "#4 BYE ok".into()]
    );
    world.ask(1, Request::Bye(bye("w")));
    assert_eq!(world.said(), ["#6 BYE"], "a third time, for the answer was lost");
}

#[test]
fn a_goodbye_said_again_waits_for_the_same_commit() {
    // What it gives back is on its way to the disk: neither is answered before it is there.
    let (mut world, lease) = running();
    for _ in 0..2 {
        world.ask(1, Request::Bye(Bye { release: vec![held(1, lease)], more: true, ..bye("w") }));
    }
    assert_eq!(world.said(), ["ended 1 queued, release"]);
    world.commit();
    assert_eq!(world.said(), ["#3 BYE", "#4 BYE"]);
}
