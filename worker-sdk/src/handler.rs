//! What runs a task, and how a run can end. The worker calls handlers; they know nothing of sockets.

use std::any::Any;
use std::fmt::Display;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use laneway_protocol::message::{End, Held, NewTask, Outcome};
use laneway_protocol::{Format, Payload};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::payload::{decode, encode_result};

/// Runs the tasks of one kind.
///
/// Most programs pass a closure to [`WorkerBuilder::handle`](crate::WorkerBuilder::handle) instead. Implement it for a
/// type that owns what its tasks need, and pass that to [`WorkerBuilder::handler`](crate::WorkerBuilder::handler).
///
/// One value serves all slots, on several threads at once. The library promises *at least once*: a task can run again
/// after a crash, so what it does should bear repeating; [`Context::id`] is the same in every run.
pub trait Handler: Send + Sync + 'static {
    /// Runs one task. `None` is a row whose payload is NULL, or a task without result. A panic is recorded as a failure.
    fn run(&self, payload: Option<Payload>, ctx: &Context) -> Result<Option<Payload>, Failure>;
}

/// Every way in which a run can end without a result.
///
/// Anything that can be displayed turns into a plain failure by `?`, to be tried again with the kind's backoff; the other
/// ends have constructors. It is not an [`std::error::Error`] itself, for that reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    end: End,
    error: Option<String>,
    after: Option<Duration>,
    dead: bool,
}

impl Failure {
    /// Failed: an attempt. Tried again with the kind's backoff while attempts are left, else dead.
    pub fn new(error: impl Display) -> Self {
        // The alternate form makes error types that keep a chain of causes print all of it.
        Self { end: End::Fail, error: Some(format!("{error:#}")), after: None, dead: false }
    }

    /// Failed: an attempt. While attempts are left, tried again after `after` (milliseconds precision).
    pub fn retry_after(after: Duration, error: impl Display) -> Self {
        Self { after: Some(after), ..Self::new(error) }
    }

    /// Failed for good: dead at once, whatever attempts are left. Kept until a person requeues or purges it.
    pub fn dead(error: impl Display) -> Self {
        Self { dead: true, ..Self::new(error) }
    }

    /// Not now: comes back after `after`. No attempt is counted.
    pub fn snooze(after: Duration) -> Self {
        Self { after: Some(after), ..Self::end(End::Snooze) }
    }

    /// Handed back at once, for another worker. No attempt is counted.
    pub fn release() -> Self {
        Self::end(End::Release)
    }

    /// Ended early because [`Context::cancelled`] turned true. When that was the worker stopping, the task is handed back.
    pub fn cancelled() -> Self {
        Self::end(End::Cancelled)
    }

    /// The handler has ended the row itself, by a fenced UPDATE in the transaction of its own work on the broker's database: both
    /// happen once or not at all, whatever is killed (`docs/workers.md` has the whole handler).
    ///
    /// For workers that ask for [committed](crate::WorkerBuilder::committed) hand-outs; in others it is a failed attempt.
    /// What the run has [spawned](Context::spawn) is not submitted: such a handler inserts it in the same transaction.
    pub fn already() -> Self {
        Self::end(End::Already)
    }

    /// The same, unless it is `already` from a worker whose hand-outs are not `committed`: its row may not have shown the lease when
    /// the handler changed it, so that nothing says what took effect. The broker looks at the row: an UPDATE which did stays.
    pub(crate) fn checked(self, committed: bool) -> Self {
        if self.end == End::Already && !committed {
            return Self::new(
                "the handler says `already`, but its worker does not ask for `committed` hand-outs: set WorkerBuilder::committed",
            );
        }
        self
    }

    fn end(end: End) -> Self {
        Self { end, error: None, after: None, dead: false }
    }
}

impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

/// `Err(snooze(after))` ends a run without result and without blame; the task comes back after `after`.
pub fn snooze(after: Duration) -> Failure {
    Failure::snooze(after)
}

/// A closure over a decoded payload, as `WorkerBuilder::handle` takes it.
pub(crate) struct Typed<F, T, R, E> {
    run: F,
    types: PhantomData<fn(T) -> Result<R, E>>,
}

impl<F, T, R, E> Typed<F, T, R, E> {
    pub(crate) fn new(run: F) -> Self {
        Self { run, types: PhantomData }
    }
}

impl<F, T, R, E> Handler for Typed<F, T, R, E>
where
    F: Fn(T, &Context) -> Result<R, E> + Send + Sync + 'static,
    T: DeserializeOwned + 'static,
    R: Serialize + 'static,
    E: Into<Failure> + 'static,
{
    fn run(&self, payload: Option<Payload>, ctx: &Context) -> Result<Option<Payload>, Failure> {
        // A payload that is not a T today is not one at the next attempt either.
        let task = decode(payload.as_ref()).map_err(Failure::dead)?;
        let format = payload.map_or(Format::Json, |payload| payload.format);
        let result = (self.run)(task, ctx).map_err(Into::into)?;
        encode_result(&result, format).map_err(Failure::dead)
    }
}

/// A closure over raw payload bytes, as `WorkerBuilder::handle_raw` takes it.
pub(crate) struct Raw<F>(pub(crate) F);

impl<F, E> Handler for Raw<F>
where
    F: Fn(Option<Payload>, &Context) -> Result<Option<Payload>, E> + Send + Sync + 'static,
    E: Into<Failure>,
{
    fn run(&self, payload: Option<Payload>, ctx: &Context) -> Result<Option<Payload>, Failure> {
        (self.0)(payload, ctx).map_err(Into::into)
    }
}

/// Runs a handler and catches its panic, which counts as a failure like any other.
pub(crate) fn run_caught(
    handler: &dyn Handler,
    payload: Option<Payload>,
    ctx: &Context,
) -> Result<Option<Payload>, Failure> {
    // The handler may leave its own state half changed; that is its author's choice, as with any thread pool.
    match catch_unwind(AssertUnwindSafe(|| handler.run(payload, ctx))) {
        Ok(ended) => ended,
        Err(panic) => Err(Failure::new(format!("the handler panicked: {}", panic_text(&*panic)))),
    }
}

/// What is said to the broker about a run.
pub(crate) fn outcome(
    Held(task, lease): Held,
    ended: Result<Option<Payload>, Failure>,
    spawn: Vec<NewTask>,
) -> Outcome {
    match ended {
        Ok(result) => Outcome { result, spawn, ..Outcome::new(task, lease, End::Done) },
        Err(Failure { end, error, after, dead }) => {
            let after_ms = after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
            Outcome { error, after_ms, dead, ..Outcome::new(task, lease, end) }
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("with a value that is not text")
}

#[cfg(test)]
mod tests {
    use laneway_protocol::{Lease, TaskId};

    use super::*;

    #[test]
    fn each_end_becomes_its_outcome() {
        // What a handler returns is what the broker hears, with delay and error text where they belong.
        let held = Held(TaskId::new(7).unwrap(), Lease::new(9));
        let said = |failure| outcome(held, Err(failure), Vec::new());
        let plain: Failure = "disk on fire".parse::<u8>().unwrap_err().into();
        assert_eq!((said(plain.clone()).end, said(plain).dead), (End::Fail, false));
        let later = said(Failure::retry_after(Duration::from_secs(2), "busy"));
        assert_eq!((later.end, later.after_ms, later.error.as_deref()), (End::Fail, Some(2_000), Some("busy")));
        assert!(said(Failure::dead("never")).dead);
        assert_eq!(said(snooze(Duration::from_millis(5))).after_ms, Some(5));
        assert_eq!(said(Failure::release()).end, End::Release);
        assert_eq!(said(Failure::cancelled()).end, End::Cancelled);
        assert_eq!(said(Failure::already().checked(true)).end, End::Already);
        let unasked = said(Failure::already().checked(false));
        assert_eq!((unasked.end, unasked.dead), (End::Fail, false));
        assert!(unasked.error.is_some_and(|error| error.contains("WorkerBuilder::committed")));
        assert_eq!(Failure::release().checked(false), Failure::release());
        let done = outcome(held, Ok(Some(Payload::json("1"))), Vec::new());
        assert_eq!((done.end, done.result), (End::Done, Some(Payload::json("1"))));
    }
}
