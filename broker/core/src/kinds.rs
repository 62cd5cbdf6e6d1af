//! LANES and KINDS: what people set of lanes and kinds while the broker runs, over what the settings say of them. Kept in
//! the table, so that it outlives the broker. Validated here, made to hold at [`gate`](crate::gate) and in [`Settings`]; how long
//! ended tasks are kept is the store's business, which hears of it by the same operation.

use std::collections::{BTreeMap, BTreeSet};

use laneway_protocol::codec::Room;
use laneway_protocol::limits::{
    ATTEMPTS_MAX, BACKOFF_MS_MAX, CAP_MAX, KEPT_AGE_MS_MAX, KEPT_COUNT_MAX, RATE_STARTS_MAX, SHARE_MAX, TIMEOUT_MS_MAX,
};
use laneway_protocol::message::{
    Answer, KindRows, KindState, KindValues, Kinds, LaneRow, LaneRows, LaneValues, Lanes, SetKind, SetLane,
};
use laneway_protocol::{Code, FairKey, Kind, LaneName, Rate, WireError};

use crate::action::{Action, Counts, Op};
use crate::admin::span;
use crate::broker::Broker;
use crate::dispatch::LaneRank;
use crate::event::{Asker, QueueKey, ReplyTo};
use crate::gate::{Bounds, Closed};
use crate::limits::ANSWER_LIST_BYTES;
use crate::settings::{KindSettings, Settings};
use crate::settle::Pending;
use crate::time::Now;

/// What was set of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SetValues {
    pub(crate) paused: bool,
    pub(crate) values: KindValues,
}

impl Broker {
    /// At start: what the settings say, and what was set in earlier lives. A lane that is not in the settings any more is
    /// passed over.
    pub(crate) fn begin_limits(
        &mut self,
        kinds: Vec<(Kind, bool, KindValues)>,
        lanes: Vec<(LaneName, LaneValues)>,
        now: Now,
    ) {
        for (kind, paused, mut values) in kinds {
            values.lane = values.lane.filter(|lane| self.dispatch.lane(lane).is_some());
            self.set_kinds.insert(kind, SetValues { paused, values });
        }
        self.set_lanes = lanes.into_iter().filter(|(lane, _)| self.dispatch.lane(lane).is_some()).collect();
        let kinds: BTreeSet<Kind> = self.set_kinds.keys().chain(self.settings.kind_values.keys()).cloned().collect();
        for kind in kinds {
            self.make_kind_hold(&kind, now);
        }
        let lanes: BTreeSet<LaneName> =
            self.set_lanes.keys().chain(self.settings.lane_values.keys()).cloned().collect();
        for lane in lanes {
            self.make_lane_hold(&lane, now);
        }
    }

    // ---------------------------------------------------------------------------------------------------------- KINDS

    pub(crate) fn on_kinds(&mut self, from: Asker, kinds: Kinds, now: Now) {
        let set = match self.set_kinds_with(&kinds) {
            Ok(set) => set,
            Err(error) => return self.refuse(from.reply, error),
        };
        let named = set.keys().cloned().collect();
        for (kind, new) in set {
            self.store_for(
                Op::SetKind { kind: kind.clone(), paused: new.paused, values: new.values.clone() },
                Pending::Nothing,
            );
            let lane = self.settings.kind(&kind).lane.clone();
            if new == SetValues::default() {
                self.set_kinds.remove(&kind);
            } else {
                self.set_kinds.insert(kind.clone(), new);
            }
            self.make_kind_hold(&kind, now);
            let new_lane = self.settings.kind(&kind).lane.clone();
            if lane != new_lane {
                self.read_anew(&QueueKey { lane, kind: kind.clone() });
                self.read_anew(&QueueKey { lane: new_lane, kind });
            }
        }
        let pending = Pending::Kinds { reply: from.reply, after: kinds.after, named };
        self.ask_store(from.reply, Op::Counts, pending, now);
    }

    /// What is set of each kind that a question names, once it is done.
    fn set_kinds_with(&self, kinds: &Kinds) -> Result<BTreeMap<Kind, SetValues>, WireError> {
        let mut set: BTreeMap<Kind, SetValues> = BTreeMap::new();
        let known = |kind: &Kind| self.set_kinds.get(kind).cloned().unwrap_or_default();
        for (names, paused) in [(&kinds.pause, true), (&kinds.resume, false)] {
            for kind in names {
                set.entry(kind.clone()).or_insert_with(|| known(kind)).paused = paused;
            }
        }
        for kind in &kinds.reset {
            set.entry(kind.clone()).or_insert_with(|| known(kind)).values = KindValues::default();
        }
        for (n, SetKind { kind, values }) in kinds.set.iter().enumerate() {
            let field = |name: &str| format!("set[{n}].values.{name}");
            check_kind(values, &field)?;
            if let Some(lane) = &values.lane {
                self.known_lane(lane, &field("lane"))?;
            }
            let entry = set.entry(kind.clone()).or_insert_with(|| known(kind));
            entry.values = over(values, &entry.values);
            let merged = over(&entry.values, &of(&self.settings.kind_values, kind));
            let KindSettings { backoff_base_ms: base, backoff_max_ms: max, .. } = resolve(&merged, &self.settings);
            if base > max {
                let text =
                    format!("backoff_base_ms of kind '{kind}' would be {base}, over its backoff_max_ms of {max}");
                return Err(WireError::new(Code::BadBody, text).field(field("backoff_base_ms")));
            }
        }
        let fresh = set.keys().filter(|kind| !self.set_kinds.contains_key(*kind)).count();
        if self.set_kinds.len() + fresh > self.settings.kinds_max {
            let text = format!("{} kinds have values of their own, as many as may (kinds_max)", self.set_kinds.len());
            return Err(WireError::new(Code::Full, text));
        }
        Ok(set)
    }

    /// What is set of a kind and what the settings say of it come into force.
    fn make_kind_hold(&mut self, kind: &Kind, now: Now) {
        let set = self.set_kinds.get(kind).cloned().unwrap_or_default();
        let values = over(&set.values, &of(&self.settings.kind_values, kind));
        let resolved = resolve(&values, &self.settings);
        if resolved == self.settings.defaults {
            self.settings.kinds.remove(kind);
        } else {
            self.settings.kinds.insert(kind.clone(), resolved);
        }
        let bounds = Bounds { paused: set.paused, ..bounds(values.cap, values.rate, values.rate_burst) };
        self.bound_kind(kind, bounds, now);
    }

    /// Tasks of this kind that name no lane may stand in another queue now.
    fn read_anew(&mut self, key: &QueueKey) {
        if let Some((queue, rows)) = self.dispatch.reread(key) {
            if !rows.is_empty() {
                self.out.push(Action::Unload(rows));
            }
            self.demand(queue);
        }
    }

    /// All kinds that there is something to say of, and those that were `named`: one that has just been reset may have nothing.
    pub(crate) fn on_kind_counts(
        &mut self,
        reply: ReplyTo,
        after: Option<&Kind>,
        named: BTreeSet<Kind>,
        counts: &Counts,
    ) {
        if !self.close_question(reply) {
            return;
        }
        let mut queued: BTreeMap<Kind, u64> = BTreeMap::new();
        for (_, kind, n) in counts.queued.iter().filter(|(.., n)| *n > 0) {
            // Rows of no kind that there can be are rejected.
            if let Ok(kind) = Kind::new(kind) {
                *queued.entry(kind).or_default() += n;
            }
        }
        let mut kinds = named;
        kinds.extend(queued.keys().cloned());
        kinds.extend(self.workers.iter().flat_map(|(_, session)| self.kinds_of(session)));
        kinds.extend(self.running.values().map(|task| task.kind.clone()));
        kinds.extend(self.set_kinds.keys().chain(self.settings.kind_values.keys()).cloned());
        let mut room = Room::with_reserved(ANSWER_LIST_BYTES);
        let mut rows = KindRows::default();
        for kind in kinds {
            if after.is_some_and(|after| kind <= *after) {
                continue;
            }
            let mut row = self.kind_state(&kind, queued.get(&kind).copied().unwrap_or(0));
            if !room.take_kind(&mut row) {
                rows.next = rows.kinds.last().map(|row| row.kind.clone());
                break;
            }
            rows.kinds.push(row);
        }
        self.answer(reply, Answer::Kinds(rows));
    }

    fn kind_state(&self, kind: &Kind, queued: u64) -> KindState {
        let set = self.set_kinds.get(kind).cloned().unwrap_or_default();
        let own = of(&self.settings.kind_values, kind);
        let values = over(&set.values, &own);
        let Bounds { cap, rate, .. } = bounds(values.cap, values.rate, values.rate_burst);
        let KindSettings { lane, max_attempts, timeout_ms, backoff_base_ms, backoff_max_ms } =
            self.settings.kind(kind).clone();
        KindState {
            kind: kind.clone(),
            paused: set.paused,
            queued,
            running: self.running.values().filter(|task| task.kind == *kind).count() as u64,
            workers: self.workers_of(kind.as_str()),
            cap,
            rate: rate.map(|(rate, _)| rate),
            rate_burst: rate.map(|(_, burst)| burst).filter(|&burst| burst > 0),
            lane,
            max_attempts,
            timeout_ms,
            backoff_base_ms,
            backoff_max_ms,
            done_age_ms: values.done_age_ms,
            done_count_max: values.done_count_max,
            cancelled_age_ms: values.cancelled_age_ms,
            cancelled_count_max: values.cancelled_count_max,
            dead_age_ms: values.dead_age_ms,
            dead_count_max: values.dead_count_max,
            settings: names(&own).filter(|name| !names(&set.values).any(|set| set == *name)).map(Into::into).collect(),
            set: names(&set.values).map(Into::into).collect(),
        }
    }

    // ---------------------------------------------------------------------------------------------------------- LANES

    pub(crate) fn on_lanes(&mut self, from: Asker, lanes: &Lanes, now: Now) {
        let set = match self.set_lanes_with(lanes) {
            Ok(set) => set,
            Err(error) => return self.refuse(from.reply, error),
        };
        for (names, paused) in [(&lanes.pause, true), (&lanes.resume, false)] {
            for name in names {
                let rank = self.known_lane(name, "lane").expect("just looked up");
                self.dispatch.pause(rank, paused);
                self.store_for(Op::PauseLane { lane: name.clone(), paused }, Pending::Nothing);
            }
        }
        for (lane, values) in set {
            self.store_for(Op::SetLane { lane: lane.clone(), values: values.clone() }, Pending::Nothing);
            if values == LaneValues::default() {
                self.set_lanes.remove(&lane);
            } else {
                self.set_lanes.insert(lane.clone(), values);
            }
            self.make_lane_hold(&lane, now);
        }
        if !lanes.changes_nothing() {
            // A paused lane no longer stands before the lower ones; a resumed one has tasks to give.
            self.feed_all(now);
        }
        self.ask_store(from.reply, Op::Counts, Pending::Lanes { reply: from.reply }, now);
    }

    /// What is set of each lane that a question names, once it is done.
    fn set_lanes_with(&self, lanes: &Lanes) -> Result<BTreeMap<LaneName, LaneValues>, WireError> {
        for (field, names) in [("pause", &lanes.pause), ("resume", &lanes.resume), ("reset", &lanes.reset)] {
            for name in names {
                self.known_lane(name, field)?;
            }
        }
        let mut set: BTreeMap<LaneName, LaneValues> =
            lanes.reset.iter().map(|lane| (lane.clone(), LaneValues::default())).collect();
        for (n, SetLane { lane, values }) in lanes.set.iter().enumerate() {
            self.known_lane(lane, &format!("set[{n}].lane"))?;
            check_lane(values, &|name| format!("set[{n}].values.{name}"))?;
            let entry = set.entry(lane.clone()).or_insert_with(|| of(&self.set_lanes, lane));
            *entry = over_lane(values, entry);
        }
        let share = |lane: &LaneName| {
            let set = set.get(lane).cloned().unwrap_or_else(|| of(&self.set_lanes, lane));
            over_lane(&set, &of(&self.settings.lane_values, lane)).share.unwrap_or(0)
        };
        let shares: u32 = self.dispatch.lanes().iter().map(share).sum();
        if shares > SHARE_MAX {
            let text = format!("the shares of all lanes would be {shares} per cent, at most {SHARE_MAX} are there");
            return Err(WireError::new(Code::BadBody, text).field("set"));
        }
        Ok(set)
    }

    fn make_lane_hold(&mut self, lane: &LaneName, now: Now) {
        let values = self.lane_values(lane);
        self.bound_lane(lane, bounds(values.cap, values.rate, values.rate_burst), now);
        // What was set before the settings changed may be too much beside them.
        let shares = self.shares(|lane| self.lane_values(lane));
        let fits = shares.iter().map(|(_, share)| share).sum::<u32>() <= SHARE_MAX;
        let shares = if fits { shares } else { self.shares(|lane| of(&self.settings.lane_values, lane)) };
        self.dispatch.set_shares(shares);
    }

    fn shares(&self, values: impl Fn(&LaneName) -> LaneValues) -> Vec<(LaneRank, u32)> {
        let lanes = self.dispatch.all_lanes().into_iter();
        lanes
            .filter_map(|rank| Some((rank, values(self.dispatch.lane_name(rank)).share.filter(|&share| share > 0)?)))
            .collect()
    }

    fn lane_values(&self, lane: &LaneName) -> LaneValues {
        over_lane(&of(&self.set_lanes, lane), &of(&self.settings.lane_values, lane))
    }

    pub(crate) fn on_lane_counts(&mut self, reply: ReplyTo, counts: &Counts) {
        if !self.close_question(reply) {
            return;
        }
        let mut queued: BTreeMap<&str, u64> = BTreeMap::new();
        for (lane, _, n) in &counts.queued {
            *queued.entry(lane).or_default() += n;
        }
        let mut lanes: Vec<LaneRow> = Vec::new();
        for rank in self.dispatch.all_lanes() {
            let name = self.dispatch.lane_name(rank);
            let values = self.lane_values(name);
            let Bounds { cap, rate, .. } = bounds(values.cap, values.rate, values.rate_burst);
            lanes.push(LaneRow {
                paused: self.dispatch.is_paused(rank),
                configured: true,
                queued: queued.remove(name.as_str()).unwrap_or(0),
                running: self.running.values().filter(|task| task.lane == *name).count() as u64,
                ready: self.dispatch.ready_in_lane(rank) as u64,
                handed_out: self.dispatch.handed_out(rank),
                cap,
                rate: rate.map(|(rate, _)| rate),
                rate_burst: rate.map(|(_, burst)| burst).filter(|&burst| burst > 0),
                share: self.dispatch.share(rank),
                one_of: self.dispatch.one_of(rank),
                set: lane_names(&of(&self.set_lanes, name)).map(Into::into).collect(),
                ..LaneRow::new(name.to_string())
            });
        }
        lanes.extend(
            queued
                .into_iter()
                .filter(|&(_, n)| n > 0)
                .map(|(lane, queued)| LaneRow { queued, ..LaneRow::new(lane.to_owned()) }),
        );
        self.answer(reply, Answer::Lanes(LaneRows { lanes }));
    }

    // -------------------------------------------------------------------------------------------------------- explain

    pub(crate) fn explain_pause(&self, kind: &Kind) -> Option<String> {
        let paused = self.gates.why_kind(kind) == Some(Closed::Paused);
        paused.then(|| format!("its kind '{kind}' is paused; `laneway kind resume {kind}` resumes it"))
    }

    /// A cap or a rate that keeps the task back.
    pub(crate) fn explain_gates(
        &self,
        kind: &Kind,
        lane: &LaneName,
        key: Option<&FairKey>,
        now: Now,
    ) -> Option<String> {
        let of = |what: &str, name: &str, closed: Option<Closed>| match closed? {
            Closed::Paused => None,
            Closed::Full(running, cap) => Some(format!("{what} '{name}' runs {running} of at most {cap}")),
            Closed::Dry(at, rate) => Some(format!(
                "the rate of {what} '{name}', {rate}, lets the next one start in {}",
                span(at.since(now.mono))
            )),
        };
        of("kind", kind.as_str(), self.gates.why_kind(kind))
            .or_else(|| of("lane", lane.as_str(), self.gates.why_lane(lane)))
            .or_else(|| key.and_then(|key| of("fair key", key.as_str(), self.gates.why_key(key))))
    }
}

pub(crate) fn of<K: Ord, V: Clone + Default>(all: &BTreeMap<K, V>, name: &K) -> V {
    all.get(name).cloned().unwrap_or_default()
}

/// The values of `upper`, and where it says nothing those of `lower`.
fn over(upper: &KindValues, lower: &KindValues) -> KindValues {
    KindValues {
        cap: upper.cap.or(lower.cap),
        rate: upper.rate.or(lower.rate),
        rate_burst: upper.rate_burst.or(lower.rate_burst),
        lane: upper.lane.clone().or_else(|| lower.lane.clone()),
        max_attempts: upper.max_attempts.or(lower.max_attempts),
        timeout_ms: upper.timeout_ms.or(lower.timeout_ms),
        backoff_base_ms: upper.backoff_base_ms.or(lower.backoff_base_ms),
        backoff_max_ms: upper.backoff_max_ms.or(lower.backoff_max_ms),
        done_age_ms: upper.done_age_ms.or(lower.done_age_ms),
        done_count_max: upper.done_count_max.or(lower.done_count_max),
        cancelled_age_ms: upper.cancelled_age_ms.or(lower.cancelled_age_ms),
        cancelled_count_max: upper.cancelled_count_max.or(lower.cancelled_count_max),
        dead_age_ms: upper.dead_age_ms.or(lower.dead_age_ms),
        dead_count_max: upper.dead_count_max.or(lower.dead_count_max),
    }
}

fn over_lane(upper: &LaneValues, lower: &LaneValues) -> LaneValues {
    LaneValues {
        cap: upper.cap.or(lower.cap),
        rate: upper.rate.or(lower.rate),
        rate_burst: upper.rate_burst.or(lower.rate_burst),
        share: upper.share.or(lower.share),
    }
}

fn resolve(values: &KindValues, settings: &Settings) -> KindSettings {
    let defaults = &settings.defaults;
    KindSettings {
        lane: values.lane.clone().unwrap_or_else(|| defaults.lane.clone()),
        max_attempts: values.max_attempts.unwrap_or(defaults.max_attempts),
        timeout_ms: values.timeout_ms.unwrap_or(defaults.timeout_ms),
        backoff_base_ms: values.backoff_base_ms.unwrap_or(defaults.backoff_base_ms),
        backoff_max_ms: values.backoff_max_ms.unwrap_or(defaults.backoff_max_ms),
    }
}

/// 0 and `none` take a bound away.
pub(crate) fn bounds(cap: Option<u32>, rate: Option<Rate>, burst: Option<u32>) -> Bounds {
    let rate = rate.filter(|rate| rate.bound().is_some()).map(|rate| (rate, burst.unwrap_or(0)));
    Bounds { paused: false, cap: cap.filter(|&cap| cap > 0), rate }
}

/// The fields that are said.
fn names(values: &KindValues) -> impl Iterator<Item = &'static str> {
    let said = [
        ("cap", values.cap.is_some()),
        ("rate", values.rate.is_some()),
        ("rate_burst", values.rate_burst.is_some()),
        ("lane", values.lane.is_some()),
        ("max_attempts", values.max_attempts.is_some()),
        ("timeout_ms", values.timeout_ms.is_some()),
        ("backoff_base_ms", values.backoff_base_ms.is_some()),
        ("backoff_max_ms", values.backoff_max_ms.is_some()),
        ("done_age_ms", values.done_age_ms.is_some()),
        ("done_count_max", values.done_count_max.is_some()),
        ("cancelled_age_ms", values.cancelled_age_ms.is_some()),
        ("cancelled_count_max", values.cancelled_count_max.is_some()),
        ("dead_age_ms", values.dead_age_ms.is_some()),
        ("dead_count_max", values.dead_count_max.is_some()),
    ];
    said.into_iter().filter(|(_, said)| *said).map(|(name, _)| name)
}

fn lane_names(values: &LaneValues) -> impl Iterator<Item = &'static str> {
    let said = [
        ("cap", values.cap.is_some()),
        ("rate", values.rate.is_some()),
        ("rate_burst", values.rate_burst.is_some()),
        ("share", values.share.is_some()),
    ];
    said.into_iter().filter(|(_, said)| *said).map(|(name, _)| name)
}

type Field<'a> = &'a dyn Fn(&str) -> String;

pub(crate) fn check_bounds(cap: Option<u32>, burst: Option<u32>, field: Field<'_>) -> Result<(), WireError> {
    within("cap", cap.map(u64::from), 0, CAP_MAX.into(), field)?;
    within("rate_burst", burst.map(u64::from), 0, RATE_STARTS_MAX.into(), field)
}

fn check_kind(values: &KindValues, field: Field<'_>) -> Result<(), WireError> {
    check_bounds(values.cap, values.rate_burst, field)?;
    within("max_attempts", values.max_attempts.map(u64::from), 1, ATTEMPTS_MAX.into(), field)?;
    within("timeout_ms", values.timeout_ms, 1, TIMEOUT_MS_MAX, field)?;
    within("backoff_base_ms", values.backoff_base_ms, 0, BACKOFF_MS_MAX, field)?;
    within("backoff_max_ms", values.backoff_max_ms, 0, BACKOFF_MS_MAX, field)?;
    let ages = [
        ("done_age_ms", values.done_age_ms),
        ("cancelled_age_ms", values.cancelled_age_ms),
        ("dead_age_ms", values.dead_age_ms),
    ];
    ages.into_iter().try_for_each(|(name, age)| within(name, age, 0, KEPT_AGE_MS_MAX, field))?;
    let counts = [
        ("done_count_max", values.done_count_max),
        ("cancelled_count_max", values.cancelled_count_max),
        ("dead_count_max", values.dead_count_max),
    ];
    counts.into_iter().try_for_each(|(name, count)| within(name, count, 0, KEPT_COUNT_MAX, field))
}

fn check_lane(values: &LaneValues, field: Field<'_>) -> Result<(), WireError> {
    check_bounds(values.cap, values.rate_burst, field)?;
    within("share", values.share.map(u64::from), 0, SHARE_MAX.into(), field)
}

pub(crate) fn within(name: &str, value: Option<u64>, min: u64, max: u64, field: Field<'_>) -> Result<(), WireError> {
    match value {
        Some(value) if !(min..=max).contains(&value) => {
            let text = format!("{name} is {value}: must be {min} to {max}");
            Err(WireError::new(Code::BadBody, text).field(field(name)))
        }
        _ => Ok(()),
    }
}
