//! `laneway demo-worker`: the worker process that the demo starts, an ordinary worker on the SDK with two handlers.

use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Args;
use laneway::{Context, Failure, Worker};
use serde::{Deserialize, Serialize};

use super::count::{self, Digest, SHA256, WORDCOUNT, Words};
use crate::error::Error;

pub(super) const SLOTS: u32 = 2;
/// Slots of these that only take tasks of the lane high.
pub(super) const SLOTS_FOR_HIGH: u32 = 1;
/// After SIGTERM; less than the demo waits before it kills.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// Files of at least this size show progress.
const PROGRESS_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// A worker of the demo, which starts it itself
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  laneway demo-worker --broker tcp://127.0.0.1:7733 --name worker-1")]
pub(crate) struct DemoWorkerArgs {
    /// Where the broker listens
    #[arg(long, value_name = "ENDPOINT")]
    broker: String,

    /// What people see in lists and logs
    #[arg(long, default_value = "demo-worker")]
    name: String,

    /// How long each task pauses before it works
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pause_ms: u64,
}

/// The payload of both kinds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FileTask {
    pub(super) path: PathBuf,
}

/// Runs until it is told to stop.
pub(crate) fn work(args: &DemoWorkerArgs) -> Result<(), Error> {
    let pause = Duration::from_millis(args.pause_ms);
    let worker = Worker::builder(&args.broker)
        .name(&args.name)
        .slots(SLOTS)
        .reserve("high", SLOTS_FOR_HIGH)
        .stop_timeout(STOP_TIMEOUT)
        .handle(SHA256, move |task: FileTask, ctx| sha256(&task, ctx, pause))
        .handle(WORDCOUNT, move |task: FileTask, ctx| wordcount(&task, ctx, pause))
        .build();
    let worker = worker.map_err(|error| Error::other("set the worker up", error))?;
    worker.run().map_err(|error| Error::other("run the worker", error))?;
    Ok(())
}

fn sha256(task: &FileTask, ctx: &Context, pause: Duration) -> Result<Digest, Failure> {
    thread::sleep(pause);
    count::digest(&task.path, on_chunk(task, ctx)).map_err(|error| failure(task, ctx, &error))
}

fn wordcount(task: &FileTask, ctx: &Context, pause: Duration) -> Result<Words, Failure> {
    thread::sleep(pause);
    count::words(&task.path, on_chunk(task, ctx)).map_err(|error| failure(task, ctx, &error))
}

/// Shows how far a large file is, and ends early when that is asked for.
fn on_chunk(task: &FileTask, ctx: &Context) -> impl FnMut(usize) -> io::Result<()> {
    let total = task.path.metadata().map_or(0, |file| file.len());
    let mut done = 0;
    move |bytes| {
        if ctx.cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        done += bytes as u64;
        if total >= PROGRESS_BYTES_MIN {
            ctx.progress(done, total, "reading");
        }
        Ok(())
    }
}

fn failure(task: &FileTask, ctx: &Context, error: &io::Error) -> Failure {
    if ctx.cancelled() {
        return Failure::cancelled();
    }
    // A file that went away, or never was readable, will not come back by trying again.
    Failure::dead(format!("{}: {error}", task.path.display()))
}
