//! Tasks that wait for others: whom an end lets go, whom it cancels, and which rows wait for what can never be.
//!
//! Ends are noted where they are written ([`State::ended`]) and followed up inside the same turn, a bounded number of edges at
//! a time. What happens unseen, by an app's hand or while no broker ran, is found by [`recheck`], which walks over the open edges.
//! While no edge is open anywhere, an end costs one comparison.

use std::collections::BTreeSet;

use laneway_core::{Now, QueueKey};
use laneway_protocol::{TaskId, TaskState};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params};

use super::queue::{VALUES, values};
use super::refused::unless_refused;
use super::sweep::{End, end_unstarted, reject};
use super::{State, row};
use crate::store::dependencies::{
    PARENTS_MAX, WALK_MAX, missing_parents, never_waits, ring, too_many_parents, walks_too_far,
};
use crate::store::validate::Bad;
use crate::store::{StoreError, Unstarted};

/// What is to be followed up, and whether there is anything to follow at all.
#[derive(Debug, Clone, Default)]
pub(super) struct Dependencies {
    /// Some edge may be open. While it is false nothing is noted.
    live: bool,
    /// Ended in this turn or before, children not looked at yet.
    ended: BTreeSet<i64>,
    /// Rows that wait and were not looked at yet.
    fresh: BTreeSet<i64>,
    /// Where the walk over open edges stands: behind this task and parent.
    walked_to: Option<(Value, Value)>,
    /// Queued since the last intake.
    let_go: Vec<(TaskId, QueueKey)>,
    /// All of the above as it was when the open turn first changed it.
    saved: Option<Box<Dependencies>>,
}

impl Dependencies {
    /// Learns what an earlier life has left.
    pub(super) fn start(conn: &Connection) -> Result<Self, StoreError> {
        Ok(Self { live: any_open(conn)?, ..Self::default() })
    }

    pub(super) fn commit(&mut self) {
        self.saved = None;
    }

    pub(super) fn rollback(&mut self) {
        if let Some(saved) = self.saved.take() {
            *self = *saved;
        }
    }

    pub(super) fn is_behind(&self) -> bool {
        !(self.ended.is_empty() && self.fresh.is_empty())
    }

    /// A row waits and is to be looked at.
    pub(super) fn waits(&mut self, id: i64) {
        self.touch();
        self.live = true;
        self.fresh.insert(id);
    }

    /// The rows that were queued since the last call.
    pub(super) fn tell(&mut self) -> Vec<(TaskId, QueueKey)> {
        std::mem::take(&mut self.let_go)
    }

    fn touch(&mut self) {
        if self.saved.is_none() {
            self.saved = Some(Box::new(self.clone()));
        }
    }
}

impl State {
    /// A row has ended, or was found ended, by whatever hand.
    pub(super) fn ended(&mut self, id: i64) {
        if self.dependencies.live {
            self.dependencies.touch();
            self.dependencies.ended.insert(id);
        }
    }
}

/// Follows up to about `edges` edges of what has ended or come. Gives the rows that this has ended in turn.
pub(super) fn resolve(
    conn: &Connection,
    state: &mut State,
    edges: usize,
    now: Now,
) -> Result<Vec<Unstarted>, StoreError> {
    let mut gone = Vec::new();
    if !state.dependencies.is_behind() {
        return Ok(gone);
    }
    state.dependencies.touch();
    let (mut left, mut rings) = (edges, Rings::default());
    while left > 0 && !rings.have_walked_far() {
        // Ends first: a long ring of which one row is refused is over by that, and none of its other rows is searched for a ring.
        if let Some(id) = state.dependencies.ended.pop_first() {
            left = left.saturating_sub(let_go(conn, state, id, left, now, &mut gone)?);
        } else if let Some(id) = state.dependencies.fresh.pop_first() {
            left = left.saturating_sub(settle(conn, state, id, now, &mut rings, &mut gone)?);
        } else {
            state.dependencies.live = any_open(conn)?;
            break;
        }
    }
    Ok(gone)
}

/// Walks on over up to `edges` open edges. True when all have been looked at since the last time it was true.
pub(super) fn recheck(
    conn: &Connection,
    state: &mut State,
    edges: usize,
    now: Now,
) -> Result<(Vec<Unstarted>, bool), StoreError> {
    let mut gone = Vec::new();
    if !state.dependencies.live {
        return Ok((gone, true));
    }
    state.dependencies.touch();
    let open = next_open(conn, state.dependencies.walked_to.take(), edges)?;
    let (mut settled, mut walked_to) = (None, None);
    let mut rings = Rings::default();
    for (edge, task, parent) in &open {
        if rings.have_walked_far() {
            break;
        }
        walked_to = Some((task.clone(), parent.clone()));
        let (Some(task), Some(parent)) = (row::int(task.into()), row::int(parent.into())) else {
            close(conn, *edge)?;
            continue;
        };
        let waits = || Ok::<_, StoreError>(state_of(conn, task)? == Some(TaskState::Waiting));
        let is_live = || Ok::<_, StoreError>(state_of(conn, parent)?.is_some_and(|state| !state.is_final()));
        if settled != Some(task) && !(parent < task && waits()? && is_live()?) {
            settle(conn, state, task, now, &mut rings, &mut gone)?;
            settled = Some(task);
        }
    }
    let last = open.last().map(|(_, task, parent)| (task.clone(), parent.clone()));
    let complete = open.len() < edges && walked_to == last;
    state.dependencies.walked_to = walked_to;
    if complete {
        state.dependencies.walked_to = None;
        state.dependencies.live = state.dependencies.is_behind() || any_open(conn)?;
    }
    Ok((gone, complete))
}

/// A task has ended: closes the edges that lead from it, and looks at its children. Gives how many edges it looked at.
fn let_go(
    conn: &Connection,
    state: &mut State,
    id: i64,
    edges: usize,
    now: Now,
    gone: &mut Vec<Unstarted>,
) -> Result<usize, StoreError> {
    let Some(ended) = state_of(conn, id)?.filter(|state| state.is_final()) else { return Ok(1) };
    close_all(conn, id)?;
    let children: Vec<(i64, i64, bool)> = {
        let mut statement = conn.prepare_cached(const_sql::CHILDREN)?;
        let limit = i64::try_from(edges).unwrap_or(i64::MAX);
        let read = statement
            .query_map(params![id, limit], |row| Ok((row.get(0)?, row.get(1)?, row::requested(row.get_ref(2)?))))?;
        read.collect::<Result<_, _>>()?
    };
    for (edge, child, anyway) in &children {
        close(conn, *edge)?;
        if ended != TaskState::Done && !anyway {
            // Which parent is named does not hang on the order in which they ended.
            fail(conn, state, *child, now, gone)?;
        } else if !waits_for_any(conn, *child)? {
            promote(conn, state, *child, now, gone)?;
        }
    }
    if children.len() == edges {
        state.dependencies.ended.insert(id);
    }
    Ok(1 + children.len())
}

/// Looks at everything that a row waits for, and does with it what that calls for. Gives how many edges it looked at.
fn settle(
    conn: &Connection,
    state: &mut State,
    id: i64,
    now: Now,
    rings: &mut Rings,
    gone: &mut Vec<Unstarted>,
) -> Result<usize, StoreError> {
    if state_of(conn, id)? != Some(TaskState::Waiting) {
        close_all(conn, id)?;
        return Ok(1);
    }
    let edges = open_edges(conn, id, PARENTS_MAX + 1)?;
    if edges.len() > PARENTS_MAX {
        return refuse(conn, state, id, &too_many_parents(), now, gone).map(|()| edges.len());
    }
    if edges.is_empty() && !has_parents(conn, id)? {
        return refuse(conn, state, id, &never_waits(), now, gone).map(|()| 1);
    }
    let mut open = edges.len();
    for (edge, parent, anyway) in &edges {
        match state_of(conn, *parent)? {
            None => {
                let missing = missing_among(conn, edges.iter().map(|(_, parent, _)| *parent))?;
                return refuse(conn, state, id, &missing_parents(&missing), now, gone).map(|()| edges.len());
            }
            Some(ended) if ended == TaskState::Done || (ended.is_final() && *anyway) => {
                close(conn, *edge)?;
                open -= 1;
            }
            Some(ended) if ended.is_final() => {
                return fail(conn, state, id, now, gone).map(|()| edges.len());
            }
            Some(_) if *parent >= id => {
                if let Some(bad) = rings.find(conn, id)? {
                    return refuse(conn, state, id, &bad, now, gone).map(|()| edges.len());
                }
            }
            Some(_) => {}
        }
    }
    if open == 0 {
        promote(conn, state, id, now, gone)?;
    }
    Ok(1 + edges.len())
}

/// Nothing holds the row back any more.
fn promote(
    conn: &Connection,
    state: &mut State,
    id: i64,
    now: Now,
    gone: &mut Vec<Unstarted>,
) -> Result<(), StoreError> {
    let sql = format!("SELECT kind, lane, {VALUES} FROM tasks WHERE id = ?1 AND state = 'waiting'");
    let judged = {
        let mut statement = conn.prepare_cached(&sql)?;
        let mut rows = statement.query([id])?;
        let Some(row) = rows.next()? else { return Ok(()) };
        let key = state.judge.key(row.get_ref(0)?, row.get_ref(1)?);
        let values = values(row, 2).expect("the columns are in the statement");
        key.and_then(|key| Ok((key, state.judge.values(&values)?, row::fair_key(values.fair_key))))
    };
    let (key, good, fair_key) = match judged {
        Ok(judged) => judged,
        Err(bad) => return refuse(conn, state, id, &bad, now, gone),
    };
    let written = conn.prepare_cached("UPDATE tasks SET state = 'queued' WHERE id = ?1")?.execute([id]);
    if unless_refused(written, id, "a row could not be queued")?.is_some() {
        state.dependencies.let_go.extend(row::given_out(id).map(|task| (task, key.clone())));
        state.queued(key, id, fair_key, good.run_at, now);
    }
    Ok(())
}

/// A parent has failed: the child is cancelled, and says by whom.
fn fail(conn: &Connection, state: &mut State, id: i64, now: Now, gone: &mut Vec<Unstarted>) -> Result<(), StoreError> {
    if state_of(conn, id)? != Some(TaskState::Waiting) {
        return Ok(());
    }
    let sql = "SELECT tasks.id, tasks.state FROM task_dependencies JOIN tasks ON tasks.id = task_dependencies.parent \
               WHERE task_dependencies.task = ?1 AND anyway = 0 AND (tasks.state = 'dead' OR tasks.state = 'cancelled') \
               ORDER BY tasks.id LIMIT 1";
    let failed = conn.prepare_cached(sql)?.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((parent, how)): Option<(i64, String)> = failed else { return Ok(()) };
    gone.extend(end_unstarted(
        conn,
        state,
        id,
        End::Parent(format!("task {parent}, which it depends on, is {how}")),
        now,
    )?);
    close_all(conn, id)
}

fn refuse(
    conn: &Connection,
    state: &mut State,
    id: i64,
    bad: &Bad,
    now: Now,
    gone: &mut Vec<Unstarted>,
) -> Result<(), StoreError> {
    gone.extend(reject(conn, state, id, bad, now)?);
    close_all(conn, id)
}

/// The search for rings, for as long as nobody adds an edge. Edges to lower ids alone can make no ring, so only rows with another
/// kind of edge are asked about.
#[derive(Debug, Default)]
pub(super) struct Rings {
    /// Tasks that are in no ring and lead to none: a long row of tasks that each wait for the next is walked once, and not once for each.
    clear: BTreeSet<i64>,
    /// Edges that were followed.
    walked: usize,
}

impl Rings {
    /// Whether the rest is for another turn. What is clear is found anew then, so a turn ends with no less than one long search.
    fn have_walked_far(&self) -> bool {
        self.walked >= WALK_MAX
    }

    /// Looks whether a row waits for itself, through others.
    pub(super) fn find(&mut self, conn: &Connection, id: i64) -> Result<Option<Bad>, StoreError> {
        if self.clear.contains(&id) {
            return Ok(None);
        }
        let mut left = WALK_MAX;
        // The path from the row to where the walk stands, with the parents that are still to be looked at.
        let mut path: Vec<(i64, Vec<i64>)> = Vec::new();
        let (mut on_path, mut over) = (BTreeSet::new(), BTreeSet::new());
        let (mut all_clear, mut next) = (true, Some(id));
        while next.is_some() || !path.is_empty() {
            if let Some(at) = next.take() {
                let parents = parents_of(conn, at, left + 1)?;
                self.walked += parents.len();
                on_path.insert(at);
                path.push((at, parents));
                let parents = &path.last().expect("just pushed").1;
                if parents.contains(&id) {
                    let ids: Vec<i64> = path.iter().map(|(task, _)| *task).chain([id]).collect();
                    return Ok(Some(ring(&ids)));
                }
                if parents.len() > left {
                    return Ok(Some(walks_too_far()));
                }
                left -= parents.len();
            }
            let (at, parents) = path.last_mut().expect("the loop ends with the path");
            let Some(parent) = parents.pop() else {
                on_path.remove(at);
                over.insert(*at);
                path.pop();
                continue;
            };
            // A ring of others is theirs to be told of; all of the path leads to it.
            all_clear &= !on_path.contains(&parent);
            let met = on_path.contains(&parent) || over.contains(&parent) || self.clear.contains(&parent);
            next = (!met).then_some(parent);
        }
        if all_clear {
            self.clear.append(&mut over);
        }
        Ok(None)
    }
}

/// The lowest last, to be taken first.
fn parents_of(conn: &Connection, id: i64, limit: usize) -> Result<Vec<i64>, StoreError> {
    let edges = open_edges(conn, id, limit)?;
    Ok(edges.into_iter().rev().map(|(_, parent, _)| parent).collect())
}

// ------------------------------------------------------------------------------------------------------------- small reads

/// Edge, task and parent of the open edges behind a place, by task.
fn next_open(
    conn: &Connection,
    behind: Option<(Value, Value)>,
    edges: usize,
) -> Result<Vec<(i64, Value, Value)>, StoreError> {
    let (task, parent) = behind.unwrap_or((Value::Integer(i64::MIN), Value::Integer(i64::MIN)));
    let mut statement = conn.prepare_cached(const_sql::WALK)?;
    let limit = i64::try_from(edges).unwrap_or(i64::MAX);
    let read = statement.query_map(params![task, parent, limit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(read.collect::<Result<_, _>>()?)
}

pub(super) fn state_of(conn: &Connection, id: i64) -> Result<Option<TaskState>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT state FROM tasks WHERE id = ?1")?;
    Ok(statement.query_row([id], |row| Ok(row::state(row.get_ref(0)?))).optional()?.flatten())
}

/// Those that are not in the table.
pub(super) fn missing_among(conn: &Connection, ids: impl Iterator<Item = i64>) -> Result<Vec<i64>, StoreError> {
    let mut missing = Vec::new();
    for id in ids {
        if state_of(conn, id)?.is_none() {
            missing.push(id);
        }
    }
    Ok(missing)
}

fn any_open(conn: &Connection) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM task_dependencies INDEXED BY task_dependencies_open WHERE open = 1)";
    Ok(conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

fn waits_for_any(conn: &Connection, id: i64) -> Result<bool, StoreError> {
    Ok(conn.prepare_cached(const_sql::WAITS)?.query_row([id], |row| row.get(0))?)
}

fn has_parents(conn: &Connection, id: i64) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM task_dependencies WHERE task = ?1)";
    Ok(conn.prepare_cached(sql)?.query_row([id], |row| row.get(0))?)
}

/// Whether anybody waits for one of these ids.
pub(super) fn is_awaited(conn: &Connection, first: i64, last: i64) -> Result<bool, StoreError> {
    Ok(conn.prepare_cached(const_sql::AWAITED)?.query_row([first, last], |row| row.get(0))?)
}

/// Edge, parent, anyway; by parent.
fn open_edges(conn: &Connection, id: i64, limit: usize) -> Result<Vec<(i64, i64, bool)>, StoreError> {
    let mut statement = conn.prepare_cached(const_sql::PARENTS)?;
    let edges = statement.query_map(params![id, i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
        Ok((row.get(0)?, row::int(row.get_ref(1)?).unwrap_or(0), row::requested(row.get_ref(2)?)))
    })?;
    Ok(edges.collect::<Result<_, _>>()?)
}

/// Up to `limit` parents that a waiting row still waits for, by id, and how many there are, at most [`PARENTS_MAX`].
pub(super) fn open_parents(conn: &Connection, id: i64, limit: usize) -> Result<(Vec<i64>, usize), StoreError> {
    let edges = open_edges(conn, id, PARENTS_MAX)?;
    Ok((edges.iter().take(limit).map(|(_, parent, _)| *parent).collect(), edges.len()))
}

/// A new edge. One that is there already stays as it is.
pub(super) fn depend(conn: &Connection, task: i64, parent: i64, anyway: bool) -> Result<(), StoreError> {
    let sql = "INSERT OR IGNORE INTO task_dependencies (task, parent, anyway) VALUES (?1, ?2, ?3)";
    conn.prepare_cached(sql)?.execute(params![task, parent, anyway])?;
    Ok(())
}

/// Parents of a task with an id above `after`, by id, open or not.
pub(super) fn parents(conn: &Connection, id: i64, after: i64, limit: usize) -> Result<Vec<i64>, StoreError> {
    let sql = "SELECT parent FROM task_dependencies WHERE task = ?1 AND parent > ?2 ORDER BY parent LIMIT ?3";
    let mut statement = conn.prepare_cached(sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let parents = statement.query_map(params![id, after, limit], |row| Ok(row::int(row.get_ref(0)?)))?;
    Ok(parents.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

fn close(conn: &Connection, edge: i64) -> Result<(), StoreError> {
    conn.prepare_cached("UPDATE task_dependencies SET open = 0 WHERE id = ?1")?.execute([edge])?;
    Ok(())
}

/// The row waits for nothing any more.
fn close_all(conn: &Connection, id: i64) -> Result<(), StoreError> {
    conn.prepare_cached(const_sql::CLOSE)?.execute([id])?;
    Ok(())
}

/// The task is gone, and what it waited for with it.
pub(super) fn forget(conn: &Connection, id: i64) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM task_dependencies WHERE task = ?1")?.execute([id])?;
    Ok(())
}

/// Statements that must not look at other edges, each with the columns that its index is entered by.
#[cfg(test)]
pub(super) const PLANS: [(&str, &str); 6] = [
    (const_sql::WALK, "task>?"),
    (const_sql::CHILDREN, "parent=? AND open=?"),
    (const_sql::PARENTS, "task=?"),
    (const_sql::WAITS, "task=?"),
    (const_sql::CLOSE, "task=?"),
    (const_sql::AWAITED, "parent>? AND parent<?"),
];

mod const_sql {
    /// Of the task that a walk stopped in, all edges are looked at again; there are at most [`PARENTS_MAX`](super::PARENTS_MAX).
    pub(super) const WALK: &str = "SELECT id, task, parent FROM task_dependencies \
        INDEXED BY task_dependencies_open WHERE open = 1 AND task >= ?1 AND (task > ?1 OR parent > ?2) \
        ORDER BY task, parent LIMIT ?3";
    pub(super) const CHILDREN: &str = "SELECT id, task, anyway FROM task_dependencies \
        INDEXED BY task_dependencies_parent WHERE parent = ?1 AND open = 1 ORDER BY id LIMIT ?2";
    pub(super) const PARENTS: &str = "SELECT id, parent, anyway FROM task_dependencies \
        INDEXED BY task_dependencies_open WHERE task = ?1 AND open = 1 ORDER BY parent LIMIT ?2";
    pub(super) const AWAITED: &str = "SELECT EXISTS (SELECT 1 FROM task_dependencies \
        INDEXED BY task_dependencies_parent WHERE parent BETWEEN ?1 AND ?2 AND open = 1)";
    pub(super) const WAITS: &str = "SELECT EXISTS (SELECT 1 FROM task_dependencies \
        INDEXED BY task_dependencies_open WHERE task = ?1 AND open = 1)";
    pub(super) const CLOSE: &str = "UPDATE task_dependencies INDEXED BY task_dependencies_open SET open = 0 \
        WHERE task = ?1 AND open = 1";
}
