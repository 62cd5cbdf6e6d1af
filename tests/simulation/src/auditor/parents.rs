//! Parents' results: who runs a task, and nobody else, is told how those ended that it waited for: each once, by id, as the table has it.

use std::collections::BTreeSet;

use laneway_core::ReplyTo;
use laneway_protocol::TaskState;
use laneway_protocol::message::{Final, Progress, ProgressNoted};

use super::{Auditor, id};

impl Auditor {
    /// Whoever asks under another lease is told nothing. What happens to a run behind its question is no reason to keep quiet.
    pub(super) fn on_parents_asked(&mut self, reply: ReplyTo, progress: &Progress) {
        let (task, lease) = (id(progress.task), progress.lease.value());
        if progress.parents.is_some() && self.leases.of.get(&task).is_some_and(|leases| leases.contains(&lease)) {
            self.asked_by_holders.insert(reply);
        }
    }

    pub(super) fn check_parents(&mut self, reply: ReplyTo, progress: &Progress, noted: &ProgressNoted) {
        let task = id(progress.task);
        if !self.asked_by_holders.remove(&reply) {
            self.fail(format!("{} is told of the parents of task {task}, which it does not run", progress.session));
        }
        self.tally.parents += noted.parents.len() as u64;
        if self.touched.contains(&task) || !self.rows.contains_key(&task) {
            return;
        }
        let after = progress.parents.map_or(0, u64::cast_signed);
        let told: Vec<i64> = noted.parents.iter().map(|parent| id(parent.task)).collect();
        let until = if noted.more { told.last().copied().unwrap_or(0) } else { i64::MAX };
        let parents: BTreeSet<i64> =
            self.parents(task).into_iter().map(|(parent, _)| parent).filter(|parent| *parent > after).collect();
        let missing = parents.iter().find(|parent| {
            **parent <= until
                && self.rows.contains_key(parent)
                && !self.touched.contains(parent)
                && !told.contains(parent)
        });
        let wrong = if !told.is_sorted_by(|one, next| one < next) || told.iter().any(|parent| !parents.contains(parent))
        {
            Some(format!("its parents are {parents:?}"))
        } else if let Some(parent) = missing {
            Some(format!("not of {parent}"))
        } else {
            noted.parents.iter().find_map(|parent| self.wrong_parent(task, parent))
        };
        if let Some(wrong) = wrong {
            self.fail(format!("task {task} is told of its parents behind {after} {noted:?}: {wrong}"));
        }
    }

    fn wrong_parent(&self, task: i64, told: &Final) -> Option<String> {
        let parent = id(told.task);
        if self.is_gone(parent) || self.requeued.contains(&parent) {
            return None;
        }
        // A child that was queued again runs whatever its parents do.
        if told.state == TaskState::Queued && self.requeued.contains(&task) {
            return None;
        }
        let row = self.rows.get(&parent)?;
        let result = told.result.as_ref().map(|result| String::from_utf8_lossy(&result.bytes).into_owned());
        (told.state != row.state || result != row.result).then(|| format!("the row of {parent} says {row:?}"))
    }
}
