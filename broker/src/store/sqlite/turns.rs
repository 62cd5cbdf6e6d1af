//! A load of a queue that is read by turns: the rows of its fair keys, in the index of the queue.

use std::collections::{BTreeMap, HashSet, VecDeque};

use laneway_core::{Now, QueuedTask, UnixMillis};
use laneway_protocol::TaskId;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};

use super::awake::{Index, RIPE_MAX};
use super::queue::{Head, Unfit, const_sql as queue_sql, head, lanes};
use super::{State, row};
use crate::store::fair::{RawKey, Rows, load_by_turns};
use crate::store::validate::Judge;
use crate::store::{Load, LoadedRows, StoreError};

/// Loads a queue that has rows with fair keys. False, and nothing is done, when it has none.
pub(super) fn by_turns(
    conn: &Connection,
    state: &mut State,
    load: Load<'_>,
    now: Now,
    loaded: &mut LoadedRows,
) -> Result<bool, StoreError> {
    let lanes: Vec<Option<&str>> = lanes(&state.judge, load.key).collect();
    let index = Looks { conn, load, lanes: &lanes, now };
    if index.next_key(&RawKey::None)?.is_none() {
        state.rounds.forget(load.key);
        state.awake.forget(load.key);
        return Ok(false);
    }
    let keys = state.awake.of(load.key, now.wall);
    keys.find(&index, load.rows, now.wall)?;
    let mut rows = Keyed {
        index: &index,
        judge: &state.judge,
        lines: BTreeMap::new(),
        seen: HashSet::new(),
        unfit: Unfit::default(),
    };
    let served = load_by_turns(&mut rows, state.rounds.cursor(load.key), keys.due(), load, loaded)?;
    keys.served(&index, served.dry, served.left)?;
    loaded.more |= keys.is_looking();
    let unfit = rows.unfit;
    unfit.reject(conn, state, now, loaded)?;
    Ok(true)
}

/// What the indexes say of one queue.
struct Looks<'a> {
    conn: &'a Connection,
    load: Load<'a>,
    /// As rows spell it.
    lanes: &'a [Option<&'a str>],
    now: Now,
}

impl Looks<'_> {
    /// Whether a key's first row is due: NULL, which is at once, sorts before all others.
    fn is_due_at(&self, first: ValueRef<'_>) -> bool {
        match first {
            ValueRef::Null => true,
            at => row::millis(at).is_some_and(|at| at <= self.now.wall),
        }
    }
}

impl Index for Looks<'_> {
    fn next_key(&self, after: &RawKey) -> Result<Option<(RawKey, bool)>, StoreError> {
        let sql = if *after == RawKey::None { const_sql::FIRST_KEY } else { const_sql::NEXT_KEY };
        let mut first: Option<(RawKey, bool)> = None;
        for lane in self.lanes {
            let mut statement = self.conn.prepare_cached(sql)?;
            let mut rows = statement.query(params![lane, self.load.key.kind.as_str(), after])?;
            let Some(row) = rows.next()? else { continue };
            let (key, due) = (RawKey::from(row.get_ref(0)?), self.is_due_at(row.get_ref(1)?));
            first = Some(match first.take() {
                Some((other, other_due)) if other == key => (other, other_due || due),
                Some((other, other_due)) if other < key => (other, other_due),
                _ => (key, due),
            });
        }
        Ok(first)
    }

    fn is_due(&self, key: &RawKey) -> Result<bool, StoreError> {
        let mut statement = self.conn.prepare_cached(const_sql::FIRST_OF_KEY)?;
        for lane in self.lanes {
            let mut rows = statement.query(params![lane, self.load.key.kind.as_str(), key])?;
            if let Some(row) = rows.next()?
                && self.is_due_at(row.get_ref(0)?)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn ripe(&self, from: UnixMillis) -> Result<Vec<RawKey>, StoreError> {
        let mut ripe = Vec::new();
        let mut statement = self.conn.prepare_cached(const_sql::RIPE)?;
        for lane in self.lanes {
            let values = params![lane, self.load.key.kind.as_str(), from.0, self.now.wall.0, RIPE_MAX];
            let keys = statement.query_map(values, |row| row.get(0))?;
            for key in keys {
                ripe.push(key?);
            }
        }
        Ok(ripe)
    }
}

/// The rows of a queue by their keys.
struct Keyed<'a> {
    index: &'a Looks<'a>,
    judge: &'a Judge,
    lines: BTreeMap<RawKey, Vec<KeyStream>>,
    /// Ids that were taken out of a stream.
    seen: HashSet<i64>,
    unfit: Unfit,
}

/// Part of a key's rows that the index holds in one order; read in pieces, for few of them may be wanted.
struct KeyStream {
    lane: Option<String>,
    sql: &'static str,
    ids: VecDeque<i64>,
    /// There are more than `ids`.
    cut: bool,
    piece: usize,
    head: Option<QueuedTask>,
}

/// Rows of a key that are read from the index at first; twice as many each time that they do not do.
const PIECE_ROWS: usize = 4;

impl Keyed<'_> {
    /// Fills the head of a stream.
    fn fill(&mut self, key: &RawKey, stream: &mut KeyStream) -> Result<(), StoreError> {
        let mut reader = self.index.conn.prepare_cached(queue_sql::HEAD)?;
        while stream.head.is_none() {
            let Some(id) = stream.ids.pop_front() else {
                if !stream.cut {
                    return Ok(());
                }
                self.read_on(key, stream)?;
                continue;
            };
            self.seen.insert(id);
            match head(&mut reader, self.judge, id, self.index.now)? {
                Head::Task(task) => stream.head = Some(task),
                Head::Bad(id, reason) => self.unfit.bad.push((id, reason)),
                Head::End(id, end) => self.unfit.ends.push((id, end)),
                Head::Gone => {}
            }
        }
        Ok(())
    }

    fn read_on(&self, key: &RawKey, stream: &mut KeyStream) -> Result<(), StoreError> {
        let mut statement = self.index.conn.prepare_cached(stream.sql)?;
        let mut rows =
            statement.query(params![stream.lane, self.index.load.key.kind.as_str(), self.index.now.wall.0, key])?;
        stream.cut = false;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let task = u64::try_from(id).ok().and_then(TaskId::new);
            if self.seen.contains(&id) || task.is_none_or(|task| (self.index.load.skip)(task)) {
                continue;
            }
            if stream.ids.len() == stream.piece {
                stream.cut = true;
                break;
            }
            stream.ids.push_back(id);
        }
        stream.piece *= 2;
        Ok(())
    }
}

impl Rows for Keyed<'_> {
    fn is_due(&mut self, key: &RawKey) -> Result<bool, StoreError> {
        self.index.is_due(key)
    }

    fn peek(&mut self, key: &RawKey) -> Result<Option<usize>, StoreError> {
        let mut streams = self.lines.remove(key).unwrap_or_else(|| {
            let stream = |lane: Option<&str>, sql| KeyStream {
                lane: lane.map(str::to_owned),
                sql,
                ids: VecDeque::new(),
                cut: true,
                piece: PIECE_ROWS,
                head: None,
            };
            let both = [queue_sql::AT_ONCE, queue_sql::DUE];
            self.index.lanes.iter().flat_map(|&lane| both.map(|sql| stream(lane, sql))).collect()
        });
        let filled = streams.iter_mut().try_for_each(|stream| self.fill(key, stream));
        let heads = streams.iter().filter_map(|stream| stream.head.as_ref());
        let next = heads.min_by_key(|task| (task.due, task.id));
        let size = next.map(|task| task.payload.as_ref().map_or(0, |payload| payload.bytes.len()));
        self.lines.insert(key.clone(), streams);
        filled.map(|()| size)
    }

    fn pop(&mut self, key: &RawKey) -> QueuedTask {
        let streams = self.lines.get_mut(key).expect("it was looked at");
        let full = streams.iter_mut().filter(|stream| stream.head.is_some());
        let next = full.min_by_key(|stream| stream.head.as_ref().map(|task| (task.due, task.id)));
        next.and_then(|stream| stream.head.take()).expect("there was one")
    }
}

/// Statements that must not look at rows, each with the columns that its index is entered by.
#[cfg(test)]
pub(super) const PLANS: [(&str, &str); 3] = [
    (const_sql::FIRST_KEY, "lane=? AND kind=? AND fair_key>?"),
    (const_sql::NEXT_KEY, "lane=? AND kind=? AND fair_key>?"),
    (const_sql::FIRST_OF_KEY, "lane=? AND kind=? AND fair_key=?"),
];

/// The one that looks at rows whose time has come, each once.
#[cfg(test)]
pub(super) const RIPE_PLAN: (&str, &str) = (const_sql::RIPE, "lane=? AND kind=? AND run_at>? AND run_at<?");

mod const_sql {
    /// The first key, with the time of its first row.
    pub(super) const FIRST_KEY: &str = "SELECT fair_key, run_at FROM tasks INDEXED BY tasks_queue \
        WHERE state = 'queued' AND lane IS ?1 AND kind = ?2 AND fair_key >= '' AND ?3 IS NULL \
        ORDER BY fair_key, run_at LIMIT 1";
    pub(super) const NEXT_KEY: &str = "SELECT fair_key, run_at FROM tasks INDEXED BY tasks_queue \
        WHERE state = 'queued' AND lane IS ?1 AND kind = ?2 AND fair_key > ?3 \
        ORDER BY fair_key, run_at LIMIT 1";
    pub(super) const FIRST_OF_KEY: &str = "SELECT run_at FROM tasks INDEXED BY tasks_queue \
        WHERE state = 'queued' AND lane IS ?1 AND kind = ?2 AND fair_key = ?3 ORDER BY run_at LIMIT 1";
    /// Of ended rows too, which do no harm.
    pub(super) const RIPE: &str = "SELECT fair_key FROM tasks INDEXED BY tasks_fair_later \
        WHERE fair_key IS NOT NULL AND lane IS ?1 AND kind = ?2 AND run_at > ?3 AND run_at <= ?4 LIMIT ?5";
}
