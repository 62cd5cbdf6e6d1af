//! Runs of neighbouring tasks in one write. A worker that takes a batch from the head of a queue brings back outcomes of consecutive
//! ids, which differ in lease and result alone. One UPDATE over their range costs half of one for each: every index whose condition
//! names `state` is opened once, and the tree is descended once.
//!
//! What differs from row to row comes out of two SQL functions that only this connection has, and that note which rows they were
//! asked for. A row that is not as its run left it is passed over, and written on its own afterwards. Beside a trigger of an app on the
//! table there are no series: SQLite then picks the rows before it writes the first, and a trigger may change those to come.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use laneway_core::{Ended, Next, Op, Started};
use laneway_protocol::message::{Format, Payload};
use rusqlite::functions::FunctionFlags;
use rusqlite::types::Value;
use rusqlite::{Connection, params};

use super::State;
use super::apply::{Partner, started};
use super::row::sql_id;
use super::run::{Counts, Hot, error_of, kept, queue_of};
use crate::store::StoreError;

/// Fewer runs are written one by one.
const RUNS_MIN: usize = 3;

/// Runs of consecutive ids that one write can end, in the order of their ids.
pub(super) struct Series<'o> {
    pub(super) runs: Vec<(&'o Started, &'o Ended)>,
    /// What they take up of the slice: their ends, and starts whose ends follow.
    pub(super) ops: Range<usize>,
}

impl<'o> Series<'o> {
    /// The one that begins with the operation at `from`.
    pub(super) fn at(from: usize, ops: &'o [Op], partners: &[Partner]) -> Option<Self> {
        let first = plain(from, ops, partners)?;
        // Most runs have no neighbour, and are spared a list.
        let (mut runs, mut until) = (Vec::new(), from + 1);
        for at in (from + 1..ops.len()).filter(|&at| partners[at] != Partner::Later) {
            let before = *runs.last().unwrap_or(&first);
            let Some(run) = plain(at, ops, partners).filter(|run| follows(*run, before)) else { break };
            if runs.is_empty() {
                runs.push(first);
            }
            runs.push(run);
            until = at + 1;
        }
        (runs.len() >= RUNS_MIN).then_some(Self { runs, ops: from..until })
    }

    /// Writes what it can. Gives for each run whether it is written; the rows of all others are as they were.
    pub(super) fn write<'c>(
        &self,
        conn: &'c Connection,
        state: &mut State,
        hot: &mut Hot<'c>,
    ) -> Result<Vec<bool>, StoreError> {
        let [(started, ended), .., (_, last)] = self.runs[..] else { unreachable!("there are some") };
        let has_results = self.runs.iter().any(|(_, ended)| result_of(ended).is_some());
        let (statement, sql) = if has_results {
            (&mut hot.series_with_results, const_sql::WITH_RESULTS)
        } else {
            (&mut hot.series, const_sql::WITHOUT)
        };
        let counts = Counts::of(ended.count);
        state.series.fill(sql_id(ended.task), self.runs.iter().map(|(_, ended)| *ended));
        let changed = kept(statement, conn, sql)?.execute(params![
            sql_id(ended.task),
            sql_id(last.task),
            ended.run,
            started.worker.as_str(),
            started.at.0,
            ended.at.0,
            counts.attempts,
            counts.losses,
            counts.releases,
            error_of(ended),
        ]);
        let mut written = state.series.take_met();
        match changed.map_err(StoreError::from) {
            Ok(changed) => debug_assert_eq!(changed, written.iter().filter(|written| **written).count()),
            // One row that an index of the app holds back undoes the statement for all: each is tried on its own.
            Err(StoreError::Refused(_)) => written.fill(false),
            Err(error) => return Err(error),
        }
        for ((started, ended), _) in self.runs.iter().zip(&written).filter(|(_, written)| **written) {
            state.unqueued(queue_of(started), sql_id(ended.task));
            state.ended(sql_id(ended.task));
        }
        Ok(written)
    }
}

/// A run that starts and ends in this slice, and does nothing but end well.
fn plain<'o>(at: usize, ops: &'o [Op], partners: &[Partner]) -> Option<(&'o Started, &'o Ended)> {
    let (Op::Ended(ended), Partner::Start(start)) = (&ops[at], partners[at]) else { return None };
    let is_plain = matches!(ended.next, Next::Done(_)) && ended.spawn.is_empty() && ended.cause.is_none();
    is_plain.then(|| (started(ops, start), ended))
}

fn follows((started, ended): (&Started, &Ended), (before, end_before): (&Started, &Ended)) -> bool {
    ended.task.value() == end_before.task.value() + 1
        && (ended.run, ended.at, ended.count, &ended.error)
            == (end_before.run, end_before.at, end_before.count, &end_before.error)
        && (started.at, &started.worker) == (before.at, &before.worker)
}

fn result_of(ended: &Ended) -> Option<&Payload> {
    match &ended.next {
        Next::Done(result) => result.as_ref(),
        _ => None,
    }
}

/// What differs from row to row of the series that is being written. The connection's functions have the other end.
#[derive(Debug, Clone, Default)]
pub(super) struct Cells(Arc<Mutex<Rows>>);

#[derive(Debug, Default)]
struct Rows {
    first: i64,
    rows: Vec<Cell>,
}

#[derive(Debug)]
struct Cell {
    lease: i64,
    result: Value,
    /// The statement has come by.
    met: bool,
}

impl Cells {
    /// With the functions of this connection.
    pub(super) fn on(conn: &Connection) -> rusqlite::Result<Self> {
        let cells = Self::default();
        // Not for triggers and views of an app, which would find nothing there.
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
        let (leases, results) = (cells.clone(), cells.clone());
        conn.create_scalar_function("laneway_lease", 1, flags, move |call| {
            let id = call.get(0)?;
            Ok(leases.rows().cell(id).map(|cell| {
                cell.met = true;
                cell.lease
            }))
        })?;
        conn.create_scalar_function("laneway_result", 1, flags, move |call| {
            let id = call.get(0)?;
            Ok(results.rows().cell(id).map(|cell| std::mem::replace(&mut cell.result, Value::Null)))
        })?;
        Ok(cells)
    }

    fn fill<'o>(&self, first: i64, runs: impl Iterator<Item = &'o Ended>) {
        let mut rows = self.rows();
        rows.first = first;
        rows.rows.clear();
        rows.rows.extend(runs.map(|ended| Cell {
            lease: ended.lease.value(),
            result: result_of(ended).map_or(Value::Null, as_value),
            met: false,
        }));
    }

    /// Which rows the statement came by; the rest is forgotten.
    fn take_met(&self) -> Vec<bool> {
        self.rows().rows.drain(..).map(|cell| cell.met).collect()
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rows {
    fn cell(&mut self, id: i64) -> Option<&mut Cell> {
        self.rows.get_mut(usize::try_from(id - self.first).ok()?)
    }
}

/// As [`SqlPayload`](super::row::SqlPayload) binds it.
fn as_value(payload: &Payload) -> Value {
    match std::str::from_utf8(&payload.bytes) {
        Ok(text) if payload.format == Format::Json => Value::Text(text.to_owned()),
        _ => Value::Blob(payload.bytes.clone()),
    }
}

mod const_sql {
    //! By the range of ids alone: no index is better for rows that stand side by side.

    pub(super) const WITHOUT: &str = "UPDATE tasks NOT INDEXED SET \
        state = 'done', lease = laneway_lease(id), runs = ?3, worker = ?4, started_at = ?5, finished_at = ?6, \
        attempts = attempts + ?7, losses = losses + ?8, releases = releases + ?9, result = NULL, error = ?10 \
        WHERE id BETWEEN ?1 AND ?2 AND state = 'queued' AND runs = ?3 - 1";
    pub(super) const WITH_RESULTS: &str = "UPDATE tasks NOT INDEXED SET \
        state = 'done', lease = laneway_lease(id), runs = ?3, worker = ?4, started_at = ?5, finished_at = ?6, \
        attempts = attempts + ?7, losses = losses + ?8, releases = releases + ?9, result = laneway_result(id), \
        error = ?10 \
        WHERE id BETWEEN ?1 AND ?2 AND state = 'queued' AND runs = ?3 - 1";
}

#[cfg(test)]
mod tests {
    use laneway_core::{Count, OpResult, UnixMillis};
    use laneway_protocol::{Kind, LaneName, Lease, SessionName, TaskId};

    use super::super::apply::partners;
    use super::super::schema::has_app_trigger;
    use super::super::tests::{NOW, opened};
    use super::*;
    use crate::store::{Store as _, Sync};

    fn run(id: u64) -> (Started, Ended) {
        let task = TaskId::new(id).unwrap();
        let lease = Lease::new(i64::try_from(1_000 + id).unwrap());
        let worker = SessionName::new("w").unwrap();
        let (kind, lane, at) = (Kind::new("k").unwrap(), LaneName::new("normal").unwrap(), NOW.wall);
        let started = Started {
            task,
            lease,
            run: 1,
            worker: worker.clone(),
            at,
            kind: kind.clone(),
            lane: lane.clone(),
            attempt: 1,
            wait_ms: 0,
        };
        let ended = Ended {
            task,
            lease,
            run: 1,
            next: Next::Done(None),
            count: Count::Attempt,
            error: None,
            cause: None,
            spawn: Vec::new(),
            worker,
            at,
            kind,
            lane,
            attempt: 1,
            run_ms: 0,
        };
        (started, ended)
    }

    /// Starts, then ends, as a worker's next READY brings them.
    fn ops(runs: &[(Started, Ended)]) -> Vec<Op> {
        let starts = runs.iter().map(|(started, _)| Op::Started(started.clone()));
        starts.chain(runs.iter().map(|(_, ended)| Op::Ended(ended.clone()))).collect()
    }

    /// How many runs the first series of a slice has; 0 for none.
    fn first(ops: &[Op]) -> usize {
        let partners = partners(ops);
        (0..ops.len()).find_map(|at| Series::at(at, ops, &partners)).map_or(0, |series| series.runs.len())
    }

    #[test]
    fn neighbours_that_are_alike_are_a_series() {
        // Proves each condition: so many, side by side, of one worker, time and run, ended well, and nothing between.
        let runs: Vec<_> = (1..=6).map(run).collect();
        assert_eq!(first(&ops(&runs)), 6);
        let paired: Vec<Op> = runs.iter().flat_map(|run| ops(std::slice::from_ref(run))).collect();
        assert_eq!(first(&paired), 6, "each start before its end");
        assert_eq!([first(&ops(&runs[..3])), first(&ops(&runs[..2]))], [3, 0]);
        let gap: Vec<_> = [1, 2, 4, 5].map(run).into();
        assert_eq!(first(&ops(&gap)), 0);
        let changes: [fn(&mut (Started, Ended)); 7] = [
            |run| run.0.worker = SessionName::new("other").unwrap(),
            |run| run.0.at = UnixMillis(1),
            |run| run.1.at = UnixMillis(1),
            |run| (run.0.run, run.1.run) = (2, 2),
            |run| run.1.next = Next::Dead,
            |run| run.1.error = Some("why".into()),
            |run| run.1.count = Count::Nothing,
        ];
        for (n, change) in changes.into_iter().enumerate() {
            let mut runs = runs.clone();
            change(&mut runs[3]);
            assert_eq!(first(&ops(&runs)), 3, "change {n}");
        }
        let mut ops = ops(&runs[..4]);
        ops.insert(6, Op::Counts);
        assert_eq!(first(&ops), 0, "something else behind two ends");
    }

    #[test]
    fn what_an_app_holds_back_costs_nobody_else_his_outcome() {
        // Proves that a series is no different from its runs one by one: a trigger that refuses a row, one that passes over it,
        // one that changes another, an index that takes one row alone, a row that was ended, and one that is gone.
        let dir = tempfile::tempdir().unwrap();
        let outcomes = |name: &str, trigger: &str, is_series: bool| {
            let mut store = opened(&dir.path().join(name));
            let rows = "WITH RECURSIVE ids(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids WHERE id < 8) \
                        INSERT INTO tasks (kind, created_at) SELECT 'k', 1 FROM ids; \
                        UPDATE tasks SET state = 'cancelled' WHERE id = 2; DELETE FROM tasks WHERE id = 7;";
            store.conn.execute_batch(&format!("{rows} {trigger}")).unwrap();
            let has_trigger = trigger.starts_with("CREATE TRIGGER");
            assert_eq!(has_app_trigger(&store.conn).unwrap(), has_trigger, "our own triggers stand in no way");
            let mut ops = ops(&(1..=8).map(run).collect::<Vec<_>>());
            if !is_series {
                ops = ops.into_iter().flat_map(|op| [op, Op::Counts]).collect();
            }
            store.begin(Sync::Process).unwrap();
            store.intake(99, NOW).unwrap();
            while !store.recount(99).unwrap() {}
            store.commit().unwrap();
            store.begin(Sync::Process).unwrap();
            let results = store.apply(&ops, NOW).unwrap();
            store.commit().unwrap();
            let told = store.apply(&[Op::Counts], NOW).unwrap().pop();
            let Some(Some(OpResult::Counts(counts))) = told else { panic!("no counts") };
            let mut ended: Vec<String> = ops
                .iter()
                .zip(results)
                .filter_map(|(op, result)| match (op, result) {
                    (Op::Ended(ended), Some(OpResult::Ended(as_what))) => Some(format!("{} {as_what:?}", ended.task)),
                    _ => None,
                })
                .collect();
            ended.sort();
            let sql = "SELECT group_concat(id || state || coalesce(lease, '') || runs || attempts || coalesce(worker, ''), ' ') FROM tasks";
            let rows: String = store.conn.query_row(sql, [], |row| row.get(0)).unwrap();
            (ended, rows, counts.queued)
        };
        let refusing = |what: &str| {
            format!(
                "CREATE TRIGGER app BEFORE UPDATE ON tasks WHEN new.id = 5 AND new.state = 'done' BEGIN SELECT RAISE({what}); END;"
            )
        };
        let changing = "CREATE TRIGGER app AFTER UPDATE ON tasks WHEN new.id = 4 AND new.state = 'done' \
                        BEGIN UPDATE tasks SET state = 'cancelled' WHERE id = 6; END;";
        let index = "CREATE UNIQUE INDEX app ON tasks (worker) WHERE id > 4 AND state = 'done';";
        let refusing = ["ABORT, 'not this one'", "FAIL, 'not this one'", "IGNORE"].map(refusing);
        let others = [String::new(), changing.to_owned(), index.to_owned()];
        for (n, trigger) in others.iter().chain(&refusing).enumerate() {
            let series = outcomes(&format!("series-{n}.db"), trigger, true);
            assert_eq!(series, outcomes(&format!("single-{n}.db"), trigger, false), "{trigger}");
            assert!(series.1.starts_with("1done100111w"), "{}", series.1);
        }
    }
}
