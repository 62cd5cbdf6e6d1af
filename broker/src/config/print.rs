//! The resolved settings with where each value came from: as a TOML file, which `laneway broker --print-config` shows and `--config`
//! reads back, and as a list for the dashboard's page about the broker.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use toml::Value;

use super::Resolved;
use super::error::Origin;
use super::settings::{FAIR_KEY_SETTINGS, KIND_SETTINGS, LANE_SETTINGS, SETTINGS, Setting};

type Origins = BTreeMap<String, Origin>;

/// One setting, of the whole broker or of one kind, fair key or lane.
struct Line {
    /// As its head in the file, without brackets; empty at the top.
    section: String,
    key: &'static str,
    /// In full, such as `kinds.resize.cap`.
    name: String,
    /// `None` when it is not set.
    value: Option<Value>,
    origin: Origin,
}

impl Resolved {
    /// One setting a line, with its origin behind it.
    pub(crate) fn print(&mut self) -> String {
        let (mut out, mut last) = (String::new(), String::new());
        for Line { section, key, value, origin, .. } in self.lines() {
            if section != last {
                out.extend(["\n[", &section, "]\n"]);
                last = section;
            }
            let written = match value {
                Some(value) => writeln!(out, "{key} = {value} # {}", origin.to_string().escape_debug()),
                None => writeln!(out, "#{key} is not set"),
            };
            written.expect("writing to a string cannot fail");
        }
        out
    }

    /// Name, value and origin of each setting that has a value, for people who look at a running broker. Settings hold paths of
    /// secrets and no secrets.
    pub(crate) fn shown(&mut self) -> Vec<(String, String, String)> {
        let shown = |line: Line| Some((line.name, line.value?.to_string(), line.origin.to_string()));
        self.lines().into_iter().filter_map(shown).collect()
    }

    /// All of them, section by section.
    fn lines(&mut self) -> Vec<Line> {
        let Self { config, origins, .. } = self;
        let top = |setting: &Setting<_>| {
            let (section, key) = setting.name.split_once('.').unwrap_or(("", setting.name));
            line(section.into(), key, setting.name.into(), (setting.field)(config).show(), origins)
        };
        let mut lines: Vec<Line> = SETTINGS.iter().map(top).collect();
        for (kind, values) in &mut config.kinds {
            named(&mut lines, ("kinds", kind.as_str()), KIND_SETTINGS, values, origins);
        }
        for (key, values) in &mut config.fair_keys {
            named(&mut lines, ("fair_keys", key.as_str()), FAIR_KEY_SETTINGS, values, origins);
        }
        for (lane, values) in &mut config.lane_limits {
            named(&mut lines, ("lane_limits", lane.as_str()), LANE_SETTINGS, values, origins);
        }
        lines
    }
}

/// Those of one kind, fair key or lane, whose name may need quotes in the file.
fn named<T>(
    lines: &mut Vec<Line>,
    (group, name): (&str, &str),
    settings: &'static [Setting<T>],
    values: &mut T,
    origins: &Origins,
) {
    let section = format!("{group}.{}", Value::from(name));
    lines.extend(settings.iter().map(|setting| {
        let full = format!("{group}.{name}.{}", setting.name);
        line(section.clone(), setting.name, full, (setting.field)(values).show(), origins)
    }));
}

fn line(section: String, key: &'static str, name: String, value: Option<Value>, origins: &Origins) -> Line {
    let origin = origins.get(&name).cloned().unwrap_or(Origin::Default);
    Line { section, key, name, value, origin }
}
