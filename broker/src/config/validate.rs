//! The one check of finished settings: every number within its bounds, then how settings stand to each other.

use std::collections::BTreeSet;

use laneway_protocol::limits::SHARE_MAX;

use super::endpoint::{self, Reach};
use super::error::{ConfigError, Faults, Origin};
use super::settings::{FAIR_KEY_SETTINGS, KIND_SETTINGS, LANE_SETTINGS, SETTINGS, Setting};
use super::{Config, Resolved};
use crate::telemetry;

/// Lanes cost a little at each dispatch; more than this is a mistake.
const LANES_MAX: usize = 64;
const ENDPOINTS_MAX: usize = 16;
/// A file for every few lines, or every moment, is a mistake.
const LOG_FILE_BYTES_MIN: u64 = 4_096;
const LOG_FILE_AGE_MS_MIN: u64 = 1_000;
const OPEN: &str = "is open to other machines, and whoever reaches it could run and read tasks: let peers with keys in there by \
                    curve.bind (`laneway keygen`, docs/security.md), use ipc or a loopback address such as 127.0.0.1, or \
                    say --anyone-on-the-network-may-do-anything";

/// Fails with all that is out of its bounds or, where nothing is, with the first of each sort that does not go together.
pub(super) fn validate(resolved: &mut Resolved) -> Result<(), ConfigError> {
    let mut faults = Faults::default();
    for setting in SETTINGS {
        faults.keep(in_bounds(setting, setting.name, &mut resolved.config, &resolved.origins));
    }
    for (kind, settings) in &mut resolved.config.kinds {
        for setting in KIND_SETTINGS {
            faults.keep(in_bounds(setting, &format!("kinds.{kind}.{}", setting.name), settings, &resolved.origins));
        }
    }
    for (key, values) in &mut resolved.config.fair_keys {
        for setting in FAIR_KEY_SETTINGS {
            faults.keep(in_bounds(setting, &format!("fair_keys.{key}.{}", setting.name), values, &resolved.origins));
        }
    }
    for (lane, limits) in &mut resolved.config.lane_limits {
        for setting in LANE_SETTINGS {
            let name = format!("lane_limits.{lane}.{}", setting.name);
            faults.keep(in_bounds(setting, &name, limits, &resolved.origins));
        }
    }
    std::mem::take(&mut faults).all()?;
    let check = Check { config: &resolved.config, origins: &resolved.origins };
    let open = faults.keep(check.bind());
    let rest =
        [check.curve(), check.web(), check.lanes(), check.times(), check.log(), check.kinds(), check.lane_limits()];
    for checked in rest {
        faults.keep(checked);
    }
    resolved.warnings.extend(open.into_iter().flatten());
    faults.all()
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
    /// Gives a warning for each endpoint that lets everybody in.
    fn bind(&self) -> Result<Vec<String>, ConfigError> {
        let Config { bind, curve, .. } = self.config;
        if bind.is_empty() && curve.bind.is_empty() {
            let reason = format!("must have 1 to {ENDPOINTS_MAX} endpoints, unless curve.bind has some");
            return Err(self.invalid("bind", "a list of 0", reason));
        }
        let mut open = Vec::new();
        let endpoints = self.endpoints("bind", bind, &[])?;
        if self.config.anyone_on_the_network_may_do_anything
            && endpoints.iter().all(|(_, reach)| *reach == Reach::Machine)
        {
            let text = "anyone_on_the_network_may_do_anything permits nothing here: no endpoint in bind is open to the network";
            return Ok(vec![text.into()]);
        }
        for (endpoint, reach) in endpoints {
            match reach {
                Reach::Machine => {}
                Reach::Network if self.config.anyone_on_the_network_may_do_anything => {
                    open.push(format!(
                        "anyone who reaches {endpoint} may read, run, cancel and submit tasks, unencrypted"
                    ));
                }
                Reach::Network => return Err(self.invalid("bind", &format!("'{endpoint}'"), OPEN.into())),
            }
        }
        Ok(open)
    }

    fn curve(&self) -> Result<(), ConfigError> {
        let curve = &self.config.curve;
        self.endpoints("curve.bind", &curve.bind, &self.config.bind)?;
        for (name, path) in [("curve.key_file", &curve.key_file), ("curve.keys_folder", &curve.keys_folder)] {
            match path {
                None if !curve.bind.is_empty() => {
                    let reason =
                        "must be set where curve.bind has endpoints; `laneway keygen` makes keys (docs/security.md)";
                    return Err(self.invalid(name, "not set", reason.into()));
                }
                Some(path) if curve.bind.is_empty() => {
                    let reason = "would be used by nobody: curve.bind has no endpoint".into();
                    return Err(self.invalid(name, &format!("'{}'", path.display()), reason));
                }
                None | Some(_) => {}
            }
        }
        Ok(())
    }

    fn web(&self) -> Result<(), ConfigError> {
        let web = &self.config.web;
        laneway_web::check_origins(&web.cors_origins)
            .map_err(|(value, reason)| self.invalid("web.cors_origins", &value, reason))?;
        if !web.cors_origins.is_empty() && web.link_key_file.is_none() {
            let reason = "would be used by nobody: it is for observer links, whose keys web.link_key_file names \
                          (`laneway link --new-key FILE`, docs/widget.md)";
            return Err(self.invalid(
                "web.cors_origins",
                &format!("a list of {}", web.cors_origins.len()),
                reason.into(),
            ));
        }
        laneway_web::check_hosts(&web.hosts).map_err(|(value, reason)| self.invalid("web.hosts", &value, reason))?;
        laneway_web::check_base_path(&web.base_path)
            .map_err(|reason| self.invalid("web.base_path", &format!("'{}'", web.base_path), reason))?;
        if let Some(bind) = web.bind {
            laneway_web::check_bind(bind, web.access_file.is_some())
                .map_err(|reason| self.invalid("web.bind", &format!("'{bind}'"), reason))?;
            if self.config.bind.is_empty() {
                let reason = "would have nobody to ask: the dashboard needs an endpoint without keys in bind, such as a socket; \
                              or run `laneway web` with keys";
                return Err(self.invalid("bind", "a list of 0", reason.into()));
            }
        }
        Ok(())
    }

    /// Checks each of a list, none of which may stand in the list `taken`.
    fn endpoints<'e>(
        &self,
        name: &str,
        list: &'e [String],
        taken: &[String],
    ) -> Result<Vec<(&'e String, Reach)>, ConfigError> {
        if list.len() > ENDPOINTS_MAX {
            let reason = format!("must have at most {ENDPOINTS_MAX} endpoints");
            return Err(self.invalid(name, &format!("a list of {}", list.len()), reason));
        }
        let check = |(n, endpoint): (usize, &'e String)| {
            let reach = endpoint::check(endpoint)?;
            if endpoint::is_taken(endpoint) {
                return Err("is a file that is no socket and would be lost; use another path".to_owned());
            }
            let is_same = |other: &String| endpoint::place(other) == endpoint::place(endpoint);
            if list[..n].iter().any(is_same) {
                return Err("stands twice in the list".into());
            }
            if taken.iter().any(is_same) {
                return Err("stands in bind too; an endpoint is for peers with keys or for those without".into());
            }
            Ok((endpoint, reach))
        };
        let named =
            |(n, endpoint)| check((n, endpoint)).map_err(|reason| self.invalid(name, &format!("'{endpoint}'"), reason));
        list.iter().enumerate().map(named).collect()
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
        let Config { log_file_bytes_max: bytes, log_file_age_ms: age, .. } = *self.config;
        for (name, value, least) in
            [("log_file_bytes_max", bytes, LOG_FILE_BYTES_MIN), ("log_file_age_ms", age, LOG_FILE_AGE_MS_MIN)]
        {
            if (1..least).contains(&value) {
                let reason = format!("must be at least {least}, or 0 for no bound");
                return Err(self.invalid(name, &value.to_string(), reason));
            }
        }
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

    fn lane_limits(&self) -> Result<(), ConfigError> {
        let mut shares = 0;
        for (lane, limits) in &self.config.lane_limits {
            if !self.config.lanes.contains(lane) {
                let mut found = self.invalid("lane_limits", &format!("'{lane}'"), self.not_a_lane());
                if let ConfigError::Invalid { origin, .. } = &mut found {
                    // A section stands where its settings do.
                    let section = format!("lane_limits.{lane}.");
                    let of_section = self.origins.iter().find(|(name, _)| name.starts_with(&section));
                    *origin = of_section.map_or(Origin::Default, |(_, origin)| origin.clone());
                }
                return Err(found);
            }
            shares += limits.share.unwrap_or(0);
            if shares > SHARE_MAX {
                let reason = format!("the shares of all lanes are over {SHARE_MAX} per cent with it");
                return Err(self.invalid(
                    &format!("lane_limits.{lane}.share"),
                    &limits.share.unwrap_or(0).to_string(),
                    reason,
                ));
            }
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
