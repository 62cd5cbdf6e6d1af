//! Operations in their order: which two of a slice become one write, and what each other one does. The runs themselves are
//! in `run.rs`, those that are written many at a time in `series.rs`.

use laneway_core::{Edit, Ended, EndedAs, IdMap, Next, Noted, NotedAs, Now, Op, OpResult, Started};
use laneway_protocol::limits::TEXT_BYTES_MAX;
use laneway_protocol::{TaskId, TaskState};
use rusqlite::{Connection, params};

use super::bulk::bulk;
use super::edit::edit;
use super::refused::unless_refused;
use super::row::{SqlPayload, sql_id, sql_u64};
use super::run::{Hot, end, or_refused, run, start_or_refuse};
use super::schema::has_app_trigger;
use super::series::Series;
use super::submit::{NewList, submit};
use super::unique;
use super::{State, group, limits, query, schedules};
use crate::store::StoreError;
use crate::store::log_sync::LogSync;
use crate::store::validate::clipped;

pub(super) fn apply(
    conn: &Connection,
    state: &mut State,
    log: &LogSync,
    ops: &[Op],
    now: Now,
) -> Result<Vec<Option<OpResult>>, StoreError> {
    let partners = partners(ops);
    let mut hot = Hot::default();
    let mut results = Vec::with_capacity(ops.len());
    let mut are_series_possible = None;
    while results.len() < ops.len() {
        let at = results.len();
        let mut series = Series::at(at, ops, &partners);
        if series.is_some() {
            let are_possible = match are_series_possible {
                Some(known) => known,
                None => *are_series_possible.insert(!has_app_trigger(conn)?),
            };
            series = series.filter(|_| are_possible);
        }
        let Some(series) = series else {
            results.push(match (&ops[at], partners[at]) {
                // Written together with its end.
                (Op::Started(_), Partner::Later) => None,
                (Op::Ended(ended), Partner::Start(start)) => {
                    Some(both(conn, state, &mut hot, started(ops, start), ended, now)?)
                }
                (op, _) => single(conn, state, &mut hot, log, op, now)?,
            });
            continue;
        };
        let written = series.write(conn, state, &mut hot)?;
        let mut runs = series.runs.iter().zip(written);
        for partner in &partners[series.ops.clone()] {
            results.push(match partner {
                Partner::Start(_) => Some(match runs.next().expect("one for each") {
                    (_, true) => OpResult::Ended(EndedAs::Written(TaskState::Done)),
                    ((started, ended), false) => both(conn, state, &mut hot, started, ended, now)?,
                }),
                _ => None,
            });
        }
    }
    Ok(results)
}

/// A run from its start to its end.
fn both<'c>(
    conn: &'c Connection,
    state: &mut State,
    hot: &mut Hot<'c>,
    started: &Started,
    ended: &Ended,
    now: Now,
) -> Result<OpResult, StoreError> {
    let written = run(conn, state, hot, started, ended, now);
    if let Err(StoreError::Refused(_)) = written {
        start_or_refuse(conn, state, hot, started, now)?;
    }
    Ok(OpResult::Ended(or_refused(written, conn, state, ended, now)?))
}

fn single<'c>(
    conn: &'c Connection,
    state: &mut State,
    hot: &mut Hot<'c>,
    log: &LogSync,
    op: &Op,
    now: Now,
) -> Result<Option<OpResult>, StoreError> {
    Ok(Some(match op {
        Op::Started(started) => {
            start_or_refuse(conn, state, hot, started, now)?;
            return Ok(None);
        }
        Op::Ended(ended) => OpResult::Ended(or_refused(end(conn, state, ended, now), conn, state, ended, now)?),
        Op::Noted(noted) => OpResult::Noted(note(conn, noted)?),
        Op::Submit { request, tasks, group, secured } => {
            let list = NewList { tasks, group: group.as_deref(), spawned_by: None, secured };
            submit(conn, state, *request, list, now)?
        }
        Op::Group { group, live } => OpResult::Group(group::find(conn, &mut state.counted, *group, *live)?),
        Op::CancelGroup { group, rows } => OpResult::GroupCancelled { more: group::cancel(conn, *group, *rows)? },
        Op::Parents { task, after, rows, bytes } => query::parents(conn, *task, *after, *rows, *bytes)?,
        Op::Cancel(tasks) => edit_each(conn, state, &Edit::Cancel, tasks, now)?,
        Op::Requeue(tasks) => edit_each(conn, state, &Edit::Requeue, tasks, now)?,
        Op::Edit { edit, tasks } => edit_each(conn, state, edit, tasks, now)?,
        Op::Bulk(slice) => OpResult::Bulk(bulk(conn, state, slice, now)?),
        Op::Find(tasks) => OpResult::Found(query::find(conn, &state.judge.rules, tasks)?),
        Op::FindKey { kind, unique_key } => {
            OpResult::Found(query::find_key(conn, &state.judge.rules, kind.as_str(), unique_key)?)
        }
        Op::FindTwins(keys) => OpResult::Found(unique::find_twins(conn, &state.judge.rules, keys)?),
        Op::Endings(tasks) => OpResult::Endings(query::endings(conn, tasks)?),
        Op::List(filter) => OpResult::Rows(query::list(conn, &state.judge.rules, filter)?),
        Op::Show { tasks, detail } => OpResult::Rows(query::show(conn, &state.judge, tasks, *detail, now)?),
        Op::Counts => OpResult::Counts(state.tally.counts(log, state.hint.pinned_bytes(), state.news.rows())),
        Op::SessionUp { session, name, plain } => {
            let sql = "INSERT OR REPLACE INTO laneway_sessions (session, name, plain) VALUES (?1, ?2, ?3)";
            conn.prepare_cached(sql)?.execute(params![session.as_str(), name, plain])?;
            return Ok(None);
        }
        Op::SessionGone { session } => {
            conn.prepare_cached("DELETE FROM laneway_sessions WHERE session = ?1")?.execute([session.as_str()])?;
            return Ok(None);
        }
        Op::PauseLane { lane, paused } => {
            let sql = "UPDATE laneway_lanes SET paused = ?2 WHERE name = ?1";
            conn.prepare_cached(sql)?.execute(params![lane.as_str(), paused])?;
            OpResult::Paused
        }
        Op::SetKind { kind, paused, values } => {
            limits::set_kind(conn, kind, *paused, values)?;
            state.judge.set_lane(kind, values.lane.as_ref());
            state.awake.look_anew();
            OpResult::Set
        }
        Op::SetLane { lane, values } => {
            limits::set_lane(conn, lane, values)?;
            OpResult::Set
        }
        Op::SetFairKey { fair_key, values } => {
            limits::set_fair_key(conn, fair_key, values)?;
            OpResult::Set
        }
        Op::Schedules(asked) => schedules::ask(conn, &state.judge, asked, now)?,
    }))
}

fn edit_each(
    conn: &Connection,
    state: &mut State,
    what: &Edit,
    tasks: &[TaskId],
    now: Now,
) -> Result<OpResult, StoreError> {
    let verdicts: Result<_, StoreError> = tasks.iter().map(|task| edit(conn, state, what, *task, now)).collect();
    Ok(OpResult::Verdicts(verdicts?))
}

// -------------------------------------------------------------------------------------------------------------- pairing

/// How an operation goes together with another of the same slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Partner {
    None,
    /// A start whose end follows.
    Later,
    /// An end, with the place of its start.
    Start(usize),
}

pub(super) fn started(ops: &[Op], at: usize) -> &Started {
    let Op::Started(started) = &ops[at] else { unreachable!("partners are pairs of start and end") };
    started
}

/// Finds the runs that start and end within `ops` with nothing between that could tell: each becomes one write, at the
/// place of its end. A row is handed out only after the commit that made it, so no submit between the two can be its own.
pub(super) fn partners(ops: &[Op]) -> Vec<Partner> {
    let mut partners = vec![Partner::None; ops.len()];
    let mut open: IdMap<TaskId, usize> = IdMap::default();
    for (i, op) in ops.iter().enumerate() {
        match op {
            Op::Started(started) => drop(open.insert(started.task, i)),
            Op::Ended(ended) => {
                let start = open.remove(&ended.task);
                if let Some(start) = start
                    && let Op::Started(started) = &ops[start]
                    && (started.lease, started.run) == (ended.lease, ended.run)
                    && ended.next != Next::Already
                {
                    partners[start] = Partner::Later;
                    partners[i] = Partner::Start(start);
                }
            }
            Op::Noted(noted) => drop(open.remove(&noted.task)),
            Op::Cancel(tasks)
            | Op::Requeue(tasks)
            | Op::Edit { tasks, .. }
            | Op::Find(tasks)
            | Op::Endings(tasks)
            | Op::Show { tasks, .. } => {
                for task in tasks {
                    open.remove(task);
                }
            }
            Op::FindKey { .. }
            | Op::FindTwins(_)
            | Op::List(_)
            | Op::Bulk(_)
            | Op::Group { .. }
            | Op::CancelGroup { .. }
            | Op::Parents { .. } => open.clear(),
            Op::Schedules(_)
            | Op::Submit { .. }
            | Op::Counts
            | Op::SessionUp { .. }
            | Op::SessionGone { .. }
            | Op::PauseLane { .. }
            | Op::SetKind { .. }
            | Op::SetLane { .. }
            | Op::SetFairKey { .. } => {}
        }
    }
    partners
}

// ------------------------------------------------------------------------------------------------------------ progress

fn note(conn: &Connection, noted: &Noted) -> Result<NotedAs, StoreError> {
    let sql = "UPDATE tasks SET progress_done = coalesce(?3, progress_done), progress_total = coalesce(?4, progress_total), \
               progress_note = coalesce(?5, progress_note), checkpoint = coalesce(?6, checkpoint) \
               WHERE id = ?1 AND lease = ?2 AND state = 'running'";
    let written = conn.prepare_cached(sql)?.execute(params![
        sql_id(noted.task),
        noted.lease.value(),
        noted.done.map(sql_u64),
        noted.total.map(sql_u64),
        noted.note.as_deref().map(|note| clipped(note, TEXT_BYTES_MAX)),
        SqlPayload(noted.checkpoint.as_ref()),
    ]);
    Ok(match unless_refused(written, sql_id(noted.task), "progress could not be kept")? {
        None => NotedAs::Refused,
        Some(0) => NotedAs::Overtaken,
        Some(_) => NotedAs::Written,
    })
}
