//! A running task, and what each way of ending does to it.
//!
//! The states and the transitions that the core decides; `waiting` and the three ends live in the table only.
//!
//! ```text
//!            grant                 done ─────────► done
//!  queued ──────────► running ──┬─ fail, timeout ► queued (backoff) or dead (attempts used up)
//!     ▲                         ├─ lost ─────────► queued (suspect) or dead (losses used up)
//!     └── snooze, release ◄─────┘  cancel ───────► cancelled
//! ```

use laneway_protocol::{FairKey, Kind, LaneName, Lease, Payload, SessionName, TaskId};

use crate::action::{Cause, Count, Ended, Next, Noted, WorkerName};
use crate::limits::NOTE_INTERVAL_MS;
use crate::progress::Events;
use crate::retry::{Random, delay_ms};
use crate::settings::Settings;
use crate::time::{Millis, Now, UnixMillis};
use crate::worker::SessionId;

/// A task that a worker holds, or held when the broker went away.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) id: TaskId,
    pub(crate) kind: Kind,
    pub(crate) lane: LaneName,
    pub(crate) fair_key: Option<FairKey>,
    pub(crate) group: Option<u64>,
    pub(crate) lease: Lease,
    pub(crate) run: u32,
    /// Attempts and losses before this run.
    pub(crate) attempts: u32,
    pub(crate) losses: u32,
    pub(crate) max_attempts: u32,
    pub(crate) worker: SessionName,
    /// `None`: an orphan of an earlier epoch that nobody has resumed.
    pub(crate) session: Option<SessionId>,
    /// The slot it was sent to in this epoch.
    pub(crate) slot: Option<u32>,
    pub(crate) since: Millis,
    /// When the lease ends, or the grace after a cancel.
    pub(crate) deadline: Millis,
    pub(crate) stop: Option<Stop>,
    pub(crate) events: Events,
    /// When its progress was last given to the store.
    pub(crate) noted: Option<Millis>,
    /// Progress that the store has not been given yet. It is, at the latest `NOTE_INTERVAL_MS` after `noted`.
    pub(crate) unwritten: Option<Noted>,
}

/// Why a running task was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Cancel,
    Timeout,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RunEnd {
    Done(Option<Payload>),
    Failed {
        error: String,
        after_ms: Option<u64>,
        dead: bool,
    },
    TimedOut,
    Snoozed {
        after_ms: u64,
    },
    Released,
    /// The hand-out was lost on the way.
    Unreceived,
    /// Its worker died; `charged` unless another task is the suspect.
    Lost {
        charged: bool,
        worker: WorkerName,
    },
    Cancelled,
    Already,
}

impl Running {
    /// Adds to what the store is to be told of this run.
    pub(crate) fn note(&mut self, newer: Noted) {
        match &mut self.unwritten {
            None => self.unwritten = Some(newer),
            Some(noted) => {
                noted.done = newer.done.or(noted.done);
                noted.total = newer.total.or(noted.total);
                noted.note = newer.note.or(noted.note.take());
                noted.checkpoint = newer.checkpoint.or(noted.checkpoint.take());
            }
        }
    }

    /// When what is unwritten is to be written.
    pub(crate) fn note_at(&self) -> Option<Millis> {
        self.unwritten.as_ref().map(|_| self.noted.map_or(self.since, |at| at.after(NOTE_INTERVAL_MS)))
    }

    /// The record of this end. `spawn` is for the caller to fill.
    pub(crate) fn end(&self, end: RunEnd, settings: &Settings, random: &mut Random, now: Now) -> Ended {
        let attempt = self.attempts + 1;
        let retry = |after_ms: u64| Next::Queued { run_at: (after_ms > 0).then(|| now.wall.after(after_ms)) };
        let failed = |error: String, after_ms: Option<u64>, dead: bool, cause, random: &mut Random| {
            if dead || attempt >= self.max_attempts {
                (Next::Dead, Count::Attempt, Some(error), Some(cause))
            } else {
                let after_ms = after_ms.unwrap_or_else(|| delay_ms(attempt, settings.kind(&self.kind), random));
                (retry(after_ms), Count::Attempt, Some(error), Some(cause))
            }
        };
        let (next, count, error, cause) = match end {
            RunEnd::Done(result) => (Next::Done(result), Count::Attempt, None, None),
            // Stopped on request: whatever else the worker says of it, it is cancelled; only done wins.
            RunEnd::Failed { error, .. } if self.stop == Some(Stop::Cancel) => {
                (Next::Cancelled, Count::Attempt, Some(error), Some(Cause::Failed))
            }
            RunEnd::TimedOut | RunEnd::Cancelled if self.stop == Some(Stop::Cancel) => {
                (Next::Cancelled, Count::Nothing, Some("cancelled while it ran".into()), None)
            }
            RunEnd::Failed { error, after_ms, dead } => failed(error, after_ms, dead, Cause::Failed, random),
            RunEnd::TimedOut => failed(self.timeout_text(now), None, false, Cause::Timeout, random),
            // Told to stop for its timeout, it says that it did.
            RunEnd::Cancelled if self.stop == Some(Stop::Timeout) => {
                failed(self.timeout_text(now), None, false, Cause::Timeout, random)
            }
            RunEnd::Cancelled => (Next::Cancelled, Count::Nothing, Some("cancelled by its worker".into()), None),
            RunEnd::Snoozed { after_ms } => (retry(after_ms), Count::Release, None, None),
            RunEnd::Released => (Next::Queued { run_at: None }, Count::Release, None, None),
            RunEnd::Unreceived | RunEnd::Lost { charged: false, .. } => {
                (Next::Queued { run_at: None }, Count::Nothing, None, None)
            }
            RunEnd::Lost { charged: true, worker } => self.lost(&worker, settings.losses_max),
            RunEnd::Already => (Next::Already, Count::Nothing, None, None),
        };
        Ended {
            task: self.id,
            lease: self.lease,
            run: self.run,
            next,
            count,
            error,
            cause,
            spawn: Vec::new(),
            worker: self.worker.clone(),
            at: now.wall,
            kind: self.kind.clone(),
            lane: self.lane.clone(),
            attempt,
            run_ms: now.mono.since(self.since),
        }
    }

    fn lost(&self, worker: &WorkerName, losses_max: u32) -> (Next, Count, Option<String>, Option<Cause>) {
        let losses = self.losses + 1;
        let error = format!("its worker {worker} died while it ran (loss {losses} of {losses_max})");
        let next = if losses >= losses_max { Next::Dead } else { Next::Queued { run_at: None } };
        (next, Count::Loss, Some(error), Some(Cause::Lost))
    }

    fn timeout_text(&self, now: Now) -> String {
        format!("timed out: it ran for {} ms", now.mono.since(self.since))
    }
}

/// When a hand-out's lease ends, from what the row says or its kind.
pub(crate) fn timeout_ms(row: Option<u64>, kind: &Kind, settings: &Settings) -> u64 {
    row.unwrap_or(settings.kind(kind).timeout_ms)
}

/// What is left of a timeout for a task that was handed out by an earlier epoch.
pub(crate) fn left_ms(timeout_ms: u64, started_at: Option<UnixMillis>, wall: UnixMillis) -> u64 {
    timeout_ms.saturating_sub(started_at.map_or(0, |at| wall.since(at)))
}
