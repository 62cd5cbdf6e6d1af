//! How long ended tasks are kept: for each outcome, and for kinds that differ, by the settings and by what people set over them
//! while the broker runs.

use std::collections::{BTreeMap, BTreeSet};

use laneway_core::UnixMillis;
use laneway_protocol::message::KindValues;
use laneway_protocol::{Kind, TaskState};

use super::KnownKind;

/// All that is said of it, and what follows.
#[derive(Debug, Clone)]
pub(crate) struct Keeping {
    /// As `[retention]` says it.
    general: Limits,
    settings: BTreeMap<Kind, KindValues>,
    set: BTreeMap<Kind, Limits>,
    retention: Retention,
}

/// What is said, ready to be asked for each row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Retention {
    default: Kept,
    kinds: BTreeMap<String, Kept>,
    /// The most rows of each group that is counted.
    counts_max: Vec<u64>,
}

/// By outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Kept {
    done: Keep,
    cancelled: Keep,
    dead: Keep,
}

/// What one row is measured by. Neither: it stays until a person acts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Keep {
    /// Longer ago than this it ended.
    pub(crate) age_ms: Option<u64>,
    /// Its group has more than its most: the oldest go.
    pub(crate) group: Option<usize>,
}

/// A count holds for this part of the age that is set beside it.
const COUNT_SHARE: u64 = 4;

impl Keep {
    /// Whether a row that ended then is too old.
    pub(crate) fn is_old(self, ended_at: i64, now: UnixMillis) -> bool {
        self.age_ms.is_some_and(|age_ms| ended_at < before(age_ms, now))
    }

    /// Whether it is one of those that a count is about: not one that grows too old while the count holds, else age and count would
    /// both take of the same few.
    pub(crate) fn is_counted(self, ended_at: i64, now: UnixMillis) -> bool {
        self.age_ms.is_none_or(|age_ms| ended_at >= before(age_ms - age_ms / COUNT_SHARE, now))
    }

    /// Whether a count that began then holds.
    pub(crate) fn holds(self, counted_at: UnixMillis, now: UnixMillis) -> bool {
        let since = now.0.saturating_sub(counted_at.0);
        self.age_ms.is_none_or(|age_ms| u64::try_from(since).unwrap_or(0) <= age_ms / COUNT_SHARE)
    }
}

fn before(age_ms: u64, now: UnixMillis) -> i64 {
    now.0.saturating_sub(i64::try_from(age_ms).unwrap_or(i64::MAX))
}

/// Settings of one outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) age_ms: Option<u64>,
    pub(crate) count_max: Option<u64>,
}

/// Settings of the three outcomes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) done: Limit,
    pub(crate) cancelled: Limit,
    pub(crate) dead: Limit,
}

impl Keeping {
    pub(crate) fn new(general: Limits, settings: BTreeMap<Kind, KindValues>, known: &[KnownKind]) -> Self {
        let set = known.iter().map(|known| (known.kind.clone(), Limits::of(&known.values)));
        let mut keeping = Self { general, settings, set: set.collect(), retention: Retention::default() };
        keeping.resolve();
        keeping
    }

    /// All that is set of a kind from now on. Gives whether anything about its ended tasks has changed.
    pub(crate) fn set(&mut self, kind: &Kind, values: &KindValues) -> bool {
        let limits = Limits::of(values);
        let before = self.set.insert(kind.clone(), limits).unwrap_or_default();
        if limits == Limits::default() {
            self.set.remove(kind);
        }
        let changed = before != limits;
        if changed {
            self.resolve();
        }
        changed
    }

    /// What `[retention]` says from now on.
    pub(crate) fn set_general(&mut self, general: Limits) {
        self.general = general;
        self.resolve();
    }

    pub(crate) fn retention(&self) -> &Retention {
        &self.retention
    }

    /// What is said of one outcome goes before what is said of one kind, and cancelled tasks are kept as done ones are.
    fn resolve(&mut self) {
        let Self { general, settings, set, .. } = self;
        let default = Limits { cancelled: general.cancelled.or(general.done), ..*general };
        let kinds: BTreeSet<&Kind> = settings.keys().chain(set.keys()).collect();
        let kinds = kinds.into_iter().map(|kind| {
            let own = settings.get(kind).map(Limits::of).unwrap_or_default();
            let mut limits = set.get(kind).copied().unwrap_or_default().or(own);
            let as_done = Limit {
                age_ms: limits.done.age_ms.filter(|_| general.cancelled.age_ms.is_none()),
                count_max: limits.done.count_max.filter(|_| general.cancelled.count_max.is_none()),
            };
            limits.cancelled = limits.cancelled.or(as_done);
            (kind, limits)
        });
        self.retention = Retention::new(default, kinds);
    }
}

impl Limit {
    /// Value by value: where this one says nothing the other does.
    fn or(self, other: Self) -> Self {
        Self { age_ms: self.age_ms.or(other.age_ms), count_max: self.count_max.or(other.count_max) }
    }
}

impl Limits {
    /// Of one kind, as they are said.
    fn of(values: &KindValues) -> Self {
        Self {
            done: Limit { age_ms: values.done_age_ms, count_max: values.done_count_max },
            cancelled: Limit { age_ms: values.cancelled_age_ms, count_max: values.cancelled_count_max },
            dead: Limit { age_ms: values.dead_age_ms, count_max: values.dead_count_max },
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            done: self.done.or(other.done),
            cancelled: self.cancelled.or(other.cancelled),
            dead: self.dead.or(other.dead),
        }
    }
}

impl Retention {
    /// `kinds` say only what differs: where they name no age the default holds, where they name no count their rows are
    /// counted with all others.
    pub(crate) fn new<'a>(default: Limits, kinds: impl Iterator<Item = (&'a Kind, Limits)>) -> Self {
        let mut retention = Self::default();
        let nothing = Kept::default();
        retention.default = retention.kept(default, nothing);
        for (kind, limits) in kinds.filter(|(_, limits)| *limits != Limits::default()) {
            let kept = retention.kept(limits, retention.default);
            retention.kinds.insert(kind.as_str().into(), kept);
        }
        retention
    }

    fn kept(&mut self, limits: Limits, default: Kept) -> Kept {
        let mut keep = |limit: Limit, default: Keep| {
            let group = limit.count_max.map(|count_max| {
                self.counts_max.push(count_max);
                self.counts_max.len() - 1
            });
            Keep { age_ms: limit.age_ms.or(default.age_ms), group: group.or(default.group) }
        };
        Kept {
            done: keep(limits.done, default.done),
            cancelled: keep(limits.cancelled, default.cancelled),
            dead: keep(limits.dead, default.dead),
        }
    }

    /// Of a row in this state; `None` when it has not ended.
    pub(crate) fn of(&self, kind: Option<&str>, state: TaskState) -> Option<Keep> {
        let own = if self.kinds.is_empty() { None } else { kind.and_then(|kind| self.kinds.get(kind)) };
        let kept = own.unwrap_or(&self.default);
        match state {
            TaskState::Done => Some(kept.done),
            TaskState::Cancelled => Some(kept.cancelled),
            TaskState::Dead => Some(kept.dead),
            TaskState::Waiting | TaskState::Queued | TaskState::Running => None,
        }
    }

    /// The most rows of each group.
    pub(crate) fn counts_max(&self) -> &[u64] {
        &self.counts_max
    }

    /// The shortest age: a row that was created later cannot be old enough.
    pub(crate) fn age_ms_min(&self) -> Option<u64> {
        let kept = self.kinds.values().chain([&self.default]);
        kept.flat_map(|kept| [kept.done, kept.cancelled, kept.dead]).filter_map(|keep| keep.age_ms).min()
    }
}

/// What a piece of pruning did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pruned {
    pub(crate) deleted: usize,
    /// Everything that may go was looked at; the next call begins anew.
    pub(crate) over: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Limit = Limit { age_ms: None, count_max: None };

    fn aged(age_ms: u64) -> Limit {
        Limit { age_ms: Some(age_ms), count_max: None }
    }

    #[test]
    fn a_kind_says_only_what_differs() {
        let default = Limits { done: Limit { age_ms: Some(9), count_max: Some(100) }, cancelled: aged(8), dead: NONE };
        let mail = Limits { done: aged(3), cancelled: NONE, dead: Limit { age_ms: None, count_max: Some(5) } };
        let kind = |name| Kind::new(name).unwrap();
        let kinds = [(kind("mail"), mail), (kind("plain"), Limits::default())];
        let retention = Retention::new(default, kinds.iter().map(|(kind, limits)| (kind, *limits)));
        let of = |name: Option<&str>, state| retention.of(name, state).map(|keep| (keep.age_ms, keep.group));
        assert_eq!(of(None, TaskState::Done), Some((Some(9), Some(0))));
        assert_eq!(of(Some("plain"), TaskState::Cancelled), Some((Some(8), None)));
        assert_eq!(of(Some("plain"), TaskState::Dead), Some((None, None)));
        assert_eq!(of(Some("mail"), TaskState::Done), Some((Some(3), Some(0))), "counted with the others");
        assert_eq!(of(Some("mail"), TaskState::Cancelled), Some((Some(8), None)));
        assert_eq!(of(Some("mail"), TaskState::Dead), Some((None, Some(1))));
        assert_eq!(of(Some("mail"), TaskState::Running), None);
        assert_eq!((retention.counts_max(), retention.age_ms_min()), (&[100, 5][..], Some(3)));
        assert_eq!(Retention::default().age_ms_min(), None);
    }

    #[test]
    fn what_is_set_goes_over_the_settings_value_by_value() {
        // Also before a restart; taken back, the settings hold again. Cancelled ones follow what holds for the done ones, unless
        // the general section speaks of them.
        let kind = Kind::new("mail").unwrap();
        let values = |done, dead| KindValues { done_age_ms: done, dead_age_ms: dead, ..KindValues::default() };
        let settings = BTreeMap::from([(kind.clone(), values(Some(5), Some(6)))]);
        let general = Limits { done: aged(9), ..Limits::default() };
        let known = KnownKind { kind: kind.clone(), paused: true, values: values(Some(2), None) };
        let ages = |keeping: &Keeping| {
            let of = |state| keeping.retention().of(Some("mail"), state).unwrap().age_ms;
            [TaskState::Done, TaskState::Cancelled, TaskState::Dead].map(of)
        };
        let mut keeping = Keeping::new(general, settings.clone(), &[known]);
        assert_eq!(ages(&keeping), [Some(2), Some(2), Some(6)]);
        assert!(!keeping.set(&kind, &KindValues { cap: Some(3), ..values(Some(2), None) }), "nothing new");
        assert!(keeping.set(&kind, &values(Some(0), Some(1))));
        assert_eq!(ages(&keeping), [Some(0), Some(0), Some(1)]);
        assert!(keeping.set(&kind, &KindValues::default()));
        assert_eq!(ages(&keeping), [Some(5), Some(5), Some(6)]);
        let mut keeping = Keeping::new(Limits { cancelled: aged(7), ..general }, settings, &[]);
        assert_eq!(ages(&keeping), [Some(5), Some(7), Some(6)]);
        // Read anew while the broker runs, the general section changes what no kind says of its own.
        keeping.set_general(Limits { cancelled: aged(4), ..general });
        assert_eq!(ages(&keeping), [Some(5), Some(4), Some(6)]);
    }
}
