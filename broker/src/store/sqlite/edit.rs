//! What people do to single tasks: queue again, cancel, delete, put into another lane, let run at once. Each looks at the row as
//! it is, does only what fits its state, and says what it did. What an app's trigger refuses costs nobody else anything.

use laneway_core::{Edit, MARK_MAX, Now};
use laneway_protocol::message::Verdict;
use laneway_protocol::{LaneName, TaskId, TaskState};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};

use super::State;
use super::group::revive;
use super::prune::{delete, is_needed};
use super::refused::unless_refused;
use super::row::{self, sql_id};
use super::run::stands;
use super::sweep::{End, end_unstarted};
use super::unique::live_twin;
use crate::store::StoreError;
use crate::store::cancel::CancelCause;

pub(super) fn edit(
    conn: &Connection,
    state: &mut State,
    edit: &Edit,
    task: TaskId,
    now: Now,
) -> Result<Verdict, StoreError> {
    let verdict = match edit {
        Edit::Requeue => requeue(conn, state, task, now),
        Edit::Cancel => cancel(conn, state, task, CancelCause::Asked, now),
        Edit::Abandon => cancel(conn, state, task, CancelCause::Abandoned, now),
        Edit::Purge => purge(conn, state, task, now),
        Edit::Move(lane) => relane(conn, state, task, lane, now),
        Edit::RunNow => run_now(conn, state, task, now),
    };
    Ok(unless_refused(verdict, sql_id(task), "a row could not be changed")?.unwrap_or(Verdict::Unchanged))
}

fn requeue(conn: &Connection, state: &mut State, task: TaskId, now: Now) -> Result<Verdict, StoreError> {
    let id = sql_id(task);
    let mut statement =
        conn.prepare_cached("SELECT state, kind, lane, unique_key, fair_key, group_id FROM tasks WHERE id = ?1")?;
    let mut rows = statement.query([id])?;
    let Some(row) = rows.next()? else { return Ok(Verdict::NotFound) };
    let was = row::state(row.get_ref(0)?);
    if !matches!(was, Some(TaskState::Dead | TaskState::Cancelled)) {
        return Ok(Verdict::Unchanged);
    }
    if let Some(twin) = twin_of(conn, row.get_ref(1)?, row.get_ref(3)?)? {
        return Ok(Verdict::Twin(twin));
    }
    let key = state.judge.key(row.get_ref(1)?, row.get_ref(2)?);
    // A blob is found by its own index, and is no way to spell a queue.
    let spelled = match (row.get_ref(2)?, row::text(row.get_ref(1)?)) {
        (ValueRef::Null, Some(kind)) => Some((None, kind)),
        (lane, Some(kind)) => row::text(lane).map(|lane| (Some(lane), kind)),
        (_, None) => None,
    };
    let fair_key = row::fair_key(row.get_ref(4)?);
    let group = row::int(row.get_ref(5)?);
    drop(rows);
    // A mark says that some hand-outs have a payload from before: no requeue makes them current.
    let sql = "UPDATE tasks SET state = 'queued', run_at = NULL, attempts = 0, losses = 0, \
               lease = CASE WHEN lease BETWEEN 1 AND ?3 THEN lease END, cancel_requested = 0, finished_at = NULL, result = NULL, error = NULL, \
               expires_at = CASE WHEN expires_at > ?2 THEN expires_at END, \
               progress_done = NULL, progress_total = NULL, progress_note = NULL WHERE id = ?1";
    conn.prepare_cached(sql)?.execute(params![id, now.wall.0, MARK_MAX])?;
    if let Some(group) = group {
        revive(conn, group)?;
    }
    state.revived += 1;
    if was == Some(TaskState::Dead) {
        state.tally.undied(id);
    }
    match (key, spelled) {
        (Ok(key), _) => state.queued(key, id, fair_key, None, now),
        // Of a queue that no worker can name: the next sweep rejects it again.
        (Err(_), spelled) => state.tally.suspects.extend(spelled),
    }
    Ok(Verdict::Requeued)
}

fn cancel(
    conn: &Connection,
    state: &mut State,
    task: TaskId,
    cause: CancelCause,
    now: Now,
) -> Result<Verdict, StoreError> {
    let Some(stands) = stands(conn, task)? else { return Ok(Verdict::NotFound) };
    Ok(match stands.state {
        TaskState::Waiting | TaskState::Queued => {
            let ended = end_unstarted(conn, state, sql_id(task), End::Cancelled(cause), now)?;
            ended.map_or(Verdict::Unchanged, |_| Verdict::Cancelled)
        }
        TaskState::Running if request_cancel(conn, sql_id(task), cause)? => Verdict::Requested,
        _ => Verdict::Unchanged,
    })
}

/// Asks a live task to end, as an app would; the next sweep sees to it. False when a trigger of an app refuses that.
pub(super) fn request_cancel(conn: &Connection, id: i64, cause: CancelCause) -> Result<bool, StoreError> {
    let sql = "UPDATE tasks SET cancel_requested = ?2 WHERE id = ?1 AND cancel_requested = 0";
    let written = conn.prepare_cached(sql)?.execute([id, cause.requested()]);
    unless_refused(written, id, "a row could not be cancelled").map(|given| given.is_some())
}

fn purge(conn: &Connection, state: &mut State, task: TaskId, now: Now) -> Result<Verdict, StoreError> {
    let Some(stands) = stands(conn, task)? else { return Ok(Verdict::NotFound) };
    if !stands.state.is_final() {
        return Ok(Verdict::Unchanged);
    }
    let id = sql_id(task);
    if !delete(conn, id, now)? {
        return Ok(Verdict::Needed);
    }
    if stands.state == TaskState::Dead {
        state.tally.undied(id);
    }
    Ok(Verdict::Purged)
}

fn relane(
    conn: &Connection,
    state: &mut State,
    task: TaskId,
    lane: &LaneName,
    now: Now,
) -> Result<Verdict, StoreError> {
    let id = sql_id(task);
    let mut statement = conn.prepare_cached("SELECT state, kind, lane, run_at, fair_key FROM tasks WHERE id = ?1")?;
    let mut rows = statement.query([id])?;
    let Some(row) = rows.next()? else { return Ok(Verdict::NotFound) };
    let was = row::state(row.get_ref(0)?);
    let from = state.judge.key(row.get_ref(1)?, row.get_ref(2)?).ok();
    let to = state.judge.key(row.get_ref(1)?, ValueRef::Text(lane.as_str().as_bytes()));
    let run_at = row::millis(row.get_ref(3)?);
    let fair_key = row::fair_key(row.get_ref(4)?);
    drop(rows);
    let Ok(to) = to else { return Ok(Verdict::Unchanged) };
    let is_there = from.as_ref().is_some_and(|from| from.lane == *lane);
    if is_there || !matches!(was, Some(TaskState::Queued | TaskState::Waiting)) {
        return Ok(Verdict::Unchanged);
    }
    conn.prepare_cached("UPDATE tasks SET lane = ?2 WHERE id = ?1")?.execute(params![id, lane.as_str()])?;
    if was == Some(TaskState::Queued) {
        if let Some(from) = from {
            state.unqueued(from, id);
        }
        state.queued(to, id, fair_key, run_at, now);
    }
    Ok(Verdict::Moved)
}

fn run_now(conn: &Connection, state: &mut State, task: TaskId, now: Now) -> Result<Verdict, StoreError> {
    let id = sql_id(task);
    let mut statement = conn.prepare_cached("SELECT state, kind, lane, run_at, fair_key FROM tasks WHERE id = ?1")?;
    let mut rows = statement.query([id])?;
    let Some(row) = rows.next()? else { return Ok(Verdict::NotFound) };
    let is_queued = row::state(row.get_ref(0)?) == Some(TaskState::Queued);
    let key = state.judge.key(row.get_ref(1)?, row.get_ref(2)?);
    let is_later = row::millis(row.get_ref(3)?).is_some_and(|at| at > now.wall);
    let fair_key = row::fair_key(row.get_ref(4)?);
    drop(rows);
    let Some(key) = key.ok().filter(|_| is_queued && is_later) else { return Ok(Verdict::Unchanged) };
    conn.prepare_cached("UPDATE tasks SET run_at = NULL WHERE id = ?1")?.execute([id])?;
    state.unqueued(key.clone(), id);
    state.queued(key, id, fair_key, None, now);
    Ok(Verdict::Due)
}

/// What `edit` would say, without doing it.
pub(super) fn would(
    conn: &Connection,
    state: &State,
    edit: &Edit,
    task: TaskId,
    now: Now,
) -> Result<Verdict, StoreError> {
    let sql = "SELECT state, kind, lane, run_at, unique_key FROM tasks WHERE id = ?1";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([sql_id(task)])?;
    let Some(row) = rows.next()? else { return Ok(Verdict::NotFound) };
    let Some(was) = row::state(row.get_ref(0)?) else { return Ok(Verdict::NotFound) };
    let (kind, lane) = (row.get_ref(1)?, row.get_ref(2)?);
    let lives = matches!(was, TaskState::Queued | TaskState::Waiting);
    Ok(match edit {
        Edit::Requeue if matches!(was, TaskState::Dead | TaskState::Cancelled) => {
            twin_of(conn, kind, row.get_ref(4)?)?.map_or(Verdict::Requeued, Verdict::Twin)
        }
        Edit::Cancel | Edit::Abandon if lives => Verdict::Cancelled,
        Edit::Cancel | Edit::Abandon if was == TaskState::Running => Verdict::Requested,
        Edit::Purge if was.is_final() && is_needed(conn, sql_id(task), now)? => Verdict::Needed,
        Edit::Purge if was.is_final() => Verdict::Purged,
        Edit::Move(to) if lives && moves(state, kind, lane, to) => Verdict::Moved,
        Edit::RunNow if was == TaskState::Queued && state.judge.key(kind, lane).is_ok() => {
            let is_later = row::millis(row.get_ref(3)?).is_some_and(|at| at > now.wall);
            if is_later { Verdict::Due } else { Verdict::Unchanged }
        }
        Edit::Requeue | Edit::Cancel | Edit::Abandon | Edit::Purge | Edit::Move(_) | Edit::RunNow => Verdict::Unchanged,
    })
}

/// The live task that has the key of an ended one.
pub(super) fn twin_of(
    conn: &Connection,
    kind: ValueRef<'_>,
    unique_key: ValueRef<'_>,
) -> Result<Option<TaskId>, StoreError> {
    let (ValueRef::Text(_), Some(kind), Some(unique_key)) = (unique_key, row::text(kind), row::text(unique_key)) else {
        return Ok(None);
    };
    let twin = live_twin(conn, &kind, &unique_key)?;
    Ok(twin.and_then(|twin| u64::try_from(twin).ok()).and_then(TaskId::new))
}

fn moves(state: &State, kind: ValueRef<'_>, lane: ValueRef<'_>, to: &LaneName) -> bool {
    let fits = state.judge.key(kind, ValueRef::Text(to.as_str().as_bytes())).is_ok();
    fits && !state.judge.key(kind, lane).is_ok_and(|from| from.lane == *to)
}
