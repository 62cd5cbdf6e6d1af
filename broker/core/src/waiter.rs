//! Who waits for which task, and from which event on.

use std::collections::BTreeSet;

use laneway_protocol::TaskId;
use laneway_protocol::message::{Final, GroupRow, Stored};

use crate::event::{ConnId, ReplyTo};
use crate::id_map::{IdMap, IdSet};
use crate::place::Place;
use crate::time::Millis;

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
    /// `WAIT_FOR` a group: these are some of its live tasks. Once all have ended, or any task of the group has said something behind
    /// the place, the group is asked about again. `row` is from just before those tasks were looked at.
    Group { row: Box<GroupRow>, place: Place, gap: bool, checked: bool },
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

#[derive(Debug, Default)]
pub(crate) struct Waiters {
    all: IdMap<ReplyTo, Waiter>,
    by_task: IdMap<TaskId, IdSet<ReplyTo>>,
    /// Those who hear at once when a task of their group says something.
    by_group: IdMap<u64, IdSet<ReplyTo>>,
    /// Those who will wait once the store has answered are here already.
    by_conn: BTreeSet<(ConnId, ReplyTo)>,
}

impl Waiters {
    /// Gives the tasks that nobody waited for before.
    pub(crate) fn add(&mut self, reply: ReplyTo, waiter: Waiter) -> Vec<TaskId> {
        let mut fresh = Vec::new();
        for &task in &waiter.pending {
            let replies = self.by_task.entry(task).or_default();
            if replies.is_empty() {
                fresh.push(task);
            }
            replies.insert(reply);
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
        if let Asked::Group { row, .. } = &waiter.asked
            && let Some(replies) = self.by_group.get_mut(&row.group)
        {
            replies.remove(&reply);
            if replies.is_empty() {
                self.by_group.remove(&row.group);
            }
        }
        let left = waiter.pending.iter().copied().filter(|&task| self.unlink(task, reply)).collect();
        Some((waiter, left))
    }

    /// A task ended: takes it off every waiter's list. Gives the waiters.
    pub(crate) fn ended(&mut self, ended: &Final) -> Vec<ReplyTo> {
        let mut replies: Vec<ReplyTo> = self.by_task.remove(&ended.task).into_iter().flatten().collect();
        replies.sort_unstable();
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
            self.unlink(task, reply);
        }
    }

    /// One who waits for a group has been told everything up to now.
    pub(crate) fn listen(&mut self, reply: ReplyTo, group: u64) {
        self.by_group.entry(group).or_default().insert(reply);
    }

    pub(crate) fn get_mut(&mut self, reply: ReplyTo) -> Option<&mut Waiter> {
        self.all.get_mut(&reply)
    }

    pub(crate) fn get(&self, reply: ReplyTo) -> Option<&Waiter> {
        self.all.get(&reply)
    }

    pub(crate) fn of_task(&self, task: TaskId) -> Vec<ReplyTo> {
        let mut replies: Vec<ReplyTo> = self.by_task.get(&task).into_iter().flatten().copied().collect();
        replies.sort_unstable();
        replies
    }

    /// Those who listen to a group.
    pub(crate) fn of_group(&self, group: u64) -> Vec<ReplyTo> {
        let mut replies: Vec<ReplyTo> = self.by_group.get(&group).into_iter().flatten().copied().collect();
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
                assert!(self.by_task[task].contains(reply), "waiter {reply:?} is missing at task {task}");
            }
            if let Asked::Group { row, place, checked: true, .. } = &waiter.asked {
                let listens = self.by_group.get(&row.group).is_some_and(|replies| replies.contains(reply));
                assert!(listens, "waiter {reply:?} does not listen to group {} from {place:?} on", row.group);
            }
        }
        for (group, replies) in &self.by_group {
            assert!(!replies.is_empty(), "group {group} has no listeners");
            for reply in replies {
                let listens = matches!(&self.all[reply].asked, Asked::Group { row, .. } if row.group == *group);
                assert!(listens, "group {group} names one who does not wait for it");
            }
        }
        for (task, replies) in &self.by_task {
            assert!(!replies.is_empty(), "task {task} is watched by nobody");
            for reply in replies {
                assert!(self.all[reply].pending.contains(task), "task {task} names a waiter that does not wait for it");
            }
        }
    }

    fn unlink(&mut self, task: TaskId, reply: ReplyTo) -> bool {
        let Some(replies) = self.by_task.get_mut(&task) else { return false };
        replies.remove(&reply);
        if replies.is_empty() {
            self.by_task.remove(&task);
        }
        !self.by_task.contains_key(&task)
    }
}
