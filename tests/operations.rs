//! What whoever runs a broker does to it while it works: asks it what it knows, lets it read its settings anew, lets its log be moved.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Broker, Place, Table, WorkerProcess, wait_for, wait_until};
use serde_json::{Value, json};

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// The lines of a broker's log that meet a condition.
fn lines(broker: &Broker, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
    broker.log().into_iter().filter(fits).collect()
}

#[test]
fn a_signal_has_lanes_leases_and_threads_written_into_the_log() {
    // Proves SIGTTIN: each lane, each lease with who has it, each thread of the table in ARCHITECTURE.md by its name; and that the
    // work goes on.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "name=keeper slots=2");
    let gate = place.path("open");
    let task = table.insert("gate", &json!({ "path": gate }).to_string());
    place.journal().wait_for_begin(task, 1);
    table.insert("nobody", "1");
    broker.signal("TTIN");
    let told = |event: &str| lines(&broker, |line| line["target"] == "laneway::dump" && line["event"] == event);
    // It is the last to be written, and was not the last to be started.
    wait_until("the threads", || told("thread").iter().any(|line| line["name"] == "scheduler"));
    let broker_line = wait_for("the broker's line", || told("broker").pop());
    assert_eq!((&broker_line["running"], &broker_line["workers"]), (&json!(1), &json!(1)), "{broker_line}");
    let lanes: Vec<Value> = told("lane").iter().map(|line| line["lane"].clone()).collect();
    assert_eq!(lanes, ["high", "normal", "low"]);
    let leases = told("lease");
    assert_eq!((leases.len(), &leases[0]["task"], &leases[0]["kind"]), (1, &json!(task), &json!("gate")));
    assert!(leases[0]["worker"].as_str().unwrap().starts_with("keeper@"), "{}", leases[0]);
    assert!(leases[0]["since_ms"].is_u64() && leases[0]["left_ms"].as_u64().unwrap() > 3_000_000, "{}", leases[0]);
    assert!(leases[0].get("lease").is_none(), "whoever reads the log could end the run");
    let names: Vec<String> = told("thread").iter().map(|line| line["name"].as_str().unwrap().to_owned()).collect();
    for name in ["main", "router", "scheduler", "sync", "checkpoint", "task-log", "log-writer", "memory", "signals"] {
        assert!(names.iter().any(|found| found == name), "{name} is not among {names:?}");
    }
    std::fs::write(&gate, "").unwrap();
    table.wait_for_state(task, "done");
    assert_eq!(broker.stop(), 0);
}
