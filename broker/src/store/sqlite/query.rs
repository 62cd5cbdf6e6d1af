//! Looks tasks up, for the core, for those who wait and for people. Changes nothing; shared by the store and the offline
//! commands.

use laneway_core::{Ending, FoundTask, Now, OpResult, due, expiry, span};
use laneway_protocol::limits::{BATCH_MAX, WAITS_FOR_MAX};
use laneway_protocol::message::{FailureRow, Filter, Final, StatusRows, TaskRow};
use laneway_protocol::{TaskId, TaskState};
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::ahead::ahead;
use super::dependencies;
use super::news::newest_id;
use super::row::{self, sql_id, sql_u64};
use crate::store::validate::Judge;
use crate::store::{Rules, StoreError};

/// Rows that one page looks at before it ends early.
const LOOKED_MAX: usize = 20_000;
/// The same of a group, whose ids are collected first.
const LOOKED_OF_GROUP_MAX: usize = 2_048;
/// Rows of a page when the filter does not say.
const PAGE: u32 = 50;
/// Failures shown with a task, the newest.
const FAILURES_SHOWN: i64 = 20;

pub(super) fn find(conn: &Connection, rules: &Rules, tasks: &[TaskId]) -> Result<Vec<FoundTask>, StoreError> {
    let sql = format!("SELECT {} FROM tasks WHERE id = ?1", row::FOUND);
    let mut statement = conn.prepare_cached(&sql)?;
    let mut found = Vec::with_capacity(tasks.len());
    for task in tasks {
        found.extend(statement.query_row([sql_id(*task)], |row| row::found(row, rules)).optional()?.flatten());
    }
    Ok(found)
}

/// The newest task with this key, ended or not.
pub(super) fn find_key(
    conn: &Connection,
    rules: &Rules,
    kind: &str,
    unique_key: &str,
) -> Result<Vec<FoundTask>, StoreError> {
    let sql = format!(
        "SELECT {} FROM tasks INDEXED BY tasks_key WHERE kind = ?1 AND unique_key = ?2 AND unique_key IS NOT NULL \
         ORDER BY id DESC LIMIT 1",
        row::FOUND
    );
    let found =
        conn.prepare_cached(&sql)?.query_row(params![kind, unique_key], |row| row::found(row, rules)).optional()?;
    Ok(found.flatten().into_iter().collect())
}

const ENDING: &str =
    "SELECT state, error, result, progress_done, progress_total, progress_note FROM tasks WHERE id = ?1";

fn ending(row: &Row<'_>, task: TaskId) -> rusqlite::Result<Ending> {
    Ok(match row::state(row.get_ref(0)?) {
        Some(state) if state.is_final() => Ending::Final(Final {
            task,
            state,
            result: row::payload(row.get_ref(2)?),
            error: row::text(row.get_ref(1)?),
        }),
        _ => Ending::Live {
            done: row::unsigned(row.get_ref(3)?),
            total: row::unsigned(row.get_ref(4)?),
            note: row::text(row.get_ref(5)?),
        },
    })
}

pub(super) fn endings(conn: &Connection, tasks: &[TaskId]) -> Result<Vec<(TaskId, Ending)>, StoreError> {
    let mut statement = conn.prepare_cached(ENDING)?;
    let mut newest = None;
    let mut endings = Vec::with_capacity(tasks.len());
    for task in tasks {
        let found = statement.query_row([sql_id(*task)], |row| ending(row, *task)).optional()?;
        let ending = if let Some(ending) = found {
            ending
        } else {
            let newest = match newest {
                Some(newest) => newest,
                None => *newest.insert(newest_id(conn)?),
            };
            if sql_id(*task) <= newest { Ending::Pruned } else { Ending::NotFound }
        };
        endings.push((*task, ending));
    }
    Ok(endings)
}

/// How the parents of a task ended: those with an id above `after`, by id, at most `rows`, and no further once their results
/// have `bytes`.
pub(super) fn parents(
    conn: &Connection,
    task: TaskId,
    after: u64,
    rows: usize,
    bytes: usize,
) -> Result<OpResult, StoreError> {
    let ids = dependencies::parents(conn, sql_id(task), sql_u64(after), rows + 1)?;
    let mut found = Vec::with_capacity(ids.len());
    let mut left = bytes;
    for id in ids.iter().take(rows).filter_map(|id| TaskId::new(id.unsigned_abs())) {
        let ending = endings(conn, &[id])?;
        let size = ending.iter().map(|(_, ending)| result_bytes(ending)).sum::<usize>();
        if !found.is_empty() && size > left {
            break;
        }
        left = left.saturating_sub(size);
        found.extend(ending);
    }
    let more = found.len() < ids.len();
    Ok(OpResult::Parents { endings: found, more })
}

fn result_bytes(ending: &Ending) -> usize {
    match ending {
        Ending::Final(Final { result: Some(result), .. }) => result.bytes.len(),
        _ => 0,
    }
}

/// Those of `tasks` that have ended, or are gone.
pub(super) fn ended(conn: &Connection, tasks: &[TaskId]) -> Result<Vec<(TaskId, Option<Final>)>, StoreError> {
    // The result is read only of those that have ended.
    let mut state = conn.prepare_cached("SELECT state FROM tasks WHERE id = ?1")?;
    let mut full = conn.prepare_cached(ENDING)?;
    let mut ended = Vec::new();
    for task in tasks {
        let id = sql_id(*task);
        match state.query_row([id], |row| Ok(row::state(row.get_ref(0)?))).optional()? {
            None => ended.push((*task, None)),
            Some(Some(state)) if state.is_final() => {
                if let Ending::Final(end) = full.query_row([id], |row| ending(row, *task))? {
                    ended.push((*task, Some(end)));
                }
            }
            Some(_) => {}
        }
    }
    Ok(ended)
}

// -------------------------------------------------------------------------------------------------------------- for people

const ROW: &str = "id, kind, lane, state, run_at, unique_key, max_attempts, timeout_ms, expires_at, runs, attempts, \
    losses, releases, worker, created_at, started_at, finished_at, progress_done, progress_total, progress_note, \
    cancel_requested, error, group_id, fair_key, trace";

fn task_row(row: &Row<'_>, rules: &Rules) -> rusqlite::Result<Option<TaskRow>> {
    let (Some(id), Some(state)) = (row::task_id(row, 0)?, row::state(row.get_ref(3)?)) else { return Ok(None) };
    let kind = row::text(row.get_ref(1)?).unwrap_or_default();
    // People ask which lane a task is in, not what its row leaves open.
    let default = || Some(rules.lane_of(&kind.parse().ok()?).to_string());
    Ok(Some(TaskRow {
        id,
        lane: row::text(row.get_ref(2)?).or_else(default),
        kind,
        state,
        run_at: row::int(row.get_ref(4)?),
        unique_key: row::text(row.get_ref(5)?),
        max_attempts: row::int(row.get_ref(6)?).and_then(|n| u32::try_from(n).ok()),
        timeout_ms: row::unsigned(row.get_ref(7)?),
        expires_at: row::int(row.get_ref(8)?),
        fair_key: row::text(row.get_ref(23)?),
        trace: row::text(row.get_ref(24)?),
        runs: row::count(row.get_ref(9)?),
        attempts: row::count(row.get_ref(10)?),
        losses: row::count(row.get_ref(11)?),
        releases: row::count(row.get_ref(12)?),
        worker: row::text(row.get_ref(13)?),
        created_at: row::int(row.get_ref(14)?).unwrap_or(0),
        started_at: row::int(row.get_ref(15)?),
        finished_at: row::int(row.get_ref(16)?),
        progress_done: row::unsigned(row.get_ref(17)?),
        progress_total: row::unsigned(row.get_ref(18)?),
        progress_note: row::text(row.get_ref(19)?),
        cancel_requested: row::requested(row.get_ref(20)?),
        error: row::text(row.get_ref(21)?),
        payload: None,
        result: None,
        failures: Vec::new(),
        explain: None,
        ahead: None,
        twin: None,
        group: row::unsigned(row.get_ref(22)?),
        waits_for: Vec::new(),
        waits_for_n: 0,
    }))
}

/// One page, newest first. Looks at a bounded number of rows: a page may end early, even empty, with `next` set.
pub(crate) fn list(conn: &Connection, rules: &Rules, filter: &Filter) -> Result<StatusRows, StoreError> {
    let limit = match filter.limit {
        0 => PAGE as usize,
        limit => BATCH_MAX.min(limit as usize),
    };
    // Groups, running and dead rows have an index; for the rest the newest rows are looked through.
    let source = match (filter.group, filter.state) {
        (Some(_), state) => format!("NOT INDEXED WHERE id IN ({}) AND", of_group(state)),
        (None, Some(TaskState::Running)) => "INDEXED BY tasks_marked WHERE state = 'running' AND".into(),
        (None, Some(TaskState::Dead)) => "INDEXED BY tasks_marked WHERE state = 'dead' AND".into(),
        (None, _) => "NOT INDEXED WHERE".into(),
    };
    let looked_max = filter.group.map_or(LOOKED_MAX, |_| LOOKED_OF_GROUP_MAX);
    let sql = format!("SELECT {ROW} FROM tasks {source} id < ?1 ORDER BY id DESC LIMIT ?2");
    let before = filter.before.map_or(i64::MAX, sql_id);
    let mut statement = conn.prepare_cached(&sql)?;
    let given = [Some(before), i64::try_from(looked_max).ok(), filter.group.map(sql_u64)];
    let mut rows = statement.query(params_from_iter(given.into_iter().flatten()))?;
    let mut page = StatusRows::default();
    let mut looked = 0;
    let mut last = None;
    while let Some(row) = rows.next()? {
        looked += 1;
        last = row::task_id(row, 0)?.or(last);
        if matches_filter(row, rules, filter)? {
            page.rows.extend(task_row(row, rules)?);
        }
        if page.rows.len() == limit || looked == looked_max {
            page.next = last;
            break;
        }
    }
    Ok(page)
}

/// The newest ids of a group, of one state or of each.
pub(super) fn of_group(state: Option<TaskState>) -> String {
    let of_state = |state: TaskState| {
        format!(
            "SELECT id FROM (SELECT id FROM tasks INDEXED BY tasks_group WHERE group_id = ?3 AND group_id IS NOT NULL \
             AND state = '{state}' AND id < ?1 ORDER BY id DESC LIMIT ?2)"
        )
    };
    let states = state.map_or(TaskState::ALL.to_vec(), |state| vec![state]);
    states.into_iter().map(of_state).collect::<Vec<_>>().join(" UNION ALL ")
}

fn matches_filter(row: &Row<'_>, rules: &Rules, filter: &Filter) -> rusqlite::Result<bool> {
    if filter.state.is_some() && row::state(row.get_ref(3)?) != filter.state {
        return Ok(false);
    }
    let kind = row.get_ref(1)?;
    if let Some(wanted) = &filter.kind
        && kind.as_str().ok() != Some(wanted)
    {
        return Ok(false);
    }
    let Some(wanted) = &filter.lane else { return Ok(true) };
    if let Ok(lane) = row.get_ref(2)?.as_str() {
        return Ok(lane == wanted);
    }
    let kind = row::text(kind).and_then(|kind| kind.parse().ok());
    Ok(kind.is_some_and(|kind| rules.lane_of(&kind).as_str() == wanted))
}

/// These rows, in order. With `detail` also payload, result, failures and a sentence that explains the state.
pub(crate) fn show(
    conn: &Connection,
    judge: &Judge,
    tasks: &[TaskId],
    detail: bool,
    now: Now,
) -> Result<StatusRows, StoreError> {
    let sql = format!("SELECT {ROW}, payload, result FROM tasks WHERE id = ?1");
    let mut statement = conn.prepare_cached(&sql)?;
    let paused = if detail { (paused_lanes(conn)?, paused_kinds(conn)?) } else { (Vec::new(), Vec::new()) };
    let mut shown = StatusRows::default();
    for task in tasks {
        let read = |row: &Row<'_>| {
            let Some(mut task) = task_row(row, &judge.rules)? else { return Ok(None) };
            if detail {
                task.payload = row::payload(row.get_ref("payload")?);
                task.result = row::payload(row.get_ref("result")?);
            }
            Ok(Some(task))
        };
        let Some(mut row) = statement.query_row([sql_id(*task)], read).optional()?.flatten() else {
            shown.not_found.push(*task);
            continue;
        };
        if detail {
            row.failures = failures(conn, *task)?;
            row.twin = twin(conn, &row)?;
            if row.state == TaskState::Waiting {
                let (open, n) = dependencies::open_parents(conn, sql_id(*task), WAITS_FOR_MAX)?;
                row.waits_for = open.into_iter().filter_map(|id| TaskId::new(id.unsigned_abs())).collect();
                row.waits_for_n = u32::try_from(n).unwrap_or(u32::MAX);
            }
            // Counting takes up to some milliseconds, which nobody else should wait for sixteen times.
            if tasks.len() == 1 {
                row.ahead = ahead(conn, judge, &row, now)?;
            }
            row.explain = Some(explain_with(&row, judge, &paused, now));
        }
        shown.rows.push(row);
    }
    Ok(shown)
}

/// Who has the key now of a task that has ended.
fn twin(conn: &Connection, row: &TaskRow) -> Result<Option<TaskId>, StoreError> {
    let Some(key) = row.unique_key.as_ref().filter(|_| row.state.is_final()) else { return Ok(None) };
    let sql = "SELECT id FROM tasks INDEXED BY tasks_live_key \
               WHERE kind = ?1 AND unique_key = ?2 AND unique_key IS NOT NULL AND state >= 'queued'";
    let mut statement = conn.prepare_cached(sql)?;
    let twin = statement.query_row(params![row.kind, key], |row| row::task_id(row, 0)).optional()?;
    Ok(twin.flatten())
}

fn failures(conn: &Connection, task: TaskId) -> Result<Vec<FailureRow>, StoreError> {
    let sql = "SELECT run, cause, worker, started_at, failed_at, error FROM failures WHERE task = ?1 \
               ORDER BY run DESC, id DESC LIMIT ?2";
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map(params![sql_id(task), FAILURES_SHOWN], |row| {
        Ok(FailureRow {
            run: row::count(row.get_ref(0)?),
            cause: row::text(row.get_ref(1)?).unwrap_or_default(),
            worker: row::text(row.get_ref(2)?),
            started_at: row::int(row.get_ref(3)?),
            failed_at: row::int(row.get_ref(4)?).unwrap_or(0),
            error: row::text(row.get_ref(5)?).unwrap_or_default(),
        })
    })?;
    let mut failures: Vec<_> = rows.collect::<Result<_, _>>()?;
    failures.reverse();
    Ok(failures)
}

pub(crate) fn paused_lanes(conn: &Connection) -> Result<Vec<String>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT name FROM laneway_lanes WHERE paused <> 0 ORDER BY rank, name")?;
    let lanes = statement.query_map([], |row| row.get(0))?;
    Ok(lanes.collect::<Result<_, _>>()?)
}

fn paused_kinds(conn: &Connection) -> Result<Vec<String>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT name FROM laneway_kinds WHERE paused <> 0 ORDER BY name")?;
    let kinds = statement.query_map([], |row| row.get(0))?;
    Ok(kinds.collect::<Result<_, _>>()?)
}

/// Lanes and kinds.
type Paused = (Vec<String>, Vec<String>);

/// Why a task is where it is, as far as the table knows.
pub(crate) fn explain_with(row: &TaskRow, judge: &Judge, paused: &Paused, now: Now) -> String {
    let error = || row.error.as_deref().unwrap_or("no reason is recorded");
    let twin = row.twin.map_or_else(String::new, |twin| format!("; its key is live again in task {twin}"));
    match row.state {
        TaskState::Waiting => laneway_core::waits_for(row) + &expiry(row, now),
        TaskState::Queued => explain_queued(row, judge, paused, now) + &expiry(row, now),
        TaskState::Running => explain_running(row, now),
        TaskState::Done => format!("ended well{twin}"),
        TaskState::Dead => {
            format!("given up after {} attempts and {} losses: {}{twin}", row.attempts, row.losses, error())
        }
        TaskState::Cancelled if row.error.is_some() => format!("cancelled: {}{twin}", error()),
        TaskState::Cancelled => format!("cancelled on request{twin}"),
    }
}

/// Since when and for how long, where the row says it.
fn explain_running(row: &TaskRow, now: Now) -> String {
    let since_ms = row.started_at.map(|at| now.wall.0.saturating_sub(at).max(0).unsigned_abs());
    let since = since_ms.map_or_else(String::new, |ms| format!(" since {}", span(ms)));
    let asked = if row.cancel_requested { ", which was asked to stop" } else { "" };
    let worker = row.worker.as_deref().unwrap_or("unknown");
    let lease = match (row.timeout_ms, since_ms) {
        (Some(timeout), Some(since)) if since < timeout => {
            format!("; its timeout of {} ends in {}", span(timeout), span(timeout - since))
        }
        (Some(timeout), Some(_)) => format!("; its timeout of {} is over", span(timeout)),
        (Some(timeout), None) => format!("; its timeout is {}", span(timeout)),
        (None, _) => String::new(),
    };
    format!("runs in worker {worker}{since}{asked}{lease}")
}

fn explain_queued(row: &TaskRow, judge: &Judge, paused: &Paused, now: Now) -> String {
    if let Some(text) = due(row, row.max_attempts, now) {
        return text;
    }
    let lane = row.lane.as_deref().unwrap_or_default();
    if paused.0.iter().any(|paused| paused == lane) {
        return format!("lane {lane} is paused");
    }
    if paused.1.contains(&row.kind) {
        return format!("its kind {} is paused", row.kind);
    }
    if !judge.rules.lanes.is_empty() && !judge.rules.lanes.iter().any(|known| known.as_str() == lane) {
        return format!("lane {lane} is not configured any more: no worker is given its tasks");
    }
    format!("due; the next free worker for kind {} in lane {lane} gets it", row.kind)
}
