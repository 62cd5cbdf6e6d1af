//! The model of pruning: a walk by id, in pieces, round and round.

use std::collections::{BTreeMap, BTreeSet};

use laneway_core::{Now, UnixMillis};
use laneway_protocol::TaskId;

use super::Db;
use super::cells::{int, state, task_id, text};
use crate::store::{Pruned, Retention};

/// Where it stands.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// What it goes by.
    by: Retention,
    at: i64,
    /// Rows of each group that were kept, and of those that are to go.
    kept: BTreeMap<usize, u64>,
    surplus: BTreeMap<usize, u64>,
    reducing: bool,
    /// When this round began, and the one that counted.
    begun_at: UnixMillis,
    counted_at: UnixMillis,
    /// Rows that it has deleted, and ended rows that others had taken away when this round began, and the one that counted.
    deleted: u64,
    others: u64,
    others_counted: u64,
}

impl Walk {
    pub(super) fn prune(
        &mut self,
        db: &mut Db,
        retention: &Retention,
        watched: &BTreeSet<TaskId>,
        rows: usize,
        now: Now,
    ) -> Pruned {
        let mut pruned = Pruned::default();
        let before = |age_ms: u64| now.wall.0.saturating_sub(i64::try_from(age_ms).unwrap_or(i64::MAX));
        let young = retention.age_ms_min().map(before).filter(|_| retention.counts_max().is_empty());
        if retention.age_ms_min().is_none() && retention.counts_max().is_empty() {
            return Pruned { deleted: 0, over: true };
        }
        if self.by != *retention {
            *self = Self { by: retention.clone(), ..Self::default() };
        }
        let others = db.left - self.deleted;
        if self.at == 0 {
            (self.others, self.begun_at) = (others, now.wall);
        }
        let vanished = others - self.others_counted;
        let looked: Vec<i64> = db.rows.range(self.at + 1..).map(|(id, _)| *id).take(rows).collect();
        let all_young = young.is_some_and(|young| {
            looked.iter().all(|id| int(&db.rows[id], "created_at").is_some_and(|created_at| created_at >= young))
        });
        for id in &looked {
            let row = &db.rows[id];
            let Some(keep) = retention.of(text(row, "kind"), state(row)) else { continue };
            let ended_at = int(row, "finished_at").or(int(row, "created_at")).unwrap_or(0);
            let old = keep.is_old(ended_at, now.wall);
            let surplus = keep.group.is_some_and(|group| self.surplus.get(&group).is_some_and(|n| *n > vanished))
                && keep.holds(self.counted_at, now.wall);
            if (old || surplus) && !watched.contains(&task_id(*id)) && db.delete(*id, now) {
                pruned.deleted += 1;
                self.deleted += 1;
                if let Some(n) = keep.group.and_then(|group| self.surplus.get_mut(&group)) {
                    *n = n.saturating_sub(1);
                }
            } else if let Some(group) = keep.group.filter(|_| keep.is_counted(ended_at, now.wall)) {
                *self.kept.entry(group).or_default() += 1;
            }
        }
        self.at = looked.last().copied().unwrap_or(self.at);
        if looked.len() < rows || all_young {
            pruned.over = self.end(retention.counts_max());
        }
        pruned
    }

    fn end(&mut self, counts_max: &[u64]) -> bool {
        let kept = |group: usize| self.kept.get(&group).copied().unwrap_or(0);
        let surplus: BTreeMap<usize, u64> =
            counts_max.iter().enumerate().map(|(group, max)| (group, kept(group).saturating_sub(*max))).collect();
        let reducing = !self.reducing && surplus.values().any(|n| *n > 0);
        let (by, deleted, others) = (std::mem::take(&mut self.by), self.deleted, self.others);
        let (others_counted, counted_at) = (others, self.begun_at);
        *self = Self { by, surplus, reducing, counted_at, deleted, others, others_counted, ..Self::default() };
        !reducing
    }
}
