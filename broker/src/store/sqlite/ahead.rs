//! How many tasks of its lane go before one that waits. For people, one task at a time: it looks at each of them, up to a bound.

use std::collections::BTreeSet;

use laneway_core::{Now, QueueKey};
use laneway_protocol::limits::AHEAD_MAX;
use laneway_protocol::message::TaskRow;
use laneway_protocol::{Kind, LaneName, TaskState};
use rusqlite::{Connection, params};

use super::queue::lanes;
use super::row::{self, sql_id};
use crate::store::StoreError;
use crate::store::validate::Judge;

/// Kinds of a lane that are looked at.
const KINDS_MAX: usize = 4_096;

/// Due tasks of its lane and fair key that a worker of every kind would be given before it, as read-ahead merges them; tasks
/// without a key are as those of one. Tasks of other keys take turns with these, so that no number tells their place. One more than
/// [`AHEAD_MAX`] means more than that. `None` where it does not wait for its turn.
pub(super) fn ahead(conn: &Connection, judge: &Judge, task: &TaskRow, now: Now) -> Result<Option<u32>, StoreError> {
    let due = task.run_at.unwrap_or(task.created_at);
    let lane = task.lane.as_deref().and_then(|lane| LaneName::new(lane).ok());
    let (TaskState::Queued, Some(lane)) = (task.state, lane) else { return Ok(None) };
    if task.run_at.is_some_and(|at| at > now.wall.0) {
        return Ok(None);
    }
    let own = (due, sql_id(task.id));
    let mut n = 0;
    for kind in kinds(conn, &lane)? {
        let key = QueueKey { lane: lane.clone(), kind };
        for spelled in lanes(judge, &key) {
            for sql in [const_sql::AT_ONCE, const_sql::DUE] {
                let mut statement = conn.prepare_cached(sql)?;
                let mut rows = statement.query(params![spelled, key.kind.as_str(), now.wall.0, task.fair_key])?;
                while let Some(row) = rows.next()? {
                    // One that makes no sense is rejected when its turn comes.
                    let Some(due) = row::int(row.get_ref(1)?) else { continue };
                    if (due, row.get(0)?) >= own {
                        break;
                    }
                    n += 1;
                    if n > AHEAD_MAX {
                        return Ok(Some(n));
                    }
                }
            }
        }
    }
    Ok(Some(n))
}

/// Kinds with queued rows in a lane, or without one.
fn kinds(conn: &Connection, lane: &LaneName) -> Result<BTreeSet<Kind>, StoreError> {
    let mut kinds = BTreeSet::new();
    let mut statement = conn.prepare_cached(const_sql::KIND)?;
    for spelled in [Some(lane.as_str()), None] {
        let mut last = String::new();
        while let Some(kind) = statement.query_row(params![spelled, last], |row| Ok(row::text(row.get_ref(0)?)))? {
            kinds.extend(Kind::new(&kind).ok());
            if kinds.len() == KINDS_MAX {
                return Ok(kinds);
            }
            last = kind;
        }
    }
    Ok(kinds)
}

/// Statements that must not look at rows, each with the columns that its index is entered by. The third looks at those that go
/// before, and at one more.
#[cfg(test)]
pub(super) const PLANS: [(&str, &str); 2] =
    [(const_sql::DUE, "lane=? AND kind=? AND fair_key=? AND run_at<?"), (const_sql::KIND, "lane=? AND kind>?")];

mod const_sql {
    pub(super) const AT_ONCE: &str = "SELECT id, created_at FROM tasks INDEXED BY tasks_queue \
        WHERE state = 'queued' AND lane IS ?1 AND kind = ?2 AND fair_key IS ?4 AND run_at IS NULL AND ?3 IS NOT NULL \
        ORDER BY id";
    pub(super) const DUE: &str = "SELECT id, run_at FROM tasks INDEXED BY tasks_queue \
        WHERE state = 'queued' AND lane IS ?1 AND kind = ?2 AND fair_key IS ?4 AND run_at <= ?3 ORDER BY run_at, id";
    /// The next kind behind one.
    pub(super) const KIND: &str = "SELECT min(kind) FROM tasks INDEXED BY tasks_queue \
        WHERE state = 'queued' AND lane IS ?1 AND kind > ?2";
}
