//! One queue: the tasks of one lane and kind that are read ahead and not handed out. A read-ahead, not a state: its
//! rows are `queued` in the table, and are.
//!
//! Tasks with a fair key stand in a line of their key. The first of those lines by turn has the first task; lines of closed
//! keys are held: they have no turn, and count for nothing.

use std::collections::{BTreeMap, BTreeSet};

use laneway_protocol::{Payload, TaskId};

use crate::dispatch::ClassId;
use crate::event::QueuedTask;
use crate::fair::{KeyIndex, Turn};
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

/// Tasks of one sort, a line for each key.
#[derive(Debug, Default)]
struct Lines {
    plain: Line,
    keyed: BTreeMap<KeyIndex, KeyLine>,
    /// Keys that are open, by turn.
    turns: BTreeSet<(Turn, KeyIndex)>,
    /// Tasks of keys, and those of them whose key is closed.
    n_keyed: usize,
    n_held: usize,
}

#[derive(Debug, Default)]
struct KeyLine {
    tasks: Line,
    /// `None` while the key is closed.
    turn: Option<Turn>,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    tasks: Lines,
    /// Tasks that lost a worker: handed out alone, one for each process.
    suspects: Lines,
    /// Of tasks that may start, and of those whose key is closed.
    bytes: usize,
    held_bytes: usize,
    /// Due rows are left in the table, or may be: the last demand is not answered yet.
    more: bool,
    /// The same of single keys, as far as it is known.
    left: BTreeSet<KeyIndex>,
    /// Rows asked for and not yet given. While it is not 0 the store tells of every row that turns up.
    demanded: usize,
    /// Who can run these tasks.
    pub(crate) classes: Vec<ClassId>,
    /// Tasks that the slots of those classes take at once.
    capacity: usize,
}

impl Lines {
    fn push(&mut self, task: QueuedTask, key: KeyIndex, turn: Option<Turn>) -> Option<QueuedTask> {
        let place = (task.due, task.id);
        if key == KeyIndex::NONE {
            return self.plain.insert(place, task);
        }
        let line = self.keyed.entry(key).or_insert_with(|| {
            self.turns.extend(turn.map(|turn| (turn, key)));
            KeyLine { tasks: Line::new(), turn }
        });
        let old = line.tasks.insert(place, task);
        let new = usize::from(old.is_none());
        self.n_keyed += new;
        self.n_held += if line.turn.is_none() { new } else { 0 };
        old
    }

    fn take(&mut self, due: UnixMillis, id: TaskId, key: KeyIndex) -> Option<QueuedTask> {
        if key == KeyIndex::NONE {
            return self.plain.remove(&(due, id));
        }
        let line = self.keyed.get_mut(&key)?;
        let task = line.tasks.remove(&(due, id))?;
        self.n_keyed -= 1;
        self.n_held -= usize::from(line.turn.is_none());
        if line.tasks.is_empty() {
            let line = self.keyed.remove(&key).expect("just looked at");
            if let Some(turn) = line.turn {
                self.turns.remove(&(turn, key));
            }
        }
        Some(task)
    }

    /// The first task that may start, with its turn, when that of tasks without a key is `plain`.
    fn first(&self, plain: Turn) -> Option<(Turn, UnixMillis, TaskId)> {
        let first = |line: &Line, turn| line.first_key_value().map(|(&(due, id), _)| (turn, due, id));
        let Some(&(turn, key)) = self.turns.first() else { return first(&self.plain, plain) };
        if !self.plain.is_empty() && plain <= turn {
            return first(&self.plain, plain);
        }
        first(&self.keyed[&key].tasks, turn)
    }

    fn set_turn(&mut self, key: KeyIndex, turn: Option<Turn>) {
        let Some(line) = self.keyed.get_mut(&key) else { return };
        let n = line.tasks.len();
        match std::mem::replace(&mut line.turn, turn) {
            Some(old) => drop(self.turns.remove(&(old, key))),
            None => self.n_held -= n,
        }
        match turn {
            Some(turn) => drop(self.turns.insert((turn, key))),
            None => self.n_held += n,
        }
    }

    fn bytes_of(&self, key: KeyIndex) -> usize {
        self.keyed.get(&key).map_or(0, |line| line.tasks.values().map(size).sum())
    }

    /// Those that may start.
    fn open(&self) -> usize {
        self.plain.len() + self.n_keyed - self.n_held
    }

    fn len(&self) -> usize {
        self.plain.len() + self.n_keyed
    }

    fn n_of(&self, key: KeyIndex) -> usize {
        if key == KeyIndex::NONE { self.plain.len() } else { self.keyed.get(&key).map_or(0, |line| line.tasks.len()) }
    }

    /// The lines of keys that are open, that of tasks without one among them.
    fn open_lines(&mut self) -> impl Iterator<Item = (KeyIndex, &mut Line)> {
        let keyed = self.keyed.iter_mut().filter(|(_, line)| line.turn.is_some());
        std::iter::once((KeyIndex::NONE, &mut self.plain)).chain(keyed.map(|(&key, line)| (key, &mut line.tasks)))
    }

    fn tasks(&self) -> impl Iterator<Item = (KeyIndex, &QueuedTask)> {
        let plain = self.plain.values().map(|task| (KeyIndex::NONE, task));
        plain.chain(self.keyed.iter().flat_map(|(&key, line)| line.tasks.values().map(move |task| (key, task))))
    }

    fn check(&self) {
        let open = self.keyed.iter().filter_map(|(&key, line)| Some((line.turn?, key)));
        assert_eq!(self.turns, open.collect(), "turns of open keys");
        assert!(self.keyed.values().all(|line| !line.tasks.is_empty()), "a line without a task");
        assert_eq!(self.n_keyed, self.keyed.values().map(|line| line.tasks.len()).sum::<usize>());
        let held = self.keyed.values().filter(|line| line.turn.is_none());
        assert_eq!(self.n_held, held.map(|line| line.tasks.len()).sum::<usize>(), "tasks of closed keys");
    }
}

impl Queue {
    /// `turn` is that of its key, `None` for one that is closed, and means nothing without a key.
    pub(crate) fn push(&mut self, task: QueuedTask, key: KeyIndex, turn: Option<Turn>) {
        let held = key != KeyIndex::NONE && turn.is_none();
        let bytes = if held { &mut self.held_bytes } else { &mut self.bytes };
        *bytes += size(&task);
        let lines = if task.losses > 0 { &mut self.suspects } else { &mut self.tasks };
        if let Some(old) = lines.push(task, key, turn) {
            *bytes -= size(&old);
        }
    }

    pub(crate) fn take(&mut self, due: UnixMillis, id: TaskId, key: KeyIndex) -> Option<QueuedTask> {
        let held = self.is_held(key);
        let task = self.tasks.take(due, id, key).or_else(|| self.suspects.take(due, id, key))?;
        *(if held { &mut self.held_bytes } else { &mut self.bytes }) -= size(&task);
        Some(task)
    }

    /// Somebody serves the queue now, or a key is open again: what the table has for it is not known before the next load.
    pub(crate) fn open(&mut self) {
        self.more = true;
    }

    /// A key has another turn, or none while it is closed.
    pub(crate) fn set_turn(&mut self, key: KeyIndex, turn: Option<Turn>) {
        if self.is_held(key) != turn.is_none() {
            let bytes = self.tasks.bytes_of(key) + self.suspects.bytes_of(key);
            let (from, to) = match turn {
                Some(_) => (&mut self.held_bytes, &mut self.bytes),
                None => (&mut self.bytes, &mut self.held_bytes),
            };
            *from -= bytes;
            *to += bytes;
        }
        self.tasks.set_turn(key, turn);
        self.suspects.set_turn(key, turn);
    }

    /// Gives back what was read ahead, when nobody serves the queue any more or its rows are others now.
    pub(crate) fn clear(&mut self) -> Vec<TaskId> {
        let ids = self.ids().collect();
        (self.tasks, self.suspects) = (Lines::default(), Lines::default());
        (self.bytes, self.held_bytes, self.more, self.demanded) = (0, 0, false, 0);
        self.left.clear();
        ids
    }

    /// A load arrived with `rows` rows. The table has more of the keys of `left`, or may have.
    pub(crate) fn loaded(&mut self, rows: usize, more: bool) {
        self.more = more;
        // A load that says more ends its demand; one that does not leaves the rest of it open.
        self.demanded = if more { 0 } else { self.demanded.saturating_sub(rows) };
    }

    /// Whether the table has, or may have, more of this key than is at hand.
    pub(crate) fn set_left(&mut self, key: KeyIndex, left: bool) {
        if left {
            self.left.insert(key);
        } else if !self.left.is_empty() {
            self.left.remove(&key);
        }
    }

    /// Whether the last task at hand of this key is gone though the table has more. Told once.
    pub(crate) fn ran_dry(&mut self, key: KeyIndex) -> bool {
        !self.left.is_empty() && self.tasks.n_of(key) == 0 && self.left.remove(&key)
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
        let target = self.target(window);
        let enough = self.tasks.open() + self.demanded >= (target / 2).max(1);
        if self.capacity == 0 || enough || self.bytes > window.bytes_max / 2 || self.is_full_of_suspects(window) {
            return None;
        }
        // Without an open demand the store did not tell what turned up meanwhile.
        self.more |= self.demanded == 0;
        self.demanded = target - self.tasks.open();
        Some(self.demanded)
    }

    /// The rows of an open demand that is to be said again, for it passed over what it would not now.
    pub(crate) fn ask_again(&mut self, window: Window) -> Option<usize> {
        if self.demanded == 0 {
            return None;
        }
        self.demanded = self.target(window).saturating_sub(self.tasks.open());
        self.more |= self.demanded > 0;
        (self.demanded > 0).then_some(self.demanded)
    }

    /// Makes room for a key of this weight that has tasks in the table and none at hand, when others have read-ahead
    /// beyond their part: takes their last tasks out, down to their part of half the window, so that a refill is due. A
    /// load then brings of all keys by turns. Costs the window at most, and comes at most once for each load.
    pub(crate) fn make_room(
        &mut self,
        weight: u32,
        weight_of: impl Fn(KeyIndex) -> u32,
        window: Window,
    ) -> Vec<(KeyIndex, TaskId)> {
        let half = (self.target(window) / 2).max(1);
        let open = self.tasks.open();
        if self.demanded > 0 || open < half {
            return Vec::new();
        }
        let lines: Vec<(KeyIndex, usize)> =
            self.tasks.open_lines().map(|(key, line)| (key, line.len())).filter(|(_, n)| *n > 0).collect();
        let weights = weight as usize + lines.iter().map(|&(key, _)| weight_of(key) as usize).sum::<usize>();
        let part = |key| (half * weight_of(key) as usize / weights).max(1);
        let kept: usize = lines.iter().map(|&(key, n)| n.min(part(key))).sum();
        if kept >= half || open - kept < half / 8 {
            return Vec::new();
        }
        let mut gone = Vec::with_capacity(open - kept);
        for (key, line) in self.tasks.open_lines() {
            while line.len() > part(key)
                && let Some((_, task)) = line.pop_last()
            {
                self.bytes -= size(&task);
                self.left.insert(key);
                gone.push((key, task.id));
            }
        }
        self.tasks.n_keyed -= gone.iter().filter(|(key, _)| *key != KeyIndex::NONE).count();
        gone
    }

    /// Takes the tasks of closed keys out when they are more than a window: they could be for a long time, and many.
    pub(crate) fn drop_held(&mut self, window: Window) -> Vec<(KeyIndex, TaskId)> {
        let n_held = self.tasks.n_held + self.suspects.n_held;
        if n_held <= window.rows_max && self.held_bytes <= window.bytes_max / 2 {
            return Vec::new();
        }
        let mut gone = Vec::with_capacity(n_held);
        for lines in [&mut self.tasks, &mut self.suspects] {
            let held = lines.keyed.extract_if(.., |_, line| line.turn.is_none());
            for (key, line) in held {
                gone.extend(line.tasks.values().map(|task| (key, task.id)));
            }
            lines.n_keyed -= lines.n_held;
            lines.n_held = 0;
        }
        self.held_bytes = 0;
        gone
    }

    /// With its turn, when that of tasks without a key is `plain`.
    pub(crate) fn first(&self, plain: Turn) -> Option<(Turn, UnixMillis, TaskId)> {
        self.tasks.first(plain)
    }

    pub(crate) fn first_suspect(&self, plain: Turn) -> Option<(Turn, UnixMillis, TaskId)> {
        self.suspects.first(plain)
    }

    /// Empty here but perhaps not in the table: no lower lane may be served before the next load.
    pub(crate) fn refill_pending(&self, window: Window) -> bool {
        self.more && self.tasks.open() == 0 && !self.is_full_of_suspects(window)
    }

    pub(crate) fn len(&self) -> usize {
        self.tasks.len() + self.suspects.len()
    }

    /// Whether a task of this key is at hand, and whether one that is no suspect.
    pub(crate) fn has(&self, key: KeyIndex) -> bool {
        self.has_task(key) || self.suspects.n_of(key) > 0
    }

    pub(crate) fn has_task(&self, key: KeyIndex) -> bool {
        self.tasks.n_of(key) > 0
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = TaskId> {
        self.tasks().map(|(_, task)| task.id)
    }

    /// Keys of which something is at hand.
    pub(crate) fn keys(&self) -> BTreeSet<KeyIndex> {
        self.tasks.keyed.keys().chain(self.suspects.keyed.keys()).copied().collect()
    }

    pub(crate) fn n_plain(&self) -> usize {
        self.tasks.plain.len() + self.suspects.plain.len()
    }

    pub(crate) fn check(&self, window: Window, turn_of: impl Fn(KeyIndex) -> Option<Turn>) {
        let (held, open): (Vec<_>, Vec<_>) = self.tasks().partition(|&(key, _)| self.is_held(key));
        let bytes = |tasks: Vec<(KeyIndex, &QueuedTask)>| tasks.into_iter().map(|(_, task)| size(task)).sum::<usize>();
        assert_eq!((bytes(open), bytes(held)), (self.bytes, self.held_bytes), "bytes of the read-ahead");
        assert!(
            !self.refill_pending(window) || self.demanded > 0 || self.capacity == 0,
            "a refill is pending, not asked for"
        );
        assert!(self.tasks.tasks().all(|(_, task)| task.losses == 0));
        assert!(self.suspects.tasks().all(|(_, task)| task.losses > 0));
        assert_eq!(self.classes.is_empty(), self.capacity == 0, "a queue has capacity while it is served");
        for lines in [&self.tasks, &self.suspects] {
            lines.check();
            for (&key, line) in &lines.keyed {
                assert_eq!(line.turn, turn_of(key), "the turn of {key:?}");
            }
        }
        assert!(self.tasks.n_held + self.suspects.n_held <= window.rows_max, "tasks of closed keys");
    }

    fn tasks(&self) -> impl Iterator<Item = (KeyIndex, &QueuedTask)> {
        self.tasks.tasks().chain(self.suspects.tasks())
    }

    fn is_held(&self, key: KeyIndex) -> bool {
        let line = self.tasks.keyed.get(&key).or_else(|| self.suspects.keyed.get(&key));
        line.is_some_and(|line| line.turn.is_none())
    }

    fn target(&self, window: Window) -> usize {
        (WINDOW_SHARE * self.capacity).max(window.rows_min).min(window.rows_max)
    }

    /// So many suspects that nothing behind them is read ahead; lower lanes do not wait for them.
    fn is_full_of_suspects(&self, window: Window) -> bool {
        self.tasks.open() == 0 && (self.suspects.open() >= window.rows_max || self.bytes > window.bytes_max / 2)
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
            fair_key: None,
            group: None,
        }
    }

    fn push(queue: &mut Queue, task: QueuedTask) {
        queue.push(task, KeyIndex::NONE, None);
    }

    /// What one load brings: `n` tasks from id 1, or suspects from id 1,001.
    fn load(queue: &mut Queue, tasks: u64, suspects: u64, more: bool) {
        queue.loaded(usize::try_from(tasks + suspects).unwrap(), more);
        (1..=tasks).for_each(|id| push(queue, task(id, 0, 0)));
        (1..=suspects).for_each(|id| push(queue, task(1_000 + id, 1, 0)));
    }

    fn take(queue: &mut Queue, id: u64) {
        assert_eq!(queue.take(UnixMillis(1), TaskId::new(id).unwrap(), KeyIndex::NONE).unwrap().id.value(), id);
    }

    #[test]
    fn so_much_is_read_ahead_that_the_slots_do_not_run_dry() {
        // Sixteen times what they take at once, within the bounds of the window; nothing when nobody is there.
        for (capacity, expected) in
            [(0, None), (1, Some(32)), (2, Some(32)), (3, Some(48)), (4, Some(64)), (5, Some(64))]
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
        push(&mut queue, task(1, 0, 500));
        push(&mut queue, task(1, 0, 500));
        push(&mut queue, task(2, 0, 1));
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
        push(&mut queue, task(1, 0, 0));
        assert_eq!(queue.clear().len(), 1);
        assert!(!queue.refill_pending(wide), "nobody serves it");
    }

    #[test]
    fn a_window_full_of_suspects_stops_nothing() {
        // By their number or their bytes: nothing more is read ahead and the lower lanes go on, but not beside a task.
        for (suspects, bytes, full) in [(63, 0, false), (64, 0, true), (1, 500, false), (1, 501, true)] {
            let mut queue = served(1);
            queue.loaded(0, true);
            (1..=suspects).for_each(|id| push(&mut queue, task(id, 1, bytes)));
            assert_eq!(queue.refill_pending(WINDOW), !full, "{suspects} of {bytes} bytes");
            assert_eq!(queue.next_demand(WINDOW), (!full).then_some(32), "{suspects} of {bytes} bytes");
            assert_eq!(queue.first(0), None);
            assert_eq!(queue.first_suspect(0), Some((0, UnixMillis(1), TaskId::new(1).unwrap())));
        }
        let mut queue = served(1);
        load(&mut queue, 1, 64, true);
        assert_eq!(queue.next_demand(WINDOW), Some(31), "a task is at hand");
    }

    #[test]
    fn a_key_without_tasks_at_hand_gets_room() {
        // Of 32 tasks of one key 8 are kept beside a key of the same weight, half of half the window, and those are the
        // first; nothing is taken out while a demand is open, or when there would be little to gain.
        let (mut queue, many) = (served(1), KeyIndex::SOME);
        queue.loaded(32, true);
        (1..=32).for_each(|id| queue.push(task(id, 0, 1), many, Some(7)));
        let gone = queue.make_room(1, |_| 1, WINDOW);
        assert_eq!(gone.iter().map(|(_, id)| id.value()).collect::<Vec<_>>(), (9..=32).rev().collect::<Vec<_>>());
        assert_eq!((queue.len(), queue.bytes), (8, 8));
        assert_eq!(queue.next_demand(WINDOW), Some(24));
        assert!(queue.make_room(1, |_| 1, WINDOW).is_empty(), "a demand is open");
        assert!(!queue.ran_dry(many), "there are tasks at hand");
        (1..=8).for_each(|id| drop(queue.take(UnixMillis(1), TaskId::new(id).unwrap(), many).unwrap()));
        assert!(queue.ran_dry(many) && !queue.ran_dry(many), "told once");
        queue.tasks.check();
    }

    #[test]
    fn tasks_of_a_closed_key_count_for_nothing() {
        // They keep no refill back and stand before nobody; more than a window of them goes back to the table.
        let (mut queue, key) = (served(1), KeyIndex::SOME);
        queue.loaded(32, false);
        (1..=32).for_each(|id| queue.push(task(id, 0, 10), key, Some(7)));
        queue.push(task(99, 1, 10), key, Some(7));
        assert_eq!(queue.first(0), Some((7, UnixMillis(1), TaskId::new(1).unwrap())));
        queue.set_turn(key, None);
        assert_eq!((queue.first(0), queue.first_suspect(0)), (None, None));
        assert_eq!((queue.bytes, queue.held_bytes, queue.next_demand(WINDOW)), (0, 330, Some(32)));
        assert!(queue.drop_held(WINDOW).is_empty());
        queue.set_turn(key, Some(9));
        assert_eq!(queue.first(0), Some((9, UnixMillis(1), TaskId::new(1).unwrap())));
        assert_eq!((queue.bytes, queue.held_bytes), (330, 0));
        queue.set_turn(key, None);
        (33..=64).for_each(|id| queue.push(task(id, 0, 0), key, None));
        assert_eq!(queue.drop_held(WINDOW).len(), 65);
        assert_eq!((queue.len(), queue.held_bytes), (0, 0));
        queue.tasks.check();
    }

    #[test]
    fn the_first_task_is_that_of_the_least_turn() {
        // Whatever is due first; tasks without a key go by a turn of their own, and before others of the same.
        let (mut queue, key) = (served(1), KeyIndex::SOME);
        queue.loaded(2, false);
        queue.push(task(1, 0, 0), KeyIndex::NONE, None);
        queue.push(task(2, 0, 0), key, Some(5));
        for (plain, first) in [(4, 1), (5, 1), (6, 2)] {
            assert_eq!(queue.first(plain).unwrap().2.value(), first, "at a turn of {plain}");
        }
    }
}
