//! Turns: whose task of a lane goes first when tasks of several fair keys are at hand.
//!
//! Start-time fair queuing (Goyal, Vin and Cheng, 1996), with one hand-out as the unit. Each key of a lane has a turn, a
//! number; the least goes first, and a hand-out moves it on by [`ROUND`] divided by the key's weight. The lane's clock is
//! the turn that was served last; a key that had nothing at hand begins there, so nobody saves up turns for later. Of any
//! two keys whose tasks are at hand all the time, that means, neither is given more than one task more than the other,
//! each counted by its weight: the order of the lane is that of a round robin by deficit, without a round to wait for.
//!
//! Tasks without a key are as one key of weight 1 where the lane has others, and cost a look at an empty map where it has
//! none. A key is remembered while something of it is at hand or its turn lies ahead of the clock. [`queue`](crate::queue)
//! keeps the tasks, [`dispatch`](crate::dispatch) chooses.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use laneway_protocol::FairKey;

use crate::dispatch::{LaneRank, QueueIndex};

/// When it is whose turn: the least first. A lane's clock would run for 16 million million hand-outs.
pub(crate) type Turn = u64;

/// What a hand-out costs a key of weight 1. Weights go up to 1,000, so a share is exact to a thousandth.
const ROUND: Turn = 1 << 20;
/// Keys of one lane whose turn lies ahead though nothing of them is at hand. Over it the least is forgotten, which costs
/// the others one task at most.
const AHEAD_KEYS_MAX: usize = 4_096;

/// A fair key by its place here, given anew once nothing needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyIndex(u32);

/// What the store must know of fair keys to read ahead by turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FairRules {
    /// Of keys that `weights` does not name; at least 1.
    pub weight: u32,
    pub weights: HashMap<FairKey, u32>,
    /// Nothing of these may start now, so nothing of them is to be read ahead.
    pub closed: HashSet<FairKey>,
}

#[derive(Debug)]
pub(crate) struct Fair {
    keys: Vec<Key>,
    index: HashMap<FairKey, KeyIndex>,
    free: Vec<KeyIndex>,
    lanes: Vec<Lane>,
    rules: Arc<FairRules>,
}

#[derive(Debug, Default)]
struct Key {
    /// `None` for a free place, and for the first.
    name: Option<FairKey>,
    closed: bool,
    /// What needs the place: its gate, the lanes that know the key, and queues in whose table it was passed over.
    gated: bool,
    lanes: u32,
    passed: BTreeSet<QueueIndex>,
}

#[derive(Debug, Default)]
struct Lane {
    clock: Turn,
    /// The turn of tasks without a key, and how many of them are at hand.
    plain: Turn,
    n_plain: usize,
    keys: HashMap<KeyIndex, Standing>,
    /// Keys of which nothing is at hand.
    ahead: BTreeSet<(Turn, KeyIndex)>,
}

#[derive(Debug, Default)]
struct Standing {
    turn: Turn,
    /// Where its tasks are at hand.
    queues: BTreeSet<QueueIndex>,
}

impl KeyIndex {
    /// That of tasks without a key.
    pub(crate) const NONE: Self = Self(0);

    /// That of some key.
    #[cfg(test)]
    pub(crate) const SOME: Self = Self(1);
}

impl Default for FairRules {
    fn default() -> Self {
        Self { weight: 1, weights: HashMap::new(), closed: HashSet::new() }
    }
}

impl FairRules {
    /// The tasks that a key gets in each round; those without a key are as one key.
    pub fn weight_of(&self, key: Option<&FairKey>) -> u32 {
        key.map_or(1, |key| self.weights.get(key).copied().unwrap_or(self.weight))
    }
}

impl Fair {
    pub(crate) fn new(lanes: usize) -> Self {
        Self {
            keys: vec![Key::default()],
            index: HashMap::new(),
            free: Vec::new(),
            lanes: std::iter::repeat_with(Lane::default).take(lanes).collect(),
            rules: Arc::default(),
        }
    }

    pub(crate) fn rules(&self) -> &Arc<FairRules> {
        &self.rules
    }

    pub(crate) fn set_weights(&mut self, weight: u32, weights: HashMap<FairKey, u32>) {
        if self.rules.weight != weight || self.rules.weights != weights {
            let rules = Arc::make_mut(&mut self.rules);
            (rules.weight, rules.weights) = (weight, weights);
        }
    }

    /// The place of a key. To be [`let_go`](Self::let_go) unless something is made to need it.
    pub(crate) fn learn(&mut self, name: Option<&FairKey>) -> KeyIndex {
        let Some(name) = name else { return KeyIndex::NONE };
        if let Some(&index) = self.index.get(name) {
            return index;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.keys.push(Key::default());
            KeyIndex(u32::try_from(self.keys.len() - 1).expect("keys fit the memory"))
        });
        self.keys[index.0 as usize] =
            Key { name: Some(name.clone()), closed: self.rules.closed.contains(name), ..Key::default() };
        self.index.insert(name.clone(), index);
        index
    }

    /// Forgets a key that nothing needs.
    pub(crate) fn let_go(&mut self, index: KeyIndex) {
        let key = &mut self.keys[index.0 as usize];
        if index == KeyIndex::NONE || key.gated || key.lanes > 0 || !key.passed.is_empty() || key.name.is_none() {
            return;
        }
        assert!(!key.closed, "what closes a key keeps its place");
        let name = std::mem::take(key).name.expect("just looked at");
        self.index.remove(&name);
        self.free.push(index);
    }

    /// A key has a gate, or none any more.
    pub(crate) fn gate(&mut self, index: KeyIndex, gated: bool) {
        self.keys[index.0 as usize].gated = gated;
        self.let_go(index);
    }

    pub(crate) fn find(&self, name: &FairKey) -> Option<KeyIndex> {
        self.index.get(name).copied()
    }

    pub(crate) fn name(&self, index: KeyIndex) -> Option<&FairKey> {
        self.keys[index.0 as usize].name.as_ref()
    }

    pub(crate) fn weight(&self, index: KeyIndex) -> u32 {
        self.rules.weight_of(self.name(index))
    }

    pub(crate) fn is_closed(&self, index: KeyIndex) -> bool {
        self.keys[index.0 as usize].closed
    }

    pub(crate) fn closed(&self) -> impl Iterator<Item = KeyIndex> {
        (0..).map(KeyIndex).zip(&self.keys).filter(|(_, key)| key.closed).map(|(index, _)| index)
    }

    /// Whether that is a change.
    pub(crate) fn close(&mut self, index: KeyIndex, closed: bool) -> bool {
        let key = &mut self.keys[index.0 as usize];
        if std::mem::replace(&mut key.closed, closed) == closed {
            return false;
        }
        let name = key.name.clone().expect("only keys with a name are closed");
        let rules = Arc::make_mut(&mut self.rules);
        if closed {
            rules.closed.insert(name);
        } else {
            rules.closed.remove(&name);
        }
        true
    }

    /// The table of this queue has due rows of the key, which were passed over while it is closed.
    pub(crate) fn passed(&mut self, index: KeyIndex, queue: QueueIndex) {
        self.keys[index.0 as usize].passed.insert(queue);
    }

    /// The queues in which it was passed over since it was closed.
    pub(crate) fn take_passed(&mut self, index: KeyIndex) -> BTreeSet<QueueIndex> {
        std::mem::take(&mut self.keys[index.0 as usize].passed)
    }

    // ------------------------------------------------------------------------------------------------------- turns

    /// That of tasks without a key.
    pub(crate) fn plain_turn(&self, lane: LaneRank) -> Turn {
        self.lanes[lane.index()].plain
    }

    pub(crate) fn turn(&self, lane: LaneRank, index: KeyIndex) -> Turn {
        let lane = &self.lanes[lane.index()];
        if index == KeyIndex::NONE { lane.plain } else { lane.keys[&index].turn }
    }

    /// Whether tasks of the lane take turns.
    pub(crate) fn takes_turns(&self, lane: LaneRank) -> bool {
        !self.lanes[lane.index()].keys.is_empty()
    }

    /// Where tasks of a key are at hand.
    pub(crate) fn queues(&self, lane: LaneRank, index: KeyIndex) -> Vec<QueueIndex> {
        let standing = self.lanes[lane.index()].keys.get(&index);
        standing.map_or_else(Vec::new, |standing| standing.queues.iter().copied().collect())
    }

    pub(crate) fn all_queues(&self, index: KeyIndex) -> Vec<QueueIndex> {
        self.lanes
            .iter()
            .filter_map(|lane| lane.keys.get(&index))
            .flat_map(|known| known.queues.iter().copied())
            .collect()
    }

    /// Tasks without a key came into the read-ahead.
    pub(crate) fn plain_arrives(&mut self, lane: LaneRank) {
        let lane = &mut self.lanes[lane.index()];
        if lane.n_plain == 0 {
            lane.plain = lane.plain.max(lane.clock);
        }
        lane.n_plain += 1;
    }

    pub(crate) fn plain_leaves(&mut self, lane: LaneRank, n: usize) {
        self.lanes[lane.index()].n_plain -= n;
    }

    /// The first task of a key is at hand in a queue. Gives its turn.
    pub(crate) fn arrives(&mut self, lane: LaneRank, index: KeyIndex, queue: QueueIndex) -> Turn {
        let lane = &mut self.lanes[lane.index()];
        if lane.keys.is_empty() {
            lane.clock = lane.clock.max(lane.plain);
        }
        let standing = lane.keys.entry(index).or_insert_with(|| {
            self.keys[index.0 as usize].lanes += 1;
            Standing::default()
        });
        if standing.queues.is_empty() {
            lane.ahead.remove(&(standing.turn, index));
            standing.turn = standing.turn.max(lane.clock);
        }
        standing.queues.insert(queue);
        standing.turn
    }

    /// The last task of a key has left a queue.
    pub(crate) fn leaves(&mut self, rank: LaneRank, index: KeyIndex, queue: QueueIndex) {
        let lane = &mut self.lanes[rank.index()];
        let standing = lane.keys.get_mut(&index).expect("it was at hand");
        standing.queues.remove(&queue);
        if standing.queues.is_empty() {
            lane.ahead.insert((standing.turn, index));
            self.forget(rank);
        }
    }

    /// A task of a key was taken: its next turn, where the lane takes turns.
    ///
    /// A worker may have served keys that no other can run far past this one. What it lags behind more than a round is not
    /// made up for, else it would hold up all others once a worker for it comes.
    pub(crate) fn serve(&mut self, rank: LaneRank, index: KeyIndex) -> Option<Turn> {
        if self.lanes[rank.index()].keys.is_empty() {
            return None;
        }
        let step = ROUND / Turn::from(self.weight(index));
        let lane = &mut self.lanes[rank.index()];
        let turn = match lane.keys.get_mut(&index) {
            Some(standing) => &mut standing.turn,
            None => &mut lane.plain,
        };
        let served = *turn;
        *turn = served.max(lane.clock.saturating_sub(ROUND)) + step;
        lane.clock = lane.clock.max(served);
        let next = *turn;
        self.forget(rank);
        Some(next)
    }

    /// A key is open again: it has no turns to make up for. Gives its turn.
    pub(crate) fn resume(&mut self, lane: LaneRank, index: KeyIndex) -> Turn {
        let lane = &mut self.lanes[lane.index()];
        let standing = lane.keys.get_mut(&index).expect("it is at hand");
        standing.turn = standing.turn.max(lane.clock);
        standing.turn
    }

    /// Keys that the clock has passed are as new.
    fn forget(&mut self, rank: LaneRank) {
        loop {
            let lane = &mut self.lanes[rank.index()];
            let Some(&(turn, index)) = lane.ahead.first() else { return };
            if turn > lane.clock && lane.ahead.len() <= AHEAD_KEYS_MAX {
                return;
            }
            lane.ahead.pop_first();
            lane.keys.remove(&index);
            self.keys[index.0 as usize].lanes -= 1;
            self.let_go(index);
        }
    }

    /// `n_plain` of each lane, and of each key that is at hand somewhere: lane, key, queue.
    pub(crate) fn check(&self, n_plain: &[usize], at_hand: &BTreeSet<(LaneRank, KeyIndex, QueueIndex)>) {
        let mut known = BTreeSet::new();
        for (rank, lane) in self.lanes.iter().enumerate() {
            let rank = LaneRank::new(rank);
            assert_eq!(lane.n_plain, n_plain[rank.index()], "tasks without a key at hand in lane {rank:?}");
            for (&index, standing) in &lane.keys {
                known.extend(standing.queues.iter().map(|&queue| (rank, index, queue)));
                assert_eq!(standing.queues.is_empty(), lane.ahead.contains(&(standing.turn, index)), "{index:?}");
                assert!(self.keys[index.0 as usize].name.is_some(), "{index:?} of lane {rank:?} has no name");
            }
            assert!(lane.ahead.len() <= AHEAD_KEYS_MAX);
        }
        assert_eq!(known, *at_hand, "where tasks of keys are at hand");
        for (index, key) in (0..).map(KeyIndex).zip(&self.keys).skip(1) {
            let lanes = self.lanes.iter().filter(|lane| lane.keys.contains_key(&index)).count();
            assert_eq!(key.lanes as usize, lanes, "lanes that know {index:?}");
            let Some(name) = &key.name else {
                assert!(self.free.contains(&index), "{index:?} is lost");
                continue;
            };
            assert_eq!(self.index.get(name), Some(&index));
            assert!(key.gated || lanes > 0 || !key.passed.is_empty(), "nothing needs {index:?}");
            assert_eq!(key.closed, self.rules.closed.contains(name), "{index:?} as the store is told");
            assert!(key.closed || key.passed.is_empty(), "{index:?} was passed over and is open");
        }
    }
}
