//! The scheduler without its thread: one look and at most one turn a call, on a clock that the caller has set, without a
//! wait. What it decides is the scheduler's own. For the simulation and the count of instructions.

use std::time::Duration;

use super::{Orders, Scheduler};
use crate::store::{Store, StoreError};

impl<S: Store> Scheduler<S> {
    /// What the thread does between two waits. Gives whether a turn failed and will be said again; fails where the thread
    /// would end.
    pub(crate) fn step(&mut self, orders: Vec<Orders>) -> Result<bool, StoreError> {
        for orders in orders {
            self.absorb(orders);
        }
        // Leaving the lock alone is a wait by the real clock; here the caller decides when a turn begins.
        self.breath = None;
        match self.turn_if_needed() {
            Ok(()) => {
                self.tell_recovered();
                Ok(false)
            }
            Err(error) if error.retry() => {
                self.store.rollback();
                let now = self.clock.now();
                self.tell_failure(&error, now);
                self.answer_questions(now)?;
                Ok(true)
            }
            Err(error) => {
                self.store.rollback();
                Err(error)
            }
        }
    }

    /// When to call again although nothing has come.
    pub(crate) fn wait(&self) -> Duration {
        if self.failing.is_some() || self.has_chores() { self.next_wait() } else { self.until_next_time() }
    }

    /// Operations that are not on disk.
    pub(crate) fn n_waiting(&self) -> usize {
        self.ops.len()
    }

    /// Whether the table holds something that no turn has looked at yet, as far as the scheduler knows.
    pub(crate) fn is_behind(&self) -> bool {
        let due = self.is_slot_due(self.clock.now());
        !self.ops.is_empty() || self.has_chores() || due || self.failing.is_some()
    }

    /// Whether there is a step left of what goes on in the background after a start or an app's commit.
    pub(crate) fn is_counting(&self) -> bool {
        self.chores.is_counting()
    }

    pub(crate) fn store(&mut self) -> &mut S {
        &mut self.store
    }
}
