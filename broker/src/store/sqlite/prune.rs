//! Deletes what ended long ago. Walks the table by id, round and round, a bounded piece at each call: an index on
//! `finished_at` would cost every task a write, and pruning is in no hurry.

use std::sync::LazyLock;

use laneway_core::Now;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};

use super::news::newest_id;
use super::row;
use crate::store::{Retention, StoreError};

pub(super) fn prune(
    conn: &Connection,
    pruned_to: &mut i64,
    retention: Retention,
    rows: usize,
    now: Now,
) -> Result<usize, StoreError> {
    let ended_before = now.wall.0.saturating_sub(i64::try_from(retention.age_ms).unwrap_or(i64::MAX));
    let id_before = match retention.count_max {
        Some(count_max) => newest_id(conn)?.saturating_sub(i64::try_from(count_max).unwrap_or(i64::MAX)),
        None => 0,
    };
    let mut old: Vec<i64> = Vec::new();
    let mut looked = 0;
    {
        let sql = "SELECT id, state, finished_at, created_at FROM tasks WHERE id > ?1 ORDER BY id LIMIT ?2";
        let mut statement = conn.prepare_cached(sql)?;
        let mut found = statement.query(params![*pruned_to, i64::try_from(rows).unwrap_or(i64::MAX)])?;
        while let Some(row) = found.next()? {
            looked += 1;
            let id = row.get(0)?;
            *pruned_to = id;
            // An app that ended the row by SQL may have set no time.
            let ended_at = row::int(row.get_ref(2)?).or(row::int(row.get_ref(3)?)).unwrap_or(0);
            let ended = matches!(row.get_ref(1)?, ValueRef::Text(b"done" | b"cancelled"));
            if ended && (ended_at < ended_before || id <= id_before) {
                old.push(id);
            }
        }
    }
    if looked < rows {
        *pruned_to = 0;
    }
    for id in &old {
        delete(conn, *id)?;
    }
    Ok(old.len())
}

/// Why an ended row is kept although nothing else speaks for it, each a condition on a row of `tasks`. Pruning and people's own
/// deletes both ask here, and nowhere else.
const NEEDED_BY: [&str; 0] = [];

static DELETE: LazyLock<String> = LazyLock::new(|| {
    let kept: String = NEEDED_BY.iter().map(|needed| format!(" AND NOT ({needed})")).collect();
    format!("DELETE FROM tasks WHERE id = ?1{kept}")
});

/// Deletes an ended row with its failures. False when something still needs it.
pub(super) fn delete(conn: &Connection, id: i64) -> Result<bool, StoreError> {
    if conn.prepare_cached(&DELETE)?.execute([id])? == 0 {
        return Ok(false);
    }
    conn.prepare_cached("DELETE FROM failures WHERE task = ?1")?.execute([id])?;
    Ok(true)
}
