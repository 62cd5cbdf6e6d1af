//! Numbers kept in memory, so that asking for them scans nothing: queued rows for each queue, dead rows, rows overtaken by
//! apps. The store's own steps keep them; what apps change unseen is mended by [`recount`], which
//! counts on in bounded chunks of the queue's index. They may lag, and nothing is decided by them.

use std::collections::{BTreeSet, HashMap, HashSet};

use laneway_core::{Counts, QueueKey};
use rusqlite::types::{ToSql, Value};
use rusqlite::{Connection, OptionalExtension, params};

use crate::store::StoreError;
use crate::store::fair::RawKey;
use crate::store::log_sync::LogSync;
use crate::store::validate::Judge;

/// A queue as rows spell it: the lane, if any, and the kind.
pub(super) type RawQueue = (Option<String>, String);

#[derive(Debug, Default)]
pub(super) struct Tally {
    queued: HashMap<QueueKey, u64>,
    dead: u64,
    overtaken: u64,
    /// Of the open turn; `moves[..told]` are known to the pass.
    moves: Vec<Move>,
    told: usize,
    pass: Pass,
    /// Queues whose lane or kind no row may have, found by a pass; the next sweep rejects their rows.
    pub(super) suspects: BTreeSet<RawQueue>,
}

/// One row that came into a queue or left it.
#[derive(Debug)]
enum Move {
    Queued { key: QueueKey, id: i64, delayed: bool },
    Unqueued { key: QueueKey, id: i64 },
    Died { id: i64 },
    Undied { id: i64 },
    Overtaken,
}

impl Tally {
    pub(super) fn queued(&mut self, key: QueueKey, id: i64, delayed: bool) {
        self.moves.push(Move::Queued { key, id, delayed });
    }

    pub(super) fn unqueued(&mut self, key: QueueKey, id: i64) {
        self.moves.push(Move::Unqueued { key, id });
    }

    pub(super) fn died(&mut self, id: i64) {
        self.moves.push(Move::Died { id });
    }

    pub(super) fn undied(&mut self, id: i64) {
        self.moves.push(Move::Undied { id });
    }

    pub(super) fn overtaken(&mut self) {
        self.moves.push(Move::Overtaken);
    }

    /// The turn's moves are on disk.
    pub(super) fn commit(&mut self) {
        self.tell_pass();
        for change in std::mem::take(&mut self.moves) {
            match change {
                Move::Queued { key, .. } => *self.queued.entry(key).or_default() += 1,
                Move::Unqueued { key, .. } => {
                    if let Some(n) = self.queued.get_mut(&key) {
                        *n = n.saturating_sub(1);
                    }
                }
                Move::Died { .. } => self.dead += 1,
                Move::Undied { .. } => self.dead = self.dead.saturating_sub(1),
                Move::Overtaken => self.overtaken += 1,
            }
        }
        self.told = 0;
    }

    /// The turn's moves have not happened, and the pass may have heard of them: it begins again.
    pub(super) fn rollback(&mut self) {
        self.moves.clear();
        if self.told > 0 {
            self.pass = Pass::default();
        }
        self.told = 0;
    }

    /// The numbers as of the last commit.
    pub(super) fn counts(&self, log: &LogSync, wal_pinned_bytes: u64, submitted: u64) -> Counts {
        let mut queued: Vec<_> = self
            .queued
            .iter()
            .filter(|(_, n)| **n > 0)
            .map(|(key, n)| (key.lane.as_str().to_owned(), key.kind.as_str().to_owned(), *n))
            .collect();
        queued.sort_unstable();
        let (commit_p50_us, commit_p99_us) = log.p50_and_p99_us();
        Counts {
            submitted,
            queued,
            dead: self.dead,
            wal_bytes: std::fs::metadata(log.wal()).map_or(0, |file| file.len()),
            wal_pinned_bytes,
            commit_p50_us,
            commit_p99_us,
            overtaken: self.overtaken,
        }
    }

    /// What the open turn has changed already but not yet settled, for this queue.
    fn unsettled(&self, key: &QueueKey) -> i64 {
        self.moves
            .iter()
            .map(|change| match change {
                Move::Queued { key: other, .. } if other == key => 1,
                Move::Unqueued { key: other, .. } if other == key => -1,
                _ => 0,
            })
            .sum()
    }

    fn settle(&mut self, key: &QueueKey, total: i64) {
        let total = u64::try_from(total - self.unsettled(key)).unwrap_or(0);
        if total == 0 {
            self.queued.remove(key);
        } else {
            self.queued.insert(key.clone(), total);
        }
    }

    fn settle_dead(&mut self, total: i64) {
        let unsettled: i64 = self
            .moves
            .iter()
            .map(|change| match change {
                Move::Died { .. } => 1,
                Move::Undied { .. } => -1,
                _ => 0,
            })
            .sum();
        self.dead = u64::try_from(total - unsettled).unwrap_or(0);
    }

    /// Moves behind the place where the pass stands are in no chunk to come: they are added to its total.
    fn tell_pass(&mut self) {
        for change in &self.moves[self.told..] {
            match (change, &mut self.pass.job) {
                (Move::Queued { key, id, delayed }, Some(Job::Queue(count))) if count.key == *key => {
                    let counted = !delayed && (count.part.delayed || *id <= count.part.id);
                    count.total += i64::from(counted);
                }
                (Move::Unqueued { key, id }, Some(Job::Queue(count))) if count.key == *key => {
                    count.total -= i64::from(count.part.delayed || *id <= count.part.id);
                }
                (Move::Died { id }, Some(Job::Dead { after, total })) => *total += i64::from(*id <= *after),
                (Move::Undied { id }, Some(Job::Dead { after, total })) => *total -= i64::from(*id <= *after),
                _ => {}
            }
        }
        self.told = self.moves.len();
    }
}

// --------------------------------------------------------------------------------------------------------- the recount

/// One walk over every queue of the index, then over queues that are counted but were not met, then over dead rows.
#[derive(Debug, Default)]
struct Pass {
    /// The last queue of the index that was met.
    met: Option<(Value, Value)>,
    visited: HashSet<QueueKey>,
    unmet: Option<Vec<QueueKey>>,
    job: Option<Job>,
    dead_counted: bool,
}

#[derive(Debug)]
enum Job {
    Queue(QueueCount),
    Dead { after: i64, total: i64 },
}

#[derive(Debug)]
struct QueueCount {
    key: QueueKey,
    total: i64,
    part: Part,
    /// Spellings of the lane that are still to count, last first.
    left: Vec<Option<String>>,
}

/// A piece of the index with one order: rows of one lane as spelled and one fair key, due at once (by id) or at `run_at` (by
/// that, then id). What moves among rows with keys meanwhile may be counted by a place in another key: the next pass mends it.
#[derive(Debug)]
struct Part {
    lane: Option<String>,
    key: RawKey,
    delayed: bool,
    run_at: Value,
    id: i64,
}

impl Part {
    fn at_once(lane: Option<String>, key: RawKey) -> Self {
        Self { lane, key, delayed: false, run_at: Value::Null, id: 0 }
    }
}

impl QueueCount {
    fn new(key: QueueKey, judge: &Judge) -> Self {
        let mut lanes = vec![Some(key.lane.as_str().to_owned())];
        if *judge.rules.lane_of(&key.kind) == key.lane {
            lanes.push(None);
        }
        let lane = lanes.pop().expect("there is at least one lane");
        Self { key, total: 0, part: Part::at_once(lane, RawKey::None), left: lanes }
    }

    /// The piece behind the one that is complete; false when there is none.
    fn go_on(&mut self, conn: &Connection) -> Result<bool, StoreError> {
        if !self.part.delayed {
            (self.part.delayed, self.part.run_at, self.part.id) = (true, Value::Integer(i64::MIN), 0);
            return Ok(true);
        }
        let lane = self.part.lane.clone();
        let next = match &self.part.key {
            RawKey::None => seek_key(conn, FIRST_KEY, params![lane, self.key.kind.as_str()])?,
            key => seek_key(conn, NEXT_KEY, params![lane, self.key.kind.as_str(), key])?,
        };
        self.part = match (next, self.left.pop()) {
            (Some(key), left) => {
                self.left.extend(left);
                Part::at_once(lane, key)
            }
            (None, Some(lane)) => Part::at_once(lane, RawKey::None),
            (None, None) => return Ok(false),
        };
        Ok(true)
    }
}

/// Counts on over about `rows` rows; returns early, with true, when a pass is complete.
pub(super) fn recount(conn: &Connection, tally: &mut Tally, judge: &Judge, rows: usize) -> Result<bool, StoreError> {
    tally.tell_pass();
    let mut left = rows.max(1);
    while left > 0 {
        let Some(mut job) = tally.pass.job.take() else {
            if !next_job(conn, tally, judge)? {
                tally.pass = Pass::default();
                return Ok(true);
            }
            left -= 1;
            continue;
        };
        let (seen, complete) = match &mut job {
            Job::Queue(count) => count_queue(conn, count, left)?,
            Job::Dead { after, total } => count_dead(conn, after, total, left)?,
        };
        left = left.saturating_sub(seen);
        match job {
            Job::Queue(count) if complete => tally.settle(&count.key, count.total),
            Job::Dead { total, .. } if complete => tally.settle_dead(total),
            unfinished => tally.pass.job = Some(unfinished),
        }
    }
    Ok(false)
}

/// Finds what is to be counted next; false when the pass is complete.
fn next_job(conn: &Connection, tally: &mut Tally, judge: &Judge) -> Result<bool, StoreError> {
    while tally.pass.unmet.is_none() {
        let Some((lane, kind)) = next_queue(conn, tally.pass.met.as_ref())? else {
            let visited = &tally.pass.visited;
            let unmet = tally.queued.keys().filter(|key| !visited.contains(*key)).cloned().collect();
            tally.pass.unmet = Some(unmet);
            break;
        };
        let key = judge.key((&kind).into(), (&lane).into());
        tally.pass.met = Some((lane.clone(), kind.clone()));
        match key {
            Ok(key) if tally.pass.visited.insert(key.clone()) => {
                tally.pass.job = Some(Job::Queue(QueueCount::new(key, judge)));
                return Ok(true);
            }
            Ok(_) => {}
            // A blob is found by its own index.
            Err(_) => match (lane, kind) {
                (Value::Null, Value::Text(kind)) => drop(tally.suspects.insert((None, kind))),
                (Value::Text(lane), Value::Text(kind)) => drop(tally.suspects.insert((Some(lane), kind))),
                _ => {}
            },
        }
    }
    if let Some(key) = tally.pass.unmet.as_mut().and_then(Vec::pop) {
        tally.pass.job = Some(Job::Queue(QueueCount::new(key, judge)));
        return Ok(true);
    }
    if tally.pass.dead_counted {
        return Ok(false);
    }
    tally.pass.dead_counted = true;
    tally.pass.job = Some(Job::Dead { after: 0, total: 0 });
    Ok(true)
}

/// The queue behind `met` in the order of the index, found by seeking, not by reading on.
fn next_queue(conn: &Connection, met: Option<&(Value, Value)>) -> Result<Option<(Value, Value)>, StoreError> {
    let in_lane = match met {
        None => seek(conn, FIRST_KIND, &[&Value::Null])?.map(|kind| (Value::Null, kind)),
        Some((lane, kind)) => seek(conn, NEXT_KIND, &[lane, kind])?.map(|kind| (lane.clone(), kind)),
    };
    if in_lane.is_some() {
        return Ok(in_lane);
    }
    let lane = match met {
        None | Some((Value::Null, _)) => seek(conn, FIRST_LANE, &[])?,
        Some((lane, _)) => seek(conn, NEXT_LANE, &[lane])?,
    };
    let Some(lane) = lane else { return Ok(None) };
    Ok(seek(conn, FIRST_KIND, &[&lane])?.map(|kind| (lane, kind)))
}

fn seek(conn: &Connection, sql: &str, args: &[&Value]) -> Result<Option<Value>, StoreError> {
    let args = rusqlite::params_from_iter(args);
    Ok(conn.prepare_cached(sql)?.query_row(args, |row| row.get(0)).optional()?)
}

fn seek_key(conn: &Connection, sql: &str, args: &[&dyn ToSql]) -> Result<Option<RawKey>, StoreError> {
    Ok(conn.prepare_cached(sql)?.query_row(args, |row| row.get(0)).optional()?)
}

const FIRST_KEY: &str = "SELECT fair_key FROM tasks INDEXED BY tasks_queue \
    WHERE state = 'queued' AND lane IS ?1 AND kind = ?2 AND fair_key >= '' ORDER BY fair_key LIMIT 1";
const NEXT_KEY: &str = "SELECT fair_key FROM tasks INDEXED BY tasks_queue \
    WHERE state = 'queued' AND lane IS ?1 AND kind = ?2 AND fair_key > ?3 ORDER BY fair_key LIMIT 1";
const FIRST_KIND: &str = "SELECT kind FROM tasks INDEXED BY tasks_queue \
    WHERE state = 'queued' AND lane IS ?1 AND kind >= '' ORDER BY kind LIMIT 1";
const NEXT_KIND: &str = "SELECT kind FROM tasks INDEXED BY tasks_queue \
    WHERE state = 'queued' AND lane IS ?1 AND kind > ?2 ORDER BY kind LIMIT 1";
const FIRST_LANE: &str = "SELECT lane FROM tasks INDEXED BY tasks_queue \
    WHERE state = 'queued' AND lane >= '' ORDER BY lane LIMIT 1";
const NEXT_LANE: &str = "SELECT lane FROM tasks INDEXED BY tasks_queue \
    WHERE state = 'queued' AND lane > ?1 ORDER BY lane LIMIT 1";

/// Gives how many rows were seen and whether the count is complete.
fn count_queue(conn: &Connection, count: &mut QueueCount, rows: usize) -> Result<(usize, bool), StoreError> {
    let mut seen = 0;
    loop {
        let n = count_part(conn, count.key.kind.as_str(), &mut count.part, rows - seen)?;
        seen += n;
        count.total += i64::try_from(n).unwrap_or(i64::MAX);
        if seen == rows {
            return Ok((seen, false));
        }
        if !count.go_on(conn)? {
            return Ok((seen, true));
        }
    }
}

/// Reads on in one part, index entries only. Fewer than `rows` means that the part is complete.
fn count_part(conn: &Connection, kind: &str, part: &mut Part, rows: usize) -> Result<usize, StoreError> {
    const AT_ONCE: &str = "SELECT NULL, id FROM tasks INDEXED BY tasks_queue \
                           WHERE state = 'queued' AND lane IS ?1 AND kind = ?2 AND fair_key IS ?6 AND run_at IS ?3 AND id > ?4 \
                           ORDER BY id LIMIT ?5";
    const SAME_TIME: &str = "SELECT run_at, id FROM tasks INDEXED BY tasks_queue \
                             WHERE state = 'queued' AND lane IS ?1 AND kind = ?2 AND fair_key IS ?6 AND run_at = ?3 AND id > ?4 \
                             ORDER BY id LIMIT ?5";
    const LATER: &str = "SELECT run_at, id FROM tasks INDEXED BY tasks_queue \
                         WHERE state = 'queued' AND lane IS ?1 AND kind = ?2 AND fair_key IS ?5 AND run_at > ?3 \
                         ORDER BY run_at, id LIMIT ?4";
    let read = |sql: &str, part: &mut Part, rows: usize, with_id: bool| -> Result<usize, StoreError> {
        let limit = i64::try_from(rows).unwrap_or(i64::MAX);
        let mut statement = conn.prepare_cached(sql)?;
        let mut found = if with_id {
            statement.query(params![part.lane, kind, part.run_at, part.id, limit, part.key])?
        } else {
            statement.query(params![part.lane, kind, part.run_at, limit, part.key])?
        };
        let mut seen = 0;
        let mut last = None;
        while let Some(row) = found.next()? {
            seen += 1;
            last = Some((row.get(0)?, row.get(1)?));
        }
        if let Some((run_at, id)) = last {
            (part.run_at, part.id) = (run_at, id);
        }
        Ok(seen)
    };
    if !part.delayed {
        return read(AT_ONCE, part, rows, true);
    }
    let same = read(SAME_TIME, part, rows, true)?;
    if same == rows {
        return Ok(same);
    }
    Ok(same + read(LATER, part, rows - same, false)?)
}

fn count_dead(conn: &Connection, after: &mut i64, total: &mut i64, rows: usize) -> Result<(usize, bool), StoreError> {
    const DEAD: &str = "SELECT id FROM tasks INDEXED BY tasks_marked \
                        WHERE state = 'dead' AND id > ?1 ORDER BY id LIMIT ?2";
    let mut statement = conn.prepare_cached(DEAD)?;
    let mut found = statement.query(params![*after, i64::try_from(rows).unwrap_or(i64::MAX)])?;
    let mut seen = 0;
    while let Some(row) = found.next()? {
        seen += 1;
        *after = row.get(0)?;
    }
    *total += i64::try_from(seen).unwrap_or(i64::MAX);
    Ok((seen, seen < rows))
}
