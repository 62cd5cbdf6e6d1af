//! Shares of lanes in the choice: what each lane is owed, and who goes first for it.
//!
//! Each lane has one count, whatever slots come and leave: a hand-out to a slot that could have taken a task of the lane
//! owes it its share of one, and a task of the lane that is handed out pays one. A lane that is owed a whole one goes first;
//! of several that the slot can run, the one that is owed most. So no lane is ever owed as many hand-outs as there are lanes
//! with a share: this is the game of cups, of which somebody fills some by one in all and the fullest of these is emptied by
//! one. That none comes to more than their number is shown by induction over the sum of the fullest k (as for the car pool
//! of Fagin and Williams, 1983). The first to be owed two, in place of the one that is owed most, would keep all below two
//! where every slot can run all lanes, and has no known bound where they differ.

use super::{ClassId, Dispatch, Head, LaneRank, QueueIndex};

/// Lanes, one bit for each rank. The settings allow 64.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sharers(u64);

/// A whole hand-out, where shares are per cent.
const SHARE_ONE: u32 = 100;

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
        self.owed.fill(0);
    }

    pub(crate) fn share(&self, lane: LaneRank) -> Option<u32> {
        self.shares.iter().find(|(other, _)| *other == lane).map(|&(_, share)| share)
    }

    /// In how many hand-outs in a row, to slots that could take a task of the lane, at least one is of it.
    pub(crate) fn one_of(&self, lane: LaneRank) -> Option<u32> {
        Some(self.owed_max().div_ceil(self.share(lane)?))
    }

    /// What no lane is owed, in hundredths of a hand-out.
    fn owed_max(&self) -> u32 {
        SHARE_ONE * u32::try_from(self.shares.len()).expect("lanes are few")
    }

    /// The lanes with a share of which a slot of this class could take a task now.
    pub(crate) fn sharers(&self, class: ClassId, takes_suspects: bool) -> Sharers {
        let at_hand = |&&(lane, _): &&(LaneRank, u32)| self.first_of_lane(class, lane, takes_suspects).is_some();
        Sharers(self.shares.iter().filter(at_hand).fold(0, |bits, (lane, _)| bits | lane.bit()))
    }

    /// The task that goes before all others, for its lane is owed a whole hand-out with this one.
    pub(crate) fn owed(&self, class: ClassId, sharers: Sharers, takes_suspects: bool) -> Option<Head> {
        let owed = |&(lane, share): &(LaneRank, u32)| self.owed[lane.index()] + share;
        let ripe = self.shares.iter().rev().filter(|known| sharers.has(known.0) && owed(known) >= SHARE_ONE);
        // Of equals the last, which is the most urgent.
        let &(lane, _) = ripe.max_by_key(|known| owed(known))?;
        self.first_of_lane(class, lane, takes_suspects)
    }

    /// A task of `queue` was handed out to a slot that could have taken one of each of the sharers.
    pub(crate) fn count_share(&mut self, sharers: Sharers, queue: QueueIndex) {
        if sharers.0 == 0 {
            return;
        }
        for &(lane, share) in self.shares.iter().filter(|(lane, _)| sharers.has(*lane)) {
            self.owed[lane.index()] += share;
        }
        let taken = self.lane_of(queue).index();
        self.owed[taken] = self.owed[taken].saturating_sub(SHARE_ONE);
    }

    pub(super) fn check_shares(&self) {
        for (lane, owed) in self.lanes.iter().zip(&self.owed) {
            assert!(*owed == 0 || *owed < self.owed_max(), "lane {lane} is owed {owed} hundredths");
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
