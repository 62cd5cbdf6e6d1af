//! One run of a task: its start, its end, or both in one write. Every write says which id, lease, run and state it means;
//! when no row changed, the row is looked at again and the result says what is there.

use std::borrow::Cow;

use laneway_core::{Cause, Count, Ended, EndedAs, Next, Now, QueueKey, Started, UnixMillis};
use laneway_protocol::limits::TEXT_BYTES_MAX;
use laneway_protocol::message::Payload;
use laneway_protocol::{FairKey, Lease, TaskId, TaskState};
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::State;
use super::row::{self, SqlPayload, sql_id};
use super::submit::{Inserted, NewList, in_savepoint, insert_list};
use super::sweep::{Failure, reject};
use crate::store::StoreError;
use crate::store::cancel::CancelCause;
use crate::store::validate::{Bad, clipped};

/// Statements of the fast paths, kept out of the cache for the length of a slice.
#[derive(Default)]
pub(super) struct Hot<'c> {
    start: Option<CachedStatement<'c>>,
    run_done: Option<CachedStatement<'c>>,
    pub(super) series: Option<CachedStatement<'c>>,
    pub(super) series_with_results: Option<CachedStatement<'c>>,
}

pub(super) fn kept<'h, 'c>(
    slot: &'h mut Option<CachedStatement<'c>>,
    conn: &'c Connection,
    sql: &str,
) -> Result<&'h mut CachedStatement<'c>, StoreError> {
    Ok(match slot {
        Some(statement) => statement,
        None => slot.insert(conn.prepare_cached(sql)?),
    })
}

/// A run that started and ended since the last turn: one write from `queued` to what comes next.
pub(super) fn run<'c>(
    conn: &'c Connection,
    state: &mut State,
    hot: &mut Hot<'c>,
    started: &Started,
    ended: &Ended,
    now: Now,
) -> Result<EndedAs, StoreError> {
    // A cancel beside it, spawned tasks and runs that did not succeed are rarer: those are written in two steps.
    let Next::Done(result) = &ended.next else { return start_then_end(conn, state, hot, started, ended, now) };
    if !ended.spawn.is_empty() || ended.cause.is_some() {
        return start_then_end(conn, state, hot, started, ended, now);
    }
    let counts = Counts::of(ended.count);
    let sql = "UPDATE tasks SET state = 'done', lease = ?2, runs = ?3, worker = ?4, started_at = ?5, finished_at = ?6, \
               attempts = attempts + ?7, losses = losses + ?8, releases = releases + ?9, result = ?10, error = ?11 \
               WHERE id = ?1 AND state = 'queued' AND runs = ?3 - 1";
    let written = kept(&mut hot.run_done, conn, sql)?.execute(params![
        sql_id(ended.task),
        ended.lease.value(),
        ended.run,
        started.worker.as_str(),
        started.at.0,
        ended.at.0,
        counts.attempts,
        counts.losses,
        counts.releases,
        SqlPayload(result.as_ref()),
        error_of(ended),
    ])?;
    if written == 0 {
        return start_then_end(conn, state, hot, started, ended, now);
    }
    state.unqueued(queue_of(started), sql_id(ended.task));
    state.ended(sql_id(ended.task));
    Ok(EndedAs::Written(TaskState::Done))
}

fn start_then_end<'c>(
    conn: &'c Connection,
    state: &mut State,
    hot: &mut Hot<'c>,
    started: &Started,
    ended: &Ended,
    now: Now,
) -> Result<EndedAs, StoreError> {
    start(conn, state, hot, started)?;
    end(conn, state, ended, now)
}

fn start<'c>(conn: &'c Connection, state: &mut State, hot: &mut Hot<'c>, started: &Started) -> Result<(), StoreError> {
    let sql = "UPDATE tasks SET state = 'running', lease = ?2, runs = ?3, worker = ?4, started_at = ?5 \
               WHERE id = ?1 AND state = 'queued' AND runs = ?3 - 1";
    let id = sql_id(started.task);
    let row = params![id, started.lease.value(), started.run, started.worker.as_str(), started.at.0];
    if kept(&mut hot.start, conn, sql)?.execute(row)? == 1 {
        state.unqueued(queue_of(started), id);
        return Ok(());
    }
    // Said again after a commit whose fate was unknown, it is there already.
    let sql = "SELECT 1 FROM tasks WHERE id = ?1 AND lease = ?2 AND runs = ?3";
    let row = params![id, started.lease.value(), started.run];
    if conn.prepare_cached(sql)?.query_row(row, |_| Ok(())).optional()?.is_none() {
        // Ended before it was recorded, by a cancel for example, it was handed out all the same. Forgotten, the next hand-out
        // after a requeue would have the same number and with it the same lease.
        let sql = "UPDATE tasks SET runs = ?2 WHERE id = ?1 AND state < 'queued' AND runs = ?2 - 1";
        conn.prepare_cached(sql)?.execute(params![id, started.run])?;
        state.tally.overtaken();
        tracing::info!(task = id, "an app changed, cancelled or deleted a row as it was handed out");
    }
    Ok(())
}

pub(super) fn end(conn: &Connection, state: &mut State, ended: &Ended, now: Now) -> Result<EndedAs, StoreError> {
    let write = match &ended.next {
        Next::Done(result) => Write::last(TaskState::Done, ended, result.as_ref()),
        Next::Dead => Write::last(TaskState::Dead, ended, None),
        Next::Cancelled => Write::last(TaskState::Cancelled, ended, None),
        Next::Queued { run_at } => Write { run_at: *run_at, ..Write::last(TaskState::Queued, ended, None) },
        Next::Already => return already(conn, state, ended, now),
    };
    if ended.spawn.is_empty() {
        return Ok(match write.go(conn, state, ended, now)? {
            Some(written) => EndedAs::Written(written),
            None => look_again(conn, state, ended)?,
        });
    }
    // First what may be refused: it leaves the run as it is, to be recorded as failed.
    let list = NewList { tasks: &ended.spawn, spawned_by: Some(sql_id(ended.task)), ..NewList::default() };
    let mut overtaken = false;
    let spawned = in_savepoint(conn, || {
        if before(conn, state, ended)?.is_none() {
            overtaken = true;
            return Ok(Ok(Inserted::default()));
        }
        insert_list(conn, &state.judge, list, now)
    })?;
    match spawned {
        _ if overtaken => look_again(conn, state, ended),
        Err((index, bad)) => refuse_spawn(conn, state, ended, index, &bad, now),
        Ok(inserted) => {
            let written = write.go(conn, state, ended, now)?.expect("it runs under this lease");
            state.take_inserted(inserted, now);
            Ok(EndedAs::Written(written))
        }
    }
}

/// A run whose spawned tasks make no sense has failed: trying again would say the same.
fn refuse_spawn(
    conn: &Connection,
    state: &mut State,
    ended: &Ended,
    index: usize,
    bad: &Bad,
    now: Now,
) -> Result<EndedAs, StoreError> {
    let reason = format!("spawned task {index} makes no sense: {}", bad.reason);
    match fail_for_good(conn, state, ended, &reason, now)? {
        Some(state) => Ok(EndedAs::SpawnRefused { state, reason }),
        None => look_again(conn, state, ended),
    }
}

/// A trigger or a constraint of the app stands against this outcome: then the run has failed for good, with that as its
/// error. When the row may not even say that, it is left to the app, and counted.
pub(super) fn or_refused(
    written: Result<EndedAs, StoreError>,
    conn: &Connection,
    state: &mut State,
    ended: &Ended,
    now: Now,
) -> Result<EndedAs, StoreError> {
    let reason = match written {
        Err(StoreError::Refused(reason)) => format!("the outcome could not be kept: {reason}"),
        other => return other,
    };
    tracing::warn!(task = %ended.task, reason);
    match fail_for_good(conn, state, ended, &reason, now) {
        Ok(Some(written)) => Ok(EndedAs::Written(written)),
        Ok(None) => look_again(conn, state, ended),
        Err(StoreError::Refused(_)) => {
            state.tally.overtaken();
            Ok(EndedAs::Overtaken)
        }
        Err(error) => Err(error),
    }
}

/// Records a hand-out. When a trigger or a constraint of the app stands against it the task is dead, else it would be handed
/// out for ever.
pub(super) fn start_or_refuse<'c>(
    conn: &'c Connection,
    state: &mut State,
    hot: &mut Hot<'c>,
    started: &Started,
    now: Now,
) -> Result<(), StoreError> {
    let reason = match start(conn, state, hot, started) {
        Err(StoreError::Refused(reason)) => format!("the hand-out could not be recorded: {reason}"),
        done => return done,
    };
    state.tally.overtaken();
    reject(conn, state, sql_id(started.task), &Bad::new("state", reason), now)?;
    Ok(())
}

/// The worker has finished the row by SQL, in the same file, so it can be seen.
fn already(conn: &Connection, state: &mut State, ended: &Ended, now: Now) -> Result<EndedAs, StoreError> {
    match stands(conn, ended.task)? {
        Some(stands) if stands.is(TaskState::Running, ended.lease) => {
            let reason = "the worker said that it had finished the row by SQL, and the row was still running";
            Ok(match fail_for_good(conn, state, ended, reason, now)? {
                Some(written) => EndedAs::Written(written),
                None => EndedAs::Overtaken,
            })
        }
        Some(stands) if stands.state.is_final() => {
            state.ended(sql_id(ended.task));
            Ok(EndedAs::Recorded(stands.state))
        }
        Some(_) | None => look_again(conn, state, ended),
    }
}

fn fail_for_good(
    conn: &Connection,
    state: &mut State,
    ended: &Ended,
    reason: &str,
    now: Now,
) -> Result<Option<TaskState>, StoreError> {
    let failed = Ended {
        next: Next::Dead,
        count: Count::Attempt,
        error: Some(clipped(reason, TEXT_BYTES_MAX).to_owned()),
        cause: Some(Cause::Failed),
        spawn: Vec::new(),
        ..ended.clone()
    };
    Write::last(TaskState::Dead, &failed, None).go(conn, state, &failed, now)
}

/// One running row to another state.
struct Write<'a> {
    next: TaskState,
    result: Option<&'a Payload>,
    run_at: Option<UnixMillis>,
    error: Option<&'a str>,
}

/// What a write has to know of its row beforehand. Asked in a statement of its own: RETURNING costs a temporary table for
/// each row.
struct Before {
    cancel: Option<CancelCause>,
    started_at: Option<i64>,
    run_at: Option<UnixMillis>,
    fair_key: Option<FairKey>,
    /// Where it belongs by its row, which an app may have moved while it ran.
    key: Result<QueueKey, Bad>,
}

impl<'a> Write<'a> {
    fn last(next: TaskState, ended: &'a Ended, result: Option<&'a Payload>) -> Self {
        Self { next, result, run_at: None, error: error_of(ended) }
    }

    /// Gives the state that was written, or `None` when the fence held: not running, or under another lease.
    fn go(
        &self,
        conn: &Connection,
        state: &mut State,
        ended: &Ended,
        now: Now,
    ) -> Result<Option<TaskState>, StoreError> {
        if self.next == TaskState::Done && ended.cause.is_none() {
            let written = self.update_last(conn, ended, TaskState::Done, self.error)?;
            if written {
                state.ended(sql_id(ended.task));
            }
            return Ok(written.then_some(TaskState::Done));
        }
        let Some(before) = before(conn, state, ended)? else { return Ok(None) };
        let cancel = before.cancel.filter(|_| self.next != TaskState::Done);
        let mut misplaced = None;
        let next = cancel.map_or(self.next, |_| TaskState::Cancelled);
        let id = sql_id(ended.task);
        if next == TaskState::Queued {
            self.update_back(conn, ended)?;
            match before.key {
                Ok(key) => state.queued(key, id, before.fair_key, self.run_at.or(before.run_at), now),
                Err(bad) => misplaced = Some(bad),
            }
        } else {
            let failed = ended.cause.is_some();
            let error =
                cancel.map_or_else(|| self.error.map(Cow::from), |cause| cause.error_of_run(self.error, failed));
            self.update_last(conn, ended, next, error.as_deref())?;
            state.ended(id);
        }
        if next == TaskState::Dead {
            state.tally.died(id);
        }
        if let Some(cause) = ended.cause {
            let worker = Some(ended.worker.as_str());
            let failure = Failure { task: id, run: ended.run, cause, worker, started_at: before.started_at };
            failure.insert(conn, self.error.unwrap_or(cause.as_str()), ended.at)?;
            if cause == Cause::Lost && next == TaskState::Dead {
                name_workers(conn, id)?;
            }
        }
        if let Some(bad) = misplaced {
            reject(conn, state, id, &bad, now)?;
            return Ok(Some(TaskState::Dead));
        }
        Ok(Some(next))
    }

    fn update_last(
        &self,
        conn: &Connection,
        ended: &Ended,
        next: TaskState,
        error: Option<&str>,
    ) -> Result<bool, StoreError> {
        let sql = "UPDATE tasks SET state = ?3, finished_at = ?4, result = ?5, error = ?6, \
                   attempts = attempts + ?7, losses = losses + ?8, releases = releases + ?9 \
                   WHERE id = ?1 AND lease = ?2 AND state = 'running'";
        let counts = Counts::of(ended.count);
        let written = conn.prepare_cached(sql)?.execute(params![
            sql_id(ended.task),
            ended.lease.value(),
            next.as_str(),
            ended.at.0,
            SqlPayload(self.result),
            error.map(|error| clipped(error, TEXT_BYTES_MAX)),
            counts.attempts,
            counts.losses,
            counts.releases,
        ])?;
        Ok(written == 1)
    }

    fn update_back(&self, conn: &Connection, ended: &Ended) -> Result<(), StoreError> {
        let sql = "UPDATE tasks SET state = 'queued', lease = NULL, run_at = coalesce(?3, run_at), \
                   error = coalesce(?4, error), \
                   attempts = attempts + ?5, losses = losses + ?6, releases = releases + ?7 \
                   WHERE id = ?1 AND lease = ?2 AND state = 'running'";
        let counts = Counts::of(ended.count);
        conn.prepare_cached(sql)?.execute(params![
            sql_id(ended.task),
            ended.lease.value(),
            self.run_at.map(|at| at.0),
            self.error,
            counts.attempts,
            counts.losses,
            counts.releases,
        ])?;
        Ok(())
    }
}

fn before(conn: &Connection, state: &State, ended: &Ended) -> Result<Option<Before>, StoreError> {
    let sql = "SELECT cancel_requested, started_at, run_at, kind, lane, fair_key FROM tasks \
               WHERE id = ?1 AND lease = ?2 AND state = 'running'";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params![sql_id(ended.task), ended.lease.value()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(Before {
        cancel: row::cancel_cause(row.get_ref(0)?),
        started_at: row::int(row.get_ref(1)?),
        run_at: row::millis(row.get_ref(2)?),
        fair_key: row::fair_key(row.get_ref(5)?),
        key: state.judge.key(row.get_ref(3)?, row.get_ref(4)?),
    }))
}

/// The row as it is when a fence held.
pub(super) struct Stands {
    pub(super) state: TaskState,
    lease: Option<i64>,
    runs: u32,
    worker: Option<String>,
}

impl Stands {
    pub(super) fn is(&self, state: TaskState, lease: Lease) -> bool {
        self.state == state && self.lease == Some(lease.value())
    }
}

pub(super) fn stands(conn: &Connection, task: TaskId) -> Result<Option<Stands>, StoreError> {
    let sql = "SELECT state, lease, runs, worker FROM tasks WHERE id = ?1";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([sql_id(task)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(row::state(row.get_ref(0)?).map(|state| Stands {
        state,
        lease: row.get_ref(1).ok().and_then(|lease| lease.as_i64().ok()),
        runs: row.get_ref(2).map_or(0, row::count),
        worker: row.get_ref(3).ok().and_then(row::text),
    }))
}

/// A task that is dead by its losses says which workers it took down with it.
fn name_workers(conn: &Connection, id: i64) -> Result<(), StoreError> {
    let sql = "UPDATE tasks SET error = error || '; workers it took down: ' || \
               (SELECT group_concat(worker, ', ') \
                FROM (SELECT worker FROM failures WHERE task = ?1 AND cause = 'lost' ORDER BY id)) \
               WHERE id = ?1";
    conn.prepare_cached(sql)?.execute([id])?;
    Ok(())
}

/// Nothing was written: because the same word was, or because the row is not this run's any more.
fn look_again(conn: &Connection, state: &mut State, ended: &Ended) -> Result<EndedAs, StoreError> {
    if let Some(stands) = stands(conn, ended.task)? {
        if stands.state.is_final() {
            // By an app's hand, perhaps, whose commit this turn has not looked at yet.
            state.ended(sql_id(ended.task));
        }
        let same_end = stands.state.is_final() && stands.lease == Some(ended.lease.value());
        // A row that went back has no lease; the run and who had it tell as much.
        let same_return = stands.state == TaskState::Queued
            && matches!(ended.next, Next::Queued { .. })
            && stands.runs == ended.run
            && stands.worker.as_deref() == Some(ended.worker.as_str());
        if same_end || same_return {
            return Ok(EndedAs::Recorded(stands.state));
        }
    }
    state.tally.overtaken();
    tracing::info!(task = %ended.task, "an app changed or deleted a row while it ran");
    Ok(EndedAs::Overtaken)
}

// -------------------------------------------------------------------------------------------------------------- private

/// What a run adds to the row's counters.
pub(super) struct Counts {
    pub(super) attempts: u32,
    pub(super) losses: u32,
    pub(super) releases: u32,
}

impl Counts {
    pub(super) fn of(count: Count) -> Self {
        let one_if = |this| u32::from(count == this);
        Self { attempts: one_if(Count::Attempt), losses: one_if(Count::Loss), releases: one_if(Count::Release) }
    }
}

pub(super) fn queue_of(started: &Started) -> QueueKey {
    QueueKey { lane: started.lane.clone(), kind: started.kind.clone() }
}

pub(super) fn error_of(ended: &Ended) -> Option<&str> {
    ended.error.as_deref().map(|error| clipped(error, TEXT_BYTES_MAX))
}
