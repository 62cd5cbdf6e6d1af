//! Pages of tasks, newest first, for whatever filter.
//!
//! A filter that an index answers (an id, a group, a key, running or dead rows) is a seek. Any other is a walk from the newest
//! id down, in slices of ids that grow while they are quick, until the page is full or its time is over. What was not reached
//! is the next page: so a filter that meets one task in a million still leads there, and no page hangs.

use laneway::TaskState;
use laneway_protocol::message::error_line;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};
use serde::Serialize;

use super::table::{Clock, Table, Trouble, is_broken_off};
use crate::filter::{Filter, sessions};

/// Ids of the first slice of a walk.
const SLICE_IDS: i64 = 4_000;
/// Longer ones would not be broken off well.
const SLICE_IDS_MAX: i64 = 16_000_000;
/// A slice begins only with so much time left.
const SLICE_TIME: std::time::Duration = std::time::Duration::from_millis(25);
/// Kinds that a key without one is looked for under.
const KINDS_MAX: usize = 64;
/// What of an error is shown in a list.
const COLUMNS: &str = "id, kind, lane, state, run_at, runs, attempts, losses, releases, max_attempts, worker, created_at, \
                       started_at, finished_at, progress_done, progress_total, progress_note, cancel_requested, unique_key, \
                       fair_key, group_id, substr(error, 1, 300)";

/// One row of a list. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct TaskLine {
    pub(crate) id: i64,
    pub(crate) kind: String,
    pub(crate) lane: Option<String>,
    pub(crate) state: String,
    pub(crate) run_at: Option<i64>,
    pub(crate) runs: i64,
    pub(crate) attempts: i64,
    pub(crate) losses: i64,
    pub(crate) releases: i64,
    pub(crate) max_attempts: Option<i64>,
    pub(crate) worker: Option<String>,
    pub(crate) created_at: i64,
    pub(crate) started_at: Option<i64>,
    pub(crate) finished_at: Option<i64>,
    pub(crate) progress_done: Option<i64>,
    pub(crate) progress_total: Option<i64>,
    pub(crate) progress_note: Option<String>,
    pub(crate) cancel_requested: bool,
    pub(crate) unique_key: Option<String>,
    pub(crate) fair_key: Option<String>,
    pub(crate) group: Option<i64>,
    /// Its beginning.
    pub(crate) error: Option<String>,
}

/// What to look for, and what is known that helps.
#[derive(Debug, Clone, Default)]
pub(crate) struct PageQuery {
    pub(crate) filter: Filter,
    /// Only ids below this one.
    pub(crate) before: Option<i64>,
    pub(crate) rows_max: usize,
    /// Kinds and their default lanes.
    pub(crate) kind_lanes: Vec<(String, String)>,
    /// Sessions and names of the workers that are connected.
    pub(crate) workers: Vec<(String, String)>,
}

/// A page, and where the next one begins.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Page {
    pub(crate) rows: Vec<TaskLine>,
    /// `before` of the next page; absent when there is none.
    pub(crate) next: Option<i64>,
    /// The page is not full, its time was over: what is older than `next` was not looked at.
    pub(crate) is_partial: bool,
}

pub(crate) fn page(table: &mut Table, query: &PageQuery) -> Result<Page, Trouble> {
    let sources = sources(query);
    table.look(|conn, clock| {
        if sources.iter().all(|source| source.is_exact) {
            return seek(conn, &sources, query);
        }
        match sources.first() {
            Some(source) => walk(conn, clock, source, query),
            None => Ok(Page::default()),
        }
    })
}

/// One way into the table: an index with its condition, and the rest of the filter.
struct Source {
    index: &'static str,
    /// The rows that the index gives are few, in order of id, and need no walk.
    is_exact: bool,
    conditions: Vec<String>,
    values: Vec<Value>,
}

impl Source {
    fn new(index: &'static str, is_exact: bool) -> Self {
        Self { index, is_exact, conditions: Vec::new(), values: Vec::new() }
    }

    /// `?` stands for the value.
    fn with(mut self, condition: &str, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self.conditions.push(condition.replace('?', &format!("?{}", self.values.len())));
        self
    }

    fn plain(mut self, condition: impl Into<String>) -> Self {
        self.conditions.push(condition.into());
        self
    }

    /// The last three values are: below this id, from this id, so many.
    fn sql(&self) -> String {
        let n = self.values.len();
        let mut conditions = self.conditions.clone();
        // Ends the list with an AND.
        conditions.push(String::new());
        let conditions = conditions.join(" AND ");
        format!(
            "SELECT {COLUMNS} FROM tasks {} WHERE {conditions}id < ?{} AND id >= ?{} ORDER BY id DESC LIMIT ?{}",
            self.index,
            n + 1,
            n + 2,
            n + 3
        )
    }
}

fn sources(query: &PageQuery) -> Vec<Source> {
    let Filter { state, kind, key, group, id, .. } = &query.filter;
    let walk = Source::new("NOT INDEXED", false);
    let starts = if let Some(id) = id {
        vec![Source::new("", true).with("id = ?", *id)]
    } else if let Some(group) = group {
        let states = state.map_or(TaskState::ALL.to_vec(), |state| vec![state]);
        let of_state = |state: TaskState| {
            let source = Source::new("INDEXED BY tasks_group", true).with("group_id = ?", *group);
            source.plain(format!("state = '{state}'"))
        };
        states.into_iter().map(of_state).collect()
    } else if let Some(key) = key {
        let of_kind = |kind: &String| {
            let source = Source::new("INDEXED BY tasks_key", true).plain("unique_key IS NOT NULL");
            source.with("kind = ?", kind.clone()).with("unique_key = ?", key.clone())
        };
        match kind {
            Some(kind) => vec![of_kind(kind)],
            None if query.kind_lanes.is_empty() || query.kind_lanes.len() > KINDS_MAX => {
                vec![walk.with("unique_key = ?", key.clone())]
            }
            None => query.kind_lanes.iter().map(|(kind, _)| of_kind(kind)).collect(),
        }
    } else if let Some(state @ (TaskState::Running | TaskState::Dead)) = state {
        vec![Source::new("INDEXED BY tasks_marked", false).plain(format!("state = '{state}'"))]
    } else {
        vec![walk]
    };
    starts.into_iter().map(|source| rest(source, query)).collect()
}

/// The whole filter, whatever the index has of it already.
fn rest(mut source: Source, query: &PageQuery) -> Source {
    let Filter { state, kind, lane, key: _, worker, fair, group: _, error, line, attempt, id: _ } = &query.filter;
    if let Some(state) = state {
        source = source.plain(format!("state = '{state}'"));
    }
    if let Some(kind) = kind {
        // One that is no text is shown as an empty one.
        let condition = if kind.is_empty() { "(kind = ? OR typeof(kind) <> 'text')" } else { "kind = ?" };
        source = source.with(condition, kind.clone());
    }
    if let Some(lane) = lane {
        let kinds = query.kind_lanes.iter().filter(|(_, default)| default == lane).take(KINDS_MAX);
        let mut words = Vec::new();
        source.values.push(lane.clone().into());
        let n = source.values.len();
        for (kind, _) in kinds {
            source.values.push(kind.clone().into());
            words.push(format!("?{}", source.values.len()));
        }
        source = source.plain(format!("(lane = ?{n} OR (lane IS NULL AND kind IN ({})))", words.join(", ")));
    }
    if let Some(worker) = worker {
        let mut words = Vec::new();
        for session in sessions(worker, &query.workers) {
            source.values.push(session.into());
            let n = source.values.len();
            words.push(format!("substr(worker, 1, length(?{n})) = ?{n}"));
        }
        source = source.plain(format!("({})", words.join(" OR ")));
    }
    if let Some(fair) = fair {
        source = source.with("fair_key = ?", fair.clone());
    }
    if let Some(error) = error {
        source = source.with("instr(error, ?) > 0", error.clone());
    }
    if let Some(line) = line {
        source = source.with("error_line(substr(error, 1, 128)) = ?", error_line(line).to_owned());
    }
    if let Some((compare, n)) = attempt {
        source = source.with(&format!("attempts {} ?", compare.sign()), i64::from(*n));
    }
    source
}

/// Rows of one slice of ids, from `from` up to below `before`.
fn slice(
    conn: &Connection,
    source: &Source,
    (from, before): (i64, i64),
    n_rows: usize,
) -> rusqlite::Result<Vec<TaskLine>> {
    let mut statement = conn.prepare_cached(&source.sql())?;
    let ends = [before, from, i64::try_from(n_rows).unwrap_or(i64::MAX)].map(Value::from);
    let values = source.values.iter().cloned().chain(ends);
    let rows = statement.query_map(params_from_iter(values), line)?;
    rows.collect()
}

fn seek(conn: &Connection, sources: &[Source], query: &PageQuery) -> rusqlite::Result<Page> {
    let before = query.before.unwrap_or(i64::MAX);
    let mut rows = Vec::new();
    for source in sources {
        rows.extend(slice(conn, source, (0, before), query.rows_max + 1)?);
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.id));
    let next = if rows.len() > query.rows_max { Some(rows[query.rows_max - 1].id) } else { None };
    rows.truncate(query.rows_max);
    Ok(Page { rows, next, is_partial: false })
}

fn walk(conn: &Connection, clock: &Clock, source: &Source, query: &PageQuery) -> rusqlite::Result<Page> {
    let end = |which| conn.query_row(&format!("SELECT {which}(id) FROM tasks"), [], |row| row.get::<_, Option<i64>>(0));
    let (Some(first), Some(last)) = (end("min")?, end("max")?) else { return Ok(Page::default()) };
    let start = query.before.unwrap_or(i64::MAX).min(last.saturating_add(1));
    let mut before = start;
    let mut page = Page::default();
    let mut ids = SLICE_IDS;
    while before > first {
        // One slice there is in any case: a page that never goes on would lead nowhere.
        if before < start && clock.left() < SLICE_TIME {
            return Ok(Page { next: Some(before), is_partial: true, ..page });
        }
        let (from, left) = (before.saturating_sub(ids), clock.left());
        match slice(conn, source, (from, before), query.rows_max + 1 - page.rows.len()) {
            Ok(rows) => page.rows.extend(rows),
            // Too long a slice, of wide rows or on a slow disk: what earlier ones gave is not lost.
            Err(error) if is_broken_off(&error) && (ids > SLICE_IDS || !page.rows.is_empty()) => {
                return Ok(Page { next: Some(before), is_partial: true, ..page });
            }
            Err(error) => return Err(error),
        }
        if page.rows.len() > query.rows_max {
            page.rows.truncate(query.rows_max);
            page.next = page.rows.last().map(|row| row.id);
            return Ok(page);
        }
        before = from;
        // The next slice is to take about a quarter of what is left.
        let took = left.saturating_sub(clock.left()).max(std::time::Duration::from_micros(100));
        let factor = i64::try_from(clock.left().as_micros() / 4 / took.as_micros()).unwrap_or(1).clamp(1, 8);
        ids = ids.saturating_mul(factor).min(SLICE_IDS_MAX);
    }
    Ok(page)
}

/// An app may have written anything into a column: what does not fit is shown as if it were not there.
fn line(row: &Row<'_>) -> rusqlite::Result<TaskLine> {
    let text = |n: usize| row.get::<_, Option<String>>(n).ok().flatten();
    let number = |n: usize| row.get::<_, Option<i64>>(n).ok().flatten();
    let count = |n: usize| number(n).unwrap_or(0);
    Ok(TaskLine {
        id: row.get(0)?,
        kind: text(1).unwrap_or_else(|| "(no text)".into()),
        lane: text(2),
        state: text(3).unwrap_or_default(),
        run_at: number(4),
        runs: count(5),
        attempts: count(6),
        losses: count(7),
        releases: count(8),
        max_attempts: number(9),
        worker: text(10),
        created_at: count(11),
        started_at: number(12),
        finished_at: number(13),
        progress_done: number(14),
        progress_total: number(15),
        progress_note: text(16),
        cancel_requested: count(17) != 0,
        unique_key: text(18),
        fair_key: text(19),
        group: number(20),
        error: text(21),
    })
}

#[cfg(test)]
mod tests;
