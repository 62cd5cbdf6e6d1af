//! Lays file, environment and flags over the defaults, and refuses what no setting is named after.
//! Checks names and types; bounds and relations are `validate.rs`.

use std::path::{Path, PathBuf};

use laneway_protocol::message::FairKeyValues;
use laneway_protocol::{FairKey, Kind, LaneName};
use toml::{Table, Value};

use super::error::{ConfigError, Faults, Origin};
use super::field::Refusal;
use super::settings::{FAIR_KEY_SETTINGS, KIND_SETTINGS, LANE_SETTINGS, SETTINGS, Setting};
use super::{KindSettings, LaneLimits, Resolved};

/// Where settings may come from, weakest first.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// The TOML file, from `--config` or `LANEWAY_CONFIG`.
    pub(crate) file: Option<PathBuf>,
    /// Variables; those that do not start with `LANEWAY_` or are empty are passed over.
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) flags: Vec<Flag>,
}

/// One setting from the command line.
#[derive(Debug)]
pub(crate) struct Flag {
    /// As it is written, such as `--db`, for messages.
    pub(crate) written: &'static str,
    /// The setting's full name.
    pub(crate) name: String,
    /// Several for a list; joined by a comma otherwise.
    pub(crate) values: Vec<String>,
}

const PREFIX: &str = "LANEWAY_";
/// Variables that other parts read: the command line, the SDK, the tests, and the programs that `laneway work` runs.
const OTHER_VARIABLES: &[&str] = &[
    "ATTEMPT",
    "BROKER_KEY",
    "CONFIG",
    "ENDPOINT",
    "KEY",
    "KIND",
    "LANE",
    "MAX_ATTEMPTS",
    "PROGRESS_FD",
    "SEED",
    "SESSION",
    "TASK",
    "TRACE",
];

const KINDS_WANTED: &str = "a section for each kind, as in [kinds.resize]";
const LANES_WANTED: &str = "a section for each lane, as in [lane_limits.low]";
const FAIR_KEYS_WANTED: &str =
    "a section for each fair key, as in [fair_keys.acme], or for all, as in [fair_keys.\"*\"]";

/// Sections that have sections of single names.
const NAMED: [&str; 3] = ["kinds", "lane_limits", "fair_keys"];

/// Fails with all that no setting can be made of.
pub(super) fn apply(resolved: &mut Resolved, sources: &Sources) -> Result<(), ConfigError> {
    let mut faults = Faults::default();
    if let Some(path) = &sources.file {
        apply_file(resolved, path, &mut faults)?;
    }
    apply_environment(resolved, &sources.environment, &mut faults);
    for Flag { written, name, values } in &sources.flags {
        faults.keep(apply_text(resolved, name, &values.join(","), &Origin::Flag((*written).into())));
    }
    faults.all()
}

/// Fails where nothing of the file can be read.
fn apply_file(resolved: &mut Resolved, path: &Path, faults: &mut Faults) -> Result<(), ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
    let table: Table = text
        .parse()
        .map_err(|error: toml::de::Error| ConfigError::Syntax { path: path.into(), text: error.to_string() })?;
    let origin = Origin::File(path.into());
    for (key, value) in &table {
        match value {
            Value::Table(named) if NAMED.contains(&key.as_str()) => {
                for (name, section) in named {
                    apply_named(resolved, key, name, section, &origin, faults);
                }
            }
            Value::Table(section) => {
                for (inner, value) in section {
                    faults.keep(apply_value(resolved, &format!("{key}.{inner}"), value, &origin));
                }
            }
            value if NAMED.contains(&key.as_str()) => {
                let (origin, name, value) = (origin.clone(), key.clone(), value.to_string());
                faults.keep::<()>(Err(ConfigError::WrongType { origin, name, value, wanted: wanted(key) }));
            }
            value => {
                faults.keep(apply_value(resolved, key, value, &origin));
            }
        }
    }
    Ok(())
}

/// The section of a single kind, lane or fair key.
fn apply_named(resolved: &mut Resolved, key: &str, name: &str, section: &Value, origin: &Origin, faults: &mut Faults) {
    let Value::Table(section) = section else {
        let (name, value) = (format!("{key}.{name}"), section.to_string());
        let fault = ConfigError::WrongType { origin: origin.clone(), name, value, wanted: wanted(key) };
        faults.keep::<()>(Err(fault));
        return;
    };
    // An empty section still makes the kind known. Of one that cannot be a kind nothing else is worth telling.
    if key == "kinds" && faults.keep(kind_settings(resolved, name, origin).map(drop)).is_none() {
        return;
    }
    for (inner, value) in section {
        faults.keep(match key {
            "kinds" => apply_kind_value(resolved, name, inner, value, origin),
            "fair_keys" => apply_fair_key_value(resolved, name, inner, value, origin),
            _ => apply_lane_value(resolved, name, inner, value, origin),
        });
    }
}

fn wanted(key: &str) -> &'static str {
    match key {
        "kinds" => KINDS_WANTED,
        "fair_keys" => FAIR_KEYS_WANTED,
        _ => LANES_WANTED,
    }
}

fn apply_environment(resolved: &mut Resolved, variables: &[(String, String)], faults: &mut Faults) {
    for (variable, text) in variables {
        let Some(rest) = variable.strip_prefix(PREFIX) else { continue };
        if text.is_empty() || OTHER_VARIABLES.contains(&rest) {
            continue;
        }
        let origin = Origin::Environment(variable.clone());
        if let Some(setting) = SETTINGS.iter().find(|setting| variable_of(setting.name) == *variable) {
            let value = (setting.field)(&mut resolved.config).form().value(text);
            faults.keep(apply_value(resolved, setting.name, &value, &origin));
        } else if let Some(near) = suggest(variable, SETTINGS.iter().map(|setting| variable_of(setting.name))) {
            let fault = ConfigError::UnknownKey { origin, key: variable.clone(), suggestion: Some(near) };
            faults.keep::<()>(Err(fault));
        } else {
            // Not an error: Kubernetes, for one, sets LANEWAY_PORT and LANEWAY_SERVICE_HOST by itself beside a service
            // called laneway.
            resolved.warnings.push(format!("the environment variable {variable} is no setting and is not used"));
        }
    }
}

/// The environment variable of a setting.
pub(super) fn variable_of(name: &str) -> String {
    format!("{PREFIX}{}", name.replace('.', "_").to_uppercase())
}

/// Sets what a flag names; `kinds.NAME.KEY` reaches a kind, whose own name may have dots.
fn apply_text(resolved: &mut Resolved, name: &str, text: &str, origin: &Origin) -> Result<(), ConfigError> {
    if let Some((kind, key)) = name.strip_prefix("kinds.").and_then(|rest| rest.rsplit_once('.')) {
        let form = KIND_SETTINGS.iter().find(|setting| setting.name == key).map(|setting| {
            let mut blank = KindSettings::default();
            (setting.field)(&mut blank).form()
        });
        let value = form.map_or_else(|| Value::from(text), |form| form.value(text));
        return apply_kind_value(resolved, kind, key, &value, origin);
    }
    if let Some((lane, key)) = name.strip_prefix("lane_limits.").and_then(|rest| rest.rsplit_once('.')) {
        let form = LANE_SETTINGS.iter().find(|setting| setting.name == key).map(|setting| {
            let mut blank = LaneLimits::default();
            (setting.field)(&mut blank).form()
        });
        let value = form.map_or_else(|| Value::from(text), |form| form.value(text));
        return apply_lane_value(resolved, lane, key, &value, origin);
    }
    if let Some((fair_key, key)) = name.strip_prefix("fair_keys.").and_then(|rest| rest.rsplit_once('.')) {
        let form = FAIR_KEY_SETTINGS.iter().find(|setting| setting.name == key).map(|setting| {
            let mut blank = FairKeyValues::default();
            (setting.field)(&mut blank).form()
        });
        let value = form.map_or_else(|| Value::from(text), |form| form.value(text));
        return apply_fair_key_value(resolved, fair_key, key, &value, origin);
    }
    let form = SETTINGS.iter().find(|setting| setting.name == name);
    let value = form.map_or_else(|| Value::from(text), |s| (s.field)(&mut resolved.config).form().value(text));
    apply_value(resolved, name, &value, origin)
}

fn apply_value(resolved: &mut Resolved, name: &str, value: &Value, origin: &Origin) -> Result<(), ConfigError> {
    let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
        let known = SETTINGS.iter().map(|setting| setting.name.to_owned());
        return Err(unknown(name, known.chain(NAMED.map(str::to_owned)), origin));
    };
    set(setting, &mut resolved.config, name, value, origin)?;
    resolved.origins.insert(name.into(), origin.clone());
    Ok(())
}

fn apply_kind_value(
    resolved: &mut Resolved,
    kind: &str,
    key: &str,
    value: &Value,
    origin: &Origin,
) -> Result<(), ConfigError> {
    let name = format!("kinds.{kind}.{key}");
    let Some(setting) = KIND_SETTINGS.iter().find(|setting| setting.name == key) else {
        let known = KIND_SETTINGS.iter().map(|setting| format!("kinds.{kind}.{}", setting.name));
        return Err(unknown(&name, known, origin));
    };
    set(setting, kind_settings(resolved, kind, origin)?, &name, value, origin)?;
    resolved.origins.insert(name, origin.clone());
    Ok(())
}

fn apply_lane_value(
    resolved: &mut Resolved,
    lane: &str,
    key: &str,
    value: &Value,
    origin: &Origin,
) -> Result<(), ConfigError> {
    let name = format!("lane_limits.{lane}.{key}");
    let Some(setting) = LANE_SETTINGS.iter().find(|setting| setting.name == key) else {
        let known = LANE_SETTINGS.iter().map(|setting| format!("lane_limits.{lane}.{}", setting.name));
        return Err(unknown(&name, known, origin));
    };
    let lane = LaneName::new(lane).map_err(|error| ConfigError::Invalid {
        origin: origin.clone(),
        name: "lane_limits".into(),
        value: format!("{lane:?}"),
        reason: error.to_string(),
    })?;
    set(setting, resolved.config.lane_limits.entry(lane).or_default(), &name, value, origin)?;
    resolved.origins.insert(name, origin.clone());
    Ok(())
}

fn apply_fair_key_value(
    resolved: &mut Resolved,
    fair_key: &str,
    key: &str,
    value: &Value,
    origin: &Origin,
) -> Result<(), ConfigError> {
    let name = format!("fair_keys.{fair_key}.{key}");
    let Some(setting) = FAIR_KEY_SETTINGS.iter().find(|setting| setting.name == key) else {
        let known = FAIR_KEY_SETTINGS.iter().map(|setting| format!("fair_keys.{fair_key}.{}", setting.name));
        return Err(unknown(&name, known, origin));
    };
    let fair_key = FairKey::new(fair_key).map_err(|error| ConfigError::Invalid {
        origin: origin.clone(),
        name: "fair_keys".into(),
        value: format!("{fair_key:?}"),
        reason: error.to_string(),
    })?;
    set(setting, resolved.config.fair_keys.entry(fair_key).or_default(), &name, value, origin)?;
    resolved.origins.insert(name, origin.clone());
    Ok(())
}

fn kind_settings<'a>(
    resolved: &'a mut Resolved,
    kind: &str,
    origin: &Origin,
) -> Result<&'a mut KindSettings, ConfigError> {
    let kind = Kind::new(kind).map_err(|error| ConfigError::Invalid {
        origin: origin.clone(),
        name: "kinds".into(),
        value: format!("{kind:?}"),
        reason: error.to_string(),
    })?;
    Ok(resolved.config.kinds.entry(kind).or_default())
}

fn set<T>(setting: &Setting<T>, target: &mut T, name: &str, value: &Value, origin: &Origin) -> Result<(), ConfigError> {
    (setting.field)(target).set(value).map_err(|refusal| {
        let (origin, name, value) = (origin.clone(), name.to_owned(), value.to_string());
        match refusal {
            Refusal::Type(wanted) => ConfigError::WrongType { origin, name, value, wanted },
            Refusal::Reason(reason) => ConfigError::Invalid { origin, name, value, reason },
            Refusal::Range => {
                let (min, max) = setting.bounds.unwrap_or((0, u64::MAX));
                ConfigError::OutOfRange { origin, name, value, min, max }
            }
        }
    })
}

fn unknown(key: &str, known: impl Iterator<Item = String>, origin: &Origin) -> ConfigError {
    ConfigError::UnknownKey { origin: origin.clone(), key: key.into(), suggestion: suggest(key, known) }
}

/// The nearest name, when it is near enough to be a slip of the finger.
fn suggest(key: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let bound = (key.len() / 3).clamp(1, 4);
    known
        .map(|name| (strsim::damerau_levenshtein(key, &name), name))
        .filter(|(distance, _)| *distance <= bound)
        .min()
        .map(|(_, name)| name)
}
