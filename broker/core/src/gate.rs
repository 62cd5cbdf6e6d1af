//! What keeps tasks of a kind, a lane or a fair key from starting although slots wait: caps, rates, and pauses of kinds.
//!
//! Only a kind or a lane that has one of these has a gate, so a plain task costs a look at an empty map; a fair key has one
//! while it runs something or its tokens are not all there, for there may be any number of keys. A cap is no counter:
//! each gate lists the tasks that run behind it, out of the same live leases that [`Broker::running`] holds, so it is right
//! after any crash. A rate is a bucket of tokens that is filled when somebody looks, with a timer for the next token. A
//! closed kind has no head and no barrier in its queues, a closed lane is passed over, and a closed key has no turn and is
//! left out of what is read ahead; so lower lanes go on.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use laneway_protocol::{FairKey, Kind, LaneName, Rate, TaskId};

use crate::action::Action;
use crate::broker::Broker;
use crate::dispatch::{KindIndex, LaneRank};
use crate::fair::KeyIndex;
use crate::task::Running;
use crate::time::{Millis, Now};
use crate::timer::Timer;

/// Without a `rate_burst` of its own, a bucket holds what comes in this time, and at least one token: timers are no finer
/// than a millisecond.
const BURST_MS: u64 = 10;

/// What a gate is in front of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    Kind(KindIndex),
    Lane(LaneRank),
    Key(KeyIndex),
}

/// How much may pass a gate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) paused: bool,
    pub(crate) cap: Option<u32>,
    /// With the burst, 0 for the default.
    pub(crate) rate: Option<(Rate, u32)>,
}

/// Why nothing passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    Paused,
    /// So many run, as many as may.
    Full(usize, u32),
    /// The next token comes then.
    Dry(Millis, Rate),
}

#[derive(Debug)]
struct Gate {
    bounds: Bounds,
    running: BTreeSet<TaskId>,
    bucket: Option<Bucket>,
}

/// Tokens of a rate, in parts of which `per_ms` make one, so that a millisecond brings a whole number of parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket {
    starts: u64,
    per_ms: u64,
    burst: u64,
    parts: u64,
    at: Millis,
}

#[derive(Debug, Default)]
pub(crate) struct Gates {
    kinds: HashMap<Kind, Gate>,
    lanes: HashMap<LaneName, Gate>,
    keys: HashMap<FairKey, Gate>,
    /// Since when keys have their bounds. A gate of a key is as if it had been there since.
    keys_since: Millis,
    /// Gates to look at again, for something behind them has changed.
    stirred: BTreeSet<Place>,
    /// Gates that have opened or closed since slots were last fed.
    turned: BTreeSet<Place>,
    /// When those that wait for a token get one, and those of keys at rest have them all; each has a timer. The same in the order of time.
    wakes: BTreeMap<Place, Millis>,
    due: BTreeSet<(Millis, Place)>,
}

impl Bucket {
    /// With one token: after a restart or a change at most one start is too many, and a slow rate waits for no whole day.
    fn new(rate: Rate, burst: u32, now: Millis) -> Option<Self> {
        let (starts, per_ms) = rate.bound()?;
        let default = (u64::from(starts) * BURST_MS).div_ceil(per_ms);
        let burst = if burst > 0 { burst.into() } else { default };
        Some(Self { starts: starts.into(), per_ms, burst, parts: per_ms, at: now })
    }

    fn fill(&mut self, now: Millis) {
        let came = now.since(self.at).saturating_mul(self.starts);
        self.parts = self.parts.saturating_add(came).min(self.burst * self.per_ms);
        self.at = self.at.max(now);
    }

    /// `None` when there is a token.
    fn next_at(&self) -> Option<Millis> {
        let short = self.per_ms.checked_sub(self.parts).filter(|&short| short > 0)?;
        Some(self.at.after(short.div_ceil(self.starts)))
    }

    /// When there are as many as it holds; `None` when there are.
    fn full_at(&self) -> Option<Millis> {
        let short = (self.burst * self.per_ms).checked_sub(self.parts).filter(|&short| short > 0)?;
        Some(self.at.after(short.div_ceil(self.starts)))
    }
}

impl Gate {
    fn enter(&mut self, id: TaskId) {
        self.running.insert(id);
    }

    /// A hand-out: one token is gone.
    fn spend(&mut self, now: Millis) {
        if let Some(bucket) = &mut self.bucket {
            bucket.fill(now);
            bucket.parts = bucket.parts.saturating_sub(bucket.per_ms);
        }
    }

    fn fill(&mut self, now: Millis) {
        if let Some(bucket) = &mut self.bucket {
            bucket.fill(now);
        }
    }

    /// As of the last fill.
    fn closed(&self) -> Option<Closed> {
        if self.bounds.paused {
            return Some(Closed::Paused);
        }
        if let Some(cap) = self.bounds.cap
            && self.running.len() >= cap as usize
        {
            return Some(Closed::Full(self.running.len(), cap));
        }
        let (rate, _) = self.bounds.rate?;
        Some(Closed::Dry(self.bucket.as_ref()?.next_at()?, rate))
    }

    /// Nothing runs behind it. When it is as if nothing ever had: at once, with `None`.
    fn rests_until(&self) -> Option<Millis> {
        self.bucket.as_ref()?.full_at()
    }

    /// A rate that changes keeps what tokens there are.
    fn set(&mut self, bounds: Bounds, now: Millis) {
        self.fill(now);
        let fresh = bounds.rate.and_then(|(rate, burst)| Bucket::new(rate, burst, now));
        let tokens = self.bucket.map(|old| (old.parts, old.per_ms));
        self.bucket = fresh.map(|mut bucket| {
            if let Some((parts, per_ms)) = tokens {
                let scaled = u128::from(parts) * u128::from(bucket.per_ms) / u128::from(per_ms);
                bucket.parts = u64::try_from(scaled).unwrap_or(u64::MAX).min(bucket.burst * bucket.per_ms);
            }
            bucket
        });
        self.bounds = bounds;
    }
}

impl Gates {
    fn is_empty(&self) -> bool {
        self.kinds.is_empty() && self.lanes.is_empty() && self.keys.is_empty()
    }

    pub(crate) fn why_kind(&self, kind: &Kind) -> Option<Closed> {
        self.kinds.get(kind)?.closed()
    }

    pub(crate) fn why_lane(&self, lane: &LaneName) -> Option<Closed> {
        self.lanes.get(lane)?.closed()
    }

    pub(crate) fn why_key(&self, key: &FairKey) -> Option<Closed> {
        self.keys.get(key)?.closed()
    }
}

/// The gate with these bounds in the place of the one before; none where nothing is bounded.
fn put<K: Clone + Eq + std::hash::Hash>(
    gates: &mut HashMap<K, Gate>,
    name: &K,
    bounds: Bounds,
    running: impl Fn() -> BTreeSet<TaskId>,
    now: Millis,
) {
    if bounds == Bounds::default() {
        gates.remove(name);
        return;
    }
    let gate = gates.entry(name.clone()).or_insert_with(|| Gate {
        bounds: Bounds::default(),
        running: running(),
        bucket: None,
    });
    gate.set(bounds, now);
}

impl Broker {
    pub(crate) fn bound_kind(&mut self, kind: &Kind, bounds: Bounds, now: Now) {
        let running = || self.running.values().filter(|task| task.kind == *kind).map(|task| task.id).collect();
        put(&mut self.gates.kinds, kind, bounds, running, now.mono);
        if let Some(index) = self.dispatch.kind_of(kind) {
            self.tend(Place::Kind(index), now);
        }
    }

    pub(crate) fn bound_lane(&mut self, lane: &LaneName, bounds: Bounds, now: Now) {
        let running = || self.running.values().filter(|task| task.lane == *lane).map(|task| task.id).collect();
        put(&mut self.gates.lanes, lane, bounds, running, now.mono);
        if let Some(rank) = self.dispatch.lane(lane) {
            self.tend(Place::Lane(rank), now);
        }
    }

    /// The bounds of keys have changed.
    pub(crate) fn bound_keys(&mut self, now: Now) {
        self.gates.keys_since = now.mono;
        let running = self.running.values().filter_map(|task| task.fair_key.clone());
        let keys: BTreeSet<FairKey> = running.chain(self.gates.keys.keys().cloned()).collect();
        for key in keys {
            let bounds = self.key_bounds(&key);
            let running = || {
                let of_key = self.running.values().filter(|task| task.fair_key.as_ref() == Some(&key));
                of_key.map(|task| task.id).collect()
            };
            put(&mut self.gates.keys, &key, bounds, running, now.mono);
            let index = self.dispatch.gate_key(&key);
            self.tend(Place::Key(index), now);
        }
    }

    /// The gate of a task's key, made when there must be one.
    fn key_gate(&mut self, key: Option<&FairKey>) -> Option<(&mut Gate, Place)> {
        let key = key?;
        if !self.gates.keys.contains_key(key) {
            let bounds = self.key_bounds(key);
            if bounds == Bounds::default() {
                return None;
            }
            put(&mut self.gates.keys, key, bounds, BTreeSet::new, self.gates.keys_since);
            self.dispatch.gate_key(key);
        }
        let index = self.dispatch.key_of(key).expect("a key with a gate is known");
        Some((self.gates.keys.get_mut(key)?, Place::Key(index)))
    }

    /// A kind was named for the first time.
    pub(crate) fn stir_kind(&mut self, kind: KindIndex) {
        if !self.gates.kinds.is_empty() {
            self.gates.stirred.insert(Place::Kind(kind));
        }
    }

    /// A task was chosen for a slot: it counts from now on, for the next of its batch as well.
    pub(crate) fn pass_gates(&mut self, kind: &Kind, lane: &LaneName, key: Option<&FairKey>, id: TaskId, now: Now) {
        if let Some((gate, place)) = self.key_gate(key) {
            gate.enter(id);
            gate.spend(now.mono);
            self.tend(place, now);
        }
        if self.gates.is_empty() {
            return;
        }
        if let Some(gate) = self.gates.kinds.get_mut(kind) {
            gate.enter(id);
            gate.spend(now.mono);
            let index = self.dispatch.kind_of(kind).expect("a queue's kind is known");
            self.tend(Place::Kind(index), now);
        }
        if let Some(gate) = self.gates.lanes.get_mut(lane) {
            gate.enter(id);
            gate.spend(now.mono);
            let rank = self.dispatch.lane(lane).expect("a queue's lane is known");
            self.tend(Place::Lane(rank), now);
        }
    }

    /// A hand-out of an earlier epoch: it counts at once, for slots may be fed in the same event, and costs nothing now.
    pub(crate) fn join_gates(&mut self, id: TaskId, now: Now) {
        let key = self.running[&id].fair_key.clone();
        if let Some((gate, place)) = self.key_gate(key.as_ref()) {
            gate.enter(id);
            self.tend(place, now);
        }
        if self.gates.is_empty() {
            return;
        }
        let Running { kind, lane, .. } = &self.running[&id];
        let (mut kind_at, mut lane_at) = (None, None);
        if let Some(gate) = self.gates.kinds.get_mut(kind) {
            gate.enter(id);
            kind_at = self.dispatch.kind_of(kind).map(Place::Kind);
        }
        if let Some(gate) = self.gates.lanes.get_mut(lane) {
            gate.enter(id);
            lane_at = self.dispatch.lane(lane).map(Place::Lane);
        }
        for place in kind_at.into_iter().chain(lane_at) {
            self.tend(place, now);
        }
    }

    /// A run is over.
    pub(crate) fn leave_gates(&mut self, task: &Running) {
        if self.gates.is_empty() {
            return;
        }
        if let Some(key) = &task.fair_key
            && let Some(gate) = self.gates.keys.get_mut(key)
        {
            gate.running.remove(&task.id);
            self.gates.stirred.extend(self.dispatch.key_of(key).map(Place::Key));
        }
        if let Some(gate) = self.gates.kinds.get_mut(&task.kind) {
            gate.running.remove(&task.id);
            self.gates.stirred.extend(self.dispatch.kind_of(&task.kind).map(Place::Kind));
        }
        if let Some(gate) = self.gates.lanes.get_mut(&task.lane) {
            gate.running.remove(&task.id);
            self.gates.stirred.extend(self.dispatch.lane(&task.lane).map(Place::Lane));
        }
    }

    /// Before anything else happens: tokens that have come are there, whether their timers have been looked at or not.
    pub(crate) fn wake_gates(&mut self, now: Now) {
        while let Some(&(at, place)) = self.gates.due.first()
            && at <= now.mono
        {
            self.tend(place, now);
        }
    }

    /// Opens and closes what has changed, and serves the slots that something else stands before now. What opens has tasks
    /// to give; what closes no longer stands before the lower lanes.
    pub(crate) fn feed_gates(&mut self, now: Now) {
        loop {
            while let Some(place) = self.gates.stirred.pop_first() {
                self.tend(place, now);
            }
            let line = match self.gates.turned.pop_first() {
                None => return,
                Some(Place::Kind(kind)) => self.dispatch.idle_line_of_kind(kind),
                Some(Place::Lane(_)) => self.dispatch.idle_line(None),
                Some(Place::Key(key)) => self.dispatch.idle_line_of_key(key),
            };
            self.feed(line, None, now);
        }
    }

    /// Brings a gate, and what dispatch knows of it, up to date.
    fn tend(&mut self, place: Place, now: Now) {
        let gate = match place {
            Place::Kind(kind) => self.gates.kinds.get_mut(self.dispatch.kind_name(kind)),
            Place::Lane(lane) => self.gates.lanes.get_mut(self.dispatch.lane_name(lane)),
            Place::Key(key) => self.dispatch.key_name(key).and_then(|name| self.gates.keys.get_mut(name)),
        };
        let mut rests_until = None;
        let mut is_over = false;
        let closed = gate.and_then(|gate| {
            gate.fill(now.mono);
            if matches!(place, Place::Key(_)) && gate.running.is_empty() {
                rests_until = gate.rests_until();
                is_over = rests_until.is_none();
            }
            gate.closed()
        });
        let wake = match closed {
            Some(Closed::Dry(at, _)) => Some(at),
            Some(Closed::Paused | Closed::Full(..)) | None => rests_until,
        };
        let before = match wake {
            Some(at) => self.gates.wakes.insert(place, at),
            None => self.gates.wakes.remove(&place),
        };
        if before != wake {
            if let Some(at) = before {
                self.gates.due.remove(&(at, place));
                self.timers.clear(at, Timer::Token(place));
            }
            if let Some(at) = wake {
                self.gates.due.insert((at, place));
                self.timers.set(at, Timer::Token(place));
            }
        }
        if self.dispatch.close(place, closed.is_some()) {
            self.gates.turned.insert(place);
            if let Place::Key(key) = place {
                self.key_turned(key, closed.is_some());
            }
        }
        if let Place::Key(key) = place {
            let name = self.dispatch.key_name(key).cloned();
            if let Some(name) = name.filter(|name| is_over || !self.gates.keys.contains_key(name)) {
                self.gates.keys.remove(&name);
                self.dispatch.ungate_key(key);
            }
        }
    }

    /// What a closed key has at hand is not to fill the read-ahead, and what was passed over meanwhile is wanted once it is
    /// open.
    fn key_turned(&mut self, key: KeyIndex, closed: bool) {
        if closed {
            for queue in self.dispatch.queues_of_key(key) {
                let rows = self.dispatch.drop_held(queue);
                if !rows.is_empty() {
                    self.out.push(Action::Unload(rows));
                }
                self.demand(queue);
            }
        } else {
            let name = self.dispatch.key_name(key).cloned();
            for queue in self.dispatch.take_passed(key) {
                self.look_again(queue, name.as_ref());
            }
        }
    }

    /// The lists of the gates are what runs, and what is closed is so for a reason.
    pub(crate) fn check_gates(&self) {
        for (kind, gate) in &self.gates.kinds {
            let running = self.running.values().filter(|task| task.kind == *kind).map(|task| task.id).collect();
            assert_eq!(gate.running, running, "running tasks of kind {kind}");
            if let Some(index) = self.dispatch.kind_of(kind) {
                self.check_gate(Place::Kind(index), gate);
            }
        }
        for (lane, gate) in &self.gates.lanes {
            let running = self.running.values().filter(|task| task.lane == *lane).map(|task| task.id).collect();
            assert_eq!(gate.running, running, "running tasks of lane {lane}");
            if let Some(rank) = self.dispatch.lane(lane) {
                self.check_gate(Place::Lane(rank), gate);
            }
        }
        for (key, gate) in &self.gates.keys {
            let running = self.running.values().filter(|task| task.fair_key.as_ref() == Some(key));
            assert_eq!(gate.running, running.map(|task| task.id).collect(), "running tasks of key {key}");
            let index = self.dispatch.key_of(key).expect("a key with a gate is known");
            assert!(!gate.running.is_empty() || gate.rests_until().is_some(), "the gate of key {key} is for nothing");
            self.check_gate(Place::Key(index), gate);
        }
        for task in self.running.values() {
            if let Some(key) = &task.fair_key {
                let bounded = self.key_bounds(key) != Bounds::default();
                assert_eq!(self.gates.keys.contains_key(key), bounded, "the gate of key {key}");
            }
        }
        for place in self.dispatch.closed_places() {
            let known = match place {
                Place::Kind(kind) => self.gates.kinds.contains_key(self.dispatch.kind_name(kind)),
                Place::Lane(lane) => self.gates.lanes.contains_key(self.dispatch.lane_name(lane)),
                Place::Key(key) => self.dispatch.key_name(key).is_some_and(|name| self.gates.keys.contains_key(name)),
            };
            assert!(known, "{place:?} is closed and has no gate");
        }
        for (&place, &at) in &self.gates.wakes {
            assert!(self.timers.contains(at, Timer::Token(place)), "{place:?} waits for a token without a timer");
            assert!(self.gates.due.contains(&(at, place)), "{place:?} waits for a token that nobody looks for");
        }
        let Gates { stirred, turned, wakes, due, .. } = &self.gates;
        assert_eq!(wakes.len(), due.len());
        assert!(stirred.is_empty() && turned.is_empty(), "{stirred:?} {turned:?} were not looked at");
    }

    fn check_gate(&self, place: Place, gate: &Gate) {
        let closed = gate.closed();
        assert_eq!(
            self.dispatch.closed_places().any(|other| other == place),
            closed.is_some(),
            "{place:?}: {closed:?}"
        );
        let rests = matches!(place, Place::Key(_)) && gate.running.is_empty();
        let waits = matches!(closed, Some(Closed::Dry(..))) || rests;
        assert_eq!(self.gates.wakes.contains_key(&place), waits, "{place:?}: {closed:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(rate: &str, burst: u32) -> Bucket {
        Bucket::new(rate.parse().unwrap(), burst, Millis(0)).unwrap()
    }

    #[test]
    fn tokens_come_in_time_and_no_more_than_the_burst_are_kept() {
        // Begins with one; the next is told to the millisecond; a long pause gives the burst and nothing on top.
        let mut bucket = bucket("3/s", 2);
        assert_eq!(bucket.next_at(), None);
        bucket.parts -= bucket.per_ms;
        assert_eq!(bucket.next_at(), Some(Millis(334)), "a third of a second, rounded up");
        bucket.fill(Millis(333));
        assert_eq!(bucket.next_at(), Some(Millis(334)));
        bucket.fill(Millis(334));
        assert_eq!(bucket.next_at(), None);
        bucket.fill(Millis(1_000_000));
        assert_eq!(bucket.parts / bucket.per_ms, 2);
        bucket.fill(Millis(999_999));
        assert_eq!(bucket.at, Millis(1_000_000), "time does not go back");
    }

    #[test]
    fn the_default_burst_is_what_ten_milliseconds_bring() {
        // And at least one, for the slowest rate; the largest numbers do not overflow.
        for (rate, burst) in [("1/d", 1), ("100/s", 1), ("101/s", 2), ("1000000/s", 10_000)] {
            assert_eq!(bucket(rate, 0).burst, burst, "{rate}");
        }
        let mut most = bucket("1000000/d", 1_000_000);
        most.fill(Millis(u64::MAX));
        assert_eq!(most.parts / most.per_ms, 1_000_000);
    }

    #[test]
    fn a_changed_rate_keeps_the_tokens() {
        // Half a token stays half a token; what is over the new burst is gone; a first rate begins with one.
        let bounds = |rate: &str, burst| Bounds { rate: Some((rate.parse().unwrap(), burst)), ..Bounds::default() };
        let mut gate = Gate { bounds: Bounds::default(), running: BTreeSet::new(), bucket: None };
        gate.set(bounds("1/s", 4), Millis(0));
        gate.spend(Millis(0));
        gate.set(bounds("1/m", 4), Millis(500));
        assert_eq!(gate.bucket.unwrap().parts, 30_000);
        gate.set(bounds("10/s", 4), Millis(10_000_000));
        assert_eq!(gate.bucket.unwrap().parts, 4_000);
        gate.set(bounds("10/s", 2), Millis(10_000_000));
        assert_eq!(gate.bucket.unwrap().parts, 2_000);
        gate.set(Bounds::default(), Millis(10_000_000));
        assert_eq!(gate.closed(), None);
    }
}
