//! Rows that need a hand of the broker wherever they lie: cancel requested, expired, or put by an app where no queue finds
//! them. Found by partial indexes that hold nothing else, so the cost does not grow with the backlog.

use laneway_core::{Cause, Now, QueueKey, UnixMillis};
use laneway_protocol::limits::TEXT_BYTES_MAX;
use laneway_protocol::message::Final;
use laneway_protocol::{TaskId, TaskState};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};

use super::count::RawQueue;
use super::queue::{VALUES, values};
use super::refused::unless_refused;
use super::{State, row};
use crate::store::cancel::CancelCause;
use crate::store::validate::{Bad, clipped};
use crate::store::{StoreError, Swept, Unstarted};

/// The condition of the index `tasks_attention`, word for word: else SQLite does not use it.
const ATTENTION: &str = "state >= 'queued' AND (cancel_requested <> 0 \
    OR kind >= x'' OR lane >= x'' OR run_at >= 1e14 OR expires_at >= 1e14 \
    OR (state = 'running' AND (lease IS NULL OR lease >= 9.3e18)))";

/// Why a task ends that never started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Cancelled(CancelCause),
    Expired,
    /// A task that it waits for has failed; how, in words.
    Parent(String),
}

pub(super) fn sweep(conn: &Connection, state: &mut State, rows: usize, now: Now) -> Result<Swept, StoreError> {
    let mut swept = Swept::default();
    for word in ["queued", "waiting"] {
        let found = attention(conn, word, rows)?;
        swept.more |= found.len() == rows;
        for (id, cancel) in found {
            swept.ended.extend(if let Some(cause) = cancel {
                end_unstarted(conn, state, id, End::Cancelled(cause), now)?
            } else {
                let reason = judged(conn, state, id)?;
                reject(conn, state, id, &reason, now)?
            });
        }
    }
    let running = reject_running_without_lease(conn, state, rows, now)?;
    swept.more |= running.len() == rows;
    swept.ended.extend(running);
    for (id, cancel) in attention(conn, "running", rows)? {
        if cancel.is_some() {
            swept.cancel_requested.extend(u64::try_from(id).ok().and_then(TaskId::new));
        }
    }
    let expired = expired(conn, rows, now)?;
    swept.more |= expired.len() == rows;
    for id in expired {
        // A time in seconds is long past, too, and a mistake.
        swept.ended.extend(match fault(conn, state, id)? {
            Some(reason) => reject(conn, state, id, &reason, now)?,
            None => end_unstarted(conn, state, id, End::Expired, now)?,
        });
    }
    sweep_suspects(conn, state, rows, now, &mut swept)?;
    swept.next_at = next_expiry(conn, now)?;
    Ok(swept)
}

/// Rows of the index, each with who asked for its end.
fn attention(conn: &Connection, word: &str, rows: usize) -> Result<Vec<(i64, Option<CancelCause>)>, StoreError> {
    let sql = format!(
        "SELECT id, cancel_requested FROM tasks INDEXED BY tasks_attention WHERE state = ?1 AND {ATTENTION} LIMIT ?2"
    );
    let limit = i64::try_from(rows).unwrap_or(i64::MAX);
    let mut statement = conn.prepare_cached(&sql)?;
    let found =
        statement.query_map(params![word, limit], |row| Ok((row.get(0)?, row::cancel_cause(row.get_ref(1)?))))?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// Running rows that no worker can hold: an app has written their state or lease.
pub(super) fn reject_running_without_lease(
    conn: &Connection,
    state: &mut State,
    rows: usize,
    now: Now,
) -> Result<Vec<Unstarted>, StoreError> {
    let sql = format!(
        "SELECT id FROM tasks INDEXED BY tasks_attention WHERE state = 'running' AND {ATTENTION} \
         AND (lease IS NULL OR lease >= 9.3e18) LIMIT ?1"
    );
    let ids: Vec<i64> = conn
        .prepare_cached(&sql)?
        .query_map([i64::try_from(rows).unwrap_or(i64::MAX)], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let reason = "state is 'running' without a lease: only the broker starts tasks; insert no state";
    let mut rejected = Vec::new();
    for id in ids {
        rejected.extend(reject(conn, state, id, &Bad::new("lease", reason.into()), now)?);
    }
    Ok(rejected)
}

fn expired(conn: &Connection, rows: usize, now: Now) -> Result<Vec<i64>, StoreError> {
    let sql = "SELECT id FROM tasks INDEXED BY tasks_expires \
               WHERE expires_at IS NOT NULL AND runs = 0 AND (state = 'queued' OR state = 'waiting') AND expires_at <= ?1 \
               ORDER BY expires_at LIMIT ?2";
    let mut statement = conn.prepare_cached(sql)?;
    let limit = i64::try_from(rows).unwrap_or(i64::MAX);
    let ids = statement.query_map(params![now.wall.0, limit], |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

fn next_expiry(conn: &Connection, now: Now) -> Result<Option<UnixMillis>, StoreError> {
    let sql = "SELECT expires_at FROM tasks INDEXED BY tasks_expires \
               WHERE expires_at IS NOT NULL AND runs = 0 AND (state = 'queued' OR state = 'waiting') \
               AND expires_at > ?1 AND expires_at < 9.3e18 ORDER BY expires_at LIMIT 1";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([now.wall.0])?;
    match rows.next()? {
        Some(row) => Ok(row::millis(row.get_ref(0)?)),
        None => Ok(None),
    }
}

/// Rejects rows of queues that a recount met and no worker can ever name: their lane was never configured, say, and they
/// were inserted while no broker ran.
fn sweep_suspects(
    conn: &Connection,
    state: &mut State,
    rows: usize,
    now: Now,
    swept: &mut Swept,
) -> Result<(), StoreError> {
    let suspects: Vec<RawQueue> = state.tally.suspects.iter().cloned().collect();
    let mut left = rows;
    for suspect in suspects {
        let sql = "SELECT id FROM tasks INDEXED BY tasks_queue \
                   WHERE state = 'queued' AND lane IS ?1 AND kind = ?2 LIMIT ?3";
        let limit = i64::try_from(left).unwrap_or(i64::MAX);
        let ids: Vec<i64> = conn
            .prepare_cached(sql)?
            .query_map(params![suspect.0, suspect.1, limit], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        left -= ids.len();
        if left == 0 {
            swept.more = true;
        } else {
            state.tally.suspects.remove(&suspect);
        }
        for id in ids {
            // A suspicion alone ends no task.
            if let Some(reason) = fault(conn, state, id)? {
                swept.ended.extend(reject(conn, state, id, &reason, now)?);
            }
        }
        if left == 0 {
            break;
        }
    }
    Ok(())
}

/// What the judge says about a row that an index says is bad.
fn judged(conn: &Connection, state: &State, id: i64) -> Result<Bad, StoreError> {
    let fault = fault(conn, state, id)?;
    Ok(fault.unwrap_or_else(|| Bad::new("kind", "no queue can hold this row: insert it anew".into())))
}

/// What is wrong with a row; `None` when nothing is, or when it is gone.
fn fault(conn: &Connection, state: &State, id: i64) -> Result<Option<Bad>, StoreError> {
    let sql = format!("SELECT kind, lane, {VALUES} FROM tasks WHERE id = ?1");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([id])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let judged = state.judge.key(row.get_ref(0)?, row.get_ref(1)?);
    let judged = judged.and_then(|_| state.judge.values(&values(row, 2).expect("the columns are in the statement")));
    Ok(judged.err())
}

/// Ends a row that makes no sense: dead, with the reason, attempts untouched. `None` when it is not live any more.
pub(super) fn reject(
    conn: &Connection,
    state: &mut State,
    id: i64,
    bad: &Bad,
    now: Now,
) -> Result<Option<Unstarted>, StoreError> {
    let Some(was) = was(conn, state, id)? else { return Ok(None) };
    let error = clipped(&bad.reason, TEXT_BYTES_MAX);
    let sql = "UPDATE tasks SET state = 'dead', finished_at = ?2, error = ?3 WHERE id = ?1";
    if !tolerated(conn.prepare_cached(sql)?.execute(params![id, now.wall.0, error]), id)? {
        return Ok(None);
    }
    was.left(state, id);
    state.ended(id);
    let failure = Failure { task: id, run: was.runs, cause: Cause::Rejected, worker: None, started_at: None };
    failure.insert(conn, error, now.wall)?;
    state.tally.died(id);
    tracing::debug!(task = id, field = bad.field, reason = error, "rejected a row");
    Ok(was.ended(TaskState::Dead, Some(error.to_owned())))
}

/// Cancels a row that never started. `None` when it is not waiting or queued any more.
pub(super) fn end_unstarted(
    conn: &Connection,
    state: &mut State,
    id: i64,
    end: End,
    now: Now,
) -> Result<Option<Unstarted>, StoreError> {
    let Some(was) = was(conn, state, id)? else { return Ok(None) };
    let error = match end {
        End::Cancelled(cause) => cause.reason().map(str::to_owned),
        End::Expired => Some("expired".to_owned()),
        End::Parent(how) => Some(how),
    };
    let sql = "UPDATE tasks SET state = 'cancelled', finished_at = ?2, error = ?3 WHERE id = ?1";
    if !tolerated(conn.prepare_cached(sql)?.execute(params![id, now.wall.0, error]), id)? {
        return Ok(None);
    }
    was.left(state, id);
    state.ended(id);
    Ok(was.ended(TaskState::Cancelled, error))
}

/// False when an app refuses the write.
fn tolerated(written: rusqlite::Result<usize>, id: i64) -> Result<bool, StoreError> {
    unless_refused(written, id, "a row could not be ended").map(|given| given.is_some())
}

/// A live row as it was before its end.
struct Was {
    task: Option<TaskId>,
    runs: u32,
    queued: bool,
    key: Option<QueueKey>,
}

impl Was {
    /// Takes it out of the counts.
    fn left(&self, state: &mut State, id: i64) {
        if self.queued
            && let Some(key) = &self.key
        {
            state.unqueued(key.clone(), id);
        }
    }

    fn ended(self, state: TaskState, error: Option<String>) -> Option<Unstarted> {
        let end = Final { task: self.task?, state, result: None, error };
        Some(Unstarted { end, key: self.key })
    }
}

fn was(conn: &Connection, state: &State, id: i64) -> Result<Option<Was>, StoreError> {
    let sql = "SELECT id, runs, kind, lane, state FROM tasks WHERE id = ?1 AND state >= 'queued'";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([id])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(Was {
        task: row::task_id(row, 0)?,
        runs: row::count(row.get_ref(1)?),
        queued: row.get_ref(4)? == ValueRef::Text(b"queued"),
        key: state.judge.key(row.get_ref(2)?, row.get_ref(3)?).ok(),
    }))
}

/// Failures of one task that are kept; older ones go.
const FAILURES_MAX: u32 = 100;

/// A row of `failures`.
pub(super) struct Failure<'a> {
    pub(super) task: i64,
    pub(super) run: u32,
    pub(super) cause: Cause,
    pub(super) worker: Option<&'a str>,
    pub(super) started_at: Option<i64>,
}

impl Failure<'_> {
    pub(super) fn insert(&self, conn: &Connection, error: &str, at: UnixMillis) -> Result<(), StoreError> {
        let sql = "INSERT INTO failures (task, run, cause, worker, started_at, failed_at, error) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let row = params![self.task, self.run, self.cause.as_str(), self.worker, self.started_at, at.0, error];
        conn.prepare_cached(sql)?.execute(row)?;
        if self.run > FAILURES_MAX {
            let sql = "DELETE FROM failures WHERE task = ?1 AND run <= ?2";
            conn.prepare_cached(sql)?.execute(params![self.task, self.run - FAILURES_MAX])?;
        }
        Ok(())
    }
}
