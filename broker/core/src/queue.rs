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

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { rows_min: 32, rows_max: 64, bytes_max: 1_000 };

    /// A queue of slots that take `capacity` tasks at once, with its first demand asked for.
    fn served(capacity: usize) -> Queue {
        let mut queue = Queue::default();
        queue.open();
        assert!(queue.refill_pending(WINDOW), "what the table has is not known");
        queue.add_capacity(capacity);
        assert!(queue.next_demand(WINDOW).is_some() && queue.refill_pending(WINDOW));
        queue
    }

    fn task(id: u64, losses: u32, bytes: usize) -> QueuedTask {
        QueuedTask {
            id: TaskId::new(id).unwrap(),
            due: UnixMillis(1),
            created_at: UnixMillis(1),
            runs: losses,
            attempts: 0,
            losses,
            max_attempts: None,
            timeout_ms: None,
            expires_at: None,
            payload: Some(Payload::bin(vec![0; bytes / 2])),
            checkpoint: Some(Payload::bin(vec![0; bytes - bytes / 2])),
            trace: None,
        }
    }

    /// What one load brings: `n` tasks from id 1, or suspects from id 1,001.
    fn load(queue: &mut Queue, tasks: u64, suspects: u64, more: bool) {
        queue.loaded(usize::try_from(tasks + suspects).unwrap(), more);
        (1..=tasks).for_each(|id| queue.push(task(id, 0, 0)));
        (1..=suspects).for_each(|id| queue.push(task(1_000 + id, 1, 0)));
    }

    fn take(queue: &mut Queue, id: u64) {
        assert_eq!(queue.take(UnixMillis(1), TaskId::new(id).unwrap()).unwrap().id.value(), id);
    }

    #[test]
    fn so_much_is_read_ahead_that_the_slots_do_not_run_dry() {
        // Eight times what they take at once, within the bounds of the window; nothing when nobody is there.
        for (capacity, expected) in
            [(0, None), (1, Some(32)), (4, Some(32)), (5, Some(40)), (8, Some(64)), (9, Some(64))]
        {
            let mut queue = Queue::default();
            queue.add_capacity(capacity);
            assert_eq!(queue.next_demand(WINDOW), expected, "{capacity} at once");
            assert_eq!(queue.next_demand(WINDOW), None, "it is asked for");
        }
        let mut queue = Queue::default();
        queue.add_capacity(3);
        queue.remove_capacity(3);
        assert_eq!(queue.next_demand(WINDOW), None);
        assert_eq!(served(1).next_demand(Window { rows_max: 100, ..WINDOW }), None);
        let one = Window { rows_min: 1, rows_max: 1, bytes_max: 1_000 };
        let mut queue = Queue::default();
        queue.add_capacity(1);
        assert_eq!((queue.next_demand(one), queue.next_demand(one)), (Some(1), None), "a window of one row");
    }

    #[test]
    fn a_refill_is_asked_for_under_half() {
        // With 16 of 32 at hand there is enough. What an open demand may still bring counts as well.
        let mut queue = served(1);
        load(&mut queue, 32, 0, true);
        for id in 1..=16 {
            take(&mut queue, id);
            assert_eq!(queue.next_demand(WINDOW), None, "without {id}");
        }
        take(&mut queue, 17);
        assert_eq!(queue.next_demand(WINDOW), Some(17), "up to 32");
        let mut queue = served(1);
        load(&mut queue, 10, 0, false);
        (1..=10).for_each(|id| take(&mut queue, id));
        assert_eq!(queue.next_demand(WINDOW), None, "22 of the demand are open");
        load(&mut queue, 7, 0, false);
        (1..=7).for_each(|id| take(&mut queue, id));
        assert_eq!(queue.next_demand(WINDOW), Some(32), "15 are not enough");
    }

    #[test]
    fn bytes_over_half_the_window_keep_a_refill_back() {
        // The payload and the checkpoint of each task; they are given back with it, and when a newer copy takes its place.
        let mut queue = served(1);
        load(&mut queue, 0, 0, true);
        queue.push(task(1, 0, 500));
        queue.push(task(1, 0, 500));
        queue.push(task(2, 0, 1));
        assert_eq!(queue.next_demand(WINDOW), None, "501 bytes");
        take(&mut queue, 2);
        assert_eq!(queue.next_demand(WINDOW), Some(31), "500 bytes");
    }

    #[test]
    fn an_empty_queue_stops_the_lower_lanes_until_the_table_was_looked_at() {
        // Not when a load has told that there is no more; again when a demand begins anew, for nobody told meanwhile.
        let mut queue = served(1);
        load(&mut queue, 0, 0, false);
        assert!(!queue.refill_pending(WINDOW), "nothing there, and what turns up is told");
        let wide = Window { rows_max: 100, ..WINDOW };
        queue.add_capacity(20);
        assert_eq!(queue.next_demand(wide), Some(100));
        assert!(!queue.refill_pending(wide), "the demand was open all the time");
        load(&mut queue, 100, 0, false);
        (1..=100).for_each(|id| take(&mut queue, id));
        assert!(!queue.refill_pending(wide), "all of the demand came and there was no more");
        assert_eq!(queue.next_demand(wide), Some(100));
        assert!(queue.refill_pending(wide), "nobody told of what came since");
        load(&mut queue, 1, 0, true);
        assert!(!queue.refill_pending(wide), "a task is at hand");
        take(&mut queue, 1);
        assert!(queue.refill_pending(wide));
        queue.push(task(1, 0, 0));
        assert_eq!(queue.clear().len(), 1);
        assert!(!queue.refill_pending(wide), "nobody serves it");
    }

    #[test]
    fn a_window_full_of_suspects_stops_nothing() {
        // By their number or their bytes: nothing more is read ahead and the lower lanes go on, but not beside a task.
        for (suspects, bytes, full) in [(63, 0, false), (64, 0, true), (1, 500, false), (1, 501, true)] {
            let mut queue = served(1);
            queue.loaded(0, true);
            (1..=suspects).for_each(|id| queue.push(task(id, 1, bytes)));
            assert_eq!(queue.refill_pending(WINDOW), !full, "{suspects} of {bytes} bytes");
            assert_eq!(queue.next_demand(WINDOW), (!full).then_some(32), "{suspects} of {bytes} bytes");
            assert_eq!((queue.first(), queue.first_suspect()), (None, Some((UnixMillis(1), TaskId::new(1).unwrap()))));
        }
        let mut queue = served(1);
        load(&mut queue, 1, 64, true);
        assert_eq!(queue.next_demand(WINDOW), Some(31), "a task is at hand");
    }
}
