//! Cancels: a task is asked to end, or ended before it has started, only by somebody's word; and whoever runs and was asked is not waited
//! for longer than the grace.

use std::collections::BTreeMap;

use laneway_protocol::TaskState;

use super::Auditor;
use super::defaults::SLACK_MS;
use crate::plan::CANCEL_GRACE_MS;
use crate::row::Row;

impl Auditor {
    /// A turn is committed.
    pub(super) fn check_cancels(&mut self, before: &BTreeMap<i64, Row>) {
        for (task, old) in before {
            let Some(new) = self.rows.get(task) else { continue };
            let of_group = || new.group.is_some_and(|group| self.cancelled_groups.contains(group));
            let asked = || self.touched.contains(task) || self.cancelled.contains(task) || of_group();
            let marked = new.cancel_requested && !old.cancel_requested;
            // Those that wait may go with a parent, and those that move by the word of their worker.
            let ended = (old.state, new.state) == (TaskState::Queued, TaskState::Cancelled)
                && old.expires_at.is_none()
                && !old.cancel_requested
                && self.stands_still(*task, old);
            if (marked || ended) && !asked() {
                self.found.get_or_insert(format!("nobody has cancelled task {task}: {old:?} became {new:?}"));
            }
        }
    }

    /// The core is told that a run is to stop.
    pub(super) fn is_to_stop(&mut self, task: i64) {
        for lease in self.leases.of.get(&task).into_iter().flatten() {
            self.stopping.entry(*lease).or_insert((task, None));
        }
    }

    /// A run that goes on though it was to stop, of this broker.
    pub(super) fn runs_in_spite(&mut self) -> Option<String> {
        let goes_on = |lease: &i64, task: &i64| self.leases.of.get(task).is_some_and(|leases| leases.contains(lease));
        // Leases from before a stall are not ended until the workers have had their time to come back.
        let is_young = |lease: &i64| self.defaults.handed_at(*lease).is_some_and(|at| at > self.disturbed);
        self.stopping.retain(|lease, (task, _)| goes_on(lease, task) && is_young(lease));
        for (lease, (task, since)) in &mut self.stopping {
            let since = *since.get_or_insert(self.now);
            if self.now > since + CANCEL_GRACE_MS + SLACK_MS {
                return Some(format!("task {task} was to stop at {since} and runs under {lease:x}"));
            }
        }
        None
    }
}
