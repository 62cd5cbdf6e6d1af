//! Deletes what ended long ago, or is more than may be kept. Walks the table by id, a bounded piece at each call: an index on
//! `finished_at` would cost every task a write, and pruning is in no hurry. Ids are given out in the order of creation, and
//! nothing ends before it was created: so the walk stops where all rows are younger than the shortest age, and costs
//! what is deleted and what is kept in spite of its age, not what the table holds. Only counts make it go on to the end.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use laneway_core::{Now, UnixMillis};
use laneway_protocol::{TaskId, TaskState};
use rusqlite::{Connection, Row, params};

use super::dependencies::forget;
use super::group::{forget_if_empty, group_of};
use super::refused::unless_refused;
use super::unique::{IN_WINDOW, forget_window};
use super::{State, row};
use crate::store::{Keep, Pruned, Retention, StoreError};

/// How long one piece may go on, looked at now and then, and what it may delete of payloads and results: each page of theirs is
/// written.
const TIME_MAX: Duration = Duration::from_millis(5);
const LOOKED_BETWEEN: usize = 128;
const DELETED_BETWEEN: usize = 16;
const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Where the walk stands.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// What it goes by: with another one it begins anew, for its groups are others.
    by: Retention,
    at: i64,
    /// Rows kept so far, and rows to delete because an earlier walk met too many, of each group that is counted.
    kept: Vec<u64>,
    surplus: Vec<u64>,
    /// It began with a surplus.
    reducing: bool,
    /// When this round began, and the one that has counted the surplus.
    begun_at: UnixMillis,
    counted_at: UnixMillis,
    /// Rows that it has deleted, in this round and those before.
    deleted: u64,
    /// Ended rows that others had taken away when this round began, and when the one began that has counted the surplus. Each since then may
    /// have been one of those that were counted.
    others: u64,
    others_counted: u64,
}

/// A row that may have to go.
struct Ended {
    id: i64,
    state: TaskState,
    at: i64,
    keep: Keep,
    bytes: u64,
}

pub(super) fn prune(
    conn: &Connection,
    state: &mut State,
    retention: &Retention,
    watched: &BTreeSet<TaskId>,
    rows: usize,
    now: Now,
) -> Result<Pruned, StoreError> {
    let begun = Instant::now();
    tour(conn, state, rows)?;
    let counts_max = retention.counts_max();
    if retention.age_ms_min().is_none() && counts_max.is_empty() {
        return Ok(Pruned { deleted: 0, over: true });
    }
    let mut walk = std::mem::take(&mut state.pruning);
    if walk.by != *retention {
        let nothing = vec![0; counts_max.len()];
        walk = Walk { by: retention.clone(), kept: nothing.clone(), surplus: nothing, ..Walk::default() };
    }
    let others = if counts_max.is_empty() { 0 } else { (left(conn)? + state.revived).saturating_sub(walk.deleted) };
    if walk.at == 0 {
        (walk.others, walk.begun_at) = (others, now.wall);
    }
    let vanished = others.saturating_sub(walk.others_counted);
    let found = look(conn, &walk, retention, rows, now, begun)?;
    let mut pruned = Pruned::default();
    let (mut deleted_bytes, mut tried) = (0, 0);
    for ended in &found.ended {
        let late = tried > 0 && tried % DELETED_BETWEEN == 0 && begun.elapsed() >= TIME_MAX;
        if late || deleted_bytes >= BYTES_MAX {
            state.pruning = walk;
            return Ok(pruned);
        }
        walk.at = ended.id;
        // Whatever happened since they were counted, as many are left as are to be kept.
        let Ended { keep, at, .. } = *ended;
        let is_surplus =
            keep.group.is_some_and(|group| walk.surplus[group] > vanished) && keep.holds(walk.counted_at, now.wall);
        let is_watched = || row::given_out(ended.id).is_none_or(|task| watched.contains(&task));
        let goes = (keep.is_old(at, now.wall) || is_surplus) && !is_watched();
        tried += usize::from(goes);
        if goes
            && unless_refused(delete(conn, ended.id, now), ended.id, "an old row could not be deleted")? == Some(true)
        {
            pruned.deleted += 1;
            walk.deleted += 1;
            deleted_bytes += ended.bytes;
            if ended.state == TaskState::Dead {
                state.tally.undied(ended.id);
            }
            if let Some(group) = keep.group {
                walk.surplus[group] = walk.surplus[group].saturating_sub(1);
            }
        } else if let Some(group) = keep.group.filter(|_| keep.is_counted(at, now.wall)) {
            walk.kept[group] += 1;
        }
    }
    walk.at = found.at;
    if found.over {
        pruned.over = walk.end(counts_max);
    }
    state.pruning = walk;
    Ok(pruned)
}

/// Ended rows that have left the table, or their kind, by whatever hand.
fn left(conn: &Connection) -> Result<u64, StoreError> {
    let sql = "SELECT CAST(total(n) AS INTEGER) FROM laneway_left";
    let n: i64 = conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    Ok(u64::try_from(n).unwrap_or(0))
}

/// Looks for rows that wait, wherever they lie, some of the table at each call: one that an app has put there took nobody's notice, and
/// whether it waits for anything is looked at.
fn tour(conn: &Connection, state: &mut State, rows: usize) -> Result<(), StoreError> {
    let mut statement = conn.prepare_cached("SELECT id, state FROM tasks WHERE id > ?1 ORDER BY id LIMIT ?2")?;
    let mut found = statement.query(params![state.toured_to, i64::try_from(rows).unwrap_or(i64::MAX)])?;
    let mut looked = 0;
    while let Some(row) = found.next()? {
        looked += 1;
        state.toured_to = row.get(0)?;
        if row::state(row.get_ref(1)?) == Some(TaskState::Waiting) {
            state.dependencies.waits(state.toured_to);
        }
    }
    if looked < rows {
        state.toured_to = 0;
    }
    Ok(())
}

impl Walk {
    /// Begins anew. False when this one has found that too many are kept, which the next one mends at once.
    fn end(&mut self, counts_max: &[u64]) -> bool {
        let surplus: Vec<u64> = self.kept.iter().zip(counts_max).map(|(kept, max)| kept.saturating_sub(*max)).collect();
        let reduces = !self.reducing && surplus.iter().any(|n| *n > 0);
        *self = Self {
            by: std::mem::take(&mut self.by),
            at: 0,
            kept: vec![0; counts_max.len()],
            surplus,
            reducing: reduces,
            begun_at: self.begun_at,
            counted_at: self.begun_at,
            deleted: self.deleted,
            others: self.others,
            others_counted: self.others,
        };
        !reduces
    }
}

struct Found {
    /// Rows that are old, or counted, in order.
    ended: Vec<Ended>,
    /// The last row looked at.
    at: i64,
    over: bool,
}

fn look(
    conn: &Connection,
    walk: &Walk,
    retention: &Retention,
    rows: usize,
    now: Now,
    begun: Instant,
) -> Result<Found, StoreError> {
    let sql = "SELECT id, state, kind, finished_at, created_at, \
               ifnull(octet_length(payload), 0) + ifnull(octet_length(checkpoint), 0) + ifnull(octet_length(result), 0) \
               FROM tasks WHERE id > ?1 ORDER BY id LIMIT ?2";
    let mut statement = conn.prepare_cached(sql)?;
    let mut read = statement.query(params![walk.at, i64::try_from(rows).unwrap_or(i64::MAX)])?;
    let mut found = Found { ended: Vec::new(), at: walk.at, over: false };
    // Behind this nothing can be old enough, and only counts look further.
    let mut young = retention.counts_max().is_empty().then(|| before(retention.age_ms_min(), now)).flatten();
    let mut looked = 0;
    while let Some(row) = read.next()? {
        looked += 1;
        found.at = row.get(0)?;
        found.ended.extend(ended(row, retention, now)?);
        let created_at = row::int(row.get_ref(4)?);
        young = young.filter(|young| created_at.is_some_and(|created_at| created_at >= *young));
        if looked % LOOKED_BETWEEN == 0 && begun.elapsed() >= TIME_MAX {
            return Ok(found);
        }
    }
    found.over = looked < rows || young.is_some();
    Ok(found)
}

fn before(age_ms: Option<u64>, now: Now) -> Option<i64> {
    age_ms.map(|age_ms| now.wall.0.saturating_sub(i64::try_from(age_ms).unwrap_or(i64::MAX)))
}

fn ended(row: &Row<'_>, retention: &Retention, now: Now) -> rusqlite::Result<Option<Ended>> {
    let Some(state) = row::state(row.get_ref(1)?) else { return Ok(None) };
    let Some(keep) = retention.of(row.get_ref(2)?.as_str().ok(), state) else { return Ok(None) };
    // An app that ended the row by SQL may have set no time.
    let ended_at = row::int(row.get_ref(3)?).or(row::int(row.get_ref(4)?)).unwrap_or(0);
    if keep.group.is_none() && !keep.is_old(ended_at, now.wall) {
        return Ok(None);
    }
    let bytes = row::unsigned(row.get_ref(5)?).unwrap_or(0);
    Ok(Some(Ended { id: row.get(0)?, state, at: ended_at, keep, bytes }))
}

/// Why an ended row is kept although nothing else speaks for it, each a condition on a row of `tasks`; `?2` is now. Pruning and people's own
/// deletes both ask here, and nowhere else.
const NEEDED_BY: [&str; 3] = [
    IN_WINDOW,
    // A child that has not ended may ask for its result.
    "EXISTS (SELECT 1 FROM task_dependencies AS edge INDEXED BY task_dependencies_parent \
     JOIN tasks AS child ON child.id = edge.task WHERE edge.parent = tasks.id AND child.state >= 'queued')",
    // The counts of a group mean something as long as one of its tasks is live.
    "EXISTS (SELECT 1 FROM tasks AS other INDEXED BY tasks_group \
     WHERE other.group_id = tasks.group_id AND other.group_id IS NOT NULL AND other.state >= 'queued')",
];

static IS_FREE: LazyLock<String> = LazyLock::new(|| {
    let kept = NEEDED_BY.map(|needed| format!(" AND NOT ({needed})")).concat();
    format!("FROM tasks WHERE id = ?1{kept}")
});
static DELETE: LazyLock<String> = LazyLock::new(|| format!("DELETE {}", *IS_FREE));
static FREE: LazyLock<String> = LazyLock::new(|| format!("SELECT 1 {}", *IS_FREE));

/// Whether something still needs an ended row.
pub(super) fn is_needed(conn: &Connection, id: i64, now: Now) -> Result<bool, StoreError> {
    Ok(!conn.prepare_cached(&FREE)?.exists(params![id, now.wall.0])?)
}

/// Deletes an ended row with its failures. False when something still needs it.
pub(super) fn delete(conn: &Connection, id: i64, now: Now) -> Result<bool, StoreError> {
    let group = group_of(conn, id)?;
    if conn.prepare_cached(&DELETE)?.execute(params![id, now.wall.0])? == 0 {
        return Ok(false);
    }
    forget(conn, id)?;
    if let Some(group) = group {
        forget_if_empty(conn, group)?;
    }
    conn.prepare_cached("DELETE FROM failures WHERE task = ?1")?.execute([id])?;
    forget_window(conn, id)?;
    Ok(true)
}
