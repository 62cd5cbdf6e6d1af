//! Reading ahead by turns: a round robin by deficit over the fair keys of one queue, the same for every store. Each key in
//! turn gives as many rows as its weight; the next load goes on where this one stopped. So a key with a million rows holds
//! up nobody, and a load costs a look at each key that it comes by and a read for each row that it gives. It comes by no key but
//! those that may have due rows, which the store knows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Included, Unbounded};

use laneway_core::{QueueKey, QueuedTask};
use laneway_protocol::FairKey;
use rusqlite::types::{FromSql, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use super::{Load, LoadedRows, StoreError};

/// A fair key as rows have it, in the order of an index. What no task may have is there until its rows are rejected.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RawKey {
    /// Rows without a key are as one key.
    #[default]
    None,
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

/// Where the last load of a queue stopped: at this key, which may give so many more rows in this round.
#[derive(Debug, Clone, Default)]
pub(super) struct Cursor {
    key: RawKey,
    left: u32,
}

/// Queues that have rows with keys, as of their last load. Kept in memory: a start begins its rounds anew.
#[derive(Debug, Clone, Default)]
pub(super) struct Rounds(HashMap<QueueKey, Cursor>);

/// The rows of one queue.
pub(super) trait Rows {
    /// Whether a key has a due row, handed out or not.
    fn is_due(&mut self, key: &RawKey) -> Result<bool, StoreError>;

    /// The bytes of the next row that a key gives: due, fit, and not to be skipped. `None` when there is none. Rows that make
    /// no sense are rejected on the way.
    fn peek(&mut self, key: &RawKey) -> Result<Option<usize>, StoreError>;

    /// The row that was looked at.
    fn pop(&mut self, key: &RawKey) -> QueuedTask;
}

impl RawKey {
    pub(super) fn name(&self) -> Option<FairKey> {
        match self {
            Self::Text(bytes) => std::str::from_utf8(bytes).ok().and_then(|text| FairKey::new(text).ok()),
            Self::None | Self::Blob(_) => None,
        }
    }
}

impl From<ValueRef<'_>> for RawKey {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Text(bytes) => Self::Text(bytes.to_vec()),
            ValueRef::Blob(bytes) => Self::Blob(bytes.to_vec()),
            // The column's affinity makes every number a text.
            ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => Self::None,
        }
    }
}

impl FromSql for RawKey {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(value.into())
    }
}

impl ToSql for RawKey {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::None => ValueRef::Null,
            Self::Text(bytes) => ValueRef::Text(bytes),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl Rounds {
    /// Whether rows of the queue are read by turns.
    pub(super) fn knows(&self, queue: &QueueKey) -> bool {
        self.0.contains_key(queue)
    }

    pub(super) fn forget(&mut self, queue: &QueueKey) {
        self.0.remove(queue);
    }

    /// Where the last load of a queue stopped, if it is read by turns; for [`Rounds::restore`].
    pub(super) fn saved(&self, queue: &QueueKey) -> Option<Cursor> {
        self.0.get(queue).cloned()
    }

    /// As if no load had been since it was saved.
    pub(super) fn restore(&mut self, queue: &QueueKey, saved: Option<Cursor>) {
        match saved {
            Some(cursor) => drop(self.0.insert(queue.clone(), cursor)),
            None => self.forget(queue),
        }
    }

    pub(super) fn cursor(&mut self, queue: &QueueKey) -> &mut Cursor {
        if !self.0.contains_key(queue) {
            self.0.insert(queue.clone(), Cursor::default());
        }
        self.0.get_mut(queue).expect("just inserted")
    }
}

/// What is known of a key that a load came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// It may have more.
    Left,
    Dry,
}

/// One load.
struct Turns<'a, 'l, R> {
    rows: &'a mut R,
    cursor: &'a mut Cursor,
    load: Load<'l>,
    loaded: &'a mut LoadedRows,
    bytes: usize,
    lines: BTreeMap<RawKey, Line>,
}

/// The keys that a load has come by: of some there may be more, of the others there is nothing that it may give.
#[derive(Debug, Default)]
pub(super) struct Served {
    pub(super) left: Vec<RawKey>,
    pub(super) dry: Vec<RawKey>,
}

/// Reads the rows of one load. No key but those of `keys` has due rows; rows without a key are read anyway.
pub(super) fn load_by_turns<R: Rows>(
    rows: &mut R,
    cursor: &mut Cursor,
    keys: &BTreeSet<RawKey>,
    load: Load<'_>,
    loaded: &mut LoadedRows,
) -> Result<Served, StoreError> {
    let mut turns = Turns { rows, cursor, load, loaded, bytes: 0, lines: BTreeMap::new() };
    // Full before the first round was over, there may be keys that it did not come by.
    let more = match turns.first_round(keys)? {
        None => true,
        Some(order) => turns.more_rounds(&order)? && turns.lines.values().any(|line| *line == Line::Left),
    };
    let mut served = Served::default();
    for (key, line) in turns.lines {
        match line {
            Line::Left => served.left.push(key),
            Line::Dry => served.dry.push(key),
        }
    }
    (loaded.more, loaded.left) = (more, served.left.iter().map(RawKey::name).collect());
    Ok(served)
}

impl<R: Rows> Turns<'_, '_, R> {
    /// From behind the cursor round to it. Gives the keys that are open, in that order; `None` when the load is full.
    fn first_round(&mut self, keys: &BTreeSet<RawKey>) -> Result<Option<Vec<RawKey>>, StoreError> {
        let start = self.cursor.key.clone();
        let mut order = Vec::new();
        if self.cursor.left > 0 && !self.is_closed(&start) {
            let left = self.cursor.left;
            if self.serve(&start, left)? {
                return Ok(None);
            }
        }
        let behind = keys.range((Excluded(&start), Unbounded));
        let wrapped = keys.range((Unbounded, Included(&start)));
        for key in behind.chain([&RawKey::None]).chain(wrapped) {
            if self.is_closed(key) {
                if self.rows.is_due(key)? {
                    self.loaded.passed.extend(key.name());
                }
                continue;
            }
            order.push(key.clone());
            if self.serve(key, self.weight(key))? {
                return Ok(None);
            }
        }
        Ok(Some(order))
    }

    /// Round and round until the load is full, or nobody has anything.
    fn more_rounds(&mut self, order: &[RawKey]) -> Result<bool, StoreError> {
        loop {
            let given = self.loaded.tasks.len();
            for key in order {
                if self.lines.get(key) != Some(&Line::Dry) && self.serve(key, self.weight(key))? {
                    return Ok(true);
                }
            }
            if self.loaded.tasks.len() == given && self.lines.values().all(|line| *line == Line::Dry) {
                return Ok(false);
            }
        }
    }

    /// A key gives up to `rows` rows. Whether the load is full.
    fn serve(&mut self, key: &RawKey, rows: u32) -> Result<bool, StoreError> {
        for left in (1..=rows).rev() {
            if self.loaded.tasks.len() >= self.load.rows {
                return Ok(self.stop(key, left));
            }
            let Some(size) = self.rows.peek(key)? else {
                self.lines.insert(key.clone(), Line::Dry);
                return Ok(false);
            };
            if !self.loaded.tasks.is_empty() && self.bytes + size > self.load.bytes {
                return Ok(self.stop(key, left));
            }
            self.bytes += size;
            self.loaded.tasks.push(self.rows.pop(key));
            *self.cursor = Cursor { key: key.clone(), left: left - 1 };
        }
        self.lines.insert(key.clone(), Line::Left);
        Ok(false)
    }

    fn stop(&mut self, key: &RawKey, left: u32) -> bool {
        self.lines.insert(key.clone(), Line::Left);
        *self.cursor = Cursor { key: key.clone(), left };
        true
    }

    fn is_closed(&self, key: &RawKey) -> bool {
        key.name().is_some_and(|name| self.load.fair.closed.contains(&name))
    }

    fn weight(&self, key: &RawKey) -> u32 {
        match (key, key.name()) {
            (RawKey::None, _) => self.load.fair.weight_of(None),
            (_, Some(name)) => self.load.fair.weight_of(Some(&name)),
            (_, None) => 1,
        }
    }
}
