//! The broker shares the database: an app that wants to write gets its turn while tasks flow.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::time::{Duration, Instant};

use harness::{Broker, Place, Table, WorkerProcess, wait_until};

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// While the broker commits as fast as it can, inserts of an app with SQLite's own busy handler, which sleeps up to 100 ms
/// between two tries, do not wait for the load to end.
#[test]
fn an_app_gets_the_write_lock_while_tasks_flow() {
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    table.insert_many(30_000, "low", "echo", "1");
    let _workers = [WorkerProcess::start(&place, "slots=4"), WorkerProcess::start(&place, "slots=4")];
    wait_until("tasks to flow", || table.count("state = 'done'") > 100);
    let mut waits: Vec<Duration> = (0..15)
        .map(|_| {
            let begun = Instant::now();
            table.insert("nobody", "1");
            begun.elapsed()
        })
        .collect();
    assert!(table.count("state = 'queued' AND kind = 'echo'") > 0, "the load ended before the inserts did");
    waits.sort_unstable();
    assert!(waits[7] < Duration::from_millis(300), "half of the inserts waited longer: {waits:?}");
}
