//! Faults around the broker: what docs/faults.md promises of the files under it and of the machine. One module for each
//! place where a fault comes from.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

#[path = "faults/clock.rs"]
mod clock;
#[path = "faults/descriptors.rs"]
mod descriptors;
#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/files.rs"]
mod files;
#[path = "faults/lock.rs"]
mod lock;
#[path = "faults/sync.rs"]
mod sync;
#[path = "faults/wal_reset.rs"]
mod wal_reset;

use std::process::Command;

use harness::Broker;

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// Sets a limit of the running broker from outside: the soft one alone, so that it can be lifted again.
fn limit(broker: &Broker, what: &str, most: &str) {
    let limit = format!("--{what}={most}:");
    assert!(Command::new("prlimit").args(["--pid", &broker.pid().to_string(), &limit]).status().unwrap().success());
}
