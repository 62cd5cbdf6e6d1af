//! New rows by the store's own hand: submits, said once or twice, and the tasks that an outcome spawns.

use laneway_core::{Now, OpResult, QueueKey, UnixMillis};
use laneway_protocol::message::{NewTask, Stored};
use laneway_protocol::{LaneName, RequestId, TaskId};
use rusqlite::{Connection, OptionalExtension, params};

use super::State;
use super::row::{SqlPayload, sql_u64};
use crate::store::StoreError;
use crate::store::validate::{Bad, Judge};

/// A submit said again within this time gets the same ids.
const REQUEST_KEPT_MS: i64 = 10 * 60 * 1000;
/// Old requests are forgotten this often, more of them than came in meanwhile, so that the table shrinks.
const FORGET_EVERY_MS: i64 = 1000;
const FORGOTTEN_MIN: i64 = 1000;
const FORGOTTEN_PER_SUBMIT: i64 = 2;

/// When old requests are to be forgotten.
#[derive(Debug, Default)]
pub(super) struct Forgetting {
    next_at: i64,
    submits: i64,
}

pub(super) fn submit(
    conn: &Connection,
    state: &mut State,
    request: RequestId,
    tasks: &[NewTask],
    now: Now,
) -> Result<OpResult, StoreError> {
    if let Some(stored) = said_before(conn, request, now)? {
        return Ok(OpResult::Submitted(stored));
    }
    let keys = match judge_all(&state.judge, tasks) {
        Ok(keys) => keys,
        Err((index, Bad { field, reason })) => return Ok(OpResult::Refused { index, field, reason }),
    };
    // What a trigger of an app refuses costs this submit and nothing else.
    conn.prepare_cached("SAVEPOINT submit")?.execute([])?;
    let mut inserted = Vec::with_capacity(tasks.len());
    let stored = match insert_judged(conn, tasks, keys, now, |key, id, run_at| inserted.push((key, id, run_at))) {
        Ok(stored) => stored,
        Err(StoreError::Refused(reason)) => {
            conn.prepare_cached("ROLLBACK TO submit")?.execute([])?;
            conn.prepare_cached("RELEASE submit")?.execute([])?;
            return Ok(OpResult::Refused { index: 0, field: "kind", reason });
        }
        Err(error) => return Err(error),
    };
    conn.prepare_cached("RELEASE submit")?.execute([])?;
    for (key, id, run_at) in inserted {
        state.inserted(key, id, run_at, now);
    }
    remember(conn, request, &stored, now)?;
    forget(conn, &mut state.forgetting, now)?;
    Ok(OpResult::Submitted(stored))
}

/// The queue of each task, or which one makes no sense and why.
pub(super) fn judge_all(judge: &Judge, tasks: &[NewTask]) -> Result<Vec<QueueKey>, (usize, Bad)> {
    let judged = tasks.iter().enumerate();
    judged.map(|(index, task)| judge.task(task).map_err(|bad| (index, bad))).collect()
}

/// Judges and inserts, all or none, for the offline commands.
pub(crate) fn insert_all(
    conn: &Connection,
    judge: &Judge,
    tasks: &[NewTask],
    now: Now,
) -> Result<Result<Vec<Stored>, (usize, Bad)>, StoreError> {
    match judge_all(judge, tasks) {
        Ok(keys) => Ok(Ok(insert_judged(conn, tasks, keys, now, |_, _, _| ())?)),
        Err(bad) => Ok(Err(bad)),
    }
}

/// Inserts tasks that were judged to be good, telling `inserted` of each new row.
pub(super) fn insert_judged(
    conn: &Connection,
    tasks: &[NewTask],
    keys: Vec<QueueKey>,
    now: Now,
    mut inserted: impl FnMut(QueueKey, i64, Option<UnixMillis>),
) -> Result<Vec<Stored>, StoreError> {
    let mut insert = conn.prepare_cached(
        "INSERT INTO tasks (kind, lane, payload, run_at, unique_key, max_attempts, timeout_ms, expires_at, trace, created_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    let mut stored = Vec::with_capacity(tasks.len());
    for (task, key) in tasks.iter().zip(keys) {
        // Asked for beforehand: a conflict would use an id up, and the intake would take the gap for an app's row.
        let twin = match &task.unique_key {
            Some(unique_key) => live_twin(conn, task.kind.as_str(), unique_key)?,
            None => None,
        };
        if let Some(twin) = twin {
            stored.push(Stored { task: given_out(twin)?, new: false });
            continue;
        }
        insert.execute(params![
            task.kind.as_str(),
            task.lane.as_ref().map(LaneName::as_str),
            SqlPayload(task.payload.as_ref()),
            task.run_at,
            task.unique_key,
            task.max_attempts,
            task.timeout_ms.map(sql_u64),
            task.expires_at,
            task.trace,
            now.wall.0,
        ])?;
        let id = conn.last_insert_rowid();
        inserted(key, id, task.run_at.map(UnixMillis));
        stored.push(Stored { task: given_out(id)?, new: true });
    }
    Ok(stored)
}

fn given_out(id: i64) -> Result<TaskId, StoreError> {
    let task = u64::try_from(id).ok().and_then(TaskId::new);
    task.ok_or_else(|| StoreError::Broken(format!("the table gave out id {id}, which no task can have")))
}

/// The live row with this key.
pub(super) fn live_twin(conn: &Connection, kind: &str, unique_key: &str) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT id FROM tasks INDEXED BY tasks_live_key WHERE kind = ?1 AND unique_key = ?2 \
               AND unique_key IS NOT NULL AND state >= 'queued'";
    Ok(conn.prepare_cached(sql)?.query_row(params![kind, unique_key], |row| row.get(0)).optional()?)
}

/// Set in the number of a task that the request met instead of making it: ids have 53 bits.
const MET: u64 = 1 << 63;

fn said_before(conn: &Connection, request: RequestId, now: Now) -> Result<Option<Vec<Stored>>, StoreError> {
    let sql = "SELECT tasks FROM laneway_requests WHERE request = ?1 AND at > ?2";
    let oldest = now.wall.0 - REQUEST_KEPT_MS;
    let tasks: Option<Vec<u8>> =
        conn.prepare_cached(sql)?.query_row(params![request.0, oldest], |row| row.get(0)).optional()?;
    let stored = |bytes: &[u8; 8]| {
        let number = u64::from_be_bytes(*bytes);
        Some(Stored { task: TaskId::new(number & !MET)?, new: number & MET == 0 })
    };
    Ok(tasks.map(|tasks| tasks.as_chunks().0.iter().filter_map(stored).collect()))
}

fn remember(conn: &Connection, request: RequestId, stored: &[Stored], now: Now) -> Result<(), StoreError> {
    let number = |stored: &Stored| stored.task.value() | if stored.new { 0 } else { MET };
    let ids: Vec<u8> = stored.iter().flat_map(|stored| number(stored).to_be_bytes()).collect();
    // One too old to count may still be there.
    let sql = "INSERT OR REPLACE INTO laneway_requests (request, at, tasks) VALUES (?1, ?2, ?3)";
    conn.prepare_cached(sql)?.execute(params![request.0, now.wall.0, ids])?;
    Ok(())
}

fn forget(conn: &Connection, forgetting: &mut Forgetting, now: Now) -> Result<(), StoreError> {
    forgetting.submits += 1;
    // A clock that went back does not stop it for long.
    if (forgetting.next_at - FORGET_EVERY_MS..forgetting.next_at).contains(&now.wall.0) {
        return Ok(());
    }
    let limit = FORGOTTEN_MIN + FORGOTTEN_PER_SUBMIT * forgetting.submits;
    *forgetting = Forgetting { next_at: now.wall.0 + FORGET_EVERY_MS, submits: 0 };
    // Rows are in order of time but for steps of the clock, which only make one stay longer.
    let sql = "DELETE FROM laneway_requests \
               WHERE id IN (SELECT id FROM laneway_requests ORDER BY id LIMIT ?1) AND at <= ?2";
    conn.prepare_cached(sql)?.execute(params![limit, now.wall.0 - REQUEST_KEPT_MS])?;
    Ok(())
}
