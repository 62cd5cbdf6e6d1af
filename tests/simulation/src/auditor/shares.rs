//! Shares of lanes: a lower lane goes first no oftener than its share explains, and no lane gets less than its share.

use std::collections::{BTreeMap, BTreeSet};

use laneway_core::{Action, Event, Now, Started};
use laneway_protocol::message::{Ready, Request};

use super::{Auditor, Open, id};
use crate::plan::LANES;

/// A whole hand-out, where shares are per cent.
const WHOLE: u64 = 100;

#[derive(Debug, Default)]
pub(super) struct Owed {
    /// What lanes may have been owed, in hundredths of a hand-out. Never less than they were.
    most: BTreeMap<usize, u64>,
    /// What they were owed at least: by hand-outs to slots beside which a task of the lane was at hand for sure.
    least: BTreeMap<usize, u64>,
    /// The shares that hold, as long as nobody changes one.
    shares: BTreeMap<usize, u32>,
    /// Tasks that the core has in memory.
    at_hand: BTreeSet<i64>,
}

impl Owed {
    pub(super) fn on_start(&mut self, shares: impl Iterator<Item = (usize, u32)>) {
        let shares: BTreeMap<usize, u32> = shares.collect();
        // What was set before the settings changed may be too much beside them; then others hold.
        let fits = u64::from(shares.values().sum::<u32>()) <= WHOLE;
        *self = Self { shares: if fits { shares } else { BTreeMap::new() }, ..Self::default() };
    }
}

impl Auditor {
    /// What the core is told.
    pub(crate) fn reads_ahead(&mut self, event: &Event) {
        match event {
            Event::Loaded(loaded) => {
                let tasks = loaded.iter().flat_map(|loaded| &loaded.tasks);
                self.owed.at_hand.extend(tasks.map(|task| id(task.id)));
            }
            Event::Asked { request: Request::Lanes(lanes), .. }
                if !(lanes.set.is_empty() && lanes.reset.is_empty()) =>
            {
                // From when on another share holds is not followed.
                self.owed.shares.clear();
            }
            _ => {}
        }
    }

    /// What the core gives back.
    pub(crate) fn gives_back(&mut self, actions: &[Action]) {
        for action in actions {
            if let Action::Unload(tasks) = action {
                for task in tasks {
                    self.owed.at_hand.remove(&id(*task));
                }
            }
        }
    }

    /// The core has chosen a task for a slot. Which slot is not told, so that any lane may be owed more for it.
    pub(super) fn shares_on_start(&mut self, started: &Started) {
        for (rank, share) in &self.limits.shares {
            *self.owed.most.entry(*rank).or_default() += u64::from(*share);
        }
        // A hand-out that is committed first is told later, behind others: its lane pays for it now.
        let waits = |open: &Open| matches!(&open.request, Request::Ready(ready) if ready.committed && ready.session == started.worker);
        if let Some(rank) = LANES.iter().position(|name| *name == started.lane.as_str())
            && self.open.values().any(waits)
        {
            let owed = self.owed.least.entry(rank).or_default();
            *owed = owed.saturating_sub(WHOLE);
        }
        self.owed.at_hand.remove(&id(started.task));
    }

    /// A task was handed out to a slot that was ready in this way.
    pub(super) fn count_shares(&mut self, ready: &Ready, rank: usize, now: Now) {
        let Some((kinds, lanes)) = self.ability(ready).filter(|_| !ready.committed) else { return };
        let has = |lane: usize| {
            self.owed.at_hand.iter().filter_map(|task| Some((*task, self.waiting.told.1.get(task)?))).any(
                |(task, row)| {
                    row.rank == Some(lane)
                        && kinds.iter().any(|kind| kind.as_str() == row.kind)
                        && !self.is_held(row)
                        && self.waits(task, row, now)
                },
            )
        };
        let shares = self.owed.shares.iter().filter(|(lane, _)| lanes.contains(lane));
        let owing: Vec<(usize, u32, bool)> = shares.map(|(lane, share)| (*lane, *share, has(*lane))).collect();
        let most = WHOLE * self.owed.shares.len() as u64;
        for (lane, share, owes) in owing {
            let owed = self.owed.least.entry(lane).or_default();
            if owes {
                *owed += u64::from(share);
                self.tally.owed += 1;
            }
            if lane == rank {
                *owed = owed.saturating_sub(WHOLE);
            }
            if *owed >= most {
                self.found.get_or_insert(format!("lane {} is owed {owed} hundredths of a hand-out", LANES[lane]));
            }
        }
    }

    /// A lower lane went first. Whether its share can explain that; it pays for it.
    pub(super) fn is_owed(&mut self, rank: usize) -> bool {
        let owed = self.owed.most.entry(rank).or_default();
        let enough = *owed >= WHOLE;
        *owed = owed.saturating_sub(WHOLE);
        enough
    }
}
