//! The one check of finished settings: every number within its bounds, then how settings stand to each other.

use std::collections::BTreeSet;

use super::error::{ConfigError, Origin};
use super::settings::{KIND_SETTINGS, SETTINGS, Setting};
use super::{Config, Resolved, endpoint};
use crate::telemetry;

/// Lanes cost a little at each dispatch; more than this is a mistake.
const LANES_MAX: usize = 64;
const ENDPOINTS_MAX: usize = 16;

pub(super) fn validate(resolved: &mut Resolved) -> Result<(), ConfigError> {
    for setting in SETTINGS {
        in_bounds(setting, setting.name, &mut resolved.config, &resolved.origins)?;
    }
    for (kind, settings) in &mut resolved.config.kinds {
        for setting in KIND_SETTINGS {
            in_bounds(setting, &format!("kinds.{kind}.{}", setting.name), settings, &resolved.origins)?;
        }
    }
    let check = Check { config: &resolved.config, origins: &resolved.origins };
    check.bind()?;
    check.lanes()?;
    check.times()?;
    check.log()?;
    check.kinds()
}

type Origins = std::collections::BTreeMap<String, Origin>;

fn in_bounds<T>(setting: &Setting<T>, name: &str, target: &mut T, origins: &Origins) -> Result<(), ConfigError> {
    let (Some((min, max)), Some(value)) = (setting.bounds, (setting.field)(target).number()) else { return Ok(()) };
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let (origin, name) = (origin_of(origins, name), name.to_owned());
    Err(ConfigError::OutOfRange { origin, name, value: value.to_string(), min, max })
}

fn origin_of(origins: &Origins, name: &str) -> Origin {
    origins.get(name).cloned().unwrap_or(Origin::Default)
}

struct Check<'a> {
    config: &'a Config,
    origins: &'a Origins,
}

impl Check<'_> {
    fn bind(&self) -> Result<(), ConfigError> {
        let bind = &self.config.bind;
        if bind.is_empty() || bind.len() > ENDPOINTS_MAX {
            let reason = format!("must have 1 to {ENDPOINTS_MAX} endpoints");
            return Err(self.invalid("bind", &format!("a list of {}", bind.len()), reason));
        }
        for (n, endpoint) in bind.iter().enumerate() {
            if let Err(reason) = endpoint::check(endpoint) {
                return Err(self.invalid("bind", &format!("'{endpoint}'"), reason));
            }
            if endpoint::is_taken(endpoint) {
                let reason = "is a file that is no socket and would be lost; use another path";
                return Err(self.invalid("bind", &format!("'{endpoint}'"), reason.into()));
            }
            if bind[..n].contains(endpoint) {
                return Err(self.invalid("bind", &format!("'{endpoint}'"), "stands twice in the list".into()));
            }
        }
        Ok(())
    }

    fn lanes(&self) -> Result<(), ConfigError> {
        let lanes = &self.config.lanes;
        if lanes.is_empty() || lanes.len() > LANES_MAX {
            let reason = format!("must have 1 to {LANES_MAX} lanes, most urgent first");
            return Err(self.invalid("lanes", &format!("a list of {}", lanes.len()), reason));
        }
        let mut seen = BTreeSet::new();
        for lane in lanes {
            if !seen.insert(lane) {
                return Err(self.invalid("lanes", &format!("'{lane}'"), "stands twice in the list".into()));
            }
        }
        let default = &self.config.default_lane;
        if !lanes.contains(default) {
            return Err(self.invalid("default_lane", &format!("'{default}'"), self.not_a_lane()));
        }
        Ok(())
    }

    fn times(&self) -> Result<(), ConfigError> {
        let Config { heartbeat_interval_ms: interval, heartbeat_timeout_ms: timeout, defaults, .. } = self.config;
        if timeout <= interval {
            let reason = format!("must be more than heartbeat_interval_ms, which is {interval}");
            return Err(self.invalid("heartbeat_timeout_ms", &timeout.to_string(), reason));
        }
        if defaults.backoff_base_ms > defaults.backoff_max_ms {
            let reason = format!("must be at most defaults.backoff_max_ms, which is {}", defaults.backoff_max_ms);
            return Err(self.invalid("defaults.backoff_base_ms", &defaults.backoff_base_ms.to_string(), reason));
        }
        Ok(())
    }

    fn log(&self) -> Result<(), ConfigError> {
        let log = &self.config.log;
        telemetry::levels(log).map(drop).map_err(|reason| self.invalid("log", &format!("'{log}'"), reason))
    }

    fn kinds(&self) -> Result<(), ConfigError> {
        for (kind, settings) in &self.config.kinds {
            if let Some(lane) = settings.lane.as_ref().filter(|lane| !self.config.lanes.contains(lane)) {
                return Err(self.invalid(&format!("kinds.{kind}.lane"), &format!("'{lane}'"), self.not_a_lane()));
            }
            let base = settings.backoff_base_ms.unwrap_or(self.config.defaults.backoff_base_ms);
            let max = settings.backoff_max_ms.unwrap_or(self.config.defaults.backoff_max_ms);
            if base > max {
                let reason = format!("must be at most its backoff_max_ms, which is {max}");
                return Err(self.invalid(&format!("kinds.{kind}.backoff_base_ms"), &base.to_string(), reason));
            }
        }
        if self.config.kinds.len() > self.config.kinds_max {
            let reason = format!("{} kinds have a section of their own", self.config.kinds.len());
            return Err(self.invalid("kinds_max", &self.config.kinds_max.to_string(), reason));
        }
        Ok(())
    }

    fn not_a_lane(&self) -> String {
        let lanes: Vec<&str> = self.config.lanes.iter().map(laneway_protocol::LaneName::as_str).collect();
        format!("must be one of lanes, which are {}", lanes.join(", "))
    }

    fn invalid(&self, name: &str, value: &str, reason: String) -> ConfigError {
        ConfigError::Invalid { origin: origin_of(self.origins, name), name: name.into(), value: value.into(), reason }
    }
}
