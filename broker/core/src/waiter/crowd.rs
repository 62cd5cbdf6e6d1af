//! Those who wait for one group, and the live tasks of it that are watched for all of them together: however many listen, a word or an
//! end costs one question, and whoever asks again a moment later finds the tasks watched and need not have them looked at.

use std::collections::BTreeSet;

use laneway_protocol::TaskId;

use super::{Asked, Waiters, Watcher};
use crate::event::ReplyTo;
use crate::id_map::IdSet;
use crate::time::Millis;

#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// They have heard everything up to now.
    listeners: IdSet<ReplyTo>,
    /// Not empty. The store was asked about each while it was watched, so no end of theirs is missed.
    live: BTreeSet<TaskId>,
    /// Nobody listens, and it is kept until then for those who are about to ask again.
    until: Option<Millis>,
}

impl Crowd {
    pub(super) fn watches(&self, task: TaskId) -> bool {
        self.live.contains(&task)
    }
}

impl Waiters {
    /// Whether live tasks of this group are watched.
    pub(crate) fn has_crowd(&self, group: u64) -> bool {
        self.crowds.contains_key(&group)
    }

    /// One who waits for a group has been told everything up to now and joins the crowd, which begins with the tasks that were looked
    /// at for it. Gives those that nobody watches any more, and the time at which the crowd was to go.
    pub(crate) fn listen(&mut self, reply: ReplyTo, group: u64) -> (Vec<TaskId>, Option<Millis>) {
        let Some(waiter) = self.all.get_mut(&reply) else { return (Vec::new(), None) };
        let live = std::mem::take(&mut waiter.pending);
        let is_new = !self.crowds.contains_key(&group);
        let mut left = Vec::new();
        for &task in &live {
            if is_new {
                self.by_task.entry(task).or_default().insert(Watcher::Crowd(group));
            }
            if self.unlink(task, Watcher::One(reply)) {
                left.push(task);
            }
        }
        let crowd = self.crowds.entry(group).or_default();
        if is_new {
            crowd.live = live;
        }
        crowd.listeners.insert(reply);
        (left, crowd.until.take())
    }

    /// Those who listen to a group.
    pub(crate) fn listeners(&self, group: u64) -> Vec<ReplyTo> {
        let crowd = self.crowds.get(&group).into_iter();
        let mut replies: Vec<ReplyTo> = crowd.flat_map(|crowd| &crowd.listeners).copied().collect();
        replies.sort_unstable();
        replies
    }

    /// A task has ended, or is gone, for the crowds that watch it. Gives the groups of which nothing that is watched is live.
    pub(crate) fn leave_crowds(&mut self, task: TaskId) -> Vec<u64> {
        let watchers = self.by_task.get(&task).into_iter().flatten();
        let crowd = |watcher: &Watcher| if let Watcher::Crowd(group) = watcher { Some(*group) } else { None };
        let mut groups: Vec<u64> = watchers.filter_map(crowd).collect();
        groups.sort_unstable();
        groups.retain(|&group| {
            self.unlink(task, Watcher::Crowd(group));
            let crowd = self.crowds.get_mut(&group).expect("who watches is there");
            crowd.live.remove(&task);
            crowd.live.is_empty()
        });
        groups
    }

    /// Nothing is watched for this group any more. Gives the tasks that nobody watches, and the time at which the crowd was to go.
    pub(crate) fn drop_crowd(&mut self, group: u64) -> (Vec<TaskId>, Option<Millis>) {
        let Some(Crowd { live, until, .. }) = self.crowds.remove(&group) else { return (Vec::new(), None) };
        let left = live.into_iter().filter(|&task| self.unlink(task, Watcher::Crowd(group))).collect();
        (left, until)
    }

    /// The crowds without listeners that had some before this event: each is kept until `until`. More than `crowds_max` are not kept.
    pub(crate) fn keep_deserted(&mut self, until: Millis, crowds_max: usize) -> (Vec<u64>, Vec<u64>) {
        let mut deserted = std::mem::take(&mut self.deserted);
        deserted.sort_unstable();
        deserted.dedup();
        deserted.retain(|group| self.crowds.get(group).is_some_and(|crowd| crowd.listeners.is_empty()));
        let (kept, gone) = if self.crowds.len() > crowds_max { (Vec::new(), deserted) } else { (deserted, Vec::new()) };
        for group in &kept {
            self.crowds.get_mut(group).expect("just looked at").until = Some(until);
        }
        (kept, gone)
    }

    /// The times at which crowds without listeners go.
    pub(crate) fn crowds_kept(&self) -> impl Iterator<Item = (u64, Millis)> + '_ {
        self.crowds.iter().filter_map(|(&group, crowd)| Some((group, crowd.until?)))
    }

    pub(super) fn leave_crowd(&mut self, reply: ReplyTo, group: u64) {
        if let Some(crowd) = self.crowds.get_mut(&group)
            && crowd.listeners.remove(&reply)
            && crowd.listeners.is_empty()
        {
            self.deserted.push(group);
        }
    }

    pub(super) fn check_crowds(&self) {
        for (reply, waiter) in &self.all {
            if let Asked::Group { group, checked: true, place, .. } = waiter.asked {
                let listens = self.crowds.get(&group).is_some_and(|crowd| crowd.listeners.contains(reply));
                assert!(listens, "waiter {reply:?} does not listen to group {group} from {place:?} on");
            }
        }
        for (group, crowd) in &self.crowds {
            assert!(!crowd.live.is_empty(), "nothing is watched for group {group}");
            for task in &crowd.live {
                let is_there = self.by_task[task].contains(&Watcher::Crowd(*group));
                assert!(is_there, "the crowd of group {group} is missing at task {task}");
            }
            assert_eq!(
                crowd.until.is_some(),
                crowd.listeners.is_empty(),
                "how long the crowd of group {group} is kept"
            );
            for reply in &crowd.listeners {
                let waits =
                    matches!(self.all[reply].asked, Asked::Group { group: of, checked: true, .. } if of == *group);
                assert!(waits, "the crowd of group {group} has {reply:?}, who does not wait for it");
            }
        }
        assert!(self.deserted.is_empty(), "crowds were left and not looked at");
    }
}
