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

/// While tasks flow without a rest, the write-ahead log begins anew again and again: it stays far smaller than what goes through it.
#[test]
fn the_log_stays_bounded_under_a_load_that_never_rests() {
    const TASK_BYTES: usize = 8_000;
    const BATCH: usize = 25;
    const LOG_BYTES_MAX: u64 = 128 * 1024 * 1024;
    const WRITTEN_BYTES: u64 = 3 * LOG_BYTES_MAX;
    let place = Place::new();
    // What is done goes, so that the file does not grow with the load.
    let broker = Broker::start_with(&place, &["retention.done_age_ms=0", "retention.interval_ms=100"]);
    let table = Table::open(&place);
    let _workers = [WorkerProcess::start(&place, "slots=4"), WorkerProcess::start(&place, "slots=4")];
    let payload = format!("\"{}\"", "x".repeat(TASK_BYTES));
    let log = place.path("tasks.db-wal");
    let client = broker.client();
    let (mut written, mut inserted, mut largest) = (0, 0, 0);
    let until = Instant::now() + 2 * harness::DEADLINE;
    while written < WRITTEN_BYTES {
        table.insert_many(BATCH, "normal", "echo", &payload);
        // Once as payload and once as result.
        written += 2 * (BATCH * TASK_BYTES) as u64;
        largest = largest.max(std::fs::metadata(&log).unwrap().len());
        inserted += BATCH as u64;
        // Workers keep up, so that it is work which goes through the log and no backlog. The table is not asked: a reader that is
        // always there keeps the log from beginning anew.
        wait_until("the backlog to be small", || inserted - client.stats().unwrap().done < 200);
        assert!(Instant::now() < until, "only {written} bytes in {:?}", 2 * harness::DEADLINE);
    }
    assert!(largest < LOG_BYTES_MAX, "the log had {largest} bytes after {written} bytes of work");
    wait_until("all to be done", || table.count("state IN ('queued', 'running')") == 0);
    assert_eq!(broker.client().stats().unwrap().wal_pinned_bytes, 0);
    assert_eq!(broker.stop(), 0);
}
