//! Run tasks from a Laneway broker, and submit them.
//!
//! A [`Worker`] says it is ready, gets a task, runs its handler, and says how that ended; nothing is prefetched to it. The
//! outcome is kept and said again until the broker has it on disk, also across a restart of the broker.
//!
//! ```no_run
//! use laneway::{Context, Failure, Worker};
//! use serde::Deserialize;
//!
//! #[derive(Deserialize)]
//! struct Thumbnail {
//!     path: String,
//!     width: u32,
//! }
//!
//! fn thumbnail(task: Thumbnail, ctx: &Context) -> Result<String, Failure> {
//!     for row in 0..task.width {
//!         if ctx.cancelled() {
//!             return Err(Failure::cancelled());
//!         }
//!         ctx.progress(row.into(), task.width.into(), "scaling");
//!     }
//!     let bytes = std::fs::read(&task.path)?;
//!     Ok(format!("{} bytes", bytes.len()))
//! }
//!
//! fn main() -> Result<(), laneway::Error> {
//!     Worker::builder("tcp://127.0.0.1:7733")
//!         .slots(4)
//!         .reserve("high", 1)
//!         .handle("thumbnail", thumbnail)
//!         .build()?
//!         .run()?;
//!     Ok(())
//! }
//! ```
//!
//! A task is a row in the broker's `tasks` table, inserted by any program in its own transaction. A [`Client`] submits
//! over the socket instead, and waits for tasks however they came to be:
//!
//! ```no_run
//! use laneway::{Client, News, Task};
//!
//! # fn main() -> Result<(), laneway::Error> {
//! let client = Client::connect("tcp://127.0.0.1:7733")?;
//! let stored = client.submit(Task::new("thumbnail").payload(&("cat.png", 320)).lane("high"))?;
//! let ended = client.wait_with(stored.task, |news| match news {
//!     News::Progress(event) => eprintln!("{:?} of {:?}", event.done, event.total),
//!     News::Missed => eprintln!("some words of progress are missing"),
//!     _ => {}
//! })?;
//! println!("{}", ended.result::<String>()?);
//! # Ok(())
//! # }
//! ```
//!
//! Tasks run *at least once*: what a handler does should bear repeating. [`Context::id`] is the same in every run.
//!
//! # Traces
//!
//! With the feature `opentelemetry` each run of a handler is a span of [OpenTelemetry](https://opentelemetry.io), `process KIND`, and each
//! submit one, `send KIND`, whose context travels in the task's `trace`. They go to the global tracer provider that the program
//! sets; this library depends on the API alone. The first run is a child of the submit, however long that was ago; a retry, or a
//! run after a loss, is a trace of its own with a link to it. A row that is inserted by SQL says its `traceparent` in the column.

#![warn(missing_docs)]

mod ahead;
mod barrier;
mod batch;
mod client;
mod config;
mod conn;
mod context;
mod control;
pub mod curve;
mod error;
mod greeting;
mod handler;
pub mod link;
mod met;
mod observer;
mod payload;
mod seed;
mod signals;
mod spans;
mod task;
mod watch;
mod worker;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use barrier::Barrier;
pub use batch::{Batch, StoredBatch};
pub use client::{Client, Ended};
pub use config::WorkerBuilder;
pub use context::Context;
pub use curve::Curve;
pub use error::Error;
pub use handler::{Failure, Handler, snooze};
/// The wire types, for those who need more than this library's own names.
pub use laneway_protocol as protocol;
pub use laneway_protocol::message::{Drain, Filter, GroupRow, OnConflict, ProgressEvent, Stored, Verdict};
pub use laneway_protocol::{Code, FairKey, Format, Kind, LaneName, Lease, Payload, TaskId, TaskState, WireError};
pub use observer::{LinkKeys, LinkRefused, Observed, ObserverLink};
pub use payload::{decode, encode};
#[doc(hidden)]
pub use seed::seed_libzmq;
pub use task::Task;
pub use watch::{News, Watch};
pub use worker::{Finished, Stopper, Worker};

/// Takes a lock. A holder that panicked has left nothing half done: every change under our locks is a single step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
