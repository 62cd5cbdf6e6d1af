//! Promise 2: a task leaves the queue only to a worker that said ready, and long and short tasks never strand an idle one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::HashMap;

use harness::{Broker, Place, RawPeer, Run, Table, WorkerProcess, plain_ready, wait_until};
use laneway_protocol::message::{Answer, Request};

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// Tasks stay queued while every slot is busy; one that becomes free takes exactly one.
#[test]
fn a_task_stays_in_the_queue_until_a_slot_is_ready() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let worker = WorkerProcess::start(&place, "slots=2 batch=1");
    let gates: Vec<i64> = (0..2).map(|n| table.insert("gate", &gate(&place, n))).collect();
    for &id in &gates {
        place.journal().wait_for_begin(id, 1);
        table.wait_for_state(id, "running");
    }
    table.insert_many(50, "high", "gate", &gate(&place, 2));
    // The broker has seen them all, and gives none away.
    wait_until("the broker to count them", || broker.client().stats().unwrap().queued == 50);
    assert_eq!(table.count("runs > 0"), 2, "a task left the queue for a busy worker");

    std::fs::write(place.path("gate0"), "").unwrap();
    table.wait_for_state(gates[0], "done");
    table.wait_for_count("state = 'running'", 2);
    assert_eq!(table.count("runs > 0"), 3);

    std::fs::write(place.path("gate1"), "").unwrap();
    std::fs::write(place.path("gate2"), "").unwrap();
    table.wait_for_count("state = 'done' AND runs = 1", 52);
    assert_eq!(worker.stop(), 0);
}

/// A worker gets as many as it asked for, and the next only with its next word.
#[test]
fn nothing_is_sent_beyond_what_was_asked_for() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    table.insert_many(10, "normal", "echo", "1");
    let peer = RawPeer::dealer(broker.endpoint());
    let mut ready = plain_ready("asks-for-three", "echo", 0, 10_000);
    ready.max = 3;
    let Answer::Tasks(hand_out) = peer.ask(Request::Ready(ready)) else { panic!("no tasks") };
    assert!((1..=3).contains(&hand_out.tasks.len()), "{}", hand_out.tasks.len());
    let n = i64::try_from(hand_out.tasks.len()).unwrap();
    table.wait_for_count("state = 'running'", n);
    // A second message would be here by the time that the broker answers another question of the same connection.
    let Answer::Stats(stats) = peer.ask(Request::Stats) else { panic!("tasks that nobody asked for") };
    assert_eq!(stats.handed_out, u64::try_from(n).unwrap());
}

/// 2,000 tasks of mixed durations on 8 slots of two processes: no slot is idle while a task that it could run waits.
#[test]
fn mixed_durations_leave_no_slot_idle_while_work_waits() {
    const TASKS: usize = 2_000;
    const SLOTS: usize = 8;
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    // Mostly short, some twenty times as long; and towards the end two so long that whatever sits behind them shows.
    table.0.execute_batch("BEGIN IMMEDIATE").unwrap();
    for n in 0..TASKS {
        let ms = if TASKS - n == 40 || TASKS - n == 30 {
            4_000
        } else if n % 10 == 0 {
            60
        } else {
            3
        };
        table.insert("sleep", &format!(r#"{{"ms":{ms}}}"#));
    }
    table.0.execute_batch("COMMIT").unwrap();
    let _workers = [WorkerProcess::start(&place, "slots=4"), WorkerProcess::start(&place, "slots=4")];
    let client = broker.client();
    let mut round_trips = Vec::new();
    wait_until("all tasks to be done", || {
        let before = harness::now_us();
        client.ping().unwrap();
        round_trips.push(harness::now_us() - before);
        table.count("state = 'done'") == i64::try_from(TASKS).unwrap()
    });
    assert_eq!(table.count("runs = 1 AND attempts = 1"), i64::try_from(TASKS).unwrap());
    assert_eq!(client.stats().unwrap().handed_out, u64::try_from(TASKS).unwrap());

    let mut idle = idle_times_us(&place.journal().lines(), SLOTS);
    idle.sort_unstable();
    round_trips.sort_unstable();
    // Between the end of one task and the beginning of the next lies a round trip, as long as it takes on this machine now.
    // A slot that was forgotten, or whose next tasks sit behind another's, is idle for the length of a task or for ever.
    let round_trip = round_trips[round_trips.len() / 2];
    let median = idle[idle.len() / 2];
    assert!(
        median < 5_000 + 5 * round_trip,
        "a slot is idle for {median} µs between two tasks, a round trip is {round_trip} µs"
    );
    let longest = idle.last().unwrap();
    assert!(
        *longest < 1_000_000 + 50 * round_trip,
        "a slot was idle for {longest} µs, a round trip is {round_trip} µs"
    );
}

/// For each time that a process had fewer tasks running than slots, while others still waited: how long that was.
fn idle_times_us(lines: &[Run], slots: usize) -> Vec<u64> {
    let per_process = slots / 2;
    let last_begin = lines.iter().filter(|line| line.what == "begin").map(|line| line.at_us).max().unwrap();
    let mut sorted = lines.to_vec();
    sorted.sort_by_key(|line| line.at_us);
    let mut idle = Vec::new();
    // Free since, for each free slot of a process; a process counts from its first task on.
    let mut free: HashMap<u32, Vec<u64>> = HashMap::new();
    let mut running: HashMap<u32, usize> = HashMap::new();
    for line in sorted {
        let free = free.entry(line.pid).or_default();
        let running = running.entry(line.pid).or_default();
        if line.what == "begin" {
            *running += 1;
            assert!(*running <= per_process, "more tasks than slots in process {}", line.pid);
            if !free.is_empty() {
                idle.push(line.at_us - free.remove(0));
            }
        } else {
            *running -= 1;
            free.push(line.at_us);
        }
    }
    // Slots that never got another task although one began later elsewhere: stranded.
    for since in free.into_values().flatten().filter(|&since| since < last_begin) {
        idle.push(last_begin - since);
    }
    idle
}

/// A long task in a worker does not hold up the short ones behind it: its other slots, and other workers, take them.
#[test]
fn short_tasks_pass_long_ones() {
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=2");
    let long = table.insert("gate", &gate(&place, 0));
    place.journal().wait_for_begin(long, 1);
    table.insert_many(200, "normal", "echo", "1");
    table.wait_for_count("kind = 'echo' AND state = 'done'", 200);
    assert_eq!(table.state(long), "running");
    std::fs::write(place.path("gate0"), "").unwrap();
    table.wait_for_state(long, "done");
}

fn gate(place: &Place, n: u32) -> String {
    serde_json::json!({ "path": place.path(&format!("gate{n}")) }).to_string()
}
