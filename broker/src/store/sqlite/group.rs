//! Groups: tasks that name the same number in `group_id`. Counted from their index when somebody asks.

use std::time::Instant;

use laneway_core::{Ending, FoundGroup, Now};
use laneway_protocol::limits::GROUP_COUNT_MAX;
use laneway_protocol::message::{Final, GroupRow, NewGroup};
use laneway_protocol::{TaskId, TaskState};
use rusqlite::{Connection, OptionalExtension, params};

use super::counted::Counted;
use super::edit::request_cancel;
use super::query;
use super::row::{self, sql_u64};
use crate::store::StoreError;
use crate::store::cancel::CancelCause;
use crate::store::dependencies::{JOINED_TOO_LATE, LIVE_STATES, group_name};

pub(super) fn new_group(conn: &Connection, group: &NewGroup, now: Now) -> Result<i64, StoreError> {
    let sql = "INSERT INTO task_groups (name, anyway, created_at) VALUES (?1, ?2, ?3)";
    conn.prepare_cached(sql)?.execute(params![group_name(group), group.anyway, now.wall.0])?;
    Ok(conn.last_insert_rowid())
}

/// Whether a group was cancelled and takes no more tasks; `None` when no row tells of it.
pub(super) fn is_cancelled(conn: &Connection, group: i64) -> Result<Option<bool>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT cancel_requested FROM task_groups WHERE id = ?1")?;
    Ok(statement.query_row([group], |row| Ok(row::requested(row.get_ref(0)?))).optional()?)
}

/// A task of it was queued again by a person: others may join it again.
pub(super) fn revive(conn: &Connection, group: i64) -> Result<(), StoreError> {
    let sql = "UPDATE task_groups SET cancel_requested = 0 WHERE id = ?1 AND cancel_requested <> 0";
    conn.prepare_cached(sql)?.execute([group])?;
    Ok(())
}

/// The group of a task.
pub(super) fn group_of(conn: &Connection, id: i64) -> Result<Option<i64>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT group_id FROM tasks WHERE id = ?1")?;
    Ok(statement.query_row([id], |row| Ok(row::int(row.get_ref(0)?))).optional()?.flatten())
}

/// Whether a task was asked to end, as each live one of a group is when that is cancelled.
pub(super) fn is_to_end(conn: &Connection, id: i64) -> Result<bool, StoreError> {
    let mut statement = conn.prepare_cached("SELECT cancel_requested FROM tasks WHERE id = ?1")?;
    Ok(statement.query_row([id], |row| Ok(row::requested(row.get_ref(0)?))).optional()?.unwrap_or(false))
}

/// A row that was just inserted joins a group too late.
pub(super) fn end_unborn(conn: &Connection, id: i64, now: Now) -> Result<(), StoreError> {
    let sql = "UPDATE tasks SET state = 'cancelled', finished_at = ?2, error = ?3 WHERE id = ?1";
    conn.prepare_cached(sql)?.execute(params![id, now.wall.0, JOINED_TOO_LATE])?;
    Ok(())
}

/// The last task of a group, while it waits, and whether it runs though others fail.
pub(super) fn waiting_last(conn: &Connection, group: i64) -> Result<Option<(i64, bool)>, StoreError> {
    let sql = "SELECT tasks.id, anyway FROM task_groups JOIN tasks ON tasks.id = last_task \
               WHERE task_groups.id = ?1 AND tasks.state = 'waiting'";
    let mut statement = conn.prepare_cached(sql)?;
    Ok(statement.query_row([group], |row| Ok((row.get(0)?, row::requested(row.get_ref(1)?)))).optional()?)
}

/// Where a group stands, with up to `live` of its tasks that have not ended; those who ask for some wait, and may be told the counts of a
/// moment ago. `None` when nobody has heard of it.
pub(super) fn find(
    conn: &Connection,
    counted: &mut Counted,
    group: u64,
    live: usize,
) -> Result<Option<FoundGroup>, StoreError> {
    let found = live_of(conn, group, live)?;
    let begun = Instant::now();
    if live > 0
        && let Some(row) = counted.last(group, !found.is_empty(), begun)
    {
        let last = last_of(conn, &row, found.is_empty())?;
        return Ok(Some(FoundGroup { row, live: found, last }));
    }
    let Some(row) = stand(conn, group)? else { return Ok(None) };
    counted.keep(&row, begun, Instant::now());
    let last = last_of(conn, &row, live > 0 && found.is_empty())?;
    Ok(Some(FoundGroup { row, live: found, last }))
}

/// Up to `rows` live tasks, those that run first: they are the ones that say something.
fn live_of(conn: &Connection, group: u64, rows: usize) -> Result<Vec<TaskId>, StoreError> {
    let mut found = Vec::new();
    let mut statement = conn.prepare_cached(const_sql::LIVE)?;
    for state in LIVE_STATES {
        let limit = i64::try_from(rows - found.len()).unwrap_or(i64::MAX);
        let ids = statement.query_map(params![sql_u64(group), state.as_str(), limit], |row| row::task_id(row, 0))?;
        // A row whose id no task can have takes a place and is nobody's.
        found.extend(ids.collect::<Result<Vec<_>, _>>()?.into_iter().flatten());
        if found.len() == rows {
            break;
        }
    }
    Ok(found)
}

/// How the last task of a group ended, which has `ended`.
fn last_of(conn: &Connection, group: &GroupRow, ended: bool) -> Result<Option<Final>, StoreError> {
    let Some(last) = group.last.filter(|_| ended) else { return Ok(None) };
    let ending = query::endings(conn, &[last])?.pop();
    Ok(if let Some((_, Ending::Final(end))) = ending { Some(end) } else { None })
}

/// What is known of a group, counted.
fn stand(conn: &Connection, group: u64) -> Result<Option<GroupRow>, StoreError> {
    let mut row = GroupRow { group, ..GroupRow::default() };
    let sql = "SELECT name, last_task, created_at FROM task_groups WHERE id = ?1";
    let known = conn.prepare_cached(sql)?.query_row([sql_u64(group)], |found| {
        row.name = row::text(found.get_ref(0)?);
        row.last = row::task_id(found, 1)?;
        row.created_at = row::int(found.get_ref(2)?).unwrap_or(0);
        Ok(())
    });
    let known = known.optional()?.is_some();
    for state in TaskState::ALL {
        *count_of(&mut row, state) = count(conn, group, state)?;
    }
    Ok((known || row.total() > 0).then_some(row))
}

fn count(conn: &Connection, group: u64, state: TaskState) -> Result<u64, StoreError> {
    let mut statement = conn.prepare_cached(const_sql::COUNT)?;
    let n: i64 =
        statement.query_row(params![sql_u64(group), state.as_str(), sql_u64(GROUP_COUNT_MAX)], |row| row.get(0))?;
    Ok(n.unsigned_abs())
}

fn count_of(row: &mut GroupRow, state: TaskState) -> &mut u64 {
    match state {
        TaskState::Waiting => &mut row.waiting,
        TaskState::Queued => &mut row.queued,
        TaskState::Running => &mut row.running,
        TaskState::Done => &mut row.done,
        TaskState::Dead => &mut row.dead,
        TaskState::Cancelled => &mut row.cancelled,
    }
}

/// Asks up to `rows` live tasks of a group to end, as an app would; the next sweep sees to it. True when there are more. From the first of them
/// on nothing joins it.
pub(super) fn cancel(conn: &Connection, group: u64, rows: usize) -> Result<bool, StoreError> {
    let sql = "UPDATE task_groups SET cancel_requested = 1 WHERE id = ?1 AND cancel_requested = 0";
    conn.prepare_cached(sql)?.execute([sql_u64(group)])?;
    let limit = i64::try_from(rows).unwrap_or(i64::MAX);
    let mut statement = conn.prepare_cached(const_sql::CANCELLABLE)?;
    let ids: Vec<i64> =
        statement.query_map(params![sql_u64(group), limit], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut asked = 0;
    for id in &ids {
        asked += usize::from(request_cancel(conn, *id, CancelCause::Group)?);
    }
    // Rows that an app's trigger keeps as they are would be found again and again.
    Ok(ids.len() == rows && asked > 0)
}

/// Forgets a group that has no tasks any more.
pub(super) fn forget_if_empty(conn: &Connection, group: i64) -> Result<(), StoreError> {
    let sql = "DELETE FROM task_groups WHERE id = ?1 AND NOT EXISTS \
               (SELECT 1 FROM tasks INDEXED BY tasks_group WHERE group_id = ?1 AND group_id IS NOT NULL)";
    conn.prepare_cached(sql)?.execute([group])?;
    Ok(())
}

/// Statements that must look at nothing but their group, each with the columns that the index is entered by.
#[cfg(test)]
pub(super) const PLANS: [(&str, &str); 3] = [
    (const_sql::COUNT, "group_id=? AND state=?"),
    (const_sql::LIVE, "group_id=? AND state=?"),
    (const_sql::CANCELLABLE, "group_id=? AND state>?"),
];

mod const_sql {
    pub(super) const COUNT: &str = "SELECT count(*) FROM (SELECT 1 FROM tasks INDEXED BY tasks_group \
        WHERE group_id = ?1 AND group_id IS NOT NULL AND state = ?2 LIMIT ?3)";
    pub(super) const LIVE: &str = "SELECT id FROM tasks INDEXED BY tasks_group \
        WHERE group_id = ?1 AND group_id IS NOT NULL AND state = ?2 LIMIT ?3";
    pub(super) const CANCELLABLE: &str = "SELECT id FROM tasks INDEXED BY tasks_group \
        WHERE group_id = ?1 AND group_id IS NOT NULL AND state >= 'queued' AND cancel_requested = 0 LIMIT ?2";
}
