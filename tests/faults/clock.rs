//! A wall clock that jumps under the running broker: that of its process alone, by libfaketime, never the machine's.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::harness::tools::libfaketime;
use crate::harness::{Broker, Place, Table, WorkerProcess, wait_until};

const HOUR_MS: i64 = 3_600_000;

/// The wall clock of one process.
struct WallClock {
    file: PathBuf,
}

impl WallClock {
    fn new(place: &Place) -> Self {
        let clock = Self { file: place.path("clock") };
        clock.set_ahead_ms(0);
        clock
    }

    /// What makes a process live by it. The monotonic clock stays the machine's, as in a real jump.
    fn env(&self) -> [(&'static str, OsString); 5] {
        [
            ("LD_PRELOAD", libfaketime().into()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.clone().into()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }

    /// Jumps: from now on it is ahead of the machine's by so much, or behind.
    fn set_ahead_ms(&self, ms: i64) {
        let new = self.file.with_extension("new");
        // Whole seconds and a rename: the process never reads half a file.
        std::fs::write(&new, format!("{:+}\n", ms / 1_000)).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }
}

/// Milliseconds since 1970, of the machine.
fn now_ms() -> i64 {
    i64::try_from(crate::harness::now_us() / 1_000).unwrap()
}

/// Everything that must not notice a jump of the clock, beside a task that runs through it.
fn a_jump_of(ms: i64) {
    let place = Place::new();
    let clock = WallClock::new(&place);
    let broker = Broker::start_under(&place, &[], &clock.env());
    let worker = WorkerProcess::start(&place, "slots=3");
    let table = Table::open(&place);
    let gate = place.path("gate");
    let held = table.insert("gate", &serde_json::json!({ "path": gate }).to_string());
    table.wait_for_state(held, "running");
    let started: i64 = table.column(held, "started_at");
    assert!((started - now_ms()).abs() < HOUR_MS / 2, "the broker's clock is wrong before it jumps");

    clock.set_ahead_ms(ms);
    // It did jump: what starts now says so.
    let after = table.insert("echo", "1");
    table.wait_for_state(after, "done");
    let ahead = table.column::<i64>(after, "started_at") - started;
    assert!((ahead - ms).abs() < HOUR_MS / 2, "the clock moved by {ahead} ms");
    // A retry's delay, a timeout, a lease that nobody extends: lengths of time.
    let retried = table.insert("fail_once", "1");
    table.wait_for_state(retried, "done");
    table.execute(
        "INSERT INTO tasks(kind, payload, timeout_ms, max_attempts) VALUES ('sleep', '{\"ms\": 60000}', 300, 1)",
        [],
    );
    let timed_out = table.0.last_insert_rowid();
    table.wait_for_state(timed_out, "dead");
    let error: String = table.column(timed_out, "error");
    assert!(error.contains("time"), "{error}");
    // The task that was running is still the same run, far inside its timeout of an hour.
    assert_eq!(table.state(held), "running");
    std::fs::write(&gate, "").unwrap();
    table.wait_for_state(held, "done");
    assert_eq!(table.column::<String>(held, "runs || ' ' || attempts || ' ' || losses"), "1 1 0");
    assert_eq!(table.one::<i64>("SELECT sum(losses) + sum(releases) FROM tasks", []), 0, "somebody was blamed");
    assert!(broker.client().workers().unwrap().len() == 1, "the worker was taken for lost");
    assert_eq!((worker.stop(), broker.stop()), (0, 0));
}

#[test]
fn a_clock_that_jumps_an_hour_ahead_ends_no_task_and_blames_nobody() {
    // Proves that timeouts, leases, retries and heartbeats are lengths of time, which a jump does not change.
    a_jump_of(HOUR_MS);
}

#[test]
fn a_clock_that_jumps_an_hour_back_ends_no_task_and_blames_nobody() {
    // Proves the same of the other way, where a deadline on the wall clock would be an hour late.
    a_jump_of(-HOUR_MS);
}

#[test]
fn run_at_follows_the_wall_clock_wherever_it_goes() {
    // Proves what a jump does change: a task for later is due when the broker's clock says so, at once after a jump ahead,
    // and not before its time after a jump back.
    let place = Place::new();
    let clock = WallClock::new(&place);
    let _broker = Broker::start_under(&place, &[], &clock.env());
    let _worker = WorkerProcess::start(&place, "");
    let table = Table::open(&place);
    let insert = |run_at: i64| {
        table.execute("INSERT INTO tasks(kind, payload, run_at) VALUES ('echo', '1', ?1)", [run_at]);
        table.0.last_insert_rowid()
    };
    let later = insert(now_ms() + HOUR_MS / 2);
    let soon = insert(now_ms() + 300);
    table.wait_for_state(soon, "done");
    assert_eq!(table.state(later), "queued");
    clock.set_ahead_ms(HOUR_MS);
    table.wait_for_state(later, "done");
    clock.set_ahead_ms(-HOUR_MS);
    let due_now = insert(now_ms() + 1);
    let at_once = table.insert("echo", "1");
    table.wait_for_state(at_once, "done");
    assert_eq!(table.state(due_now), "queued", "it ran an hour early by the broker's clock");
    clock.set_ahead_ms(0);
    wait_until("the clock to be right again", || table.state(due_now) == "done");
}
