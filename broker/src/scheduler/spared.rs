//! Rows that the pruner leaves alone because somebody waits for them, or did a moment ago.
//!
//! Those who wait ask in rounds: a task may end between two of them, its end may be said in an answer that is lost, and a parked
//! `SUBMIT` tells what it has heard only when the last of its tasks has ended. So a row stays for longer than any question is parked.
//! In memory alone: a crash of the broker forgets who waited.

use std::collections::{BTreeSet, VecDeque};

use laneway_core::{IdMap, Millis};
use laneway_protocol::TaskId;
use laneway_protocol::limits::WAIT_MS_MAX;

/// After the last waiter has left, or heard the end: as long as a question may be parked, and time to come back.
const SPARED_MS: u64 = WAIT_MS_MAX + 5_000;
/// Rows that are spared with nobody waiting. The oldest go first.
const LEFT_MAX: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Spared {
    rows: BTreeSet<TaskId>,
    /// Until when rows stay that nobody waits for any more, the oldest first. A row that was left several times has several places.
    left: VecDeque<(Millis, TaskId)>,
    /// The last of those places.
    until: IdMap<TaskId, Millis>,
}

impl Spared {
    pub(super) fn watch(&mut self, task: TaskId) {
        self.rows.insert(task);
        self.until.remove(&task);
    }

    /// Nobody waits for it any more.
    pub(super) fn leave(&mut self, task: TaskId, now: Millis) {
        let until = now.after(SPARED_MS);
        self.until.insert(task, until);
        self.left.push_back((until, task));
        if self.left.len() > LEFT_MAX {
            self.drop_oldest();
        }
    }

    pub(super) fn rows(&mut self, now: Millis) -> &BTreeSet<TaskId> {
        while self.left.front().is_some_and(|(until, _)| *until <= now) {
            self.drop_oldest();
        }
        &self.rows
    }

    fn drop_oldest(&mut self) {
        let Some((until, task)) = self.left.pop_front() else { return };
        if self.until.get(&task) == Some(&until) {
            self.until.remove(&task);
            self.rows.remove(&task);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(n: usize) -> TaskId {
        TaskId::new(n as u64).unwrap()
    }

    #[test]
    fn a_row_is_spared_until_nobody_has_waited_for_it_for_long() {
        // From the last time on that it was left, and for as long as somebody waits.
        let mut spared = Spared::default();
        let at = |ms| Millis(1_000).after(ms);
        spared.watch(task(1));
        assert!(spared.rows(at(9 * SPARED_MS)).contains(&task(1)), "somebody waits");
        spared.leave(task(1), at(0));
        spared.watch(task(1));
        assert!(spared.rows(at(SPARED_MS)).contains(&task(1)), "somebody has come back");
        spared.leave(task(1), at(10));
        assert!(spared.rows(at(SPARED_MS + 9)).contains(&task(1)));
        assert!(spared.rows(at(SPARED_MS + 10)).is_empty());
        assert!(spared.left.is_empty() && spared.until.is_empty(), "{spared:?}");
    }

    #[test]
    fn so_many_are_spared_and_the_oldest_go_first() {
        let mut spared = Spared::default();
        for n in 1..=LEFT_MAX + 1 {
            spared.watch(task(n));
            spared.leave(task(n), Millis(0));
        }
        let rows = spared.rows(Millis(0));
        assert!(rows.len() == LEFT_MAX && !rows.contains(&task(1)) && rows.contains(&task(2)));
    }
}
