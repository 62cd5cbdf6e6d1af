//! Deletes what ended long ago. Walks the table by id, round and round, a bounded piece at each call: an index on
//! `finished_at` would cost every task a write, and pruning is in no hurry.

use std::sync::LazyLock;

use laneway_core::Now;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};

use super::dependencies::forget;
use super::group::{forget_if_empty, group_of};
use super::news::newest_id;
use super::unique::{IN_WINDOW, forget_window};
use super::{State, row};
use crate::store::{Retention, StoreError};

pub(super) fn prune(
    conn: &Connection,
    state: &mut State,
    retention: Retention,
    rows: usize,
    now: Now,
) -> Result<usize, StoreError> {
    let ended_before = now.wall.0.saturating_sub(i64::try_from(retention.age_ms).unwrap_or(i64::MAX));
    let id_before = match retention.count_max {
        Some(count_max) => newest_id(conn)?.saturating_sub(i64::try_from(count_max).unwrap_or(i64::MAX)),
        None => 0,
    };
    let (mut old, mut waiting): (Vec<i64>, Vec<i64>) = Default::default();
    let mut looked = 0;
    {
        let sql = "SELECT id, state, finished_at, created_at FROM tasks WHERE id > ?1 ORDER BY id LIMIT ?2";
        let mut statement = conn.prepare_cached(sql)?;
        let mut found = statement.query(params![state.pruned_to, i64::try_from(rows).unwrap_or(i64::MAX)])?;
        while let Some(row) = found.next()? {
            looked += 1;
            let id = row.get(0)?;
            state.pruned_to = id;
            // An app that ended the row by SQL may have set no time.
            let ended_at = row::int(row.get_ref(2)?).or(row::int(row.get_ref(3)?)).unwrap_or(0);
            let ended = matches!(row.get_ref(1)?, ValueRef::Text(b"done" | b"cancelled"));
            if ended && (ended_at < ended_before || id <= id_before) {
                old.push(id);
            } else if row.get_ref(1)? == ValueRef::Text(b"waiting") {
                waiting.push(id);
            }
        }
    }
    if looked < rows {
        state.pruned_to = 0;
    }
    for id in waiting {
        // Put there by an app that took nobody's notice: whether it waits for anything is looked at.
        state.dependencies.waits(id);
    }
    let mut deleted = 0;
    for id in old {
        deleted += usize::from(delete(conn, id, now)?);
    }
    Ok(deleted)
}

/// Why an ended row is kept although nothing else speaks for it, each a condition on a row of `tasks`; `?2` is now. Pruning and people's own
/// deletes both ask here, and nowhere else.
const NEEDED_BY: [&str; 3] = [
    IN_WINDOW,
    // A child that has not ended may ask for its result.
    "EXISTS (SELECT 1 FROM task_dependencies AS edge INDEXED BY task_dependencies_parent \
     JOIN tasks AS child ON child.id = edge.task WHERE edge.parent = tasks.id AND child.state >= 'queued')",
    // The counts of a group mean something as long as one of its tasks is live.
    "EXISTS (SELECT 1 FROM tasks AS other INDEXED BY tasks_group \
     WHERE other.group_id = tasks.group_id AND other.group_id IS NOT NULL AND other.state >= 'queued')",
];

static IS_FREE: LazyLock<String> = LazyLock::new(|| {
    let kept: String = NEEDED_BY.iter().map(|needed| format!(" AND NOT ({needed})")).collect();
    format!("FROM tasks WHERE id = ?1{kept}")
});
static DELETE: LazyLock<String> = LazyLock::new(|| format!("DELETE {}", *IS_FREE));
static FREE: LazyLock<String> = LazyLock::new(|| format!("SELECT 1 {}", *IS_FREE));

/// Whether something still needs an ended row.
pub(super) fn is_needed(conn: &Connection, id: i64, now: Now) -> Result<bool, StoreError> {
    Ok(!conn.prepare_cached(&FREE)?.exists(params![id, now.wall.0])?)
}

/// Deletes an ended row with its failures. False when something still needs it.
pub(super) fn delete(conn: &Connection, id: i64, now: Now) -> Result<bool, StoreError> {
    let group = group_of(conn, id)?;
    if conn.prepare_cached(&DELETE)?.execute(params![id, now.wall.0])? == 0 {
        return Ok(false);
    }
    forget(conn, id)?;
    if let Some(group) = group {
        forget_if_empty(conn, group)?;
    }
    conn.prepare_cached("DELETE FROM failures WHERE task = ?1")?.execute([id])?;
    forget_window(conn, id)?;
    Ok(true)
}
