//! What each acknowledgement promises of the table, whenever the power goes after it.

use std::collections::HashMap;
use std::fmt;

use super::said::{By, Said, To};
use super::table::{Found, TaskRow};

/// A kind of promise, to count by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Promise {
    Stored(By),
    Met,
    Ended(To),
    Failed,
    CancelRequested,
    CancelledOrRequeued,
    LanePaused,
    /// The secret behind a lease that a worker has seen.
    Epoch,
}

/// A promise that the table does not keep.
pub(crate) struct Lost {
    pub(crate) promise: Promise,
    /// How long before the loss of power it was made.
    pub(crate) age_us: u64,
    pub(crate) what: String,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {} µs before: {}", self.promise, self.age_us, self.what)
    }
}

/// Everything that was said up to a point of the log, with its time.
#[derive(Default)]
pub(crate) struct Known<'a> {
    said: Vec<(u64, &'a Said)>,
    /// Of each task on a ladder: the step that was asked for, and the one that was answered.
    ladders: HashMap<i64, (u32, u32, u64)>,
    /// Of each lane: what was asked for, and what was answered.
    lanes: HashMap<&'a str, (bool, Option<bool>, u64)>,
}

impl<'a> Known<'a> {
    pub(crate) fn learn(&mut self, at_us: u64, said: &'a Said) {
        match said {
            Said::Asked { id, step } => self.ladders.get_mut(id).unwrap().0 = *step,
            Said::Climbed { id, step } => drop(self.ladders.insert(*id, (*step, *step, at_us))),
            Said::Pausing { lane, paused } => self.lanes.entry(lane).or_insert((false, None, at_us)).0 = *paused,
            Said::Paused { lane, paused } => drop(self.lanes.insert(lane, (*paused, Some(*paused), at_us))),
            said => self.said.push((at_us, said)),
        }
    }

    pub(crate) fn n_promises(&self) -> usize {
        self.said.len() + self.ladders.len() + self.lanes.len()
    }

    /// Each hand-out that a worker has received, in the order in which they were.
    pub(crate) fn taken(&self) -> impl Iterator<Item = (i64, u32, i64)> {
        self.said.iter().filter_map(|(_, said)| match said {
            Said::Taken { id, run, lease, .. } => Some((*id, *run, *lease)),
            _ => None,
        })
    }

    /// What is lost of it, `now_us` being when the power went.
    pub(crate) fn lost(&self, found: &Found, now_us: u64) -> Vec<Lost> {
        let said = self.said.iter().filter_map(|&(at_us, said)| Some((at_us, breaks(said, found)?)));
        let ladders = self.ladders.iter().filter_map(|(id, &(asked, climbed, at_us))| {
            Some((at_us, (Promise::CancelledOrRequeued, off_ladder(found.tasks.get(id), asked, climbed)?)))
        });
        let lanes = self.lanes.iter().filter_map(|(&lane, &(asked, paused, at_us))| {
            let is = found.paused.get(lane).copied();
            (is != Some(asked) && paused.is_some() && is != paused)
                .then(|| (at_us, (Promise::LanePaused, format!("lane {lane} paused: {is:?}"))))
        });
        let lost = |(at_us, (promise, what))| Lost { promise, age_us: now_us.saturating_sub(at_us), what };
        said.chain(ladders).chain(lanes).map(lost).collect()
    }
}

/// Which promise the table does not keep, and how.
fn breaks(said: &Said, found: &Found) -> Option<(Promise, String)> {
    let task = |id: &i64| found.tasks.get(id);
    let stands = |id: &i64| match task(id) {
        Some(task) => format!("task {id} is {} after {} runs", task.state, task.runs),
        None => format!("task {id} is not there"),
    };
    let (is_kept, promise, id) = match said {
        Said::Stored { by, id, payload } => {
            (task(id).is_some_and(|task| task.payload == *payload), Promise::Stored(*by), id)
        }
        Said::Met { id, key } => (task(id).is_some_and(|task| task.unique_key.as_ref() == Some(key)), Promise::Met, id),
        Said::Ended { id, state, to } => (task(id).is_some_and(|task| task.state == *state), Promise::Ended(*to), id),
        Said::Failed { id, run } => {
            let cancelled = task(id).is_some_and(|task| task.state == "cancelled");
            (cancelled || found.failures.contains(&(*id, *run)), Promise::Failed, id)
        }
        Said::Requested { id } => {
            (task(id).is_some_and(|task| task.cancel_requested || task.has_ended()), Promise::CancelRequested, id)
        }
        Said::Taken { id, epoch, .. } => (found.epoch >= epoch.cast_signed(), Promise::Epoch, id),
        Said::Asked { .. } | Said::Climbed { .. } | Said::Pausing { .. } | Said::Paused { .. } => return None,
    };
    (!is_kept).then(|| (promise, stands(id)))
}

/// A step that was asked for and not answered may be taken or not.
fn off_ladder(task: Option<&TaskRow>, asked: u32, climbed: u32) -> Option<String> {
    let expected = |step: u32| if step.is_multiple_of(2) { "queued" } else { "cancelled" };
    let state = task.map_or("not there", |task| task.state.as_str());
    let is_on_it = state == expected(asked) || state == expected(climbed);
    (!is_on_it).then(|| format!("a task at step {climbed} of its ladder is {state}"))
}
