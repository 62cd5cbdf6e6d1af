//! What the next intake has to tell: how far it has looked, and which queues got work by the store's own hand. Kept back
//! until the turn that made it so is committed.

use std::collections::{BTreeSet, HashMap, HashSet};

use laneway_core::{Now, QueueKey, UnixMillis};
use laneway_protocol::FairKey;
use rusqlite::Connection;

use super::State;
use crate::store::StoreError;

/// Which rows the intake has looked at, and which queues got work by the store's own hand: submits, spawned tasks,
/// retries, releases, requeues. The next intake tells both.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Every row up to this id was looked at.
    watermark: i64,
    /// In the open turn.
    staged_watermark: Option<i64>,
    /// New rows since start, and those of the open turn.
    rows: u64,
    staged_rows: u64,
    untold: Told,
    staged: Vec<Staged>,
    /// The open turn's intake has told `untold`.
    told: bool,
}

/// What the next intake tells. Rows of queues that are read by turns are told with their keys as well.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    pub(super) due: HashSet<QueueKey>,
    pub(super) later: HashMap<QueueKey, UnixMillis>,
    pub(super) turns: BTreeSet<(QueueKey, Option<FairKey>)>,
    pub(super) turns_later: BTreeSet<(UnixMillis, QueueKey, Option<FairKey>)>,
}

/// One row that the store itself has put into a queue: at once, or at a time; with its key, and whether keys take turns there.
#[derive(Debug)]
struct Staged {
    queue: QueueKey,
    at: Option<UnixMillis>,
    takes_turns: bool,
    key: Option<FairKey>,
}

impl Told {
    fn add(&mut self, Staged { queue, at, takes_turns, key }: Staged) {
        match at {
            None if takes_turns => drop(self.turns.insert((queue.clone(), key))),
            Some(at) if takes_turns => drop(self.turns_later.insert((at, queue.clone(), key))),
            _ => {}
        }
        match at {
            None => drop(self.due.insert(queue)),
            Some(at) => earliest(&mut self.later, queue, at),
        }
    }
}

impl News {
    pub(super) fn start_behind(&mut self, conn: &Connection) -> Result<(), StoreError> {
        self.watermark = newest_id(conn)?;
        Ok(())
    }

    pub(super) fn commit(&mut self) {
        if std::mem::take(&mut self.told) {
            self.untold = Told::default();
        }
        if let Some(watermark) = self.staged_watermark.take() {
            self.watermark = watermark;
        }
        self.rows += std::mem::take(&mut self.staged_rows);
        for row in self.staged.drain(..) {
            self.untold.add(row);
        }
    }

    pub(super) fn rollback(&mut self) {
        self.staged_watermark = None;
        self.staged_rows = 0;
        self.staged.clear();
        self.told = false;
    }

    pub(super) fn watermark(&self) -> i64 {
        self.staged_watermark.unwrap_or(self.watermark)
    }

    /// The intake has looked at this row.
    pub(super) fn looked_at(&mut self, id: i64) {
        self.staged_watermark = Some(id);
        self.staged_rows += 1;
    }

    /// New rows since start, as of the last commit.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Everything since the last intake, the open turn included; forgotten when the turn commits.
    pub(super) fn tell(&mut self) -> Told {
        let told = std::mem::replace(&mut self.told, true);
        let mut all = if told { Told::default() } else { self.untold.clone() };
        for row in self.staged.drain(..) {
            all.add(row);
        }
        all
    }
}

impl State {
    /// The store itself has put a row into a queue.
    pub(super) fn queued(
        &mut self,
        key: QueueKey,
        id: i64,
        fair_key: Option<FairKey>,
        run_at: Option<UnixMillis>,
        now: Now,
    ) {
        // Rows ahead of the watermark are counted when the intake gets there.
        if id <= self.news.watermark() {
            self.tally.queued(key.clone(), id, run_at.is_some());
        }
        self.stage(key, fair_key, run_at.filter(|at| *at > now.wall));
    }

    fn stage(&mut self, queue: QueueKey, key: Option<FairKey>, at: Option<UnixMillis>) {
        let takes_turns = key.is_some() || self.rounds.knows(&queue);
        self.awake.told(&queue, key.as_ref(), at);
        self.news.staged.push(Staged { queue, at, takes_turns, key });
    }

    /// A queue may have a row that nobody has told of, due now or at a time to come.
    pub(super) fn look_at(&mut self, key: QueueKey, fair_key: Option<FairKey>, later: Option<UnixMillis>) {
        self.stage(key, fair_key, later);
    }

    /// The store itself has inserted a row.
    pub(super) fn inserted(
        &mut self,
        key: QueueKey,
        id: i64,
        fair_key: Option<FairKey>,
        run_at: Option<UnixMillis>,
        now: Now,
    ) {
        // Ids are given out in order: the one behind the watermark proves that no app's row lies between.
        if id == self.news.watermark() + 1 {
            self.news.looked_at(id);
        }
        self.queued(key, id, fair_key, run_at, now);
    }

    /// The store itself has inserted a row that waits for others.
    pub(super) fn inserted_waiting(&mut self, id: i64) {
        if id == self.news.watermark() + 1 {
            self.news.looked_at(id);
        }
        self.dependencies.waits(id);
    }

    /// A row has left its queue.
    pub(super) fn unqueued(&mut self, key: QueueKey, id: i64) {
        if id <= self.news.watermark() {
            self.tally.unqueued(key, id);
        }
    }
}

pub(super) fn earliest(later: &mut HashMap<QueueKey, UnixMillis>, key: QueueKey, at: UnixMillis) {
    later.entry(key).and_modify(|known| *known = at.min(*known)).or_insert(at);
}

/// The highest id ever given out.
pub(super) fn newest_id(conn: &Connection) -> Result<i64, StoreError> {
    let sql = "SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'tasks'), 0), \
                          coalesce((SELECT max(id) FROM tasks), 0))";
    Ok(conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}
