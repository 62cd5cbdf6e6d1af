//! Fair keys in the choice: which key of a lane comes next, which must make room, which are closed.

use std::collections::HashMap;
use std::sync::Arc;

use laneway_protocol::{FairKey, TaskId};

use super::{Dispatch, IdleLine, LaneRank, QueueIndex};
use crate::event::QueueKey;
use crate::fair::{FairRules, KeyIndex, Turn};

impl Dispatch {
    /// What the store must know of fair keys, as of now.
    pub(crate) fn fair_rules(&self) -> &Arc<FairRules> {
        self.fair.rules()
    }

    pub(crate) fn set_weights(&mut self, weight: u32, weights: HashMap<FairKey, u32>) {
        self.fair.set_weights(weight, weights);
    }

    pub(crate) fn key_of(&self, name: &FairKey) -> Option<KeyIndex> {
        self.fair.find(name)
    }

    pub(crate) fn key_name(&self, key: KeyIndex) -> Option<&FairKey> {
        self.fair.name(key)
    }

    /// The place of a key from when it gets a gate until it has none any more.
    pub(crate) fn gate_key(&mut self, name: &FairKey) -> KeyIndex {
        let key = self.fair.learn(Some(name));
        self.fair.gate(key, true);
        key
    }

    pub(crate) fn ungate_key(&mut self, key: KeyIndex) {
        self.fair.gate(key, false);
    }

    /// Due rows of a key have come into the table of a queue; or a load has passed over them, for the key was closed.
    /// Gives the queue when it is to be read from for them.
    pub(crate) fn appeared(&mut self, at: &QueueKey, name: Option<&FairKey>) -> Option<QueueIndex> {
        let queue = self.served(at)?;
        let key = self.fair.learn(name);
        let rows = &mut self.queues[queue.0];
        let wanted = if self.fair.is_closed(key) {
            self.fair.passed(key, queue);
            false
        } else if rows.has_task(key) {
            rows.set_left(key, true);
            false
        } else {
            true
        };
        self.fair.let_go(key);
        wanted.then_some(queue)
    }

    /// Takes tasks out that others at hand have beyond their part, when a key has some in the table and none at hand.
    pub(crate) fn make_room(&mut self, queue: QueueIndex, name: Option<&FairKey>) -> Vec<TaskId> {
        let weight = self.fair.rules().weight_of(name);
        let fair = &self.fair;
        let gone = self.queues[queue.0].make_room(weight, |key| fair.weight(key), self.window);
        self.gone(queue, gone)
    }

    /// Takes tasks of closed keys out of a queue, when they are many.
    pub(crate) fn drop_held(&mut self, queue: QueueIndex) -> Vec<TaskId> {
        let gone = self.queues[queue.0].drop_held(self.window);
        for &(key, _) in &gone {
            self.fair.passed(key, queue);
        }
        self.gone(queue, gone)
    }

    /// The queues in which rows of a key were passed over while it was closed, and none are at hand: those are to be read. The
    /// others are when their last is taken.
    pub(crate) fn take_passed(&mut self, key: KeyIndex) -> Vec<QueueIndex> {
        let passed = self.fair.take_passed(key);
        self.fair.let_go(key);
        let (at_hand, wanted): (Vec<_>, Vec<_>) =
            passed.into_iter().partition(|queue| self.queues[queue.0].has_task(key));
        for queue in at_hand {
            self.queues[queue.0].set_left(key, true);
        }
        wanted.into_iter().filter(|queue| !self.queues[queue.0].classes.is_empty()).collect()
    }

    /// The table of a queue is to be looked at again, in an order that has changed.
    pub(crate) fn ask_again(&mut self, queue: QueueIndex) -> Option<usize> {
        let rows = self.queues[queue.0].ask_again(self.window)?;
        self.refresh(queue);
        Some(rows)
    }

    /// Whether the last task at hand of the key of `task` was taken though the table has more of it. Told once.
    pub(crate) fn ran_dry(&mut self, queue: QueueIndex, name: Option<&FairKey>) -> bool {
        let Some(key) = name.map_or(Some(KeyIndex::NONE), |name| self.fair.find(name)) else { return false };
        self.queues[queue.0].ran_dry(key)
    }

    pub(crate) fn takes_turns(&self, lane: LaneRank) -> bool {
        self.fair.takes_turns(lane)
    }

    /// Where tasks of a key are at hand.
    pub(crate) fn queues_of_key(&self, key: KeyIndex) -> Vec<QueueIndex> {
        self.fair.all_queues(key)
    }

    pub(crate) fn idle_line_of_key(&self, key: KeyIndex) -> IdleLine {
        self.idle_line_of(self.fair.all_queues(key))
    }

    /// A closed key has no turns: its tasks stand before nobody.
    pub(super) fn close_key(&mut self, key: KeyIndex, closed: bool) -> bool {
        if !self.fair.close(key, closed) {
            return false;
        }
        for lane in self.all_lanes() {
            for queue in self.fair.queues(lane, key) {
                let turn = if closed { None } else { Some(self.fair.resume(lane, key)) };
                self.queues[queue.0].set_turn(key, turn);
                self.refresh(queue);
            }
        }
        true
    }

    /// A key has another turn wherever its tasks are at hand. For those without a key that may be every kind of the lane.
    pub(super) fn move_turn(&mut self, lane: LaneRank, key: KeyIndex, turn: Turn) {
        if key == KeyIndex::NONE {
            for kind in 0..self.kinds.len() {
                let queue = QueueIndex(kind * self.lanes.len() + lane.index());
                if self.queues[queue.0].n_plain() > 0 {
                    self.refresh(queue);
                }
            }
        } else if !self.fair.is_closed(key) {
            for queue in self.fair.queues(lane, key) {
                self.queues[queue.0].set_turn(key, Some(turn));
                self.refresh(queue);
            }
        }
    }
}
