//! SIGHUP: the settings are read anew, what is different is told, and what may change while the broker runs is given to whom it
//! concerns. A reading that fails changes nothing. The log file is opened anew and the keys are read again in any case: `run` does that.

use crossbeam_channel::{Receiver, Sender};
use laneway_web::ShownSettings;

use crate::config::{Change, Config, ConfigError, Resolved};
use crate::error::Error;
use crate::run::retention_news;
use crate::scheduler::RetentionNews;
use crate::store::checkpoint::WalHint;
use crate::telemetry::Telemetry;

/// Gives the settings as a start would find them now.
pub(crate) type Read<'a> = &'a dyn Fn() -> Result<Resolved, ConfigError>;

/// The settings of the running broker, and who is told of others.
pub(crate) struct Reload<'a> {
    pub(crate) resolved: Resolved,
    pub(crate) read: Read<'a>,
    pub(crate) telemetry: &'a Telemetry,
    /// Has room for one; this end of it takes out what the scheduler has not taken yet.
    pub(crate) to_scheduler: (Sender<RetentionNews>, Receiver<RetentionNews>),
    pub(crate) wal_hint: WalHint,
    pub(crate) shown: ShownSettings,
}

impl Reload<'_> {
    pub(crate) fn config(&self) -> &Config {
        &self.resolved.config
    }

    pub(crate) fn run(&mut self) {
        let mut new = match (self.read)() {
            Ok(new) => new,
            Err(error) => {
                let error = Error::from(error).chain();
                tracing::error!(target: "laneway", %error, "the settings stay as they were before");
                return;
            }
        };
        for warning in new.warnings.iter().filter(|warning| !self.resolved.warnings.contains(warning)) {
            tracing::warn!("{warning}");
        }
        let changes = self.resolved.take_over(&mut new);
        self.resolved.warnings = new.warnings;
        self.apply();
        // By what the log shows from now on.
        changes.iter().for_each(tell);
        let reloaded = changes.iter().filter(|change| change.reloaded).count();
        let not_yet = changes.len() - reloaded;
        tracing::info!(target: "laneway", changed = reloaded, at_next_start = not_yet, "the settings are read again");
    }

    fn apply(&mut self) {
        let config = &self.resolved.config;
        self.telemetry.reload(config);
        self.wal_hint.set_alarm(config.wal_alarm_bytes);
        let (to_scheduler, not_taken) = &self.to_scheduler;
        not_taken.try_iter().for_each(drop);
        to_scheduler.try_send(retention_news(config)).expect("room was made a moment ago, and nobody else sends");
        self.shown.set(self.resolved.shown());
    }
}

fn tell(change: &Change) {
    let Change { name, old, new, origin, reloaded } = change;
    if *reloaded {
        tracing::info!(target: "laneway", setting = name, old, new, %origin, "a setting is changed");
    } else {
        tracing::warn!(target: "laneway", setting = name, old, new, %origin, "{}", next_step(name));
    }
}

/// Of a setting that holds until the next start.
fn next_step(name: &str) -> &'static str {
    match name.split_once('.') {
        Some(("kinds", _)) => "takes effect at the next start; `laneway kind set` changes it now",
        Some(("lane_limits", _)) => "takes effect at the next start; `laneway lane set` changes it now",
        Some(("fair_keys", _)) => "takes effect at the next start; `laneway fair-key set` changes it now",
        _ => "takes effect at the next start",
    }
}
