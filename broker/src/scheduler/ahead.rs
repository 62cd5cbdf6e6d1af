//! Reading ahead: the heads of the queues that the router wants rows of, in a look after the turn, when apps may write. A head with
//! rows to be rejected is left to the next turn.

use std::collections::BTreeSet;

use laneway_core::{Event, Loaded, Now, QueueKey};
use laneway_protocol::FairKey;

use super::Scheduler;
use super::agenda::Demand;
use super::outlet::Told;
use super::turn::Found;
use crate::store::{Load, LoadedRows, Store, StoreError};

/// Queues read from in one look, and in one turn.
const LOADS_PER_TURN: usize = 512;

impl<S: Store> Scheduler<S> {
    /// Reads ahead what is due, and adds it to `work`.
    pub(super) fn look_ahead(&mut self, work: &mut Vec<Event>, now: Now) -> Result<(), StoreError> {
        if !self.agenda.is_busy() {
            return Ok(());
        }
        let mut found = Found { appeared: self.agenda.take_appeared(), ..Found::default() };
        let looked = self
            .store
            .look()
            .and_then(|()| self.load_due(&mut found, self.pace.turn_rows, now))
            .and_then(|()| self.store.end_look());
        if let Err(error) = looked {
            // What was taken from the agenda is to be found again.
            self.on_change();
            self.agenda.put_back_appeared();
            return Err(error);
        }
        self.agenda.appeared_told();
        work.extend(self.work(found.loaded, found.appeared));
        Ok(())
    }

    /// The same, told at once.
    pub(super) fn look_and_tell(&mut self, now: Now) -> Result<(), StoreError> {
        let mut work = Vec::new();
        let looked = self.look_ahead(&mut work, now);
        if !work.is_empty() {
            self.send(Told { work, only_new: true, ..Told::default() }, false)?;
        }
        looked
    }

    /// Reads up to `rows_left` rows of the queues that are due.
    pub(super) fn load_due(&mut self, found: &mut Found, mut rows_left: usize, now: Now) -> Result<(), StoreError> {
        for _ in 0..LOADS_PER_TURN {
            if rows_left == 0 {
                break;
            }
            let Some((key, mut demand)) = self.agenda.pop() else { break };
            demand.rows = demand.rows.min(rows_left);
            rows_left = rows_left.saturating_sub(self.load(key, demand, found, now)?);
        }
        Ok(())
    }

    /// Loads, in a turn, from the queues at whose heads a look has found rows to be rejected.
    pub(super) fn load_unfit(&mut self, found: &mut Found, now: Now) -> Result<(), StoreError> {
        for _ in 0..LOADS_PER_TURN {
            let Some(key) = self.unfit.pop_first() else { break };
            if let Some(demand) = self.agenda.demanded(&key) {
                self.load(key, demand, found, now)?;
            }
        }
        Ok(())
    }

    /// Gives how many rows were read.
    fn load(&mut self, key: QueueKey, demand: Demand, found: &mut Found, now: Now) -> Result<usize, StoreError> {
        let Demand { rows: wanted, fresh, fair } = demand;
        let skip = |task| self.out.contains_key(&task);
        let load = Load { key: &key, skip: &skip, rows: wanted, bytes: self.pace.window_bytes, fair: &fair };
        let LoadedRows { tasks, more, next_at, left, passed, rejected, unfit } = self.store.load(load, now)?;
        if unfit {
            self.unfit.insert(key);
            return Ok(0);
        }
        if let Some(at) = next_at {
            self.agenda.mark_at(key.clone(), at);
        }
        found.ended.extend(rejected);
        let rows = tasks.len();
        if rows > 0 || fresh || more || !passed.is_empty() {
            found.loaded.push(Loaded { key, tasks, more, left, passed });
        }
        Ok(rows)
    }

    /// The events about work that was found.
    pub(super) fn work(&mut self, loaded: Vec<Loaded>, appeared: BTreeSet<(QueueKey, Option<FairKey>)>) -> Vec<Event> {
        for loaded in &loaded {
            self.out.extend(loaded.tasks.iter().map(|task| (task.id, self.n_changes)));
            self.agenda.answered(loaded);
        }
        let mut work = Vec::new();
        if !loaded.is_empty() {
            work.push(Event::Loaded(loaded));
        }
        if !appeared.is_empty() {
            work.push(Event::Appeared(appeared.into_iter().collect()));
        }
        work
    }
}
