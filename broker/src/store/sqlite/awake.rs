//! Which fair keys of a queue may have rows that are due. A load looks at no others: tens of thousands that have rows for later
//! only, a reminder for each user, say, cost it nothing.
//!
//! A key is told when a row of it comes, comes back, or is moved by an UPDATE; rows whose time has come are found by their
//! times. What was there before is found on a pass over the keys in the index, in steps, which a queue's first load begins. After it
//! each load takes a few more steps, for what nobody tells: a row with an explicit id that is lower than others, a state
//! that somebody has written. Kept in memory, so a start begins with a pass.

use std::collections::{BTreeSet, HashMap};

use laneway_core::{QueueKey, UnixMillis};
use laneway_protocol::FairKey;

use crate::store::StoreError;
use crate::store::fair::RawKey;

/// Keys of one queue that are known at a time. Of more, those that were served make room.
const KEYS_MAX: usize = 65_536;
/// Keys that one load looks at on the first pass, and behind it.
const STEPS_AT_FIRST: usize = 4_096;
const STEPS: usize = 32;
/// Rows whose time has come that one load looks at; when there are more, a pass finds their keys.
pub(super) const RIPE_MAX: u32 = 4_096;

/// Queues that are read by turns.
#[derive(Debug, Default)]
pub(super) struct Awake(HashMap<QueueKey, Keys>);

/// Those of one queue, but for rows without a key, which are read without a look.
#[derive(Debug)]
pub(super) struct Keys {
    due: BTreeSet<RawKey>,
    /// Rows that were due by then have been told, found, or are yet to be passed.
    ripe_to: UnixMillis,
    pass: Pass,
}

/// A walk over the keys in the index.
#[derive(Debug, Default)]
struct Pass {
    /// Where it stands.
    at: RawKey,
    /// One from the first key to the last is over.
    is_over: bool,
    /// Something was left out behind it: it must be made once more.
    again: bool,
}

/// What the index says of one queue.
pub(super) trait Index {
    /// The first key behind this one, and whether it has a due row.
    fn next_key(&self, after: &RawKey) -> Result<Option<(RawKey, bool)>, StoreError>;

    /// Whether a key has a due row, handed out or not.
    fn is_due(&self, key: &RawKey) -> Result<bool, StoreError>;

    /// Keys of rows that became due behind `from`; at most [`RIPE_MAX`] rows are looked at.
    fn ripe(&self, from: UnixMillis) -> Result<Vec<RawKey>, StoreError>;
}

impl Awake {
    /// A row of this key is due, or will be then.
    pub(super) fn told(&mut self, queue: &QueueKey, key: Option<&FairKey>, later: Option<UnixMillis>) {
        let (Some(keys), Some(key)) = (self.0.get_mut(queue), key) else { return };
        match later {
            None => keys.wake(RawKey::Text(key.as_str().as_bytes().to_vec())),
            // The look at what has become due must not begin behind it, wherever the clock was.
            Some(at) => keys.ripe_to = keys.ripe_to.min(UnixMillis(at.0.saturating_sub(1))),
        }
    }

    /// Rows stand in other queues now.
    pub(super) fn look_anew(&mut self) {
        self.0.values_mut().for_each(Keys::look_anew);
    }

    pub(super) fn forget(&mut self, queue: &QueueKey) {
        self.0.remove(queue);
    }

    pub(super) fn of(&mut self, queue: &QueueKey, now: UnixMillis) -> &mut Keys {
        if !self.0.contains_key(queue) {
            let keys = Keys { due: BTreeSet::new(), ripe_to: now, pass: Pass::default() };
            self.0.insert(queue.clone(), keys);
        }
        self.0.get_mut(queue).expect("just inserted")
    }
}

impl Keys {
    /// Those that may have due rows.
    pub(super) fn due(&self) -> &BTreeSet<RawKey> {
        &self.due
    }

    /// Whether there may be others that have some, and the next load finds more of them.
    pub(super) fn is_looking(&self) -> bool {
        !self.pass.is_over && !self.is_full()
    }

    /// Looks for more, before a load of so many rows.
    pub(super) fn find(&mut self, index: &impl Index, rows: usize, now: UnixMillis) -> Result<(), StoreError> {
        // After a clock that went back its times come again.
        self.ripe_to = self.ripe_to.min(now);
        let ripe = index.ripe(self.ripe_to)?;
        if ripe.len() >= RIPE_MAX as usize {
            self.look_anew();
        }
        for key in ripe {
            self.wake(key);
        }
        self.ripe_to = now;
        self.walk(index, rows)
    }

    /// A load has met nothing of `dry`, and has left some of `left` behind.
    pub(super) fn served(&mut self, index: &impl Index, dry: Vec<RawKey>, left: Vec<RawKey>) -> Result<(), StoreError> {
        for key in dry {
            // Rows that are read ahead or handed out may come back without a word.
            if self.due.contains(&key) && !index.is_due(&key)? {
                self.due.remove(&key);
            }
        }
        if self.is_full() {
            for key in left {
                self.pass.again |= self.due.remove(&key);
            }
            self.pass.is_over &= !self.pass.again;
        }
        Ok(())
    }

    fn walk(&mut self, index: &impl Index, rows: usize) -> Result<(), StoreError> {
        let steps = if self.pass.is_over { STEPS } else { STEPS_AT_FIRST };
        let mut found = 0;
        for _ in 0..steps {
            if found >= rows + STEPS || self.is_full() {
                break;
            }
            let Some((key, is_due)) = index.next_key(&self.pass.at)? else {
                self.pass = Pass { is_over: !self.pass.again, ..Pass::default() };
                break;
            };
            if is_due {
                found += usize::from(self.due.insert(key.clone()));
            }
            self.pass.at = key;
        }
        Ok(())
    }

    fn wake(&mut self, key: RawKey) {
        if !self.is_full() {
            self.due.insert(key);
        } else if !self.due.contains(&key) {
            (self.pass.is_over, self.pass.again) = (false, true);
        }
    }

    fn look_anew(&mut self) {
        self.pass = Pass::default();
    }

    fn is_full(&self) -> bool {
        self.due.len() >= KEYS_MAX
    }
}
