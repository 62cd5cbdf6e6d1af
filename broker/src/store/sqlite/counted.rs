//! The last counts of large groups. Those who wait for a group ask where it stands once a second, each of them, and again whenever
//! one of its tasks has said something, or the tasks have ended that are watched for them; to count all its rows each time would leave
//! the scheduler no time for work.
//!
//! So a count is told again until a hundred times as long has passed as it took: counting takes a hundredth of the time at most.
//! Whether the group lives is always looked at; that costs nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use laneway_protocol::message::GroupRow;

/// A smaller group is counted each time.
const ROWS_MIN: u64 = 1_000;
const REST: u32 = 100;

#[derive(Debug, Default)]
pub(super) struct Counted {
    /// Those that may still be told; with the rest that each takes these are about a hundred at most.
    groups: BTreeMap<u64, Count>,
}

#[derive(Debug)]
struct Count {
    row: GroupRow,
    at: Instant,
    took: Duration,
}

impl Counted {
    /// The last count, if it may be told of a group that is live, or is not.
    pub(super) fn last(&self, group: u64, is_live: bool, now: Instant) -> Option<GroupRow> {
        let count = self.groups.get(&group)?;
        (count.lasts(now) && (count.row.live() > 0) == is_live).then(|| count.row.clone())
    }

    /// It was counted anew, since `begun`.
    pub(super) fn keep(&mut self, row: &GroupRow, begun: Instant, now: Instant) {
        if row.total() >= ROWS_MIN {
            self.groups.retain(|_, count| count.lasts(now));
            let took = now.saturating_duration_since(begun);
            self.groups.insert(row.group, Count { row: row.clone(), at: now, took });
        }
    }
}

impl Count {
    fn lasts(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < self.took * REST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_told_again_for_a_hundred_times_as_long_as_it_took() {
        // Of a large group alone, and never against what is known of it: that something in it lives, or that nothing does.
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut counted = Counted::default();
        counted.keep(&GroupRow { group: 1, queued: ROWS_MIN - 1, ..GroupRow::default() }, begun, at(50));
        assert_eq!(counted.last(1, true, at(50)), None, "small");
        let row = GroupRow { group: 2, queued: ROWS_MIN, ..GroupRow::default() };
        counted.keep(&row, begun, at(50));
        assert_eq!(counted.last(2, true, at(5_049)), Some(row.clone()));
        assert_eq!(counted.last(2, false, at(50)), None, "its last task has ended since");
        assert_eq!(counted.last(2, true, at(5_050)), None, "old");
        counted.keep(&GroupRow { group: 3, done: ROWS_MIN, ..GroupRow::default() }, at(5_050), at(5_051));
        assert_eq!((counted.groups.len(), counted.last(3, true, at(5_051))), (1, None), "a task has joined since");
        assert!(counted.last(3, false, at(5_051)).is_some());
    }
}
