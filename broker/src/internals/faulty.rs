//! A store that fails when it is told to: busy, full, or at the sync of a commit.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use laneway_core::{Now, Op, OpResult};
use laneway_protocol::TaskId;
use laneway_protocol::message::Final;

use super::table::{Durable, Table};
use crate::store::log_sync::LogSync;
use crate::store::{
    Fired, Intake, Load, LoadedRows, Opened, Pruned, Retention, Store, StoreError, Swept, Sync, Unstarted,
};

/// What goes wrong while it is set, and what was committed. Shared by whoever sets it and the store.
#[derive(Debug, Clone, Default)]
pub struct Faults(Rc<RefCell<State>>);

#[derive(Debug, Default)]
struct State {
    locked: bool,
    full: bool,
    sync_fails: bool,
    /// Of the last commit since it was asked for: whether it was synced.
    committed: Option<bool>,
    /// What a commit wrote whose sync failed: a crash may bring it to light.
    half_written: Option<Durable>,
}

impl Faults {
    /// Another process holds the write lock.
    pub fn set_locked(&self, on: bool) {
        self.0.borrow_mut().locked = on;
    }

    /// No room on the disk for a write.
    pub fn set_full(&self, on: bool) {
        self.0.borrow_mut().full = on;
    }

    /// A commit fails at the very end, when its sync does.
    pub fn set_sync_fails(&self, on: bool) {
        self.0.borrow_mut().sync_fails = on;
    }

    /// Whether something was committed since the last call, and whether that is synced.
    pub fn take_committed(&self) -> Option<bool> {
        self.0.borrow_mut().committed.take()
    }

    /// What a commit wrote since the last call whose sync failed.
    pub fn take_half_written(&self) -> Option<Durable> {
        self.0.borrow_mut().half_written.take()
    }
}

/// See the file's head.
pub(super) struct Faulty {
    store: Box<dyn Store>,
    faults: Faults,
    /// The table on memory inside, of which a copy shows what a turn has written.
    memory: Option<Table>,
    sync: Sync,
}

impl Faulty {
    pub(super) fn new(store: Box<dyn Store>, faults: Faults, memory: Option<Table>) -> Self {
        Self { store, faults, memory, sync: Sync::Process }
    }

    fn write(&self) -> Result<(), StoreError> {
        let full = self.faults.0.borrow().full;
        if full { Err(StoreError::Unavailable("database or disk is full".into())) } else { Ok(()) }
    }
}

impl Store for Faulty {
    fn open_epoch(&mut self, secret: [u8; 16], now: Now) -> Result<Opened, StoreError> {
        self.write()?;
        self.store.open_epoch(secret, now)
    }

    fn close_epoch(&mut self, now: Now) -> Result<(), StoreError> {
        self.write()?;
        self.store.close_epoch(now)
    }

    fn changed(&mut self) -> Result<bool, StoreError> {
        self.store.changed()
    }

    fn begin(&mut self, sync: Sync) -> Result<(), StoreError> {
        if self.faults.0.borrow().locked {
            return Err(StoreError::Locked);
        }
        self.sync = sync;
        self.store.begin(sync)
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        if self.faults.0.borrow().sync_fails {
            self.faults.0.borrow_mut().half_written = self.memory.as_ref().map(Table::copy);
            return Err(StoreError::Unavailable("disk I/O error".into()));
        }
        self.store.commit()?;
        let mut faults = self.faults.0.borrow_mut();
        faults.committed = Some(self.sync == Sync::Power);
        // Whatever a failed commit left in the file is written over.
        faults.half_written = None;
        Ok(())
    }

    fn look(&mut self) -> Result<(), StoreError> {
        self.store.look()
    }

    fn end_look(&mut self) -> Result<(), StoreError> {
        self.store.end_look()
    }

    fn log_sync(&self) -> Option<LogSync> {
        // A commit is synced or fails as a whole here, without a thread.
        None
    }

    fn rollback(&mut self) {
        self.store.rollback();
    }

    fn apply(&mut self, ops: &[Op], now: Now) -> Result<Vec<Option<OpResult>>, StoreError> {
        self.write()?;
        self.store.apply(ops, now)
    }

    fn intake(&mut self, rows: usize, now: Now) -> Result<Intake, StoreError> {
        self.store.intake(rows, now)
    }

    fn load(&mut self, load: Load<'_>, now: Now) -> Result<LoadedRows, StoreError> {
        self.store.load(load, now)
    }

    fn sweep(&mut self, rows: usize, now: Now) -> Result<Swept, StoreError> {
        self.write()?;
        self.store.sweep(rows, now)
    }

    fn endings(&mut self, tasks: &[TaskId]) -> Result<Vec<(TaskId, Option<Final>)>, StoreError> {
        self.store.endings(tasks)
    }

    fn prune(
        &mut self,
        retention: &Retention,
        watched: &BTreeSet<TaskId>,
        rows: usize,
        now: Now,
    ) -> Result<Pruned, StoreError> {
        self.write()?;
        self.store.prune(retention, watched, rows, now)
    }

    fn fire(&mut self, slots: usize, now: Now) -> Result<Fired, StoreError> {
        self.write()?;
        self.store.fire(slots, now)
    }

    fn recount(&mut self, rows: usize) -> Result<bool, StoreError> {
        self.store.recount(rows)
    }

    fn is_behind(&self) -> bool {
        self.store.is_behind()
    }

    fn recheck(&mut self, edges: usize, now: Now) -> Result<(Vec<Unstarted>, bool), StoreError> {
        self.write()?;
        self.store.recheck(edges, now)
    }
}
