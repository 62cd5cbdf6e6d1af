//! `laneway work`: makes any program a worker. Each task is a process of its own, so what it does to itself it does to that task
//! alone.
//!
//! `child.rs` runs one process with its pipes, `ends.rs` says what its end means for the task, `said.rs` reads what it says of
//! its progress. The SDK's worker does the rest.

mod child;
mod ends;
mod said;

use std::path::PathBuf;
use std::time::Duration;

use laneway::{Context, Curve, Failure, Finished, Handler, Payload, Worker};

use crate::error::Error;
use child::{Child, Heard};

pub(crate) use ends::ResultFormat;

/// How often a task is looked at for a cancel.
const LOOK: Duration = Duration::from_millis(50);
/// A process that cannot be started now (too many, no memory) is no fault of its task, which comes back after this.
const NOT_NOW: Duration = Duration::from_secs(10);

/// What to run, and for which tasks.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) kinds: Vec<String>,
    pub(crate) lanes: Vec<String>,
    pub(crate) reserve: Vec<(String, u32)>,
    pub(crate) slots: u32,
    pub(crate) name: Option<String>,
    pub(crate) program: Program,
}

#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// Found, so that a slip in its name ends the worker and not its tasks.
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<std::ffi::OsString>,
    pub(crate) result: ResultFormat,
    /// Between the wish to end and the end.
    pub(crate) grace: Duration,
}

/// Runs until a signal or a drain ends it.
pub(crate) fn run(endpoint: &str, curve: Option<Curve>, job: &Job) -> Result<(), Error> {
    let mut builder = Worker::builder(endpoint).slots(job.slots);
    if let Some(curve) = curve {
        builder = builder.curve(curve);
    }
    let file_name = || job.program.path.file_name().map(|name| name.to_string_lossy().into_owned());
    if let Some(name) = job.name.clone().or_else(file_name) {
        builder = builder.name(name);
    }
    if !job.lanes.is_empty() {
        builder = builder.lanes(&job.lanes);
    }
    for (lane, slots) in &job.reserve {
        builder = builder.reserve(lane, *slots);
    }
    for kind in &job.kinds {
        builder = builder.handler(kind, job.program.clone());
    }
    // Children need their time to end before the task is taken for left behind.
    let worker = builder.release_timeout(job.program.grace + Duration::from_secs(1)).build()?;
    tracing::info!(target: "laneway::work", kinds = %job.kinds.join(" "), slots = job.slots, endpoint, "working");
    match worker.run()? {
        Finished::Drained => tracing::info!(target: "laneway::work", "sent home by a drain"),
        Finished::Stopped => tracing::info!(target: "laneway::work", "stopped"),
    }
    Ok(())
}

impl Handler for Program {
    fn run(&self, payload: Option<Payload>, ctx: &Context) -> Result<Option<Payload>, Failure> {
        let mut child = match Child::start(self, payload, ctx) {
            Ok(child) => child,
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(target: "laneway::work", task = %ctx.id(), %error, "cannot start {path}; the task comes back");
                return Err(Failure::snooze(NOT_NOW));
            }
        };
        let end = loop {
            if ctx.cancelled() {
                child.ask_to_end(self.grace);
            }
            match child.hear(LOOK) {
                Some(Heard::Progress(line)) => {
                    let said::Said { count, note } = said::read(&line);
                    match count {
                        Some((done, total)) => ctx.progress(done, total, &note),
                        None => ctx.note(&note),
                    }
                }
                Some(Heard::Ended(end)) => break end,
                None => ctx.flush(),
            }
        };
        ends::outcome(end, self.result, ctx.cancelled())
    }
}
