//! How long ended rows are kept: none goes before its time, by the settings or by what was set of its kind meanwhile, and none that
//! others still need.

use std::collections::{BTreeMap, BTreeSet};

use laneway_broker::internals::Edges;
use laneway_core::Op;
use laneway_protocol::message::KindValues;
use laneway_protocol::{Kind, TaskState};

use super::Auditor;
use crate::plan::Plan;
use crate::row::Row;

/// The rules that this broker may go by.
#[derive(Debug, Default)]
pub(super) struct Kept {
    ms: Option<u64>,
    /// Dead rows stay, but for kinds of which something is set.
    dead: bool,
    /// For each kind the ages that were set of it since the start, the one it began with among them. `None`: as for all.
    set: BTreeMap<String, BTreeSet<Option<u64>>>,
    /// Something was set in some life, so that a power cut may show its work.
    ever_set: bool,
}

impl Kept {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { ms: plan.kept_ms, dead: plan.kept_dead, ..Self::default() }
    }

    /// Whether anything may be pruned at all.
    pub(super) fn prunes(&self) -> bool {
        self.ms.is_some() || self.ever_set
    }

    /// The ages by which a row may go; here an age is set of all ends at once.
    fn ages(&self, row: &Row) -> Vec<u64> {
        let general = self.ms.filter(|_| row.state != TaskState::Dead || !self.dead);
        let Some(set) = self.set.get(&row.kind) else { return general.into_iter().collect() };
        set.iter().filter_map(|age| age.or(general)).collect()
    }
}

impl Auditor {
    pub(super) fn kept_on_start(&mut self, kinds: &[(Kind, bool, KindValues)]) {
        let known = kinds.iter().map(|(kind, _, values)| (kind.to_string(), BTreeSet::from([values.done_age_ms])));
        self.kept.set = known.collect();
    }

    pub(super) fn kept_on_op(&mut self, op: &Op) {
        if let Op::SetKind { kind, values, .. } = op {
            let before = || BTreeSet::from([None]);
            self.kept.set.entry(kind.to_string()).or_insert_with(before).insert(values.done_age_ms);
            let counts = [values.done_count_max, values.cancelled_count_max, values.dead_count_max];
            self.kept.ever_set |= values.done_age_ms.is_some() || counts != [None; 3];
        }
    }

    /// A turn deletes no row that one of `before` still needs: a child of it that has not ended, or a live task of its group. What
    /// came or was queued again in this very turn may have come behind.
    pub(super) fn check_needed(&mut self, before: &BTreeMap<i64, Row>, edges: &Edges) {
        let stays = |task: &i64| {
            let is_live = |rows: &BTreeMap<i64, Row>| rows.get(task).is_some_and(|row| !row.state.is_final());
            is_live(before) && is_live(&self.rows) && !self.touched.contains(task) && !self.requeued.contains(task)
        };
        let left = before.iter().filter(|(task, _)| !self.rows.contains_key(task) && !self.touched.contains(task));
        for (task, old) in left {
            let child = edges.keys().find(|(child, parent)| parent == task && stays(child)).map(|(child, _)| *child);
            let group = || before.iter().filter(|(_, row)| old.group.is_some() && row.group == old.group);
            if let Some(other) = child.or_else(|| group().map(|(other, _)| *other).find(stays)) {
                self.found.get_or_insert(format!("task {task} has left the table and task {other} still needs it"));
            }
        }
    }

    /// Whether a row ended longer ago than rows of its kind are kept, by the clock of the turn.
    pub(super) fn is_past(&self, task: i64, row: &Row) -> bool {
        // A run that started and ended in this very turn, or whose end this turn has written.
        let ended_at = match row.state {
            TaskState::Running | TaskState::Queued => self.edits.ends.get(&task).copied(),
            TaskState::Waiting => None,
            TaskState::Done | TaskState::Cancelled | TaskState::Dead => Some(row.ended_at),
        };
        let ages = self.kept.ages(row).into_iter().filter_map(|age| i64::try_from(age).ok());
        ended_at.is_some_and(|ended_at| ages.into_iter().any(|age| ended_at < self.waiting.begun.0 - age))
    }
}
