//! Turns of fair keys: while two of them have tasks of a lane at hand that any slot which is served could run, their hand-outs, each
//! divided by the key's weight, differ by at most one of each, over any part of that time.

use std::collections::{BTreeMap, BTreeSet};

use laneway_core::{Action, Event, Now, Op, QueuedTask, Started};
use laneway_protocol::TaskId;
use laneway_protocol::message::Verdict;

use super::{Auditor, id};
use crate::plan::{LANES, Plan};

/// A key of a lane; the empty one is that of tasks without.
type Key = (usize, String);

#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Weights are what the settings say, and nothing is capped, only in runs where nobody changes them.
    on: bool,
    weights: BTreeMap<String, i64>,
    /// Tasks that the core has in memory.
    at_hand: BTreeMap<i64, Key>,
    /// Keys of which something was at hand that a slot could not have: they may lag behind, until nothing is.
    behind: BTreeSet<Key>,
    pairs: BTreeMap<(Key, Key), Pair>,
    /// Leases that are taken over at this moment, and not handed out.
    adopted: BTreeSet<i64>,
}

/// By how much the first is before the second, in parts of which the product of the weights makes one hand-out of a key of
/// weight 1; the most and the least since both have been at hand.
#[derive(Debug, Default)]
struct Pair {
    before: i64,
    most: i64,
    least: i64,
}

impl Turns {
    pub(super) fn new(plan: &Plan) -> Self {
        let values = plan.fair_key_values();
        let weight =
            |key: &str| values.iter().find(|(name, _)| name.as_str() == key).and_then(|(_, values)| values.weight);
        let every = weight("*").unwrap_or(1);
        let weights = crate::plan::FAIR_KEYS.map(|key| (key.to_owned(), weight(key).unwrap_or(every).into()));
        let weights = weights.into_iter().chain([(String::new(), 1)]).collect();
        Self { on: plan.fair && !plan.limits, weights, ..Self::default() }
    }
}

impl Auditor {
    pub(super) fn turns_on_start(&mut self) {
        let Turns { on, weights, .. } = std::mem::take(&mut self.turns);
        self.turns = Turns { on, weights, ..Turns::default() };
    }

    pub(super) fn turns_on_adopted(&mut self, started: &Started) {
        self.turns.adopted.insert(started.lease.value());
    }

    /// What a turn of the store has done to rows takes them from where they were read ahead.
    pub(super) fn turns_on_verdict(&mut self, task: TaskId, verdict: Verdict) {
        if !matches!(verdict, Verdict::Unchanged | Verdict::Needed | Verdict::Twin(_)) {
            self.turns.at_hand.remove(&id(task));
        }
    }

    /// What the core is told.
    pub(crate) fn turns_on_event(&mut self, event: &Event) {
        let Event::Loaded(loaded) = event else { return };
        for loaded in loaded {
            let Some(rank) = LANES.iter().position(|lane| *lane == loaded.key.lane.as_str()) else { continue };
            let key = |task: &QueuedTask| task.fair_key.as_ref().map_or_else(String::new, ToString::to_string);
            self.turns.at_hand.extend(loaded.tasks.iter().map(|task| (id(task.id), (rank, key(task)))));
        }
    }

    /// What the core makes of it.
    pub(crate) fn check_turns(&mut self, actions: &[Action], now: Now) {
        if !self.turns.on {
            return;
        }
        for action in actions {
            if let Action::Unload(tasks) = action {
                for task in tasks {
                    self.turns.at_hand.remove(&id(*task));
                }
            }
        }
        self.drop_keys();
        for action in actions {
            if let Action::Store { op: Op::Started(started), .. } = action {
                self.count_turn(started, now);
            }
        }
    }

    /// Forgets what is not at hand any more, and of keys without anything what they were owed.
    fn drop_keys(&mut self) {
        let rows = &self.rows;
        let there = |task: &i64| rows.get(task).is_some_and(|row| !row.state.is_final());
        self.turns.at_hand.retain(|task, _| there(task));
        let keys: BTreeSet<Key> = self.turns.at_hand.values().cloned().collect();
        self.turns.behind.retain(|key| keys.contains(key));
        self.turns.pairs.retain(|(a, b), _| keys.contains(a) && keys.contains(b));
    }

    fn count_turn(&mut self, started: &Started, now: Now) {
        let task = id(started.task);
        // Of a lane that is none an app may have made it while it ran; then it is taken over, at most.
        let Some(rank) = LANES.iter().position(|lane| *lane == started.lane.as_str()) else { return };
        let Some(row) = self.rows.get(&task) else {
            // An app has deleted it: whose turn that was is not known.
            return self.turns.pairs.retain(|(a, _), _| a.0 != rank);
        };
        let served = (rank, row.fair_key.clone().unwrap_or_default());
        if self.turns.adopted.remove(&started.lease.value()) {
            self.turns.at_hand.remove(&task);
            return self.drop_keys();
        }
        let kinds = self.peers.hello.get(started.worker.as_str()).map(|hello| hello.kinds.clone()).unwrap_or_default();
        let sure = |task: i64| {
            let row = self.waiting.told.1.get(&task);
            row.is_some_and(|row| {
                kinds.iter().any(|kind| kind.as_str() == row.kind)
                    && self.waits(task, row, now)
                    && self.stands_still(task, row)
            })
        };
        let of_lane: Vec<(i64, Key)> = (self.turns.at_hand.iter())
            .filter(|(other, (rank, _))| *rank == served.0 && **other != task)
            .map(|(task, key)| (*task, key.clone()))
            .collect();
        let all: BTreeSet<Key> = of_lane.iter().map(|(_, key)| key.clone()).chain([served.clone()]).collect();
        let mut ready: BTreeSet<Key> =
            of_lane.iter().filter(|(task, _)| sure(*task)).map(|(_, key)| key.clone()).collect();
        ready.insert(served.clone());
        self.turns.behind.extend(all.difference(&ready).cloned());
        ready.retain(|key| !self.turns.behind.contains(key));
        let behind = &self.turns.behind;
        self.turns.pairs.retain(|(a, b), _| !behind.contains(a) && !behind.contains(b));
        let keys: Vec<Key> = ready.into_iter().collect();
        let weights = &self.turns.weights;
        let mut wrong = None;
        for (n, a) in keys.iter().enumerate() {
            for b in &keys[n + 1..] {
                let (of_a, of_b) = (weights[&a.1], weights[&b.1]);
                let pair = self.turns.pairs.entry((a.clone(), b.clone())).or_default();
                if *a == served {
                    pair.before += of_b;
                } else if *b == served {
                    pair.before -= of_a;
                }
                pair.most = pair.most.max(pair.before);
                pair.least = pair.least.min(pair.before);
                self.tally.turns += u64::from(*a == served || *b == served);
                if pair.most - pair.least > of_a + of_b {
                    wrong = Some(format!("{a:?} of weight {of_a} and {b:?} of {of_b} do not take turns: {pair:?}"));
                }
            }
        }
        self.turns.at_hand.remove(&task);
        self.drop_keys();
        if let Some(wrong) = wrong {
            self.fail(wrong);
        }
    }
}
