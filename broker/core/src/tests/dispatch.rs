//! Which task goes to which slot, and when.

use laneway_protocol::message::{Answer, Hello, Lanes, Ready, Request};
use laneway_protocol::{Lease, Payload, codec};

use super::table::Row;
use super::world::{World, bye, done, held, id, kind, lane, plain, ready, settings};
use crate::Settings;
use crate::action::Op;
use crate::event::{Event, Loaded, QueueKey};
use crate::time::UnixMillis;

fn ids(world: &World, reply: crate::ReplyTo) -> Vec<u64> {
    world.tasks(reply).into_iter().map(|(id, _)| id).collect()
}

/// A READY that is answered at once.
fn take(world: &mut World, max: u32) -> Vec<u64> {
    let reply = world.ask(1, Request::Ready(Ready { max, wait_ms: 0, ..plain("w", &["a", "b"]) }));
    ids(world, reply)
}

/// A world whose only worker, with kinds a and b, has everything read ahead.
fn read_ahead(fill: impl FnOnce(&mut World)) -> World {
    let mut world = World::new();
    fill(&mut world);
    world.ask(1, Request::Ready(Ready { max: 1, wait_ms: 0, ..plain("w", &["a", "b"]) }));
    world.commit();
    world.take();
    world
}

#[test]
fn tasks_go_out_by_lane_then_due_time_then_id_across_kinds() {
    // The order of dispatch does not depend on the order of insertion or on the kind.
    let mut world = read_ahead(|world| {
        world.insert("low", "a", 1);
        world.insert("normal", "b", 1);
        world.insert_with("normal", "a", |row| row.due = UnixMillis(row.due.0 - 5));
        world.insert("normal", "a", 1);
        world.insert("high", "b", 1);
    });
    assert_eq!(take(&mut world, 3), [5, 3, 2]);
    assert_eq!(take(&mut world, 3), [4, 1]);
}

#[test]
fn a_row_is_the_whole_way_from_load_to_done() {
    // Each event's complete list of actions on the way of one task.
    let mut world = World::new();
    world.insert("normal", "a", 1);
    let one = world.ask(1, Request::Ready(Ready { lanes: Some(vec![lane("normal")]), ..plain("w", &["a"]) }));
    assert_eq!(world.take(), ["tell w connected [a]", "session w up plain", "demand normal/a 32"]);
    world.load();
    assert_eq!(world.take(), ["started 1 run 1 by w", "#1 TASKS seq 1 [1]"]);
    let outcomes = vec![done(1, world.lease(one))];
    world.ask(
        1,
        Request::Ready(Ready { outcomes, lanes: Some(vec![lane("normal")]), ack: Some(1), ..plain("w", &["a"]) }),
    );
    assert_eq!(world.take(), ["ended 1 done, attempt"]);
    world.commit_ops();
    assert!(world.take().is_empty(), "the question is parked after the commit");
    world.pass(10_000);
    assert_eq!(world.take(), ["#2 WAIT Idle ok"]);
    assert_eq!(world.counts(1), [1, 1, 0, 0]);
}

#[test]
fn the_longest_idle_slot_is_served_first_whatever_its_class() {
    // Slots of two classes wait for the same kind; their order of arrival decides.
    let mut world = World::new();
    let mut places = Vec::new();
    for (name, kinds) in [("x", &["a"] as &[&str]), ("y", &["a", "b"]), ("z", &["a"])] {
        places.push(world.ask(1, Request::Ready(plain(name, kinds))));
        world.commit();
    }
    world.insert("low", "a", 3);
    world.commit();
    let got: Vec<u64> = places.into_iter().flat_map(|reply| ids(&world, reply)).collect();
    assert_eq!(got, [1, 2, 3]);
}

#[test]
fn a_slot_takes_only_its_kinds_and_lanes() {
    // A slot reserved for the high lane stays idle beside low tasks, and a task without a worker delays nobody.
    let mut world = World::new();
    let reserved = Ready { slot: 1, lanes: Some(vec![lane("high")]), ..plain("w", &["a"]) };
    let high = world.ask(1, Request::Ready(reserved));
    world.insert("high", "nobody", 1);
    world.insert("low", "a", 2);
    let any = world.ask(1, Request::Ready(plain("w", &["a"])));
    world.commit();
    assert_eq!(ids(&world, any), [2]);
    assert!(world.open.contains(&high));
    world.insert("high", "a", 1);
    world.commit();
    assert_eq!(ids(&world, high), [4]);
}

#[test]
fn no_lower_lane_goes_out_before_every_higher_queue_was_looked_at() {
    // The low queue's row comes first; the higher queues may have rows, too, until the store has told that they have none.
    let mut world = World::new();
    world.insert("low", "a", 1);
    let reply = world.ask(1, Request::Ready(plain("w", &["a"])));
    let mut loads = world.read_ahead();
    loads.sort_by_key(|load| load.key.lane != lane("low"));
    for load in loads {
        assert!(world.open.contains(&reply), "before {:?}", load.key);
        world.event(Event::Loaded(vec![load]));
    }
    assert_eq!(ids(&world, reply), [1]);
}

#[test]
fn of_rows_that_come_together_the_most_urgent_goes_out_first() {
    // One transaction inserted them while the only slot waited on open demands; the low row's load stands first.
    let mut world = World::new();
    let reply = world.ask(1, Request::Ready(plain("w", &["a"])));
    world.commit();
    world.insert("low", "a", 1);
    world.insert("high", "a", 1);
    let mut loads = world.read_ahead();
    loads.reverse();
    assert_eq!(loads[0].key.lane, lane("low"));
    world.event(Event::Loaded(loads));
    assert_eq!(ids(&world, reply), [2]);
}

#[test]
fn a_full_refill_on_its_way_blocks_the_lower_lanes() {
    // 40 rows of the high lane, 32 read ahead: the low task waits for the other 8, and nothing of it goes into the batch.
    let mut world = read_ahead(|world| {
        world.insert("low", "a", 1);
        world.insert("high", "a", 40);
    });
    let got = take(&mut world, 64);
    assert_eq!((got.len(), got[0]), (32, 2));
    let reply = world.ask(1, Request::Ready(Ready { max: 64, ..plain("w", &["a", "b"]) }));
    assert!(world.open.contains(&reply), "the low task is at hand, the high ones are not");
    world.load();
    assert_eq!(ids(&world, reply), [34, 35, 36, 37, 38, 39, 40, 41, 1]);
}

#[test]
fn a_queue_without_an_open_demand_is_looked_at_before_lower_lanes_go_on() {
    // All 64 rows asked for came, so nobody tells of the one that is inserted then; the last of the 64 must not let the
    // low lane pass it.
    let mut world = World::new();
    world.insert("low", "a", 1);
    world.insert("high", "a", 64);
    world.ask(1, Request::Ready(Ready { max: 64, wait_ms: 0, ..plain("w", &["a", "b"]) }));
    world.commit();
    assert_eq!(take(&mut world, 20).last(), Some(&21));
    world.insert("high", "a", 1);
    assert_eq!(take(&mut world, 64).last(), Some(&65), "the low task is not in the batch");
    let reply = world.ask(1, Request::Ready(Ready { max: 2, ..plain("w", &["a", "b"]) }));
    world.load();
    assert_eq!(ids(&world, reply), [66, 1]);
}

#[test]
fn priority_is_decided_at_dispatch() {
    // A low task that was read ahead first still waits for the high one that came later.
    let mut world = read_ahead(|world| {
        world.insert("low", "a", 4);
    });
    world.insert("high", "b", 1);
    world.commit();
    assert_eq!(take(&mut world, 2), [5, 1]);
}

/// How many of many tasks like this go out with one answer, which the codec takes, to a READY with so many outcomes.
fn batch(outcomes: usize, n: u64, change: impl Fn(&mut Row)) -> usize {
    let mut world = World::with(Settings { window_bytes_max: 1 << 30, window_rows_max: 512, ..settings() });
    for _ in 0..n {
        world.insert_with("low", "a", &change);
    }
    let ready = Ready { max: 512, ..plain("w", &["a"]) };
    world.ask(1, Request::Ready(Ready { wait_ms: 0, lanes: Some(vec![lane("high")]), ..ready.clone() }));
    world.ask(1, Request::Ready(Ready { wait_ms: 0, slot: 1, ..ready.clone() }));
    world.load();
    let outcomes = vec![done(1_000, Lease::new(1)); outcomes];
    let reply = world.ask(1, Request::Ready(Ready { outcomes, slot: 1, ..ready }));
    world.commit();
    codec::encode_answer(world.answers[&reply].clone()).unwrap();
    ids(&world, reply).len()
}

#[test]
fn a_batch_ends_at_its_sizes() {
    // No task is added once there are 16 MiB of payloads and checkpoints, or once the names and traces of the tasks and the
    // codes of the outcomes fill the body. The rest goes out with the next.
    let bytes = |n: usize| Some(Payload::bin(vec![0; n << 20]));
    assert_eq!(batch(0, 4, |row| row.payload = bytes(9)), 2);
    assert_eq!(batch(0, 4, |row| row.payload = bytes(8)), 2);
    assert_eq!(batch(0, 4, |row| (row.payload, row.checkpoint) = (bytes(5), bytes(2))), 3);
    assert_eq!(batch(0, 512, |_| {}), 375);
    assert_eq!(batch(0, 150, |row| row.trace = Some("x".repeat(348))), 120);
    assert_eq!(batch(512, 150, |row| row.trace = Some("x".repeat(348))), 110);
}

#[test]
fn big_payloads_bound_the_read_ahead_without_blocking_it() {
    // Over half of window_bytes_max nothing more is read ahead; under it the rest comes.
    let mut world = World::new();
    for _ in 0..40 {
        world.insert_with("low", "a", |row| row.payload = Some(Payload::bin(vec![0; 8 << 10])));
    }
    let mut got = Vec::new();
    for _ in 0..40 {
        let reply = world.ask(1, Request::Ready(Ready { max: 4, ack: None, ..plain("w", &["a"]) }));
        world.commit();
        if let Some(Answer::Tasks(_)) = world.answers.get(&reply) {
            got.extend(ids(&world, reply));
        }
    }
    assert_eq!(got, (1..=40).collect::<Vec<_>>());
}

#[test]
fn a_paused_lane_holds_its_tasks_and_nobody_elses() {
    // Pausing takes the lane's tasks and its barrier out of the way; resuming gives them to who waits.
    let mut world = read_ahead(|world| {
        world.insert("high", "a", 40);
        world.insert("low", "a", 1);
    });
    world.ask(9, Request::Lanes(Lanes { pause: vec![lane("high")], resume: Vec::new(), ..Lanes::default() }));
    assert_eq!(take(&mut world, 64), [41]);
    let reply = world.ask(1, Request::Ready(plain("w", &["a", "b"])));
    world.commit();
    assert!(world.open.contains(&reply) && world.table.paused.contains(&lane("high")));
    world.ask(9, Request::Lanes(Lanes { pause: Vec::new(), resume: vec![lane("high")], ..Lanes::default() }));
    assert_eq!(ids(&world, reply), [1]);
}

#[test]
fn an_expired_task_is_not_started() {
    // It expires while it is read ahead; the next one goes out instead.
    let mut world = read_ahead(|world| {
        world.insert_with("low", "a", |row| row.expires_at = Some(UnixMillis(row.due.0 + 50)));
        world.insert("low", "a", 1);
    });
    world.jump(50);
    assert_eq!(take(&mut world, 1), [2]);
    assert_eq!(world.take()[0], "unload 1");
}

#[test]
fn a_task_that_ran_before_does_not_expire() {
    // It failed or was released in time, and comes back late.
    let mut world = read_ahead(|world| {
        world.insert_with("low", "a", |row| (row.runs, row.expires_at) = (1, Some(row.due)));
    });
    assert_eq!(take(&mut world, 1), [1]);
}

#[test]
fn what_nobody_can_run_any_more_is_given_back() {
    // The last slot that serves a queue leaves: its read-ahead is unloaded, and what was on its way as well.
    let mut world = read_ahead(|world| {
        world.insert("low", "a", 2);
    });
    let tasks = vec![];
    world.ask(1, Request::Bye(bye("w")));
    let lines = world.take();
    assert!(lines.contains(&"unload 1 2".into()) && lines.contains(&"demand low/a 0".into()), "{lines:?}");
    world.event(Event::Loaded(vec![Loaded {
        key: QueueKey { lane: lane("low"), kind: kind("a") },
        tasks,
        more: true,
        left: Vec::new(),
        passed: Vec::new(),
    }]));
    assert!(world.take().is_empty());
}

#[test]
fn suspects_go_out_alone_one_for_each_process() {
    // Tasks 1 and 2 lost a worker. A process that runs one takes no other, and what stands behind a suspect that it may
    // take does not go before it.
    let mut world = read_ahead(|world| {
        world.insert_with("high", "a", |row| row.losses = 1);
        world.insert_with("high", "a", |row| row.losses = 1);
        world.insert("low", "a", 3);
    });
    assert_eq!(take(&mut world, 3), [1], "alone");
    assert_eq!(take(&mut world, 1), [3], "its process passes the other suspect");
    let reply = world.ask(2, Request::Ready(Ready { max: 2, ..plain("v", &["a"]) }));
    assert_eq!(ids(&world, reply), [2], "another process takes that");
}

#[test]
fn a_waiting_slot_gets_a_suspect_once_its_process_runs_none() {
    // The process runs suspect 1 in one slot, the other waits beside suspect 2 and gets it when 1 has ended, whoever is told.
    let mut world = World::new();
    world.insert_with("high", "a", |row| row.losses = 1);
    world.insert_with("high", "a", |row| row.losses = 1);
    let first = world.ask(1, Request::Ready(plain("w", &["a"])));
    world.commit();
    let lease = world.lease(first);
    let second = world.ask(1, Request::Ready(Ready { slot: 1, ..plain("w", &["a"]) }));
    world.commit();
    let ready = Ready { max: 0, outcomes: vec![done(1, lease)], ..plain("w", &["a"]) };
    world.ask(1, Request::Ready(ready));
    world.commit();
    assert_eq!(ids(&world, second), [2]);
}

#[test]
fn a_suspect_passes_the_slots_that_may_not_take_it() {
    // The slot that is idle longest belongs to a process that runs one already; another process waits behind it.
    let mut world = World::new();
    world.insert_with("high", "a", |row| row.losses = 1);
    let first = world.ask(1, Request::Ready(plain("w", &["a"])));
    world.commit();
    assert_eq!(ids(&world, first), [1]);
    let second = world.ask(1, Request::Ready(Ready { slot: 1, ..plain("w", &["a"]) }));
    let other = world.ask(2, Request::Ready(plain("v", &["a"])));
    world.commit();
    world.insert_with("high", "a", |row| row.losses = 1);
    world.commit();
    assert_eq!(ids(&world, other), [2]);
    assert!(world.open.contains(&second));
}

#[test]
fn a_process_may_take_a_suspect_again_when_it_runs_no_other() {
    // An ordinary task beside it does not matter; a second suspect does, which a HELLO has taken over from elsewhere.
    for n_suspects in [1, 2] {
        let mut world = World::new();
        let losses = |n| move |row: &mut Row| row.losses = u32::from(n < n_suspects);
        for n in 0..2 {
            world.insert_with("high", "a", losses(n));
        }
        world.hello("w", 1, &["a"]);
        world.hello("v", 2, &["a"]);
        let leases = [(1, "w"), (2, "v")].map(|(conn, name)| {
            let reply = world.ask(conn, Request::Ready(ready(name)));
            world.commit();
            world.lease(reply)
        });
        world.ask(1, super::world::hello("w", &["a"], &[held(1, leases[0]), held(2, leases[1])]));
        world.insert_with("high", "a", |row| row.losses = 1);
        let parked = world.ask(1, Request::Ready(Ready { slot: 1, ..ready("w") }));
        world.commit();
        assert!(world.open.contains(&parked), "it runs a suspect");
        for (n, lease) in [(1, leases[0]), (2, leases[1])] {
            assert_eq!(world.open.contains(&parked), n <= n_suspects, "{n_suspects} suspects, before {n} has ended");
            world.ask(1, Request::Ready(Ready { max: 0, outcomes: vec![done(n, lease)], ..ready("w") }));
            world.commit();
        }
        assert_eq!(ids(&world, parked), [3]);
    }
}

#[test]
fn nothing_goes_before_a_suspect_in_a_batch() {
    // Task 1 is ready, 2 is a suspect behind it, 3 of a lower lane: the batch ends before the suspect, which comes next.
    let mut world = read_ahead(|world| {
        world.insert_with("high", "a", |row| row.due = UnixMillis(row.due.0 - 5));
        world.insert_with("high", "a", |row| row.losses = 1);
        world.insert("low", "a", 1);
    });
    assert_eq!(take(&mut world, 3), [1]);
    assert_eq!(take(&mut world, 3), [2]);
    assert_eq!(take(&mut world, 3), [3]);
}

#[test]
fn many_suspects_do_not_keep_the_tasks_behind_them_out() {
    // The only process runs a suspect. 40 more are read past; over 64, the whole window, the lower lanes go on at least.
    for (suspects, expected) in [(41, 42), (100, 102)] {
        let mut world = World::new();
        for _ in 0..suspects {
            world.insert_with("high", "a", |row| row.losses = 1);
        }
        world.insert("high", "a", 1);
        world.insert("low", "a", 1);
        let first = world.ask(1, Request::Ready(plain("w", &["a"])));
        world.commit();
        assert_eq!(ids(&world, first), [1]);
        let second = world.ask(1, Request::Ready(Ready { slot: 1, ..plain("w", &["a"]) }));
        world.commit();
        assert_eq!(ids(&world, second), [expected]);
    }
}

#[test]
fn a_slot_may_change_what_it_runs() {
    // A parked slot asks again with other kinds: it leaves its class, gets no task of the old one, and takes of the new.
    let mut world = World::new();
    let old = world.ask(1, Request::Ready(plain("w", &["a"])));
    world.commit();
    world.take();
    let new = world.ask(1, Request::Ready(Ready { max: 7, ..plain("w", &["b"]) }));
    assert!(!world.open.contains(&old));
    world.insert("low", "a", 1);
    world.insert("low", "b", 1);
    world.commit();
    assert_eq!(ids(&world, new), [2]);
    assert!(world.table.rows[&id(1)].lease.is_none());
}

#[test]
fn a_slot_that_comes_to_take_more_at_once_is_read_ahead_for() {
    // Sixteen times as much, from its next question on; that it takes less again changes nothing.
    let mut world = World::with(Settings { window_rows_max: 512, ..settings() });
    let ask = |world: &mut World, max| {
        world.ask(1, Request::Ready(Ready { max, lanes: Some(vec![lane("low")]), ..plain("w", &["a"]) }));
        world.commit();
        world.take().into_iter().filter(|line| line.starts_with("demand ")).collect::<Vec<_>>()
    };
    assert_eq!(ask(&mut world, 1), ["demand low/a 32"]);
    assert_eq!(ask(&mut world, 30), ["demand low/a 480"]);
    assert!(ask(&mut world, 2).is_empty() && ask(&mut world, 30).is_empty());
}

#[test]
fn a_hello_with_other_kinds_moves_the_slots_that_said_none() {
    // The parked one is asked to come again, and only the new kind is read ahead.
    let mut world = World::new();
    world.hello("w", 1, &["a"]);
    let old = world.ask(1, Request::Ready(ready("w")));
    world.commit();
    world.take();
    world.ask(1, super::world::hello("w", &["b"], &[]));
    let lines = world.take();
    assert_eq!(lines[0], "#2 WAIT Idle");
    assert!(lines.contains(&"demand low/a 0".into()) && lines.contains(&"demand low/b 32".into()), "{lines:?}");
    assert!(!world.open.contains(&old));
    world.insert("low", "a", 1);
    world.insert("low", "b", 1);
    let reply = world.ask(1, Request::Ready(ready("w")));
    world.commit();
    assert_eq!(ids(&world, reply), [2]);
}

#[test]
fn a_hello_with_other_lanes_moves_the_slots_that_said_less_than_both() {
    // Slot 0 said nothing, 1 its lanes, 2 its kinds, 3 both. Said again unchanged, nobody is asked to come again.
    let mut world = World::new();
    let Request::Hello(first) = super::world::hello("w", &["a"], &[]) else { unreachable!() };
    world.ask(1, Request::Hello(Hello { lanes: Some(vec![lane("low")]), ..first.clone() }));
    let (lanes, kinds) = (Some(vec![lane("low")]), Some(vec![kind("a")]));
    for (slot, lanes, kinds) in [(0, &None, &None), (1, &lanes, &None), (2, &None, &kinds), (3, &lanes, &kinds)] {
        world.ask(1, Request::Ready(Ready { slot, lanes: lanes.clone(), kinds: kinds.clone(), ..ready("w") }));
    }
    world.commit();
    world.take();
    world.ask(1, Request::Hello(Hello { lanes: Some(vec![lane("low")]), ..first.clone() }));
    assert_eq!(world.said(), ["#6 WELCOME lost []"]);
    world.ask(1, Request::Hello(Hello { lanes: Some(vec![lane("high")]), ..first }));
    assert_eq!(world.said(), ["#2 WAIT Idle", "#3 WAIT Idle", "#4 WAIT Idle", "#7 WELCOME lost []"]);
    for (slot, lanes, kinds) in [(0, None, None), (1, lanes, None), (2, None, kinds)] {
        world.ask(1, Request::Ready(Ready { slot, lanes, kinds, ..ready("w") }));
    }
    world.insert("high", "a", 3);
    world.insert("low", "a", 2);
    world.commit();
    let got: Vec<Vec<u64>> = [8, 9, 10, 5].map(|n| ids(&world, crate::ReplyTo(n))).to_vec();
    assert_eq!(got, [[1], [5], [2], [4]]);
}

#[test]
fn a_hand_out_tells_what_the_row_and_the_settings_say() {
    // The run and the attempt count what was before; timeout and attempts are the row's own, or its kind's.
    let mut world = read_ahead(|world| {
        world.insert_with("low", "a", |row| {
            (row.runs, row.attempts, row.max_attempts, row.timeout_ms) = (5, 2, Some(9), Some(70));
            (row.payload, row.checkpoint) = (Some(Payload::json("1")), Some(Payload::json("2")));
            row.trace = Some("t".into());
        });
        world.insert("low", "a", 1);
    });
    world.jump(50);
    let reply = world.ask(1, Request::Ready(Ready { max: 2, ..plain("w", &["a", "b"]) }));
    let Answer::Tasks(tasks) = &world.answers[&reply] else { panic!("no tasks") };
    let [own, other] = tasks.tasks.as_slice() else { panic!("two tasks") };
    assert_eq!((own.run, own.attempt, own.max_attempts, own.timeout_ms), (6, 3, 9, 70));
    let carried = (own.payload.clone(), own.checkpoint.clone(), own.trace.as_deref());
    assert_eq!(carried, (Some(Payload::json("1")), Some(Payload::json("2")), Some("t")));
    assert_eq!((other.run, other.attempt, other.max_attempts, other.timeout_ms), (1, 1, 3, 60_000));
    let Some((None, Op::Started(started))) = world.table.inbox.front() else { panic!("no record") };
    assert_eq!((started.run, started.attempt, started.wait_ms), (6, 3, 50));
}
