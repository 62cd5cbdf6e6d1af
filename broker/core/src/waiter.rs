//! Who waits for which task, and from which event on.

mod crowd;

use std::collections::BTreeSet;

use laneway_protocol::TaskId;
use laneway_protocol::message::{Final, GroupRow, Stored};

use crate::event::{ConnId, ReplyTo};
use crate::id_map::{IdMap, IdSet};
use crate::place::Place;
use crate::time::Millis;
use crowd::Crowd;

/// One question that is answered when tasks end or move on.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) conn: ConnId,
    pub(crate) pending: BTreeSet<TaskId>,
    pub(crate) finals: Vec<Final>,
    pub(crate) until: Millis,
    /// When its timer fires: at `until`, or later while the store has not told which of the tasks had ended before.
    pub(crate) alarm: Millis,
    pub(crate) asked: Asked,
}

#[derive(Debug)]
pub(crate) enum Asked {
    /// `SUBMIT` with `wait_ms`: answered when all have ended.
    Submit(Vec<Stored>, Option<u64>),
    /// `WAIT_FOR` a group: at first these are some of its live tasks, which are being looked at, and `row` is from just before. Once
    /// it is checked its crowd watches them, and asks about the group again when they have ended or one of it has said something.
    Group { group: u64, row: Option<Box<GroupRow>>, place: Place, gap: bool, checked: bool },
    /// `WAIT_FOR`: answered at the first news behind its place. A gap is news, too; whether there is one is known for certain
    /// once it is checked, for from then on every event is told at once.
    WaitFor { place: Place, gap: bool, checked: bool, not_found: Vec<TaskId>, pruned: Vec<TaskId> },
}

impl Asked {
    /// How far the one who waits has been told, if progress is told at all.
    pub(crate) fn place(&self) -> Option<Place> {
        match self {
            Self::Submit(..) => None,
            Self::Group { place, .. } | Self::WaitFor { place, .. } => Some(*place),
        }
    }
}

/// For whom a task is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Watcher {
    One(ReplyTo),
    /// All who listen to a group.
    Crowd(u64),
}

#[derive(Debug, Default)]
pub(crate) struct Waiters {
    all: IdMap<ReplyTo, Waiter>,
    by_task: IdMap<TaskId, IdSet<Watcher>>,
    crowds: IdMap<u64, Crowd>,
    /// Crowds that somebody has left since the event that is being taken in.
    deserted: Vec<u64>,
    /// Those who will wait once the store has answered are here already.
    by_conn: BTreeSet<(ConnId, ReplyTo)>,
}

impl Waiters {
    /// Gives the tasks that nobody waited for before.
    pub(crate) fn add(&mut self, reply: ReplyTo, waiter: Waiter) -> Vec<TaskId> {
        let mut fresh = Vec::new();
        for &task in &waiter.pending {
            let watchers = self.by_task.entry(task).or_default();
            if watchers.is_empty() {
                fresh.push(task);
            }
            watchers.insert(Watcher::One(reply));
        }
        self.by_conn.insert((waiter.conn, reply));
        self.all.insert(reply, waiter);
        fresh
    }

    /// Somebody will wait when the store has answered.
    pub(crate) fn expect(&mut self, conn: ConnId, reply: ReplyTo) {
        self.by_conn.insert((conn, reply));
    }

    /// The store has answered, or the connection is gone.
    pub(crate) fn unexpect(&mut self, conn: ConnId, reply: ReplyTo) {
        self.by_conn.remove(&(conn, reply));
    }

    /// Gives the waiter and the tasks that nobody waits for any more.
    pub(crate) fn remove(&mut self, reply: ReplyTo) -> Option<(Waiter, Vec<TaskId>)> {
        let waiter = self.all.remove(&reply)?;
        self.by_conn.remove(&(waiter.conn, reply));
        if let Asked::Group { group, .. } = waiter.asked {
            self.leave_crowd(reply, group);
        }
        let left = waiter.pending.iter().copied().filter(|&task| self.unlink(task, Watcher::One(reply))).collect();
        Some((waiter, left))
    }

    /// A task ended: takes it off the lists of all who wait for it alone. Gives these.
    pub(crate) fn ended(&mut self, ended: &Final) -> Vec<ReplyTo> {
        let replies = self.of_task(ended.task);
        for &reply in &replies {
            self.unlink(ended.task, Watcher::One(reply));
        }
        for reply in &replies {
            let waiter = self.all.get_mut(reply).expect("a waiter stands in both maps");
            waiter.pending.remove(&ended.task);
            if !matches!(waiter.asked, Asked::Group { .. }) {
                waiter.finals.push(ended.clone());
            }
        }
        replies
    }

    /// Takes a task off one waiter's list without an end.
    pub(crate) fn drop_task(&mut self, reply: ReplyTo, task: TaskId) {
        if let Some(waiter) = self.all.get_mut(&reply) {
            waiter.pending.remove(&task);
            self.unlink(task, Watcher::One(reply));
        }
    }

    pub(crate) fn get_mut(&mut self, reply: ReplyTo) -> Option<&mut Waiter> {
        self.all.get_mut(&reply)
    }

    pub(crate) fn get(&self, reply: ReplyTo) -> Option<&Waiter> {
        self.all.get(&reply)
    }

    pub(crate) fn of_task(&self, task: TaskId) -> Vec<ReplyTo> {
        let watchers = self.by_task.get(&task).into_iter().flatten();
        let one = |watcher: &Watcher| if let Watcher::One(reply) = watcher { Some(*reply) } else { None };
        let mut replies: Vec<ReplyTo> = watchers.filter_map(one).collect();
        replies.sort_unstable();
        replies
    }

    pub(crate) fn of_conn(&self, conn: ConnId) -> Vec<ReplyTo> {
        let from = (conn, ReplyTo(0));
        self.by_conn.range(from..).take_while(|&&(of, _)| of == conn).map(|&(_, reply)| reply).collect()
    }

    pub(crate) fn is_watched(&self, task: TaskId) -> bool {
        self.by_task.contains_key(&task)
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn check(&self) {
        for (reply, waiter) in &self.all {
            for task in &waiter.pending {
                let is_there = self.by_task[task].contains(&Watcher::One(*reply));
                assert!(is_there, "waiter {reply:?} is missing at task {task}");
            }
        }
        for (task, watchers) in &self.by_task {
            assert!(!watchers.is_empty(), "task {task} is watched by nobody");
            for watcher in watchers {
                let waits = match watcher {
                    Watcher::One(reply) => self.all[reply].pending.contains(task),
                    Watcher::Crowd(group) => self.crowds[group].watches(*task),
                };
                assert!(waits, "task {task} names {watcher:?}, who does not wait for it");
            }
        }
        self.check_crowds();
    }

    /// Whether nobody watches the task any more.
    fn unlink(&mut self, task: TaskId, watcher: Watcher) -> bool {
        let Some(watchers) = self.by_task.get_mut(&task) else { return false };
        watchers.remove(&watcher);
        let is_left = watchers.is_empty();
        if is_left {
            self.by_task.remove(&task);
        }
        is_left
    }
}
