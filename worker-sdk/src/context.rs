//! What a handler can know and say about the task it runs.
//!
//! Everything said goes over the slot's own socket, which is free while the handler runs, and quotes the lease: once the
//! task is no longer this worker's it changes nothing. Built by the worker for each run.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use laneway_protocol::limits::TEXT_BYTES_MAX;
use laneway_protocol::message::{HandedTask, Held, NewTask, Progress, ProgressNoted};
use laneway_protocol::{Answer, Code, Format, Kind, LaneName, Lease, Payload, Request, SessionName, TaskId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::Ended;
use crate::conn::{Conn, Patience};
use crate::error::Error;
use crate::link::Slot;
use crate::lock;
use crate::payload::{decode, encode};
use crate::spans::Run;
use crate::task::Task;

/// Progress is said at most once in this time; what comes sooner is left out.
const PROGRESS_EVERY: Duration = Duration::from_millis(50);
/// Progress that is not answered in this time is given up...
const PROGRESS_PATIENCE: Duration = Duration::from_millis(250);
/// ... and not said again for this long, so that an absent broker does not slow the handler down.
const PROGRESS_PAUSE: Duration = Duration::from_secs(2);
/// How long data, extensions and checkpoints are tried; they tell the handler when it failed.
const WORD_PATIENCE: Duration = Duration::from_secs(5);
/// Between two of these tries: a broker that was just started hears from the control socket first what runs here.
const WORD_PAUSE: Duration = Duration::from_millis(50);

/// One run of one task, as its handler sees it. Can be shared with threads that the handler starts and joins.
pub struct Context {
    task: HandedTask,
    format: Format,
    session: SessionName,
    slot: Arc<Place>,
    endpoint: Arc<str>,
    deadline: Mutex<Instant>,
    pace: Mutex<Pace>,
    spawned: Mutex<Vec<NewTask>>,
    span: Run,
}

/// How often progress is said.
#[derive(Default)]
struct Pace {
    /// None is said before this.
    quiet_until: Option<Instant>,
    /// The newest that was held back until then.
    unsaid: Option<Progress>,
}

/// A slot with what its thread, its handler and the control loop share.
pub(crate) struct Place {
    pub(crate) link: Mutex<Slot>,
    pub(crate) conn: Mutex<Conn>,
    /// The running task should end. Mirrors the link, so that a handler can look as often as it likes.
    pub(crate) cancelled: AtomicBool,
    /// Held while outcomes are flushed past the running handler, so that the slot's next question comes after.
    pub(crate) flushing: Mutex<()>,
}

impl Place {
    /// Lets the handler see what the link has heard.
    pub(crate) fn mirror(&self, link: &Slot) {
        self.cancelled.store(link.is_cancelled(), Ordering::Release);
    }
}

impl Context {
    /// Takes the payload out of `task`, and keeps the rest.
    pub(crate) fn new(
        mut task: HandedTask,
        received: Instant,
        session: SessionName,
        slot: Arc<Place>,
        endpoint: Arc<str>,
        span: Run,
    ) -> (Self, Option<Payload>) {
        let payload = task.payload.take();
        let format = payload.as_ref().map_or(Format::Json, |payload| payload.format);
        // A time too far off to be a point in time is as good as a year.
        let year = Duration::from_hours(365 * 24);
        let deadline = received + Duration::from_millis(task.timeout_ms).min(year);
        let ctx = Self {
            task,
            format,
            session,
            slot,
            endpoint,
            deadline: Mutex::new(deadline),
            pace: Mutex::default(),
            spawned: Mutex::new(Vec::new()),
            span,
        };
        (ctx, payload)
    }

    /// The task's id, the same in every run: use it to make repeating harmless.
    pub fn id(&self) -> TaskId {
        self.task.task
    }

    /// The name that picked this handler.
    pub fn kind(&self) -> &Kind {
        &self.task.kind
    }

    /// The lane it waited in.
    pub fn lane(&self) -> &LaneName {
        &self.task.lane
    }

    /// Hand-outs of this task, this one included.
    pub fn run(&self) -> u32 {
        self.task.run
    }

    /// Attempts, this one included: 1 up to [`Context::max_attempts`]. Lost and released runs do not count.
    pub fn attempt(&self) -> u32 {
        self.task.attempt
    }

    /// After a failure in this attempt the task is dead.
    pub fn max_attempts(&self) -> u32 {
        self.task.max_attempts
    }

    /// The right to run the task; a handler that finishes its row by SQL compares it with the `lease` column.
    pub fn lease(&self) -> Lease {
        self.task.lease
    }

    /// The trace context given with the task, as it was given. With the feature `opentelemetry` the handler runs in a span that has
    /// grown out of it already.
    pub fn trace(&self) -> Option<&str> {
        self.task.trace.as_deref()
    }

    /// When the lease ends, as far as this process can tell. Later the task is a failed attempt, whatever is said.
    pub fn deadline(&self) -> Instant {
        *lock(&self.deadline)
    }

    /// Whether the handler should end early: a cancel was requested, its time is up, the worker was told to hand its
    /// tasks back, or the task is no longer this worker's. Never turns back. Costs next to nothing.
    ///
    /// A handler that looks from time to time and returns [`Failure::cancelled`](crate::Failure::cancelled) makes
    /// cancels and stops fast; a result is still welcome.
    pub fn cancelled(&self) -> bool {
        self.slot.cancelled.load(Ordering::Acquire)
    }

    /// Shows how far the task is: `done` of `total` (0: unknown), with a note (empty: none), to those who wait for it
    /// and in its row. Never fails and hardly waits: said at most every 50 ms, and not while the broker is away, but always
    /// when `done` reaches `total`. What is held back is said with the next word, at the end of the run, or by
    /// [`Context::flush`], unless something newer takes its place.
    pub fn progress(&self, done: u64, total: u64, note: &str) {
        let mut said = self.word();
        said.done = Some(done);
        said.total = (total > 0).then_some(total);
        said.note = (!note.is_empty()).then(|| note.into());
        self.say_progress(said, total > 0 && done >= total);
    }

    /// Shows what the task does now, and leaves the count as it was said last. Otherwise like [`Context::progress`].
    pub fn note(&self, note: &str) {
        self.say_progress(Progress { note: Some(note.into()), ..self.word() }, false);
    }

    /// Says progress that was held back less than 50 ms after other, if its time has come: for a handler that says much in a moment
    /// and then nothing for long. Costs next to nothing where there is none.
    pub fn flush(&self) {
        let is_due = lock(&self.pace).quiet_until.is_none_or(|until| until <= Instant::now());
        if is_due {
            self.say_rest();
        }
    }

    /// The same at once: the run is over.
    pub(crate) fn say_rest(&self) {
        let unsaid = lock(&self.pace).unsaid.take();
        if let Some(unsaid) = unsaid {
            self.say_progress(unsaid, true);
        }
    }

    /// Sends a piece of the result to those who wait for the task, in the format of its payload. It is not kept: a waiter
    /// that comes later may miss it. Tried for 5 s, which outlasts a restart of the broker.
    ///
    /// Fails with [`Error::Stale`], [`Error::NoBroker`], [`Error::BadPayload`] or what the broker refused.
    pub fn send_data<T: Serialize + ?Sized>(&self, data: &T) -> Result<(), Error> {
        let data = encode(data, self.format)?;
        self.insist(&Progress { data: Some(data), ..self.word() }).map(drop)
    }

    /// Tells lines of a log to those who wait for the task, in order with its progress and data. Not kept: a waiter that comes
    /// later may miss them. Longer ones are cut at 8 KiB. Tried for 5 s, like [`Context::send_data`].
    ///
    /// Fails with [`Error::Stale`], [`Error::NoBroker`] or what the broker refused.
    pub fn log(&self, lines: impl Into<String>) -> Result<(), Error> {
        let mut lines = lines.into();
        lines.truncate(lines.floor_char_boundary(TEXT_BYTES_MAX));
        self.insist(&Progress { log: Some(lines), ..self.word() }).map(drop)
    }

    /// Moves the deadline to `from_now`, for work that takes longer than was thought. Survives a restart of the broker.
    ///
    /// Fails with [`Error::Stale`] when it is too late, with [`Error::NoBroker`], or with what the broker refused.
    pub fn extend(&self, from_now: Duration) -> Result<(), Error> {
        let extend_ms = u64::try_from(from_now.as_millis()).unwrap_or(u64::MAX);
        let now = Instant::now();
        self.insist(&Progress { extend_ms: Some(extend_ms), ..self.word() })?;
        if let Some(deadline) = now.checked_add(from_now) {
            *lock(&self.deadline) = deadline;
        }
        Ok(())
    }

    /// Keeps `checkpoint` in the row, in the format of the payload, for a later run to go on from. Replaces the one before. Returns
    /// when it is there and on disk, as durable as a submit.
    ///
    /// Fails like [`Context::extend`], or with [`Error::BadPayload`].
    pub fn save_checkpoint<T: Serialize + ?Sized>(&self, checkpoint: &T) -> Result<(), Error> {
        let checkpoint = encode(checkpoint, self.format)?;
        self.insist(&Progress { checkpoint: Some(checkpoint), ..self.word() }).map(drop)
    }

    /// What an earlier run saved; `None` when there is nothing.
    ///
    /// Fails with [`Error::BadPayload`] when that is not a `T`.
    pub fn checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        self.task.checkpoint.as_ref().map(|checkpoint| decode(Some(checkpoint))).transpose()
    }

    /// Adds a task that is submitted together with this run's result, in the same commit: both or neither. Nothing is
    /// submitted when the handler fails.
    ///
    /// Gives its place among those that this run spawns, from 0: another may wait for it by that
    /// ([`Task::after_number`](crate::Task::after_number)), or for this task itself by [`Context::id`], or join this task's group
    /// ([`Task::join`](crate::Task::join)).
    ///
    /// With the feature `opentelemetry` a task without a trace carries the current span, which is this run's or a child of it.
    ///
    /// Fails when the task makes no sense, like [`Client::submit`](crate::Client::submit).
    pub fn spawn(&self, task: Task) -> Result<usize, Error> {
        let mut task = task.into_new_task()?;
        task.trace = task.trace.or_else(|| self.span.carried());
        let mut spawned = lock(&self.spawned);
        spawned.push(task);
        Ok(spawned.len() - 1)
    }

    /// How the tasks ended that this one waited for, by id, with their results. They travel when this is called, not before. One
    /// that somebody has requeued since is there with the state `queued`.
    ///
    /// Fails like [`Context::extend`].
    pub fn parents(&self) -> Result<Vec<Ended>, Error> {
        let mut all: Vec<Ended> = Vec::new();
        loop {
            let after = all.last().map_or(0, |ended| ended.task.value());
            let noted = self.insist(&Progress { parents: Some(after), ..self.word() })?;
            let more = noted.more && !noted.parents.is_empty();
            all.extend(noted.parents.into_iter().map(Ended::from));
            if !more {
                return Ok(all);
            }
        }
    }

    /// The result of one task that this one waited for.
    ///
    /// Fails with [`Error::NotFound`] when it did not wait for that, with [`Error::NotDone`] when that ended otherwise, with
    /// [`Error::BadPayload`] when the result is not a `T`, or like [`Context::extend`].
    pub fn parent_result<T: DeserializeOwned>(&self, parent: TaskId) -> Result<T, Error> {
        let noted = self.insist(&Progress { parents: Some(parent.value() - 1), ..self.word() })?;
        let found = noted.parents.into_iter().find(|ended| ended.task == parent);
        found.map(Ended::from).ok_or(Error::NotFound(parent))?.result()
    }

    pub(crate) fn held(&self) -> Held {
        Held(self.task.task, self.task.lease)
    }

    pub(crate) fn into_spawned(self) -> Vec<NewTask> {
        self.spawned.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A word about this run that says nothing yet.
    fn word(&self) -> Progress {
        Progress {
            session: self.session.clone(),
            task: self.task.task,
            lease: self.task.lease,
            done: None,
            total: None,
            note: None,
            extend_ms: None,
            data: None,
            log: None,
            checkpoint: None,
            parents: None,
        }
    }

    /// `complete` is said whatever was said a moment ago. What was held back goes with it, as far as it says something else.
    fn say_progress(&self, said: Progress, complete: bool) {
        let now = Instant::now();
        let said = {
            let mut pace = lock(&self.pace);
            let said = pace.joined(said);
            if !complete && pace.quiet_until.is_some_and(|until| now < until) {
                pace.unsaid = Some(said);
                return;
            }
            pace.quiet_until = Some(now + PROGRESS_EVERY);
            said
        };
        if !lock(&self.slot.conn).is_connected() {
            return lock(&self.pace).put_back(said);
        }
        if let Err(error) = self.say(said, PROGRESS_PATIENCE) {
            tracing::debug!(%error, "progress not said");
            lock(&self.pace).quiet_until = Some(Instant::now() + PROGRESS_PAUSE);
        }
    }

    /// Says it again while there is no broker, or one that does not know this worker yet.
    fn insist(&self, progress: &Progress) -> Result<ProgressNoted, Error> {
        let until = Instant::now() + WORD_PATIENCE;
        // What was held back comes no later than what was said behind it.
        let progress = lock(&self.pace).joined(progress.clone());
        loop {
            let said = self.say(progress.clone(), until.saturating_duration_since(Instant::now()));
            match said {
                Err(error) if error.retry() && Instant::now() + WORD_PAUSE < until => std::thread::sleep(WORD_PAUSE),
                said => return said,
            }
        }
    }

    fn say(&self, progress: Progress, patience: Duration) -> Result<ProgressNoted, Error> {
        let started = Instant::now();
        let patience = Patience { connect: patience, answer: patience };
        let asked = lock(&self.slot.conn).ask(Request::Progress(progress), patience, &mut || true);
        let answer = asked.map_err(|miss| miss.into_error(&self.endpoint, started.elapsed()))?;
        {
            let mut link = lock(&self.slot.link);
            link.noted(self.held(), &answer);
            self.slot.mirror(&link);
        }
        match answer {
            Answer::Progress(noted) => Ok(noted),
            Answer::Error(error) if error.code == Code::Stale => Err(Error::Stale),
            Answer::Error(error) => Err(Error::Refused(error)),
            other => Err(Error::BadAnswer(format!("{other:?} to PROGRESS"))),
        }
    }
}

impl Pace {
    /// A new word with what was held back before it.
    fn joined(&mut self, newer: Progress) -> Progress {
        match self.unsaid.take() {
            Some(before) => over(newer, before),
            None => newer,
        }
    }

    /// A word that could not be said, unless a newer one was held back meanwhile.
    fn put_back(&mut self, said: Progress) {
        self.unsaid = Some(match self.unsaid.take() {
            Some(newer) => over(newer, said),
            None => said,
        });
    }
}

/// The newer of two pieces of progress, with the count or the note of the other where it has none.
fn over(newer: Progress, before: Progress) -> Progress {
    let (done, total) = if newer.done.is_some() { (newer.done, newer.total) } else { (before.done, before.total) };
    Progress { done, total, note: newer.note.or(before.note), ..newer }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("task", &self.task.task)
            .field("kind", &self.task.kind)
            .field("lane", &self.task.lane)
            .field("run", &self.task.run)
            .field("attempt", &self.task.attempt)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(done: u64) -> Progress {
        let session = SessionName::new("s").unwrap();
        let (task, lease) = (TaskId::new(1).unwrap(), Lease::new(7));
        let (total, note) = (None, None);
        let (extend_ms, data, log, checkpoint, parents) = (None, None, None, None, None);
        Progress { session, task, lease, done: Some(done), total, note, extend_ms, data, log, checkpoint, parents }
    }

    #[test]
    fn the_newest_word_is_what_is_kept() {
        // A word that found no broker comes back behind one that was held back meanwhile, and both go with the next.
        let mut pace = Pace::default();
        pace.put_back(Progress { note: Some("early".into()), ..word(1) });
        assert_eq!(pace.joined(word(2)), Progress { note: Some("early".into()), ..word(2) });
        assert_eq!(pace.unsaid, None);
        pace.unsaid = Some(word(4));
        pace.put_back(word(3));
        assert_eq!(pace.unsaid, Some(word(4)));
    }
}
