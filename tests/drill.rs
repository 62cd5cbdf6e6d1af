//! That `laneway drill` works: a short one of it, with its real broker, workers and kills. Its verdict is the promise that
//! nothing is lost; a long one is for people.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use serde_json::Value;

#[test]
fn nothing_is_lost_while_broker_and_workers_are_killed() {
    // Proves that a broker killed three times and workers killed six times under a mixed load lose no acknowledged task, and
    // that every repeated execution has a cause.
    let dir = tempfile::tempdir().unwrap();
    let words =
        "drill --seconds 6 --tasks 1000 --broker-kills 3 --worker-kills 6 --broker-stops 1 --worker-stops 1 -o json";
    let output = Command::new(env!("CARGO_BIN_EXE_laneway"))
        .args(words.split(' '))
        .arg("--dir")
        .arg(dir.path())
        .output()
        .unwrap();
    let (told, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {said}\n{told}", output.status);
    let report: Value = serde_json::from_str(&told).unwrap();
    let n = |pointer: &str| report.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {pointer}"));
    // What was asked for has happened, so that the verdict is about something.
    assert_eq!((n("/faults/broker_kills"), n("/faults/worker_kills")), (3, 6));
    assert!(n("/tasks/in") >= 1_000 && n("/executions") >= n("/tasks/done"), "{told}");
    assert_eq!(n("/tasks/in"), n("/tasks/done") + n("/tasks/dead") + n("/tasks/cancelled"));
    assert_eq!(report["violations"], Value::Array(Vec::new()));
    let left: Vec<_> = dir.path().read_dir().unwrap().collect();
    assert!(left.is_empty(), "files are left behind: {left:?}");
}
