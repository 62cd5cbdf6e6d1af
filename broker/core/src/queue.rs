//! One queue: the tasks of one lane and kind that are read ahead and not handed out. A read-ahead, not a state: its
//! rows are `queued` in the table, and are.

use std::collections::BTreeMap;

use laneway_protocol::{Payload, TaskId};

use crate::dispatch::ClassId;
use crate::event::QueuedTask;
use crate::limits::WINDOW_SHARE;
use crate::time::UnixMillis;

/// First in, first out by due time and id.
type Line = BTreeMap<(UnixMillis, TaskId), QueuedTask>;

/// How far one queue is read ahead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) rows_min: usize,
    pub(crate) rows_max: usize,
    pub(crate) bytes_max: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    tasks: Line,
    /// Tasks that lost a worker: handed out alone, one for each process.
    suspects: Line,
    bytes: usize,
    /// Due rows are left in the table, or may be: the last demand is not answered yet.
    more: bool,
    /// Rows asked for and not yet given. While it is not 0 the store tells of every row that turns up.
    demanded: usize,
    /// Who can run these tasks.
    pub(crate) classes: Vec<ClassId>,
    /// Tasks that the slots of those classes take at once.
    capacity: usize,
}

impl Queue {
    pub(crate) fn push(&mut self, task: QueuedTask) {
        self.bytes += size(&task);
        let line = if task.losses > 0 { &mut self.suspects } else { &mut self.tasks };
        if let Some(old) = line.insert((task.due, task.id), task) {
            self.bytes -= size(&old);
        }
    }

    pub(crate) fn take(&mut self, due: UnixMillis, id: TaskId) -> Option<QueuedTask> {
        let task = self.tasks.remove(&(due, id)).or_else(|| self.suspects.remove(&(due, id)))?;
        self.bytes -= size(&task);
        Some(task)
    }

    /// Somebody serves the queue now; what the table has for it is not known before the first load.
    pub(crate) fn open(&mut self) {
        self.more = true;
    }

    /// Nobody serves the queue any more: gives back what was read ahead.
    pub(crate) fn clear(&mut self) -> Vec<TaskId> {
        let ids = self.ids().collect();
        (self.tasks, self.suspects) = (Line::new(), Line::new());
        (self.bytes, self.more, self.demanded) = (0, false, 0);
        ids
    }

    /// A load arrived with `rows` rows.
    pub(crate) fn loaded(&mut self, rows: usize, more: bool) {
        self.more = more;
        // A load that says more ends its demand; one that does not leaves the rest of it open.
        self.demanded = if more { 0 } else { self.demanded.saturating_sub(rows) };
    }

    pub(crate) fn add_capacity(&mut self, tasks: usize) {
        self.capacity += tasks;
    }

    pub(crate) fn remove_capacity(&mut self, tasks: usize) {
        self.capacity -= tasks;
    }

    /// How many rows to ask for now: refilled under half, to twice what the slots can take. Suspects do not count, for
    /// they leave one at a time and would keep the tasks behind them out.
    pub(crate) fn next_demand(&mut self, window: Window) -> Option<usize> {
        let target = (WINDOW_SHARE * self.capacity).max(window.rows_min).min(window.rows_max);
        let enough = self.tasks.len() + self.demanded >= (target / 2).max(1);
        if self.capacity == 0 || enough || self.bytes > window.bytes_max / 2 || self.is_full_of_suspects(window) {
            return None;
        }
        // Without an open demand the store did not tell what turned up meanwhile.
        self.more |= self.demanded == 0;
        self.demanded = target - self.tasks.len();
        Some(self.demanded)
    }

    pub(crate) fn first(&self) -> Option<(UnixMillis, TaskId)> {
        self.tasks.first_key_value().map(|(&key, _)| key)
    }

    pub(crate) fn first_suspect(&self) -> Option<(UnixMillis, TaskId)> {
        self.suspects.first_key_value().map(|(&key, _)| key)
    }

    /// Empty here but perhaps not in the table: no lower lane may be served before the next load.
    pub(crate) fn refill_pending(&self, window: Window) -> bool {
        self.more && self.tasks.is_empty() && !self.is_full_of_suspects(window)
    }

    pub(crate) fn len(&self) -> usize {
        self.tasks.len() + self.suspects.len()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = TaskId> {
        self.tasks.keys().chain(self.suspects.keys()).map(|&(_, id)| id)
    }

    pub(crate) fn check(&self, window: Window) {
        let bytes: usize = self.tasks.values().chain(self.suspects.values()).map(size).sum();
        assert_eq!(bytes, self.bytes, "bytes of the read-ahead");
        assert!(
            !self.refill_pending(window) || self.demanded > 0 || self.capacity == 0,
            "a refill is pending, not asked for"
        );
        assert!(self.tasks.values().all(|task| task.losses == 0) && self.suspects.values().all(|task| task.losses > 0));
        assert_eq!(self.classes.is_empty(), self.capacity == 0, "a queue has capacity while it is served");
    }

    /// So many suspects that nothing behind them is read ahead; lower lanes do not wait for them.
    fn is_full_of_suspects(&self, window: Window) -> bool {
        self.tasks.is_empty() && (self.suspects.len() >= window.rows_max || self.bytes > window.bytes_max / 2)
    }
}

fn size(task: &QueuedTask) -> usize {
    let bytes = |payload: &Option<Payload>| payload.as_ref().map_or(0, |payload| payload.bytes.len());
    bytes(&task.payload) + bytes(&task.checkpoint)
}
