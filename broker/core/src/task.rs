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

use std::collections::VecDeque;

use laneway_protocol::message::ProgressEvent;
use laneway_protocol::{FairKey, Kind, LaneName, Lease, Payload, SessionName, TaskId};

use crate::action::{Cause, Count, Ended, Next, Noted, WorkerName};
use crate::limits::{EVENT_BYTES_PER_TASK_MAX, EVENTS_PER_TASK_MAX, NOTE_INTERVAL_MS};
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

/// The latest progress of a running task, for those who wait for it.
#[derive(Debug, Default)]
pub(crate) struct Events {
    ring: VecDeque<ProgressEvent>,
    bytes: usize,
    /// Number of the last event that the ring had to drop.
    dropped: u64,
}

impl Events {
    pub(crate) fn push(&mut self, event: ProgressEvent) {
        self.bytes += event_bytes(&event);
        self.ring.push_back(event);
        while self.ring.len() > EVENTS_PER_TASK_MAX || (self.bytes > EVENT_BYTES_PER_TASK_MAX && self.ring.len() > 1) {
            let old = self.ring.pop_front().expect("the ring is not empty");
            self.bytes -= event_bytes(&old);
            self.dropped = old.n;
        }
    }

    pub(crate) fn after(&self, n: u64) -> impl Iterator<Item = &ProgressEvent> {
        self.ring.iter().filter(move |event| event.n > n)
    }

    /// Whether events after number `n` are no longer here.
    pub(crate) fn gap_after(&self, n: u64) -> bool {
        self.dropped > n
    }
}

fn event_bytes(event: &ProgressEvent) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    event.data.as_ref().map_or(0, |data| data.bytes.len()) + text(&event.note) + text(&event.log)
}

/// When a hand-out's lease ends, from what the row says or its kind.
pub(crate) fn timeout_ms(row: Option<u64>, kind: &Kind, settings: &Settings) -> u64 {
    row.unwrap_or(settings.kind(kind).timeout_ms)
}

/// What is left of a timeout for a task that was handed out by an earlier epoch.
pub(crate) fn left_ms(timeout_ms: u64, started_at: Option<UnixMillis>, wall: UnixMillis) -> u64 {
    timeout_ms.saturating_sub(started_at.map_or(0, |at| wall.since(at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: u64, data: usize, note: usize) -> ProgressEvent {
        let task = TaskId::new(1).unwrap();
        let (data, note) = (Some(Payload::bin(vec![0; data])), Some("x".repeat(note)));
        ProgressEvent { n, task, done: None, total: None, note, data, log: None }
    }

    /// The numbers of the events that are left of these, numbered from 1, and of the last that was dropped.
    fn check(sizes: &[(usize, usize)], left: std::ops::RangeInclusive<u64>) {
        let mut events = Events::default();
        for (n, &(data, note)) in (1..).zip(sizes) {
            events.push(event(n, data, note));
        }
        assert_eq!(events.after(0).map(|event| event.n).collect::<Vec<_>>(), left.clone().collect::<Vec<_>>());
        let behind = *left.start();
        assert!(!events.gap_after(behind) && !events.gap_after(behind - 1), "nothing is missing from {behind} on");
        assert_eq!(behind.checked_sub(2).is_some_and(|n| events.gap_after(n)), behind > 1);
        assert_eq!(events.after(behind).next().map(|event| event.n), (behind < *left.end()).then_some(behind + 1));
    }

    #[test]
    fn the_latest_events_are_kept_within_their_number_and_bytes() {
        // 64, and 256 KiB of data and notes together; the last one is kept whatever its size.
        check(&[(0, 0); 64], 1..=64);
        check(&[(0, 0); 66], 3..=66);
        let half = 128 * 1_024;
        check(&[(half, 0), (half - 9, 9)], 1..=2);
        check(&[(half, 0), (half - 9, 10)], 2..=2);
        check(&[(half, 1), (0, half), (half, 0)], 2..=3);
        check(&[(0, 0), (3 * half, 0)], 2..=2);
        check(&[(3 * half, 0), (half, 0), (half, 0)], 2..=3);
        let (log, task) = (Some("x".repeat(9)), TaskId::new(1).unwrap());
        let line = ProgressEvent { n: 1, task, done: None, total: None, note: None, data: None, log };
        assert_eq!(event_bytes(&line), 9, "lines of a log count as well");
    }
}
