//! Shares of lanes in the choice: what each lane is owed, and who goes first for it.

use super::{ClassId, Dispatch, Head, LaneRank, QueueIndex};

/// Lanes, one bit for each rank. The settings allow 64.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sharers(u64);

/// A whole hand-out, where shares are per cent.
pub(super) const SHARE_ONE: u32 = 100;

impl Sharers {
    pub(crate) fn has(self, lane: LaneRank) -> bool {
        self.0 & lane.bit() != 0
    }
}

impl Dispatch {
    /// The shares of lanes from now on; none is owed anything yet.
    pub(crate) fn set_shares(&mut self, shares: Vec<(LaneRank, u32)>) {
        if self.shares == shares {
            return;
        }
        self.shares = shares;
        for class in self.classes.values_mut() {
            class.owed.clear();
        }
    }

    pub(crate) fn share(&self, lane: LaneRank) -> Option<u32> {
        self.shares.iter().find(|(other, _)| *other == lane).map(|&(_, share)| share)
    }

    /// The lanes with a share of which a slot of this class could take a task now.
    pub(crate) fn sharers(&self, class: ClassId, takes_suspects: bool) -> Sharers {
        let at_hand = |&&(lane, _): &&(LaneRank, u32)| self.first_of_lane(class, lane, takes_suspects).is_some();
        Sharers(self.shares.iter().filter(at_hand).fold(0, |bits, (lane, _)| bits | lane.bit()))
    }

    /// The task that goes before all others, for its lane would get less than its share otherwise. Of several such lanes
    /// the one that would be the first to be owed two.
    pub(crate) fn owed(&self, class: ClassId, sharers: Sharers, takes_suspects: bool) -> Option<Head> {
        if sharers.0 == 0 {
            return None;
        }
        let owed = &self.classes[&class].owed;
        let of = |lane: LaneRank| owed.get(usize::from(lane.0)).copied().unwrap_or(0);
        let ripe = self.shares.iter().filter(|(lane, share)| sharers.has(*lane) && of(*lane) + share >= SHARE_ONE);
        // How many hand-outs are left until then, as a fraction.
        let left = |&(lane, share): &(LaneRank, u32)| ((2 * SHARE_ONE).saturating_sub(of(lane)), share);
        let first = ripe.min_by(|a, b| {
            let ((left_a, share_a), (left_b, share_b)) = (left(a), left(b));
            (left_a * share_b).cmp(&(left_b * share_a))
        });
        self.first_of_lane(class, first?.0, takes_suspects)
    }

    /// A slot of this class has taken a task of `lane`, when it could have taken one of each of the sharers.
    pub(crate) fn count_share(&mut self, class: ClassId, sharers: Sharers, queue: QueueIndex) {
        if self.shares.is_empty() {
            return;
        }
        let taken = usize::from(self.lane_of(queue).0);
        let owed = &mut self.classes.get_mut(&class).expect("its slot took a task").owed;
        owed.resize(self.lanes.len(), 0);
        for &(lane, share) in &self.shares {
            let place = usize::from(lane.0);
            // A lane that had nothing to give is owed nothing for it.
            owed[place] = if sharers.has(lane) { owed[place] + share } else { 0 };
            if place == taken {
                owed[place] = owed[place].saturating_sub(SHARE_ONE);
            }
        }
    }

    fn first_of_lane(&self, class: ClassId, lane: LaneRank, takes_suspects: bool) -> Option<Head> {
        if self.is_closed(lane) {
            return None;
        }
        let heads = self.classes[&class].heads.range(Head::first_of(lane)..).copied();
        let mut heads = heads.take_while(|head| head.lane == lane && !head.barrier);
        heads.find(|head| takes_suspects || !head.suspect)
    }
}
