//! Faults around the broker: what docs/faults.md promises of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}
