//! Caps, rates and pauses: nothing starts over them, nothing else is kept back by them, and what was set stays set.

use std::collections::{BTreeMap, BTreeSet};

use laneway_core::{Op, ReplyTo};
use laneway_protocol::message::{FairKeyValues, KindValues, LaneValues};
use laneway_protocol::{FairKey, Kind, LaneName, Rate, TaskState};

use super::{Auditor, id};
use crate::plan::{FAIR_KEYS, LANES, Plan};
use crate::row::Row;

/// Something that can be bounded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Kind(String),
    Lane(String),
    /// `*` is every key that says nothing of its own, and the empty one that of tasks without.
    Key(String),
}

/// What was said of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Said {
    paused: bool,
    cap: Option<u32>,
    rate: Option<Rate>,
    burst: Option<u32>,
    share: Option<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Limits {
    /// Nothing is bounded in the other runs.
    on: bool,
    settings: BTreeMap<Place, Said>,
    /// Everything that may be what the table has: from the last that somebody was told of to the newest.
    said: BTreeMap<Place, Vec<Said>>,
    /// What a question has set: places, with how many words there were about each then.
    asked: BTreeMap<ReplyTo, Vec<(Place, u64)>>,
    asking: Option<ReplyTo>,
    /// Words that were dropped from the front of `said`, for each place.
    dropped: BTreeMap<Place, u64>,
    tokens: BTreeMap<Place, Tokens>,
    /// When a place was last seen to keep tasks back.
    held: BTreeMap<Place, u64>,
    /// Kind, lane and fair key of what runs.
    of: BTreeMap<i64, [Place; 3]>,
    /// The highest share that a lane has had.
    pub(super) shares: BTreeMap<usize, u32>,
    /// Kinds whose own lane has changed at some time: where their rows without a lane stand is not followed.
    moved: BTreeSet<String>,
}

/// The most that can be left of a rate, in parts of which `per_ms` make one start; and the last start.
#[derive(Debug)]
struct Tokens {
    parts: u64,
    at: u64,
    last: u64,
}

impl Said {
    /// Where it says nothing, what `below` says.
    fn beside(self, below: &Said) -> Said {
        Said {
            paused: self.paused,
            cap: self.cap.or(below.cap),
            rate: self.rate.or(below.rate),
            burst: self.burst.or(below.burst),
            share: self.share.or(below.share),
        }
    }

    fn over(&self, settings: Option<&Said>) -> Said {
        let none = Said::default();
        let below = settings.unwrap_or(&none);
        Said {
            paused: self.paused,
            cap: self.cap.or(below.cap).filter(|cap| *cap > 0),
            rate: self.rate.or(below.rate).filter(|rate| rate.bound().is_some()),
            burst: self.burst.or(below.burst),
            share: self.share.or(below.share),
        }
    }

    fn of_kind(paused: bool, values: &KindValues) -> Self {
        Self { paused, cap: values.cap, rate: values.rate, burst: values.rate_burst, share: None }
    }

    fn of_key(values: &FairKeyValues) -> Self {
        Self { paused: false, cap: values.cap, rate: values.rate, burst: values.rate_burst, share: None }
    }

    fn of_lane(paused: bool, values: &LaneValues) -> Self {
        Self { paused, cap: values.cap, rate: values.rate, burst: values.rate_burst, share: values.share }
    }
}

impl Limits {
    pub(super) fn new(plan: &Plan) -> Self {
        let kinds = plan.kind_values();
        let kinds = kinds.iter().map(|(kind, values)| (Place::Kind(kind.to_string()), Said::of_kind(false, values)));
        let lanes = plan.lane_values();
        let lanes = lanes.iter().map(|(lane, values)| (Place::Lane(lane.to_string()), Said::of_lane(false, values)));
        let keys = plan.fair_key_values();
        let keys = keys.iter().map(|(key, values)| (Place::Key(key.to_string()), Said::of_key(values)));
        let settings = kinds.chain(lanes).chain(keys).filter(|(_, said)| *said != Said::default()).collect();
        Self { on: plan.limits, settings, ..Self::default() }
    }

    /// What holds now.
    fn now(&self, place: &Place) -> Said {
        let last = |place: &Place| self.said.get(place).and_then(|said| said.last()).cloned().unwrap_or_default();
        let mut below = self.settings.get(place).cloned().unwrap_or_default();
        if let Place::Key(name) = place {
            if name.is_empty() {
                return Said::default();
            }
            let every = Place::Key("*".into());
            let all = last(&every).beside(&self.settings.get(&every).cloned().unwrap_or_default());
            below = below.beside(&all);
        }
        last(place).over(Some(&below))
    }

    fn say(&mut self, place: Place, change: impl FnOnce(&mut Said), now: u64) {
        let words = self.said.entry(place.clone()).or_insert_with(|| vec![Said::default()]);
        let mut word = words.last().cloned().unwrap_or_default();
        change(&mut word);
        words.push(word);
        let n = self.dropped.get(&place).copied().unwrap_or(0) + words.len() as u64 - 1;
        if let Some(reply) = self.asking {
            self.asked.entry(reply).or_default().push((place.clone(), n));
        }
        self.refill_all(place, now);
    }

    /// What is said of every key is said of each.
    fn refill_all(&mut self, place: Place, now: u64) {
        if matches!(place, Place::Key(_)) {
            for name in FAIR_KEYS {
                self.refill(Place::Key(name.into()), now);
            }
        } else {
            self.refill(place, now);
        }
    }

    /// Whatever there was, no more than the burst can be there now.
    fn refill(&mut self, place: Place, now: u64) {
        let holds = self.now(&place);
        if let Place::Lane(lane) = &place
            && let Some(rank) = LANES.iter().position(|name| name == lane)
        {
            let most = self.shares.entry(rank).or_default();
            *most = holds.share.unwrap_or(0).max(*most);
        }
        match holds.rate.and_then(Rate::bound) {
            None => drop(self.tokens.remove(&place)),
            Some((_, per_ms)) => {
                let parts = u64::from(holds.burst.unwrap_or(1).max(1)) * per_ms;
                self.tokens.insert(place, Tokens { parts, at: now, last: now });
            }
        }
    }

    /// A start. False when there can have been no token for it.
    fn spend(&mut self, place: &Place, now: u64) -> bool {
        let holds = self.now(place);
        let (Some((starts, per_ms)), Some(tokens)) = (holds.rate.and_then(Rate::bound), self.tokens.get_mut(place))
        else {
            return true;
        };
        let most = u64::from(holds.burst.unwrap_or(1).max(1)) * per_ms;
        tokens.parts = (tokens.parts + (now - tokens.at) * u64::from(starts)).min(most);
        (tokens.at, tokens.last) = (now, now);
        let enough = tokens.parts >= per_ms;
        tokens.parts = tokens.parts.saturating_sub(per_ms);
        enough
    }

    fn may_be_dry(&self, place: &Place, now: u64) -> bool {
        let rate = self.now(place).rate.and_then(Rate::bound);
        rate.zip(self.tokens.get(place))
            .is_some_and(|((starts, per_ms), tokens)| now <= tokens.last + per_ms.div_ceil(u64::from(starts)) + 1)
    }
}

/// The lane of a task whose row does not say for sure.
const SOMEWHERE: &str = "?";

fn key_of(row: &Row) -> &str {
    row.fair_key.as_deref().unwrap_or("")
}

fn is_lane(place: &Place) -> bool {
    matches!(place, Place::Lane(_))
}

fn places(kind: &str, lane: &str, key: &str) -> [Place; 3] {
    [Place::Kind(kind.into()), Place::Lane(lane.into()), Place::Key(key.into())]
}

impl Auditor {
    /// What the store has told a new broker.
    pub(crate) fn on_limits(
        &mut self,
        kinds: &[(Kind, bool, KindValues)],
        lanes: &[(LaneName, LaneValues)],
        paused: &[LaneName],
        fair_keys: &[(FairKey, FairKeyValues)],
    ) {
        self.kept_on_start(kinds);
        self.counts_on_start(kinds);
        self.defaults_on_start(kinds);
        let mut found: BTreeMap<Place, Said> = BTreeMap::new();
        for (kind, paused, values) in kinds {
            found.insert(Place::Kind(kind.to_string()), Said::of_kind(*paused, values));
        }
        for (key, values) in fair_keys {
            let mut said = Said::of_key(values);
            said.paused = false;
            found.insert(Place::Key(key.to_string()), said);
        }
        for lane in LANES {
            let values = lanes.iter().find(|(name, _)| name.as_str() == lane).map(|(_, values)| values.clone());
            let paused = paused.iter().any(|name| name.as_str() == lane);
            found.insert(Place::Lane(lane.into()), Said::of_lane(paused, &values.unwrap_or_default()));
        }
        for (place, words) in &self.limits.said {
            let read = found.get(place).cloned().unwrap_or_default();
            if !words.contains(&read) {
                self.found.get_or_insert(format!("of {place:?} {read:?} is kept, and said was one of {words:?}"));
            }
        }
        let bounded: BTreeSet<Place> = found.keys().chain(self.limits.settings.keys()).cloned().collect();
        self.limits.said = found.into_iter().map(|(place, word)| (place, vec![word])).collect();
        self.limits.dropped.clear();
        self.limits.asked.clear();
        self.limits.held.clear();
        for place in bounded {
            self.limits.refill_all(place, self.now);
        }
        let holds = |rank: usize| self.limits.now(&Place::Lane(LANES[rank].into())).share;
        self.owed.on_start((0..LANES.len()).filter_map(|rank| Some((rank, holds(rank).filter(|share| *share > 0)?))));
        let lane = |row: &Row| row.rank.filter(|_| self.follows(row)).map_or(SOMEWHERE, |rank| LANES[rank]);
        self.limits.of =
            self.rows.iter().map(|(task, row)| (*task, places(&row.kind, lane(row), key_of(row)))).collect();
    }

    /// Whether it is known in which lane a row stands.
    pub(super) fn follows(&self, row: &Row) -> bool {
        row.names_lane || !self.limits.moved.contains(&row.kind)
    }

    pub(super) fn on_limit_asked(&mut self, reply: ReplyTo) {
        self.limits.asking = Some(reply);
    }

    /// What was said is on disk, so nothing older is.
    pub(super) fn on_limit_answered(&mut self, reply: ReplyTo) {
        for (place, n) in self.limits.asked.remove(&reply).unwrap_or_default() {
            let dropped = self.limits.dropped.entry(place.clone()).or_default();
            let words = self.limits.said.get_mut(&place).expect("it was said");
            let older = usize::try_from(n.saturating_sub(*dropped)).expect("few words are said");
            words.drain(..older.min(words.len() - 1));
            *dropped = n.max(*dropped);
        }
    }

    pub(super) fn on_limit_op(&mut self, op: &Op) {
        let now = self.now;
        match op {
            Op::SetKind { kind, paused, values } => {
                if values.lane.is_some() {
                    self.limits.moved.insert(kind.to_string());
                }
                let word = Said::of_kind(*paused, values);
                self.limits.say(Place::Kind(kind.to_string()), |said| *said = word, now);
            }
            Op::SetLane { lane, values } => {
                let word = Said::of_lane(false, values);
                let change = |said: &mut Said| *said = Said { paused: said.paused, ..word };
                self.limits.say(Place::Lane(lane.to_string()), change, now);
            }
            Op::SetFairKey { fair_key, values } => {
                let word = Said::of_key(values);
                self.limits.say(Place::Key(fair_key.to_string()), |said| *said = word, now);
            }
            Op::PauseLane { lane, paused } => {
                self.limits.say(Place::Lane(lane.to_string()), |said| said.paused = *paused, now);
            }
            _ => {}
        }
    }

    /// A new hand-out, after it was taken down.
    pub(super) fn on_limited_start(&mut self, task: i64, kind: &Kind, lane: &LaneName, adopted: bool) {
        let key = self.rows.get(&task).map_or("", key_of).to_owned();
        let of = places(kind.as_str(), lane.as_str(), &key);
        self.limits.of.insert(task, of.clone());
        if adopted {
            return;
        }
        for place in of {
            let holds = self.limits.now(&place);
            let running = self.running_in(&place);
            if holds.paused {
                self.fail(format!("task {task} starts while {place:?} is paused"));
            }
            if holds.cap.is_some_and(|cap| running > cap as usize) {
                self.fail(format!("{running} of {place:?} run with task {task}, which has {holds:?}"));
            }
            if !self.limits.spend(&place, self.now) {
                self.fail(format!("task {task} starts faster than {place:?} may, which has {holds:?}"));
            }
        }
    }

    /// Live leases, as far as nobody has interfered. A cancel that came to the table before the hand-out ends it there, though its
    /// worker has yet to hear so.
    fn running_in(&self, place: &Place) -> usize {
        let cancelled = |task: &i64| self.rows.get(task).is_some_and(|row| row.state == TaskState::Cancelled);
        let live = self
            .leases
            .sure
            .iter()
            .filter(|task| !self.touched.contains(task) && !cancelled(task) && self.leases.of.contains_key(task));
        live.filter(|task| self.limits.of.get(task).is_some_and(|of| of.contains(place))).count()
    }

    /// Notes which places keep tasks back at this moment.
    pub(super) fn note_held(&mut self) {
        if !self.limits.on {
            return;
        }
        let keys = FAIR_KEYS.map(|name| Place::Key(name.into()));
        let known = self.limits.said.keys().chain(self.limits.settings.keys()).cloned();
        let places: BTreeSet<Place> = known.chain(keys).collect();
        for place in places {
            let holds = self.limits.now(&place);
            // What an app has touched may still run.
            let at_most = || {
                let counts = |of: &[Place; 3]| {
                    of.contains(&place) || (is_lane(&place) && of[1] == Place::Lane(SOMEWHERE.into()))
                };
                let live = self.limits.of.iter().filter(|(task, _)| self.leases.of.contains_key(task));
                live.filter(|(_, of)| counts(of)).count()
            };
            let full = holds.cap.is_some_and(|cap| at_most() >= cap as usize);
            if holds.paused || full || self.limits.may_be_dry(&place, self.now) {
                self.limits.held.insert(place, self.now);
            }
        }
    }

    /// When something last kept tasks like this one back; 0 for never.
    pub(super) fn held_until(&self, row: &Row) -> u64 {
        let lane = row.rank.map_or("", |rank| LANES[rank]);
        places(&row.kind, lane, key_of(row))
            .iter()
            .filter_map(|place| self.limits.held.get(place))
            .copied()
            .max()
            .unwrap_or(0)
    }

    pub(super) fn is_held(&self, row: &Row) -> bool {
        self.held_until(row) >= self.now.max(1)
    }

    pub(super) fn on_started(&mut self, started: &laneway_core::Started, adopted: bool) {
        self.on_limited_start(id(started.task), &started.kind, &started.lane, adopted);
    }
}
