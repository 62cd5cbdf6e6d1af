//! One task as the table has it, for when the broker does not answer, and what it waits for and is waited for by.

use laneway_protocol::message::FailureRow;
use laneway_protocol::{Format, Payload};
use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension as _, params};
use serde::Serialize;

use super::table::{Table, Trouble};
use super::tasks::{Page, PageQuery, TaskLine, page};
use crate::filter::Filter;

/// Neighbours that are shown on either side.
const EDGES_MAX: usize = 32;
const FAILURES_MAX: usize = 64;

const WIDE: &str = "SELECT timeout_ms, expires_at, error, payload, result, trace FROM tasks WHERE id = ?1";
const FAILURES: &str = "SELECT run, cause, worker, started_at, failed_at, error FROM failures WHERE task = ?1 \
                        ORDER BY run DESC LIMIT ?2";
const PARENTS: &str = "SELECT d.parent, d.anyway, t.kind, t.state FROM task_dependencies d LEFT JOIN tasks t \
                       ON t.id = d.parent WHERE d.task = ?1 ORDER BY d.parent LIMIT ?2";
const CHILDREN: &str = "SELECT d.task, d.anyway, t.kind, t.state FROM task_dependencies d LEFT JOIN tasks t \
                        ON t.id = d.task WHERE d.parent = ?1 LIMIT ?2";

/// A task with its wide columns.
#[derive(Debug, Clone)]
pub(crate) struct TaskDetail {
    pub(crate) line: TaskLine,
    pub(crate) timeout_ms: Option<i64>,
    pub(crate) expires_at: Option<i64>,
    pub(crate) error: Option<String>,
    pub(crate) payload: Option<Payload>,
    pub(crate) result: Option<Payload>,
    pub(crate) trace: Option<String>,
    /// Oldest first.
    pub(crate) failures: Vec<FailureRow>,
}

/// One task beside another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Edge {
    pub(crate) task: i64,
    /// It runs though this one, or it, failed.
    pub(crate) anyway: bool,
    /// Absent when the row is deleted.
    pub(crate) kind: Option<String>,
    pub(crate) state: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Relations {
    pub(crate) parents: Vec<Edge>,
    pub(crate) children: Vec<Edge>,
    /// There are more on either side than are listed.
    pub(crate) more: bool,
}

pub(crate) fn task(table: &mut Table, id: i64) -> Result<Option<TaskDetail>, Trouble> {
    let filter = Filter { id: Some(id), ..Filter::default() };
    let Page { rows, .. } = page(table, &PageQuery { filter, rows_max: 1, ..PageQuery::default() })?;
    let Some(line) = rows.into_iter().next() else { return Ok(None) };
    table.look(|conn, _| {
        let mut statement = conn.prepare_cached(FAILURES)?;
        let rows = statement.query_map(params![id, count(FAILURES_MAX)], failure)?;
        let mut failures: Vec<FailureRow> = rows.collect::<rusqlite::Result<_>>()?;
        failures.reverse();
        conn.prepare_cached(WIDE)?
            .query_row([id], |row| {
                Ok(TaskDetail {
                    line,
                    timeout_ms: row.get(0).ok().flatten(),
                    expires_at: row.get(1).ok().flatten(),
                    error: row.get(2).ok().flatten(),
                    payload: payload(row.get_ref(3)?),
                    result: payload(row.get_ref(4)?),
                    trace: row.get(5).ok().flatten(),
                    failures,
                })
            })
            .optional()
    })
}

pub(crate) fn relations(table: &mut Table, id: i64) -> Result<Relations, Trouble> {
    table.look(|conn, _| {
        let edges = |sql: &str| -> rusqlite::Result<Vec<Edge>> {
            let mut statement = conn.prepare_cached(sql)?;
            let rows = statement.query_map(params![id, count(EDGES_MAX + 1)], |row| {
                Ok(Edge {
                    task: row.get(0)?,
                    anyway: row.get::<_, i64>(1).unwrap_or(0) != 0,
                    kind: row.get(2).ok().flatten(),
                    state: row.get(3).ok().flatten(),
                })
            })?;
            rows.collect()
        };
        let mut found = Relations { parents: edges(PARENTS)?, children: edges(CHILDREN)?, more: false };
        for side in [&mut found.parents, &mut found.children] {
            found.more |= side.len() > EDGES_MAX;
            side.truncate(EDGES_MAX);
        }
        Ok(found)
    })
}

fn failure(row: &rusqlite::Row<'_>) -> rusqlite::Result<FailureRow> {
    Ok(FailureRow {
        run: row.get(0)?,
        cause: row.get(1)?,
        worker: row.get(2)?,
        started_at: row.get(3)?,
        failed_at: row.get(4)?,
        error: row.get(5)?,
    })
}

fn payload(value: ValueRef<'_>) -> Option<Payload> {
    match value {
        ValueRef::Text(bytes) => Some(Payload { format: Format::Json, bytes: bytes.into() }),
        ValueRef::Blob(bytes) => Some(Payload { format: Format::Bin, bytes: bytes.into() }),
        ValueRef::Null => None,
        ValueRef::Integer(n) => Some(Payload::json(n.to_string())),
        ValueRef::Real(n) => Some(Payload::json(n.to_string())),
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::{self, assert_indexed};

    #[test]
    fn a_task_is_read_with_all_that_belongs_to_it() {
        // Proves payload, failures in order and both sides of its dependencies, each by an index.
        let place = testing::Place::new();
        let conn = place.conn();
        for sql in [WIDE, FAILURES, PARENTS, CHILDREN] {
            assert_indexed(&conn, sql);
        }
        conn.execute_batch(
            "INSERT INTO tasks(kind, state, payload) VALUES ('a', 'done', '{}'), ('b', 'waiting', x'81'), ('c', 'waiting', NULL);
             UPDATE tasks SET trace = 'b' WHERE kind = 'b';
             INSERT INTO task_dependencies(task, parent) VALUES (2, 1), (3, 2), (2, 99);
             INSERT INTO failures(task, run, cause, failed_at, error) VALUES (2, 1, 'failed', 5, 'x'), (2, 2, 'lost', 9, 'y')",
        )
        .unwrap();
        let mut table = Table::new(place.db());
        let found = task(&mut table, 2).unwrap().unwrap();
        assert_eq!((found.payload, found.trace.as_deref()), (Some(Payload::bin([0x81])), Some("b")));
        assert_eq!(found.failures.iter().map(|failure| failure.run).collect::<Vec<_>>(), [1, 2]);
        assert!(task(&mut table, 4).unwrap().is_none());
        let around = relations(&mut table, 2).unwrap();
        let names = |edges: &[Edge]| edges.iter().map(|edge| (edge.task, edge.state.clone())).collect::<Vec<_>>();
        assert_eq!(names(&around.parents), [(1, Some("done".into())), (99, None)]);
        assert_eq!(names(&around.children), [(3, Some("waiting".into()))]);
    }
}
