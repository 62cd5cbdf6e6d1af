//! The resolved settings as a TOML file that says where each value came from; `laneway broker --print-config` shows it.
//! What it prints can be read back with `--config`.

use std::fmt::Write as _;

use toml::Value;

use super::Resolved;
use super::error::Origin;
use super::field::Field;
use super::settings::{FAIR_KEY_SETTINGS, KIND_SETTINGS, LANE_SETTINGS, SETTINGS};

impl Resolved {
    /// One setting a line, with its origin behind it unless that is the default.
    pub(crate) fn print(&mut self) -> String {
        let mut out = String::new();
        let mut section = "";
        for setting in SETTINGS {
            let (head, key) = setting.name.split_once('.').unwrap_or(("", setting.name));
            if head != section {
                out.extend(["\n[", head, "]\n"]);
                section = head;
            }
            line(&mut out, key, (setting.field)(&mut self.config), self.origins.get(setting.name));
        }
        for (kind, settings) in &mut self.config.kinds {
            out.extend(["\n[kinds.", &Value::from(kind.as_str()).to_string(), "]\n"]);
            for setting in KIND_SETTINGS {
                let origin = self.origins.get(&format!("kinds.{kind}.{}", setting.name));
                line(&mut out, setting.name, (setting.field)(settings), origin);
            }
        }
        for (key, values) in &mut self.config.fair_keys {
            out.extend(["\n[fair_keys.", &Value::from(key.as_str()).to_string(), "]\n"]);
            for setting in FAIR_KEY_SETTINGS {
                let origin = self.origins.get(&format!("fair_keys.{key}.{}", setting.name));
                line(&mut out, setting.name, (setting.field)(values), origin);
            }
        }
        for (lane, limits) in &mut self.config.lane_limits {
            out.extend(["\n[lane_limits.", &Value::from(lane.as_str()).to_string(), "]\n"]);
            for setting in LANE_SETTINGS {
                let origin = self.origins.get(&format!("lane_limits.{lane}.{}", setting.name));
                line(&mut out, setting.name, (setting.field)(limits), origin);
            }
        }
        out
    }
}

impl Resolved {
    /// Name, value and origin of each setting that has a value, for people who look at a running broker. Settings hold paths of
    /// secrets and no secrets.
    pub(crate) fn shown(&mut self) -> Vec<(String, String, String)> {
        let mut shown = Vec::new();
        for setting in SETTINGS {
            let origin = self.origins.get(setting.name).map_or_else(|| Origin::Default.to_string(), Origin::to_string);
            let value = (setting.field)(&mut self.config).show();
            shown.extend(value.map(|value| (setting.name.to_owned(), value.to_string(), origin)));
        }
        shown
    }
}

fn line(out: &mut String, key: &str, field: &mut dyn Field, origin: Option<&Origin>) {
    let written = match (field.show(), origin) {
        (Some(value), Some(origin)) => writeln!(out, "{key} = {value} # {}", origin.to_string().escape_debug()),
        (Some(value), None) => writeln!(out, "{key} = {value}"),
        (None, _) => writeln!(out, "#{key} is not set"),
    };
    written.expect("writing to a string cannot fail");
}
