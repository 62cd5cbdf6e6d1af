//! How many tasks of a group are in each state: entries of one index, counted up to a bound. Everything of the dashboard that
//! shows how far a group is counts here, so that the broker is asked for none of it.

use laneway::TaskState;
use rusqlite::{Connection, params};
use serde::Serialize;

/// Of the group that somebody looks at, in each state: so many entries of an index are read in some milliseconds.
pub(super) const ONE_MAX: u64 = 100_000;
/// Of each group in a list, and of one whose count took too long.
pub(super) const EACH_MAX: u64 = 10_000;

pub(super) const COUNT: &str = "SELECT count(*) FROM (SELECT 1 FROM tasks INDEXED BY tasks_group \
                                WHERE group_id = ?1 AND group_id IS NOT NULL AND state = ?2 LIMIT ?3)";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct GroupCounts {
    pub(crate) waiting: u64,
    pub(crate) queued: u64,
    pub(crate) running: u64,
    pub(crate) done: u64,
    pub(crate) dead: u64,
    pub(crate) cancelled: u64,
    /// States that may have more than so many: their count was cut off.
    pub(crate) at_least: Vec<&'static str>,
}

impl GroupCounts {
    pub(super) fn count(conn: &Connection, group: i64, rows_max: u64) -> rusqlite::Result<Self> {
        let mut statement = conn.prepare_cached(COUNT)?;
        let mut counts = Self::default();
        let limit = i64::try_from(rows_max).unwrap_or(i64::MAX);
        for state in TaskState::ALL {
            let n: i64 = statement.query_row(params![group, state.as_str(), limit], |row| row.get(0))?;
            *counts.of(state) = n.unsigned_abs();
            if n == limit {
                counts.at_least.push(state.as_str());
            }
        }
        Ok(counts)
    }

    pub(crate) fn live(&self) -> u64 {
        self.waiting + self.queued + self.running
    }

    pub(crate) fn ended(&self) -> u64 {
        self.done + self.dead + self.cancelled
    }

    pub(crate) fn total(&self) -> u64 {
        self.live() + self.ended()
    }

    /// Whether the count of this state was cut off.
    pub(crate) fn is_cut(&self, state: TaskState) -> bool {
        self.at_least.contains(&state.as_str())
    }

    fn of(&mut self, state: TaskState) -> &mut u64 {
        match state {
            TaskState::Waiting => &mut self.waiting,
            TaskState::Queued => &mut self.queued,
            TaskState::Running => &mut self.running,
            TaskState::Done => &mut self.done,
            TaskState::Dead => &mut self.dead,
            TaskState::Cancelled => &mut self.cancelled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::{self, assert_indexed};

    #[test]
    fn a_count_ends_at_its_bound_and_says_so() {
        // Proves each state by the index, and that what is cut off is told from what is exact.
        let place = testing::Place::new();
        let conn = place.conn();
        assert_indexed(&conn, COUNT);
        conn.execute_batch(
            "INSERT INTO tasks(kind, state, group_id) VALUES ('a', 'done', 7), ('a', 'done', 7), ('a', 'dead', 7), ('a', 'done', 8);
             INSERT INTO tasks(kind, group_id) VALUES ('a', 7), ('a', 7), ('a', 7)",
        )
        .unwrap();
        let counts = GroupCounts::count(&conn, 7, 3).unwrap();
        assert_eq!((counts.done, counts.dead, counts.queued, counts.waiting), (2, 1, 3, 0));
        assert_eq!((counts.live(), counts.ended(), counts.at_least.as_slice()), (3, 3, &["queued"][..]));
        assert_eq!(GroupCounts::count(&conn, 7, 4).unwrap().at_least, [""; 0]);
    }
}
