//! From rows to the read-ahead: intake looks at what came in behind a watermark of ids, load reads the head of one queue.
//! Both reject what makes no sense on the way, so that no bad row is ever handed out, wherever it came from.

use std::collections::VecDeque;

use laneway_core::{Now, QueueKey, QueuedTask, UnixMillis};
use laneway_protocol::{FairKey, TaskId};
use rusqlite::types::{Type, ValueRef};
use rusqlite::{Connection, Row, Statement, params};

use super::dependencies::resolve;
use super::news::{Told, earliest};
use super::sweep::{End, end_unstarted, reject};
use super::turns::by_turns;
use super::{State, row};
use crate::store::dependencies::EDGES_PER_TURN;
use crate::store::fair::RawKey;
use crate::store::validate::{Bad, Good, Judge, Values};
use crate::store::{Intake, Load, LoadedRows, StoreError};

/// Times that one load goes back for more because rows that it found made no sense.
const ROUNDS_MAX: usize = 4;

// -------------------------------------------------------------------------------------------------------------- intake

/// Columns that [`values`] reads, from a given place on.
pub(super) const VALUES: &str = "run_at, created_at, runs, attempts, losses, max_attempts, timeout_ms, expires_at, \
                                 unique_key, trace, fair_key, typeof(payload), octet_length(payload)";
pub(super) const N_VALUES: usize = 13;

pub(super) fn values<'a>(row: &'a Row<'_>, from: usize) -> rusqlite::Result<Values<'a>> {
    Ok(Values {
        run_at: row.get_ref(from)?,
        created_at: row.get_ref(from + 1)?,
        runs: row.get_ref(from + 2)?,
        attempts: row.get_ref(from + 3)?,
        losses: row.get_ref(from + 4)?,
        max_attempts: row.get_ref(from + 5)?,
        timeout_ms: row.get_ref(from + 6)?,
        expires_at: row.get_ref(from + 7)?,
        unique_key: row.get_ref(from + 8)?,
        trace: row.get_ref(from + 9)?,
        fair_key: row.get_ref(from + 10)?,
        payload_type: match row.get_ref(from + 11)? {
            ValueRef::Text(b"text") => Type::Text,
            ValueRef::Text(b"blob") => Type::Blob,
            ValueRef::Text(b"null") => Type::Null,
            ValueRef::Text(b"real") => Type::Real,
            _ => Type::Integer,
        },
        payload_bytes: row::unsigned(row.get_ref(from + 12)?).and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
    })
}

pub(super) fn intake(conn: &Connection, state: &mut State, rows: usize, now: Now) -> Result<Intake, StoreError> {
    let mut found = Intake::default();
    let mut bad = Vec::new();
    moved(conn, state, rows, now)?;
    let Told { mut due, mut later, mut turns, mut turns_later } = state.news.tell();
    let mut keys = LastKey::default();
    {
        let sql = const_sql::INTAKE;
        let mut statement = conn.prepare_cached(sql)?;
        let limit = i64::try_from(rows).unwrap_or(i64::MAX);
        let mut read = statement.query(params![state.news.watermark(), limit])?;
        while let Some(row) = read.next()? {
            found.rows += 1;
            let id: i64 = row.get(0)?;
            state.news.looked_at(id);
            match look(row, &state.judge, &mut keys) {
                Look::Queued(key, good, fair_key) => {
                    let at = good.run_at.filter(|at| *at > now.wall);
                    state.awake.told(&key, fair_key.as_ref(), at);
                    if fair_key.is_some() || state.rounds.knows(&key) {
                        match at {
                            Some(at) => drop(turns_later.insert((at, key.clone(), fair_key))),
                            None => drop(turns.insert((key.clone(), fair_key))),
                        }
                    }
                    state.tally.queued(key.clone(), id, good.run_at.is_some());
                    match at {
                        Some(at) => earliest(&mut later, key, at),
                        None if due.contains(&key) => {}
                        None => drop(due.insert(key)),
                    }
                }
                Look::Bad(reason, key) => {
                    // Counted like any queued row, as the rejection takes it out again.
                    if let Some(key) = key {
                        state.tally.queued(key, id, false);
                    }
                    bad.push((id, reason));
                }
                Look::Waiting => state.dependencies.waits(id),
                Look::Elsewhere => {}
            }
        }
    }
    for (id, reason) in bad {
        found.rejected.extend(reject(conn, state, id, &reason, now)?);
    }
    found.rejected.extend(resolve(conn, state, EDGES_PER_TURN, now)?);
    let let_go = state.news.tell();
    due.extend(let_go.due);
    for (key, at) in let_go.later {
        earliest(&mut later, key, at);
    }
    turns.extend(let_go.turns);
    turns_later.extend(let_go.turns_later);
    found.turns = turns.into_iter().collect();
    found.turns_later = turns_later.into_iter().collect();
    // In an order that does not change from one run to the next: what is marked first is read first.
    found.due = due.into_iter().collect();
    found.due.sort_unstable();
    found.later = later.into_iter().collect();
    found.let_go = state.dependencies.tell();
    Ok(found)
}

/// Queued rows with keys that an UPDATE has put elsewhere are news, like rows that the store itself has queued. What makes no sense
/// is rejected when its turn comes.
fn moved(conn: &Connection, state: &mut State, rows: usize, now: Now) -> Result<(), StoreError> {
    let (mut n, mut last) = (0, None);
    let mut keys = LastKey::default();
    {
        let mut statement = conn.prepare_cached(const_sql::MOVED)?;
        let mut read = statement.query([i64::try_from(rows).unwrap_or(i64::MAX)])?;
        while let Some(row) = read.next()? {
            (n, last) = (n + 1, Some(row.get::<_, i64>(0)?));
            if let Look::Queued(key, good, fair_key) = look(row, &state.judge, &mut keys) {
                state.look_at(key, fair_key, good.run_at.filter(|at| *at > now.wall));
            }
        }
    }
    state.moved_more = n >= rows;
    if let Some(last) = last {
        conn.prepare_cached("DELETE FROM laneway_moved WHERE task <= ?1")?.execute([last])?;
    }
    Ok(())
}

/// What the intake makes of a row.
enum Look {
    Queued(QueueKey, Good, Option<FairKey>),
    /// With its queue, when it is in one.
    Bad(Bad, Option<QueueKey>),
    Waiting,
    /// In no queue.
    Elsewhere,
}

fn look(row: &Row<'_>, judge: &Judge, keys: &mut LastKey) -> Look {
    let cell = |column| row.get_ref(column).expect("the column is in the statement");
    let waits = match cell(3) {
        ValueRef::Text(b"queued") => false,
        ValueRef::Text(b"waiting") => true,
        _ => return Look::Elsewhere,
    };
    let key = match keys.key(judge, cell(1), cell(2)) {
        Ok(key) => key,
        Err(bad) => return Look::Bad(bad, None),
    };
    match judge.values(&values(row, 4).expect("the columns are in the statement")) {
        Ok(_) if waits => Look::Waiting,
        Ok(good) => Look::Queued(key, good, row::fair_key(cell(14))),
        Err(bad) => Look::Bad(bad, (!waits).then_some(key)),
    }
}

/// The queue of the row before: neighbours are mostly alike, and names are costly to make.
#[derive(Default)]
struct LastKey {
    kind: Vec<u8>,
    lane: Option<Vec<u8>>,
    key: Option<QueueKey>,
}

impl LastKey {
    fn key(&mut self, judge: &Judge, kind: ValueRef<'_>, lane: ValueRef<'_>) -> Result<QueueKey, Bad> {
        let text = |value| match value {
            ValueRef::Text(bytes) => Some(bytes),
            _ => None,
        };
        if let (Some(key), Some(kind)) = (&self.key, text(kind))
            && kind == self.kind
            && (matches!(lane, ValueRef::Null) || text(lane).is_some())
            && text(lane) == self.lane.as_deref()
        {
            return Ok(key.clone());
        }
        let key = judge.key(kind, lane)?;
        self.kind = text(kind).unwrap_or_default().to_vec();
        self.lane = text(lane).map(<[u8]>::to_vec);
        self.key = Some(key.clone());
        Ok(key)
    }
}

// ---------------------------------------------------------------------------------------------------------------- load

pub(super) fn load(conn: &Connection, state: &mut State, load: Load<'_>, now: Now) -> Result<LoadedRows, StoreError> {
    let mut loaded = LoadedRows::default();
    let mut bytes = 0;
    let saved = state.rounds.saved(load.key);
    for _ in 0..ROUNDS_MAX {
        if by_turns(conn, state, load, now, &mut loaded)? {
            break;
        }
        let ended_before = loaded.rejected.len();
        round(conn, state, load, now, &mut loaded, &mut bytes)?;
        if loaded.unfit {
            break;
        }
        let ended = loaded.rejected.len() > ended_before;
        if !(ended && loaded.more && loaded.tasks.len() < load.rows && bytes < load.bytes) {
            break;
        }
    }
    if loaded.unfit {
        state.rounds.restore(load.key, saved);
        return Ok(LoadedRows { unfit: true, ..LoadedRows::default() });
    }
    loaded.next_at = next_at(conn, &state.judge, load.key, now)?;
    Ok(loaded)
}

/// Rows that a load has met on its way and nobody is to have.
#[derive(Default)]
pub(super) struct Unfit {
    pub(super) bad: Vec<(i64, Bad)>,
    pub(super) ends: Vec<(i64, End)>,
}

impl Unfit {
    /// Ends them, or says that there are some.
    pub(super) fn reject(
        self,
        conn: &Connection,
        state: &mut State,
        now: Now,
        loaded: &mut LoadedRows,
    ) -> Result<(), StoreError> {
        if state.looks {
            loaded.unfit = !(self.bad.is_empty() && self.ends.is_empty());
            return Ok(());
        }
        for (id, reason) in self.bad {
            loaded.rejected.extend(reject(conn, state, id, &reason, now)?);
        }
        for (id, end) in self.ends {
            loaded.rejected.extend(end_unstarted(conn, state, id, end, now)?);
        }
        Ok(())
    }
}

/// What became of a row at the head.
pub(super) enum Head {
    Task(QueuedTask),
    Bad(i64, Bad),
    End(i64, End),
    /// It left the queue inside this very turn.
    Gone,
}

/// Merges the streams of the queue by due time and id, row by row, so that no payload is read in vain.
fn round(
    conn: &Connection,
    state: &mut State,
    load: Load<'_>,
    now: Now,
    loaded: &mut LoadedRows,
    bytes: &mut usize,
) -> Result<(), StoreError> {
    let mut streams = streams(conn, &state.judge, load, &loaded.tasks, now)?;
    let mut heads: Vec<Option<QueuedTask>> = Vec::new();
    let mut unfit = Unfit::default();
    let mut reader = conn.prepare_cached(const_sql::HEAD)?;
    let mut fetch = |stream: &mut Stream, unfit: &mut Unfit| {
        while let Some(id) = stream.ids.pop_front() {
            match head(&mut reader, &state.judge, id, now)? {
                Head::Task(task) => return Ok::<_, StoreError>(Some(task)),
                Head::Bad(id, reason) => unfit.bad.push((id, reason)),
                Head::End(id, end) => unfit.ends.push((id, end)),
                Head::Gone => {}
            }
        }
        Ok(None)
    };
    for stream in &mut streams {
        heads.push(fetch(stream, &mut unfit)?);
    }
    while loaded.tasks.len() < load.rows {
        let next =
            (0..heads.len()).filter(|&i| heads[i].is_some()).min_by_key(|&i| heads[i].as_ref().map(|t| (t.due, t.id)));
        let Some(i) = next else { break };
        let size = heads[i].as_ref().and_then(|task| task.payload.as_ref()).map_or(0, |payload| payload.bytes.len());
        if !loaded.tasks.is_empty() && *bytes + size > load.bytes {
            break;
        }
        *bytes += size;
        loaded.tasks.extend(heads[i].take());
        if loaded.tasks.len() < load.rows {
            heads[i] = fetch(&mut streams[i], &mut unfit)?;
        }
    }
    // A stream that was cut short has a row left, unless those that were read made no sense.
    loaded.more =
        heads.iter().any(Option::is_some) || streams.iter().any(|stream| stream.cut || !stream.ids.is_empty());
    drop(reader);
    unfit.reject(conn, state, now, loaded)
}

/// Part of a queue that the index holds in one order.
struct Stream {
    ids: VecDeque<i64>,
    /// There are more than `ids`.
    cut: bool,
}

/// Ids at the head of each stream, one more than asked for, read from the index alone. Rows without a lane belong to the
/// default lane of their kind; rows without `run_at` are due whatever the clocks say.
fn streams(
    conn: &Connection,
    judge: &Judge,
    load: Load<'_>,
    loaded: &[QueuedTask],
    now: Now,
) -> Result<Vec<Stream>, StoreError> {
    let skip = |id: i64| {
        let task = u64::try_from(id).ok().and_then(TaskId::new);
        task.is_none_or(|task| (load.skip)(task) || loaded.iter().any(|known| known.id == task))
    };
    let mut streams = Vec::with_capacity(4);
    for lane in lanes(judge, load.key) {
        for sql in [const_sql::AT_ONCE, const_sql::DUE] {
            let mut statement = conn.prepare_cached(sql)?;
            let mut stream = Stream { ids: VecDeque::new(), cut: false };
            let mut rows = statement.query(params![lane, load.key.kind.as_str(), now.wall.0, RawKey::None])?;
            while !stream.cut
                && let Some(row) = rows.next()?
            {
                match row.get(0)? {
                    id if skip(id) => {}
                    _ if stream.ids.len() > load.rows => stream.cut = true,
                    id => stream.ids.push_back(id),
                }
            }
            streams.push(stream);
        }
    }
    Ok(streams)
}

/// The lane as rows of this queue may spell it.
pub(super) fn lanes<'a>(judge: &Judge, key: &'a QueueKey) -> impl Iterator<Item = Option<&'a str>> + use<'a> {
    let default = judge.rules.lane_of(&key.kind) == &key.lane;
    std::iter::once(Some(key.lane.as_str())).chain(default.then_some(None))
}

pub(super) fn head(reader: &mut Statement<'_>, judge: &Judge, id: i64, now: Now) -> Result<Head, StoreError> {
    let payload_max = i64::try_from(judge.rules.payload_bytes_max).unwrap_or(i64::MAX);
    let mut rows = reader.query(params![id, payload_max])?;
    let Some(row) = rows.next()? else { return Ok(Head::Gone) };
    let good = match judge.values(&values(row, 0)?) {
        Ok(good) => good,
        Err(reason) => return Ok(Head::Bad(id, reason)),
    };
    if let Some(cause) = row::cancel_cause(row.get_ref(N_VALUES)?) {
        return Ok(Head::End(id, End::Cancelled(cause)));
    }
    if good.runs == 0 && good.expires_at.is_some_and(|at| at <= now.wall) {
        return Ok(Head::End(id, End::Expired));
    }
    Ok(Head::Task(QueuedTask {
        id: u64::try_from(id).ok().and_then(TaskId::new).expect("streams give no other ids"),
        due: good.run_at.unwrap_or(good.created_at),
        created_at: good.created_at,
        runs: good.runs,
        attempts: good.attempts,
        losses: good.losses,
        max_attempts: good.max_attempts,
        timeout_ms: good.timeout_ms,
        expires_at: good.expires_at,
        payload: row::payload(row.get_ref(N_VALUES + 1)?),
        checkpoint: row::payload(row.get_ref(N_VALUES + 2)?),
        trace: row::text(row.get_ref(9)?),
        fair_key: row::fair_key(row.get_ref(10)?),
        group: row::unsigned(row.get_ref(N_VALUES + 3)?),
    }))
}

fn next_at(conn: &Connection, judge: &Judge, key: &QueueKey, now: Now) -> Result<Option<UnixMillis>, StoreError> {
    let mut next: Option<UnixMillis> = None;
    for lane in lanes(judge, key) {
        // No row with a key is found by a plain queue at the cost of a look into an index that is empty.
        for sql in [const_sql::NEXT_AT, const_sql::NEXT_AT_OF_KEYS] {
            let mut statement = conn.prepare_cached(sql)?;
            let mut rows = statement.query(params![lane, key.kind.as_str(), now.wall.0])?;
            if let Some(row) = rows.next()? {
                let at = row::millis(row.get_ref(0)?);
                next = next.into_iter().chain(at).min();
            }
        }
    }
    Ok(next)
}

/// Statements that must not look at rows, each with the columns that its index is entered by.
#[cfg(test)]
pub(super) const PLANS: [(&str, &str); 3] = [
    (const_sql::AT_ONCE, "lane=? AND kind=? AND fair_key=? AND run_at=?"),
    (const_sql::DUE, "lane=? AND kind=? AND fair_key=? AND run_at<?"),
    (const_sql::NEXT_AT, "lane=? AND kind=? AND fair_key=? AND run_at>? AND run_at<?"),
];

/// The same for the index of rows with keys that are due later.
#[cfg(test)]
pub(super) const LATER_PLANS: [(&str, &str); 1] =
    [(const_sql::NEXT_AT_OF_KEYS, "lane=? AND kind=? AND run_at>? AND run_at<?")];

pub(super) mod const_sql {
    //! `values` fixes the order of the columns.

    pub(super) const INTAKE: &str = "SELECT id, kind, lane, state, \
        run_at, created_at, runs, attempts, losses, max_attempts, timeout_ms, expires_at, unique_key, trace, \
        fair_key, typeof(payload), octet_length(payload) \
        FROM tasks WHERE id > ?1 ORDER BY id LIMIT ?2";
    /// A row that is gone has no state.
    pub(super) const MOVED: &str = "SELECT moved.task, kind, lane, state, \
        run_at, created_at, runs, attempts, losses, max_attempts, timeout_ms, expires_at, unique_key, trace, \
        fair_key, typeof(payload), octet_length(payload) \
        FROM laneway_moved AS moved LEFT JOIN tasks ON tasks.id = moved.task ORDER BY moved.task LIMIT ?1";
    pub(in crate::store::sqlite) const AT_ONCE: &str = "SELECT id FROM tasks INDEXED BY tasks_queue \
        WHERE state = 'queued' AND lane IS ?1 AND kind = ?2 AND fair_key IS ?4 AND run_at IS NULL AND ?3 IS NOT NULL \
        ORDER BY id";
    pub(in crate::store::sqlite) const DUE: &str = "SELECT id FROM tasks INDEXED BY tasks_queue \
        WHERE state = 'queued' AND lane IS ?1 AND kind = ?2 AND fair_key IS ?4 AND run_at <= ?3 ORDER BY run_at, id";
    // Any text sorts behind every number, so the upper bound keeps rows of a wrong type out.
    pub(super) const NEXT_AT: &str = "SELECT run_at FROM tasks INDEXED BY tasks_queue \
        WHERE state = 'queued' AND lane IS ?1 AND kind = ?2 AND fair_key IS NULL AND run_at > ?3 AND run_at < 9.3e18 \
        ORDER BY run_at LIMIT 1";
    /// Of ended rows too, whose state the index does not have.
    pub(super) const NEXT_AT_OF_KEYS: &str = "SELECT run_at FROM tasks INDEXED BY tasks_fair_later \
        WHERE fair_key IS NOT NULL AND lane IS ?1 AND kind = ?2 AND run_at > ?3 AND run_at < 9.3e18 \
        ORDER BY run_at LIMIT 1";
    pub(in crate::store::sqlite) const HEAD: &str = "SELECT \
        run_at, created_at, runs, attempts, losses, max_attempts, timeout_ms, expires_at, unique_key, trace, \
        fair_key, typeof(payload), octet_length(payload), cancel_requested, \
        CASE WHEN octet_length(payload) <= ?2 THEN payload END, checkpoint, group_id \
        FROM tasks WHERE id = ?1 AND state = 'queued'";
}
