//! What running tasks say of their progress, kept in memory for those who wait: while a task runs, and for a while after a
//! run, since those who wait ask in rounds and may come for its last words when it is over.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque, vec_deque};

use laneway_protocol::TaskId;
use laneway_protocol::message::ProgressEvent;

use crate::id_map::IdMap;
use crate::limits::{EVENT_BYTES_PER_TASK_MAX, EVENTS_PER_TASK_MAX, LAST_WORDS_BYTES_MAX, LAST_WORDS_TASKS_MAX};

/// The latest progress of one task.
#[derive(Debug, Default)]
pub(crate) struct Events {
    ring: VecDeque<ProgressEvent>,
    bytes: usize,
    /// Number of the last event that is no longer here.
    dropped: u64,
}

impl Events {
    pub(crate) fn push(&mut self, event: ProgressEvent) {
        self.bytes += event_bytes(&event);
        self.ring.push_back(event);
        while self.ring.len() > EVENTS_PER_TASK_MAX || (self.bytes > EVENT_BYTES_PER_TASK_MAX && self.ring.len() > 1) {
            let old = self.ring.pop_front().expect("the ring is not empty");
            self.bytes -= event_bytes(&old);
            self.dropped = old.n;
        }
    }

    /// Those with a number above `n`, in order.
    pub(crate) fn after(&self, n: u64) -> vec_deque::Iter<'_, ProgressEvent> {
        self.ring.range(self.ring.partition_point(|event| event.n <= n)..)
    }

    /// Whether events after number `n` are no longer here.
    pub(crate) fn gap_after(&self, n: u64) -> bool {
        self.dropped > n
    }

    /// Whether they tell how far the task is, as its row does.
    pub(crate) fn tell_standing(&self) -> bool {
        self.ring.iter().any(|event| event.done.is_some() || event.total.is_some() || event.note.is_some())
    }
}

/// What several tasks have said behind number `n`, in the order in which it was said. Nothing is copied, and as much is looked at as
/// is taken, beside the first event of each task.
pub(crate) fn in_order<'a>(tasks: impl Iterator<Item = &'a Events>, n: u64) -> impl Iterator<Item = &'a ProgressEvent> {
    let mut lines = Vec::new();
    for events in tasks {
        let mut rest = events.after(n);
        lines.extend(rest.next().map(|head| (head, rest)));
    }
    let mut heads: BinaryHeap<Reverse<(u64, usize)>> =
        lines.iter().enumerate().map(|(at, (head, _))| Reverse((head.n, at))).collect();
    std::iter::from_fn(move || {
        let Reverse((_, at)) = heads.pop()?;
        let (head, rest) = &mut lines[at];
        let event = *head;
        if let Some(next) = rest.next() {
            *head = next;
            heads.push(Reverse((next.n, at)));
        }
        Some(event)
    })
}

/// Whether those who wait hear anything by it.
pub(crate) fn tells(event: &ProgressEvent) -> bool {
    let counts = event.done.is_some() || event.total.is_some();
    counts || event.note.is_some() || event.data.is_some() || event.log.is_some()
}

/// What an event holds.
pub(crate) fn event_bytes(event: &ProgressEvent) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    event.data.as_ref().map_or(0, |data| data.bytes.len()) + text(&event.note) + text(&event.log)
}

/// The progress of tasks whose run is over. Those that ended last are kept; a crash of the broker takes them all.
#[derive(Debug, Default)]
pub(crate) struct LastWords {
    by_task: IdMap<TaskId, Words>,
    /// Oldest first. Some may have been taken since.
    order: VecDeque<TaskId>,
    bytes: usize,
    /// Number of the newest event of those whose words had to go. Of which tasks they were is not kept: a task of which nothing is
    /// here may have said any of them.
    dropped: u64,
    /// The same of tasks in a group, whichever.
    dropped_of_groups: u64,
}

/// What one task has said, and its group.
#[derive(Debug)]
struct Words {
    group: Option<u64>,
    events: Events,
}

impl LastWords {
    /// A run is over. Costs nothing when it said nothing.
    pub(crate) fn keep(&mut self, task: TaskId, group: Option<u64>, events: Events) {
        if events.ring.is_empty() {
            return;
        }
        self.bytes += events.bytes;
        self.by_task.insert(task, Words { group, events });
        self.order.push_back(task);
        while self.order.len() > LAST_WORDS_TASKS_MAX || self.bytes > LAST_WORDS_BYTES_MAX {
            let oldest = self.order.pop_front().expect("what has bytes stands in the order");
            if let Some(Words { group, events: Events { ring, .. } }) = self.remove(oldest) {
                let newest = ring.back().map_or(0, |last| last.n);
                self.dropped = self.dropped.max(newest);
                if group.is_some() {
                    self.dropped_of_groups = self.dropped_of_groups.max(newest);
                }
            }
        }
    }

    /// The task runs for the `run`th time: what it said goes on.
    pub(crate) fn take(&mut self, task: TaskId, run: u32) -> Events {
        let dropped = if run > 1 { self.dropped } else { 0 };
        self.remove(task).map_or_else(|| Events { dropped, ..Events::default() }, |words| words.events)
    }

    pub(crate) fn get(&self, task: TaskId) -> Option<&Events> {
        self.by_task.get(&task).map(|words| &words.events)
    }

    /// What is kept of the tasks of a group.
    pub(crate) fn of_group(&self, group: u64) -> impl Iterator<Item = &Events> {
        self.by_task.values().filter(move |words| words.group == Some(group)).map(|words| &words.events)
    }

    /// Whether events of this task, which does not run, after number `n` are no longer here.
    pub(crate) fn gap_after(&self, task: TaskId, n: u64) -> bool {
        self.get(task).map_or(self.dropped > n, |events| events.gap_after(n))
    }

    /// Whether events of a task in some group, of which nothing is kept, after number `n` are no longer here.
    pub(crate) fn gap_of_groups_after(&self, n: u64) -> bool {
        self.dropped_of_groups > n
    }

    fn remove(&mut self, task: TaskId) -> Option<Words> {
        let words = self.by_task.remove(&task)?;
        self.bytes -= words.events.bytes;
        Some(words)
    }
}

#[cfg(test)]
mod tests {
    use laneway_protocol::Payload;

    use super::*;

    fn event(n: u64, data: usize, note: usize) -> ProgressEvent {
        let task = TaskId::new(1).unwrap();
        let (data, note) = (Some(Payload::bin(vec![0; data])), Some("x".repeat(note)));
        ProgressEvent { n, task, done: None, total: None, note, data, log: None }
    }

    /// The numbers of the events that are left of these, numbered from 1, and of the last that was dropped.
    fn check(sizes: &[(usize, usize)], left: std::ops::RangeInclusive<u64>) {
        let mut events = Events::default();
        for (n, &(data, note)) in (1..).zip(sizes) {
            events.push(event(n, data, note));
        }
        assert_eq!(events.after(0).map(|event| event.n).collect::<Vec<_>>(), left.clone().collect::<Vec<_>>());
        let behind = *left.start();
        assert!(!events.gap_after(behind) && !events.gap_after(behind - 1), "nothing is missing from {behind} on");
        assert_eq!(behind.checked_sub(2).is_some_and(|n| events.gap_after(n)), behind > 1);
        assert_eq!(events.after(behind).next().map(|event| event.n), (behind < *left.end()).then_some(behind + 1));
    }

    #[test]
    fn the_latest_events_are_kept_within_their_number_and_bytes() {
        // 64, and 256 KiB of data and notes together; the last one is kept whatever its size.
        check(&[(0, 0); 64], 1..=64);
        check(&[(0, 0); 66], 3..=66);
        let half = 128 * 1_024;
        check(&[(half, 0), (half - 9, 9)], 1..=2);
        check(&[(half, 0), (half - 9, 10)], 2..=2);
        check(&[(half, 1), (0, half), (half, 0)], 2..=3);
        check(&[(0, 0), (3 * half, 0)], 2..=2);
        check(&[(3 * half, 0), (half, 0), (half, 0)], 2..=3);
        let (log, task) = (Some("x".repeat(9)), TaskId::new(1).unwrap());
        let line = ProgressEvent { n: 1, task, done: None, total: None, note: None, data: None, log };
        assert_eq!(event_bytes(&line), 9, "lines of a log count as well");
    }

    #[test]
    fn the_last_words_of_the_latest_runs_are_kept() {
        let words = |data| {
            let mut events = Events::default();
            events.push(event(1, data, 0));
            events
        };
        let id = |n: usize| TaskId::new(n as u64).unwrap();
        let mut last = LastWords::default();
        last.keep(id(1), None, Events::default());
        assert!(last.get(id(1)).is_none(), "it said nothing");
        for n in 1..=LAST_WORDS_TASKS_MAX + 1 {
            last.keep(id(n), None, words(1));
        }
        assert!(last.get(id(1)).is_none() && last.get(id(2)).is_some());
        assert_eq!(last.bytes, LAST_WORDS_TASKS_MAX);
        // One that runs again takes its words along, and its old place in the order does no harm.
        assert_eq!(last.take(id(2), 2).after(0).count(), 1);
        last.keep(id(2), None, words(1));
        last.keep(id(5_000), None, words(LAST_WORDS_BYTES_MAX - 1));
        last.keep(id(5_001), None, words(1));
        assert!(last.get(id(5_000)).is_some() && last.get(id(5_001)).is_some());
        assert!(last.get(id(2)).is_none() && last.by_task.len() == 2);
        assert_eq!(last.bytes, LAST_WORDS_BYTES_MAX);
    }

    #[test]
    fn words_of_several_tasks_are_told_in_the_order_in_which_they_were_said() {
        // Behind the number, each once, and those of a task that has said nothing do not matter.
        let said = |numbers: &[u64]| {
            let mut events = Events::default();
            for &n in numbers {
                events.push(event(n, 0, 0));
            }
            events
        };
        let all = [said(&[1, 4, 9]), said(&[]), said(&[2, 3, 8]), said(&[5])];
        let told = |n| in_order(all.iter(), n).map(|event| event.n).collect::<Vec<_>>();
        assert_eq!(told(0), [1, 2, 3, 4, 5, 8, 9]);
        assert_eq!(told(4), [5, 8, 9]);
        assert!(told(9).is_empty());
    }

    #[test]
    fn words_that_had_to_go_are_missed_by_groups_if_they_were_of_one() {
        // Whose they were is not kept; those of tasks without a group are missed by none.
        let mut last = LastWords::default();
        let mut end = |n: u64, group| {
            let mut events = Events::default();
            events.push(event(n, LAST_WORDS_BYTES_MAX / 2, 0));
            last.keep(TaskId::new(n).unwrap(), group, events);
            (last.gap_of_groups_after(0), last.gap_of_groups_after(1), last.of_group(7).count())
        };
        assert_eq!(end(1, None), (false, false, 0));
        assert_eq!(end(2, Some(7)), (false, false, 1));
        assert_eq!(end(3, Some(8)), (false, false, 1));
        assert_eq!(end(4, None), (true, true, 0), "the second has gone");
        assert!(!last.gap_of_groups_after(2));
    }
}
