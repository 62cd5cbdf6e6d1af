//! A broker that comes back: what its workers still hold, and what no row shows.

use laneway_protocol::message::{Answer, Held, Hello, NewTask, OnConflict, Ready, Request, Tasks};
use laneway_protocol::{Epoch, Lease, TaskState};

use super::world::{World, beat, done, held, hello, id, kind, plain, ready, session, settings, submit, two_in_a_slot};
use crate::ConnId;
use crate::Settings;
use crate::action::Op;
use crate::event::Event;
use crate::time::UnixMillis;

/// A world where session w runs task 1, recorded, of two.
fn running() -> (World, Lease) {
    let mut world = World::new();
    world.insert("low", "a", 2);
    world.hello("w", 1, &["a"]);
    let reply = world.ask(1, Request::Ready(ready("w")));
    world.commit();
    let lease = world.lease(reply);
    world.take();
    (world, lease)
}

#[test]
fn a_worker_resumes_what_it_runs_and_says_its_outcome() {
    // Nothing runs twice, nothing is counted.
    let (mut world, lease) = running();
    world.restart(true);
    world.ask(1, Request::Ready(Ready { epoch: Some(Epoch(1)), ..ready("w") }));
    assert_eq!(world.said(), ["#3 ERR hello_first"]);
    world.ask(1, hello("w", &["a"], &[held(1, lease)]));
    assert_eq!(world.said(), ["session w up", "#4 WELCOME lost []"]);
    world.ask(
        1,
        Request::Ready(Ready { epoch: Some(Epoch(2)), outcomes: vec![done(1, lease)], ack: Some(0), ..ready("w") }),
    );
    world.commit();
    assert_eq!((world.state(1), world.counts(1)), (TaskState::Done, [1, 1, 0, 0]));
}

#[test]
fn a_hand_out_that_no_row_shows_is_adopted() {
    // The broker died between the hand-out and its record; hand-outs are held until its worker has resumed.
    let mut world = World::new();
    world.insert("low", "a", 1);
    world.hello("w", 1, &["a"]);
    let reply = world.ask(1, Request::Ready(ready("w")));
    world.load();
    let lease = world.lease(reply);
    world.restart(false);
    let other = world.ask(2, Request::Ready(plain("v", &["a"])));
    world.load();
    world.pass(1_999);
    assert!(world.open.contains(&other), "nothing goes out while w may come back");
    world.take();
    world.ask(1, hello("w", &["a"], &[held(1, lease)]));
    assert_eq!(world.said(), ["session w up", "find 1"]);
    world.commit();
    assert_eq!(world.said(), ["started 1 run 1 by w", "#4 WELCOME lost []"]);
    assert_eq!((world.state(1), world.row(1).lease), (TaskState::Running, Some(lease)));
    assert!(world.open.contains(&other), "task 1 was taken out of the read-ahead");
}

/// A world where session w has task 1, which no row shows, of a broker that died; its task has the key x. Gives the lease.
fn unrecorded() -> (World, Lease) {
    let mut world = World::new();
    world.insert_with("normal", "a", |row| row.unique_key = Some("x".into()));
    world.hello("w", 1, &["a"]);
    let reply = world.ask(1, Request::Ready(ready("w")));
    world.load();
    let lease = world.lease(reply);
    world.restart(false);
    (world, lease)
}

fn tasks(ids: &[u64]) -> Tasks {
    Tasks { tasks: ids.iter().map(|n| id(*n)).collect() }
}

fn replacing() -> Request {
    let task =
        NewTask { unique_key: Some("x".into()), on_conflict: OnConflict::Replace, ..NewTask::new(kind("a"), None) };
    submit(vec![task], 0)
}

#[test]
fn a_hand_out_of_a_payload_that_was_replaced_is_not_adopted() {
    // Whoever replaced it was told that the old payload does not count. Its worker is back while that is on its way to the disk, or
    // when it is there, or after one more crash.
    for stage in 0..4 {
        let (mut world, lease) = unrecorded();
        world.ask(9, replacing());
        world.commit_ops();
        if stage > 0 {
            world.commit();
        }
        if stage > 1 {
            world.restart(false);
        }
        if stage > 2 {
            world.restart(true);
        }
        world.take();
        let reply = world.ask(1, hello("w", &["a"], &[held(1, lease)]));
        world.commit();
        let Answer::Welcome(welcome) = &world.answers[&reply] else { panic!("it is welcome") };
        assert_eq!((&welcome.lost[..], world.state(1)), (&[held(1, lease)][..], TaskState::Queued), "stage {stage}");
    }
}

#[test]
fn a_cancel_and_a_requeue_bring_back_no_run_of_what_was_replaced() {
    // Its worker is back behind them, or behind one more crash.
    for crashes in [false, true] {
        let (mut world, lease) = unrecorded();
        world.ask(9, replacing());
        world.commit();
        for change in [Request::Cancel(tasks(&[1])), Request::Requeue(tasks(&[1]))] {
            world.ask(9, change);
            world.commit();
        }
        assert_eq!(world.state(1), TaskState::Queued);
        if crashes {
            world.restart(false);
        }
        let reply = world.ask(1, hello("w", &["a"], &[held(1, lease)]));
        world.commit();
        let Answer::Welcome(welcome) = &world.answers[&reply] else { panic!("it is welcome") };
        assert_eq!((&welcome.lost[..], world.state(1)), (&[held(1, lease)][..], TaskState::Queued));
    }
}

#[test]
fn a_hand_out_behind_a_replacement_is_adopted_like_any_other() {
    // Also when the task was cancelled and requeued in between.
    for requeued in [false, true] {
        behind_a_replacement(requeued);
    }
}

fn behind_a_replacement(requeued: bool) {
    let (mut world, _) = unrecorded();
    world.ask(9, replacing());
    world.commit();
    if requeued {
        for change in [Request::Cancel(tasks(&[1])), Request::Requeue(tasks(&[1]))] {
            world.ask(9, change);
            world.commit();
        }
    }
    world.pass(2_000);
    let reply = world.ask(2, Request::Ready(plain("v", &["a"])));
    world.load();
    let lease = world.lease(reply);
    world.restart(false);
    let reply = world.ask(2, hello("v", &["a"], &[held(1, lease)]));
    world.commit();
    let Answer::Welcome(welcome) = &world.answers[&reply] else { panic!("it is welcome") };
    assert_eq!((&welcome.lost[..], world.state(1)), (&[][..], TaskState::Running));
}

#[test]
fn hand_outs_wait_only_for_those_who_may_hold_what_no_row_shows() {
    // Not after a clean end, not for a plain worker, which says no HELLO, and not when the settings say no time.
    let cases = [
        (false, false, 2_000, true),
        (true, false, 2_000, false),
        (false, true, 2_000, false),
        (false, false, 0, false),
    ];
    for (clean, is_plain, restart_hold_ms, waits) in cases {
        let mut world = World::with(Settings { restart_hold_ms, ..settings() });
        world.insert("low", "a", 1);
        if is_plain {
            world.ask(1, Request::Ready(plain("w", &["b"])));
            world.commit();
        } else {
            world.hello("w", 1, &["a"]);
        }
        world.restart(clean);
        let other = world.ask(2, Request::Ready(plain("v", &["a"])));
        world.load();
        assert_eq!(world.open.contains(&other), waits, "clean {clean}, plain {is_plain}, {restart_hold_ms} ms");
    }
}

#[test]
fn a_row_that_runs_under_the_lease_that_is_named_is_adopted() {
    // The broker was told that the row had vanished, and its worker still runs it. Another lease changes nothing.
    let (mut world, lease) = running();
    world.event(Event::Overtaken(vec![(id(1), None)]));
    assert_eq!(world.broker.n_running(), 0);
    world.take();
    world.ask(1, hello("w", &["a"], &[held(1, Lease::new(12))]));
    world.commit();
    assert_eq!(world.said(), ["find 1", "#3 WELCOME lost [1]"]);
    world.ask(1, hello("w", &["a"], &[held(1, lease)]));
    world.commit();
    assert_eq!(world.said(), ["find 1", "#4 WELCOME lost []"], "its row shows it already");
    world.ask(1, Request::Ready(Ready { outcomes: vec![done(1, lease)], ..ready("w") }));
    world.commit();
    assert_eq!((world.state(1), world.counts(1)), (TaskState::Done, [1, 1, 0, 0]));
}

#[test]
fn a_hand_out_that_two_words_are_about_is_adopted_once() {
    // Both were looked up before the row was told: the second finds it running. A third names a lease that never was.
    let mut world = World::new();
    world.insert_with("low", "a", |row| row.attempts = 2);
    world.hello("w", 1, &["a"]);
    let reply = world.ask(1, Request::Ready(ready("w")));
    world.load();
    let lease = world.lease(reply);
    world.restart(false);
    world.jump(70);
    for lease in [lease, lease, Lease::new(12)] {
        world.ask(1, hello("w", &["a"], &[held(1, lease)]));
    }
    world.take();
    world.commit_ops();
    let Some((None, Op::Started(started))) = world.table.inbox.front() else { panic!("no record") };
    assert_eq!((started.run, started.attempt, started.wait_ms), (1, 3, 70));
    let said = world.said();
    assert_eq!(said, ["started 1 run 1 by w", "#3 WELCOME lost []", "#4 WELCOME lost []", "#5 WELCOME lost [1]"]);
    world.ask(1, Request::Ready(Ready { outcomes: vec![done(1, lease)], ..ready("w") }));
    let Some((Some(_), Op::Ended(ended))) = world.table.inbox.back() else { panic!("no end") };
    assert_eq!((ended.run, ended.attempt), (1, 3));
}

#[test]
fn a_suspect_is_one_after_a_restart() {
    // Its session takes no other and is not charged for what it runs beside it.
    let mut world = World::new();
    world.insert_with("high", "a", |row| row.losses = 1);
    world.insert("low", "a", 1);
    world.hello("w", 1, &["a"]);
    let leases = [0, 1].map(|slot| {
        let reply = world.ask(1, Request::Ready(Ready { slot, ..ready("w") }));
        world.commit();
        world.lease(reply)
    });
    world.restart(true);
    world.insert_with("high", "a", |row| row.losses = 1);
    world.ask(1, hello("w", &["a"], &[held(1, leases[0]), held(2, leases[1])]));
    let parked = world.ask(1, Request::Ready(Ready { slot: 2, ..ready("w") }));
    world.commit();
    assert!(world.open.contains(&parked), "task 3 is a suspect as well");
    world.pass(5_000);
    world.event(Event::Disconnected(ConnId(1)));
    world.take();
    world.pass(10_000);
    assert_eq!(world.said(), ["ended 1 queued, loss lost", "ended 2 queued, nothing", "session w gone"]);
}

#[test]
fn a_hand_out_of_a_row_that_a_power_cut_took_away_is_not_adopted() {
    // The row was never synced, and neither was its hand-out: now another task has its id, and runs anew.
    let mut world = World::new();
    world.insert_with("low", "a", |row| row.created_at = UnixMillis(1));
    world.hello("w", 1, &["a"]);
    let reply = world.ask(1, Request::Ready(ready("w")));
    world.load();
    let lease = world.lease(reply);
    world.table.rows.get_mut(&id(1)).unwrap().created_at = UnixMillis(2);
    world.restart(false);
    world.take();
    world.ask(1, hello("w", &["a"], &[held(1, lease)]));
    world.commit();
    assert_eq!(world.said(), ["session w up", "find 1", "#3 WELCOME lost [1]"]);
    assert_eq!(world.state(1), TaskState::Queued);
}

#[test]
fn only_the_last_unrecorded_hand_out_is_adopted() {
    // When the hold is over the task goes out anew; the word of the one before is stale.
    let mut world = World::new();
    world.insert("low", "a", 1);
    world.hello("w", 1, &["a"]);
    let reply = world.ask(1, Request::Ready(ready("w")));
    world.load();
    let lease = world.lease(reply);
    world.restart(false);
    let other = world.ask(2, Request::Ready(plain("v", &["a"])));
    world.load();
    world.pass(2_000);
    assert_eq!(world.tasks(other)[0].0, 1);
    world.take();
    world.ask(1, hello("w", &["a"], &[held(1, lease)]));
    assert_eq!(world.said(), ["session w up", "#4 WELCOME lost [1]"]);
    // Two epochs later, with the second hand-out recorded, the first is older than the row.
    world.commit();
    world.restart(true);
    world.ask(1, hello("w", &["a"], &[held(1, lease)]));
    assert_eq!(world.said(), ["session w up", "#5 WELCOME lost [1]"]);
}

#[test]
fn a_session_that_comes_back_without_its_task_gives_it_back() {
    // HELLO names everything that is held; what it does not name is released.
    let (mut world, _) = running();
    world.restart(true);
    world.ask(1, hello("w", &["a"], &[]));
    assert_eq!(world.said(), ["session w up", "ended 1 queued, release", "#3 WELCOME lost []"]);
}

#[test]
fn pages_of_a_hello_count_as_one() {
    // Between two pages no task is given and nothing is thought forgotten.
    let (mut world, leases) = two_in_a_slot();
    world.restart(true);
    let page = |n: usize, more| {
        let resume = vec![Held(id(leases[n].0), leases[n].1)];
        let Request::Hello(hello) = hello("w", &["a"], &resume) else { unreachable!() };
        Request::Hello(Hello { more, ..hello })
    };
    world.ask(1, page(0, true));
    world.ask(1, Request::Ready(ready("w")));
    world.ask(1, page(1, false));
    assert_eq!(
        world.said(),
        ["session w up", "#3 WELCOME lost []", "#4 ERR hello_first", "session w up", "#5 WELCOME lost []"]
    );
    assert_eq!(world.broker.n_running(), 2);
}

#[test]
fn rows_that_nobody_resumes_go_back_when_the_grace_is_over() {
    // As a release; and the session is known no more. A plain worker, which cannot resume, keeps its lease.
    let (mut world, _) = running();
    let plain_task = world.ask(2, Request::Ready(plain("p", &["a"])));
    world.commit();
    let lease = world.lease(plain_task);
    world.restart(true);
    world.pass(14_999);
    assert!(world.said().is_empty());
    world.pass(1);
    assert_eq!(world.said(), ["ended 1 queued, release", "session w gone"]);
    world.ask(2, Request::Ready(Ready { outcomes: vec![done(2, lease)], wait_ms: 0, ..plain("p", &["a"]) }));
    world.commit();
    assert_eq!(world.state(2), TaskState::Done);
}

#[test]
fn a_plain_worker_may_beat_and_report_before_its_next_ready() {
    // It says no HELLO; its session is known from the last epoch.
    let mut world = World::new();
    world.insert("low", "a", 1);
    let reply = world.ask(1, Request::Ready(plain("p", &["a"])));
    world.commit();
    let lease = world.lease(reply);
    world.restart(true);
    world.ask(1, beat("p", &[held(1, lease)]));
    assert_eq!(world.said(), ["session p up plain"]);
    assert_eq!(world.broker.n_running(), 1);
}

#[test]
fn a_plain_worker_answers_for_what_it_was_given_before_the_restart() {
    // It spoke once and its connection closed: its own task counts a loss, that of a silent one goes on.
    let mut world = World::new();
    world.insert("low", "a", 2);
    world.ask(1, Request::Ready(plain("p", &["a"])));
    world.ask(2, Request::Ready(plain("q", &["a"])));
    world.commit();
    world.restart(true);
    world.pass(15_000);
    world.ask(1, beat("p", &[]));
    world.event(Event::Disconnected(ConnId(1)));
    world.take();
    world.pass(500);
    assert_eq!(world.said(), ["ended 1 queued, loss lost", "session p gone"]);
    assert_eq!(world.broker.n_running(), 1);
}

#[test]
fn the_lease_of_a_plain_orphan_still_runs_out() {
    // Its worker never came back: told to nobody, then failed.
    let mut world = World::new();
    world.insert("low", "a", 1);
    world.ask(1, Request::Ready(plain("p", &["a"])));
    world.commit();
    world.restart(true);
    world.pass(60_000);
    assert!(world.said().is_empty());
    world.pass(5_000);
    assert!(world.said()[0].starts_with("ended 1 queued +"));
}

#[test]
fn a_lease_goes_on_over_a_restart() {
    // Of its 60 s 20 are over, and the broker was away for 10: it runs out after 30 more, as if nothing had been.
    let (mut world, lease) = running();
    world.pass(20_000);
    world.commit();
    world.jump(10_000);
    world.restart(true);
    world.ask(1, hello("w", &["a"], &[held(1, lease)]));
    world.take();
    world.pass(20_000);
    world.ask(1, beat("w", &[held(1, lease)]));
    world.pass(9_999);
    assert!(world.said().is_empty());
    world.pass(1);
    assert_eq!(world.said(), ["#4 BEAT cancel [1] stale []"]);
}

#[test]
fn a_cancel_of_an_orphan_is_told_to_whoever_resumes_it() {
    // Requested while the broker was away, or before its worker was back: done still wins.
    for before in [true, false] {
        let (mut world, lease) = running();
        world.table.rows.get_mut(&id(1)).unwrap().cancel_requested = true;
        if before {
            world.restart(true);
        } else {
            world.table.rows.get_mut(&id(1)).unwrap().cancel_requested = false;
            world.restart(true);
            world.table.rows.get_mut(&id(1)).unwrap().cancel_requested = true;
            world.event(Event::CancelRequested(vec![id(1)]));
        }
        world.pass(10_000);
        assert!(world.said().is_empty(), "it is not ended while its worker may come back");
        world.ask(1, hello("w", &["a"], &[held(1, lease)]));
        world.ask(1, beat("w", &[held(1, lease)]));
        assert_eq!(world.said(), ["session w up", "#3 WELCOME lost []", "#4 BEAT cancel [1] stale []"]);
        world.ask(1, Request::Ready(Ready { outcomes: vec![done(1, lease)], ..ready("w") }));
        world.commit();
        assert_eq!(world.state(1), TaskState::Done);
    }
}

#[test]
fn nobody_is_lost_in_the_grace_after_a_restart() {
    // Workers reconnect one socket at a time; a connection that closes then is no death.
    let (mut world, lease) = running();
    world.restart(true);
    world.ask(1, hello("w", &["a"], &[held(1, lease)]));
    world.event(Event::Disconnected(ConnId(1)));
    world.pass(14_000);
    assert_eq!(world.broker.n_running(), 1);
    world.ask(2, beat("w", &[held(1, lease)]));
    world.pass(5_000);
    assert_eq!(world.broker.n_running(), 1);
    // The very first start is no restart: a death is noticed at once.
    let (mut world, _) = running();
    world.event(Event::Disconnected(ConnId(1)));
    world.pass(500);
    assert_eq!(world.said(), ["ended 1 queued, loss lost", "session w gone"]);
}

#[test]
fn a_stall_right_after_the_start_gives_everybody_new_time() {
    // Hold and grace are told by the clock; the workers' words are still in the socket.
    let (mut world, lease) = running();
    world.restart(false);
    let other = world.ask(2, Request::Ready(plain("v", &["a"])));
    world.commit();
    world.jump(20_000);
    world.event(Event::Stalled { ms: 20_000 });
    world.event(Event::Tick);
    assert!(!world.said().iter().any(|line| line.starts_with("ended")));
    assert!(world.answers.get(&other).is_none_or(|answer| !matches!(answer, Answer::Tasks(_))));
    world.ask(1, hello("w", &["a"], &[held(1, lease)]));
    assert_eq!(world.said().last().unwrap(), "#4 WELCOME lost []");
    assert_eq!(world.broker.n_running(), 1);
}

#[test]
fn an_outcome_of_an_unknown_lease_is_decided_by_the_row() {
    // A plain worker brings the outcome of a hand-out that no row shows: it is adopted and recorded.
    let mut world = World::new();
    world.insert("low", "a", 1);
    let reply = world.ask(1, Request::Ready(plain("p", &["a"])));
    world.load();
    let lease = world.lease(reply);
    world.restart(false);
    let kinds = Some(vec![kind("b")]);
    world.ask(
        1,
        Request::Ready(Ready {
            session: session("p"),
            outcomes: vec![done(1, lease)],
            kinds,
            wait_ms: 0,
            ..ready("p")
        }),
    );
    assert_eq!(world.said(), ["session p up plain", "find 1"]);
    world.commit();
    assert_eq!(world.said(), ["started 1 run 1 by p", "ended 1 done, attempt", "#2 WAIT Idle ok"]);
}
