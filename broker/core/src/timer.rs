//! Every deadline of the core in one ordered set, so that the shell waits exactly until the first.

use std::collections::BTreeSet;

use laneway_protocol::TaskId;

use crate::event::ReplyTo;
use crate::gate::Place;
use crate::time::Millis;
use crate::worker::{SessionId, SlotId};

/// What a deadline is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Timer {
    /// A lease runs out, or the grace after that.
    Lease(TaskId),
    /// Progress of a running task is to be written.
    Note(TaskId),
    /// A parked READY has waited long enough.
    Parked(SlotId),
    /// A parked BEAT has waited long enough.
    Beat(SessionId),
    /// A session without a connection is lost.
    Away(SessionId),
    /// Somebody who waits for tasks has waited long enough.
    Waiter(ReplyTo),
    /// A task that somebody waited for has been without anybody for long enough.
    Abandon(TaskId),
    /// Nobody has listened to a group for long enough.
    Crowd(u64),
    /// A question whose answer hangs on the store must be answered now.
    Question(ReplyTo),
    /// Running rows that nobody resumed go back.
    Orphans,
    /// Hand-outs no longer wait for the workers of the last epoch.
    Hold,
    /// A rate lets the next task start.
    Token(Place),
}

/// Exact: what is no longer needed is taken out, not skipped later, for leases may run for an hour.
#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeSet<(Millis, Timer)>);

impl Timers {
    pub(crate) fn set(&mut self, at: Millis, timer: Timer) {
        self.0.insert((at, timer));
    }

    /// `at` must be what it was set to.
    pub(crate) fn clear(&mut self, at: Millis, timer: Timer) {
        self.0.remove(&(at, timer));
    }

    /// Takes out the first deadline that has come.
    pub(crate) fn pop_due(&mut self, now: Millis) -> Option<Timer> {
        let &(at, timer) = self.0.first()?;
        if at > now {
            return None;
        }
        self.0.pop_first();
        Some(timer)
    }

    pub(crate) fn next(&self) -> Option<Millis> {
        self.0.first().map(|&(at, _)| at)
    }

    pub(crate) fn contains(&self, at: Millis, timer: Timer) -> bool {
        self.0.contains(&(at, timer))
    }
}
