//! Which settings a running broker takes anew, and what has changed between two readings of all of them. `crate::reload` asks on SIGHUP.

use std::collections::BTreeSet;
use std::fmt::Display;

use super::error::Origin;
use super::field::Field;
use super::settings::{FAIR_KEY_SETTINGS, KIND_SETTINGS, LANE_SETTINGS, SETTINGS, Setting};
use super::{Config, Resolved};

/// Each is read by one thread, which can be told of another value at any moment. In `config/laneway.toml` their lines end with
/// `# reload`; all others hold until the next start.
pub(super) const RELOADED: &[&str] = &[
    "stop_timeout_ms",
    "log_file_bytes_max",
    "log_file_age_ms",
    "log_files_max",
    "log",
    "log_tasks_per_second_max",
    "wal_alarm_bytes",
    "retention.done_age_ms",
    "retention.done_count_max",
    "retention.cancelled_age_ms",
    "retention.cancelled_count_max",
    "retention.dead_age_ms",
    "retention.dead_count_max",
    "retention.interval_ms",
];

/// A setting that says something else than before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// In full, such as `retention.done_age_ms`.
    pub(crate) name: String,
    /// As they are written in the file; `not set` where they are not.
    pub(crate) old: String,
    pub(crate) new: String,
    pub(crate) origin: Origin,
    /// It holds from now on, and not only from the next start.
    pub(crate) reloaded: bool,
}

impl Resolved {
    /// Takes from `new` what may change while a broker runs. Gives all that is different, also what is not taken.
    pub(crate) fn take_over(&mut self, new: &mut Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for setting in SETTINGS {
            let change = change(setting, setting.name, (&mut self.config, &mut new.config), &new.origins);
            if change.as_ref().is_some_and(|change| change.reloaded) {
                self.take(setting, new);
            }
            changes.extend(change);
        }
        let Config { kinds, lane_limits, fair_keys, .. } = &self.config;
        let (origins, other) = (&new.origins, &new.config);
        for name in names(kinds.keys(), other.kinds.keys()) {
            let (mut a, mut b) = (kinds.get(&name).cloned(), other.kinds.get(&name).cloned());
            let pair = (a.get_or_insert_default(), b.get_or_insert_default());
            changes.extend(section("kinds", &name, KIND_SETTINGS, pair, origins));
        }
        for name in names(lane_limits.keys(), other.lane_limits.keys()) {
            let (mut a, mut b) = (lane_limits.get(&name).cloned(), other.lane_limits.get(&name).cloned());
            let pair = (a.get_or_insert_default(), b.get_or_insert_default());
            changes.extend(section("lane_limits", &name, LANE_SETTINGS, pair, origins));
        }
        for name in names(fair_keys.keys(), other.fair_keys.keys()) {
            let (mut a, mut b) = (fair_keys.get(&name).cloned(), other.fair_keys.get(&name).cloned());
            let pair = (a.get_or_insert_default(), b.get_or_insert_default());
            changes.extend(section("fair_keys", &name, FAIR_KEY_SETTINGS, pair, origins));
        }
        changes
    }

    fn take(&mut self, setting: &Setting<Config>, new: &mut Self) {
        (setting.field)(&mut self.config).copy((setting.field)(&mut new.config));
        match new.origins.get(setting.name) {
            Some(origin) => drop(self.origins.insert(setting.name.into(), origin.clone())),
            None => drop(self.origins.remove(setting.name)),
        }
    }
}

/// Of both, each once.
fn names<'a, K: Ord + Clone + 'a>(a: impl Iterator<Item = &'a K>, b: impl Iterator<Item = &'a K>) -> BTreeSet<K> {
    a.chain(b).cloned().collect()
}

type Origins = std::collections::BTreeMap<String, Origin>;

/// What is said otherwise of one kind, lane or fair key.
fn section<T>(
    section: &str,
    name: &impl Display,
    settings: &[Setting<T>],
    (old, new): (&mut T, &mut T),
    origins: &Origins,
) -> Vec<Change> {
    let full = |setting: &Setting<T>| format!("{section}.{name}.{}", setting.name);
    settings.iter().filter_map(|setting| change(setting, &full(setting), (&mut *old, &mut *new), origins)).collect()
}

fn change<T>(setting: &Setting<T>, name: &str, (old, new): (&mut T, &mut T), origins: &Origins) -> Option<Change> {
    let (old, new) = (shown((setting.field)(old)), shown((setting.field)(new)));
    (old != new).then(|| Change {
        name: name.into(),
        old,
        new,
        origin: origins.get(name).cloned().unwrap_or(Origin::Default),
        reloaded: RELOADED.contains(&name),
    })
}

fn shown(field: &mut dyn Field) -> String {
    field.show().map_or_else(|| "not set".into(), |value| value.to_string())
}
