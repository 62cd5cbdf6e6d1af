//! Unique keys: which task has one now, windows in which a key stays taken after its task is done, and live tasks that a submit
//! replaces. That no two live rows share a key is the table's own index.

use laneway_core::{FoundTask, Now, QueueKey};
use laneway_protocol::message::NewTask;
use laneway_protocol::{FairKey, Kind, Lease, TaskId};
use rusqlite::{Connection, OptionalExtension, params};

use super::row::{self, SqlPayload, sql_u64};
use crate::store::validate::Judge;
use crate::store::{Rules, StoreError};

/// The live row with this key.
pub(super) fn live_twin(conn: &Connection, kind: &str, unique_key: &str) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT id FROM tasks INDEXED BY tasks_live_key WHERE kind = ?1 AND unique_key = ?2 \
               AND unique_key IS NOT NULL AND state >= 'queued'";
    Ok(conn.prepare_cached(sql)?.query_row(params![kind, unique_key], |row| row.get(0)).optional()?)
}

/// The row that stands for a task to be: a live one with its key, or the newest when that is done and the task's window is
/// not over.
pub(super) fn twin(conn: &Connection, task: &NewTask, now: Now) -> Result<Option<i64>, StoreError> {
    let Some(unique_key) = &task.unique_key else { return Ok(None) };
    let live = live_twin(conn, task.kind.as_str(), unique_key)?;
    let (None, Some(unique_for_ms)) = (live, task.unique_for_ms) else { return Ok(live) };
    let sql = "SELECT id, state = 'done' AND finished_at > ?3 FROM tasks INDEXED BY tasks_key \
               WHERE kind = ?1 AND unique_key = ?2 AND unique_key IS NOT NULL ORDER BY id DESC LIMIT 1";
    let finished_after = now.wall.0.saturating_sub(sql_u64(unique_for_ms));
    let newest: Option<(i64, Option<bool>)> = conn
        .prepare_cached(sql)?
        .query_row(params![task.kind.as_str(), unique_key, finished_after], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(newest.filter(|(_, counts)| *counts == Some(true)).map(|(id, _)| id))
}

/// The live rows with these keys.
pub(super) fn find_twins(
    conn: &Connection,
    rules: &Rules,
    keys: &[(Kind, String)],
) -> Result<Vec<FoundTask>, StoreError> {
    let mut twins = Vec::with_capacity(keys.len());
    for (kind, unique_key) in keys {
        let twin = live_twin(conn, kind.as_str(), unique_key)?;
        twins.extend(twin.and_then(|id| u64::try_from(id).ok()).and_then(TaskId::new));
    }
    super::query::find(conn, rules, &twins)
}

/// Gives a row that nobody can start meanwhile the payload and the time of the task that replaces it; what it had saved belongs
/// to the old payload, and so do hand-outs that no row shows, which the mark in place of the lease tells. Gives its queue; `None` when it is not queued where a worker could find it.
pub(super) fn replace(
    conn: &Connection,
    judge: &Judge,
    id: i64,
    task: &NewTask,
    mark: Lease,
) -> Result<Option<(QueueKey, Option<FairKey>)>, StoreError> {
    let Some(found) = queue_of(conn, judge, id)? else { return Ok(None) };
    let sql =
        "UPDATE tasks SET payload = ?2, run_at = ?3, lease = ?4, checkpoint = NULL WHERE id = ?1 AND state = 'queued'";
    conn.prepare_cached(sql)?.execute(params![id, SqlPayload(task.payload.as_ref()), task.run_at, mark.value()])?;
    Ok(Some(found))
}

/// Of a row that is queued where a worker can find it, with its fair key.
pub(super) fn queue_of(
    conn: &Connection,
    judge: &Judge,
    id: i64,
) -> Result<Option<(QueueKey, Option<FairKey>)>, StoreError> {
    let sql = "SELECT kind, lane, fair_key FROM tasks WHERE id = ?1 AND state = 'queued'";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([id])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let fair_key = row::fair_key(row.get_ref(2)?);
    Ok(judge.key(row.get_ref(0)?, row.get_ref(1)?).ok().map(|key| (key, fair_key)))
}

/// Keeps a row for as long as its key stays taken after it is done; the longest wish counts.
pub(super) fn keep_for(conn: &Connection, id: i64, task: &NewTask) -> Result<(), StoreError> {
    let Some(unique_for_ms) = task.unique_for_ms else { return Ok(()) };
    let sql = "INSERT INTO laneway_windows (task, unique_for_ms) VALUES (?1, ?2) \
               ON CONFLICT (task) DO UPDATE SET unique_for_ms = max(unique_for_ms, excluded.unique_for_ms)";
    conn.prepare_cached(sql)?.execute(params![id, sql_u64(unique_for_ms)])?;
    Ok(())
}

/// A done row whose key stays taken; `?2` is now.
pub(super) const IN_WINDOW: &str = "unique_key IS NOT NULL AND state = 'done' AND EXISTS \
    (SELECT 1 FROM laneway_windows AS kept WHERE kept.task = tasks.id \
     AND coalesce(tasks.finished_at, tasks.created_at) + kept.unique_for_ms > ?2)";

/// The row is gone, and its window with it.
pub(super) fn forget_window(conn: &Connection, id: i64) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM laneway_windows WHERE task = ?1")?.execute([id])?;
    Ok(())
}
