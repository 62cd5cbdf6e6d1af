//! What every end-to-end test needs: a real broker process on a temporary database, real worker processes, the table as an
//! app sees it, and waiting for a condition with a deadline.
//!
//! Workers are this very test binary, started again as a process of its own (see [`worker_main`]); each run of a handler
//! leaves a line in a journal file, so that tests can count what really ran.

#![allow(dead_code, reason = "each test binary uses its own part of the harness")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod apart;
mod broker;
mod browser;
mod built;
mod http;
mod load;
mod program;
mod random;
mod raw;
mod said;
mod table;
pub(crate) mod tools;
mod worker;
pub(crate) mod zmtp;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[allow(unused_imports, reason = "each test binary uses its own part of the harness")]
pub(crate) use {
    apart::Apart,
    broker::Broker,
    browser::Browser,
    built::Built,
    http::{Answered, Http},
    load::Load,
    program::{Program, output_of},
    random::Random,
    raw::{RawPeer, plain_ready},
    said::Said,
    table::Table,
    worker::{Journal, Run, WorkerProcess, now_us, worker_main},
};

/// Longer than anything a test waits for takes, even on a busy machine with two cores.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// A folder of one test: database, socket, journal, log. Deleted at its end.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("laneway-").tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn db(&self) -> PathBuf {
        self.path("tasks.db")
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("ipc://{}", self.path("broker.sock").display())
    }

    pub(crate) fn journal(&self) -> Journal {
        Journal::new(self.path("journal"))
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// Waits until `condition` gives something; panics with `what` when [`DEADLINE`] is over.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_at_most(DEADLINE, what, condition)
}

#[track_caller]
pub(crate) fn wait_at_most<T>(deadline: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + deadline;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < until, "waited {deadline:?} for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// Sends a signal to one process that the test has started.
pub(crate) fn signal(pid: u32, signal: &str) {
    let status = std::process::Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill -{signal} {pid}");
}
