//! A slice of a batch: looks at rows in the order of their ids, behind the place where the last slice stopped, and changes those
//! that meet the filter. Bounded in rows looked at, in rows changed, in bytes deleted and in time, so that it never holds
//! the write lock for long.

use std::time::{Duration, Instant};

use laneway_core::{BulkSlice, BulkSliced, Edit, Now};
use laneway_protocol::limits::ERROR_LINE_CHARS_MAX;
use laneway_protocol::message::error_line;
use laneway_protocol::{Kind, TaskId, TaskState};
use rusqlite::{Connection, Row, params};

use super::State;
use super::edit::{edit, would};
use super::news::newest_id;
use super::row::{self, sql_id};
use crate::store::{Rules, StoreError};

/// Rows that one slice looks at.
const LOOKED_MAX: usize = 10_000;
/// How long one may go on, looked at now and then.
const TIME_MAX: Duration = Duration::from_millis(5);
const LOOKED_BETWEEN: usize = 256;
const CHANGED_BETWEEN: usize = 16;
/// Of payloads and results that are deleted: each page of theirs is written.
const BYTES_MAX: u64 = 4 * 1024 * 1024;
/// What the first line of an error hangs on.
const BEGINNING: &str = "substr(error, 1, 128)";
const _: () = assert!(ERROR_LINE_CHARS_MAX == 128);

pub(super) fn bulk(
    conn: &Connection,
    state: &mut State,
    slice: &BulkSlice,
    now: Now,
) -> Result<BulkSliced, StoreError> {
    let begun = Instant::now();
    let until = match slice.until {
        Some(until) => sql_id(until),
        None => newest_id(conn)?,
    };
    let met = meet(conn, &state.judge.rules, slice, until, begun)?;
    let mut done =
        BulkSliced { verdicts: Vec::with_capacity(met.tasks.len()), at: met.at, until: task_id(until), over: met.over };
    for (n, task) in met.tasks.iter().enumerate() {
        if n > 0 && n.is_multiple_of(CHANGED_BETWEEN) && begun.elapsed() >= TIME_MAX {
            (done.at, done.over) = (done.verdicts.last().map(|(task, _)| *task), false);
            break;
        }
        let verdict = if slice.dry_run {
            would(conn, state, &slice.edit, *task, now)?
        } else {
            edit(conn, state, &slice.edit, *task, now)?
        };
        done.verdicts.push((*task, verdict));
    }
    Ok(done)
}

struct Met {
    tasks: Vec<TaskId>,
    /// The last that was looked at.
    at: Option<TaskId>,
    /// Every row was.
    over: bool,
}

/// Running and dead rows have an index; for the rest all are looked through.
fn source(slice: &BulkSlice) -> &'static str {
    match slice.filter.state {
        Some(TaskState::Running) => "INDEXED BY tasks_marked WHERE state = 'running' AND",
        Some(TaskState::Dead) => "INDEXED BY tasks_marked WHERE state = 'dead' AND",
        _ => "NOT INDEXED WHERE",
    }
}

fn meet(conn: &Connection, rules: &Rules, slice: &BulkSlice, until: i64, begun: Instant) -> Result<Met, StoreError> {
    // Columns far behind in the row are read where they are needed only.
    let filter = &slice.filter;
    let error = if filter.error.is_some() { "error" } else { "NULL" };
    let unique_key = if filter.unique_key.is_some() { "unique_key" } else { "NULL" };
    let fair_key = if filter.fair_key.is_some() { "fair_key" } else { "NULL" };
    let worker = if filter.workers.is_empty() { "NULL" } else { "worker" };
    let line = if filter.error_line.is_some() { BEGINNING } else { "NULL" };
    let bytes = match slice.edit {
        Edit::Purge if !slice.dry_run => {
            "ifnull(octet_length(payload), 0) + ifnull(octet_length(checkpoint), 0) + ifnull(octet_length(result), 0)"
        }
        _ => "0",
    };
    let source = source(slice);
    let sql = format!(
        "SELECT id, state, kind, lane, finished_at, created_at, {error}, {bytes}, {unique_key}, {fair_key}, {worker}, \
         group_id, attempts, {line} FROM tasks {source} id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let limit = i64::try_from(LOOKED_MAX).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![slice.after.map_or(0, sql_id), until, limit])?;
    let mut met = Met { tasks: Vec::new(), at: slice.after, over: false };
    let (mut looked, mut met_bytes) = (0, 0);
    loop {
        let Some(row) = rows.next()? else {
            met.over = looked < LOOKED_MAX;
            if met.over {
                met.at = task_id(until);
            }
            return Ok(met);
        };
        looked += 1;
        met.at = row::task_id(row, 0)?;
        if meets(row, rules, slice)? {
            met.tasks.extend(met.at);
            met_bytes += row::unsigned(row.get_ref(7)?).unwrap_or(0);
        }
        let late = looked.is_multiple_of(LOOKED_BETWEEN) && begun.elapsed() >= TIME_MAX;
        if met.tasks.len() == slice.rows || met_bytes >= BYTES_MAX || late {
            return Ok(met);
        }
    }
}

fn meets(row: &Row<'_>, rules: &Rules, slice: &BulkSlice) -> rusqlite::Result<bool> {
    let filter = &slice.filter;
    if filter.state.is_some() && row::state(row.get_ref(1)?) != filter.state {
        return Ok(false);
    }
    let kind = row.get_ref(2)?.as_str().ok();
    // One that is no text is shown as an empty one, and met as that.
    if filter.kind.as_deref().is_some_and(|wanted| kind.unwrap_or_default() != wanted) {
        return Ok(false);
    }
    if let Some(wanted) = &filter.lane {
        let own = row.get_ref(3)?.as_str().ok();
        let default = || kind.and_then(|kind| Kind::new(kind).ok()).map(|kind| rules.lane_of(&kind).as_str());
        if own.or_else(default) != Some(wanted) {
            return Ok(false);
        }
    }
    if let Some(before) = slice.before {
        let at = row::millis(row.get_ref(4)?).or(row::millis(row.get_ref(5)?));
        if at.is_none_or(|at| at > before) {
            return Ok(false);
        }
    }
    if let Some(text) = &filter.error
        && !row.get_ref(6)?.as_str().is_ok_and(|error| error.contains(text.as_str()))
    {
        return Ok(false);
    }
    if let Some(wanted) = &filter.error_line
        && error_line(row.get_ref(13)?.as_str().unwrap_or_default()) != error_line(wanted)
    {
        return Ok(false);
    }
    for (at, wanted) in [(8, &filter.unique_key), (9, &filter.fair_key)] {
        if wanted.is_some() && row.get_ref(at)?.as_str().ok() != wanted.as_deref() {
            return Ok(false);
        }
    }
    if !filter.workers.is_empty() {
        let Ok(own) = row.get_ref(10)?.as_str() else { return Ok(false) };
        if !filter.workers.iter().any(|worker| own.starts_with(worker.as_str())) {
            return Ok(false);
        }
    }
    if filter.group.is_some() && row::unsigned(row.get_ref(11)?) != filter.group {
        return Ok(false);
    }
    let (min, max) = (filter.attempts_min.unwrap_or(0), filter.attempts_max.unwrap_or(u32::MAX));
    if min == 0 && max == u32::MAX {
        return Ok(true);
    }
    Ok(row::unsigned(row.get_ref(12)?).is_some_and(|own| (u64::from(min)..=u64::from(max)).contains(&own)))
}

fn task_id(id: i64) -> Option<TaskId> {
    u64::try_from(id).ok().and_then(TaskId::new)
}
