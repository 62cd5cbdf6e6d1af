//! The settings of the broker: defaults, then the file, then the environment, then flags, resolved once into [`Config`].
//!
//! Nothing reads the environment or a file for settings but [`Config::resolve`], at the start and on SIGHUP. The command line calls it, every other
//! part is handed the finished [`Config`]. A new setting is a field here, a line in `settings.rs` and an entry in
//! `config/laneway.toml`; the file, the environment, `--set`, `--print-config` and the bounds follow from those.

mod endpoint;
mod error;
mod field;
mod layers;
mod print;
mod reload;
mod settings;
mod validate;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use laneway_protocol::message::FairKeyValues;
use laneway_protocol::{FairKey, Kind, LaneName, Rate};
use laneway_web::TraceUrl;

pub(crate) use endpoint::{IPC_PATH_BYTES_MAX, ipc_beside, ipc_path};
pub(crate) use error::{ConfigError, Origin};
pub(crate) use layers::{Flag, Sources};
pub(crate) use reload::Change;
pub(crate) use settings::LOG_FILES_MAX;

/// Where a broker listens for tcp unless told otherwise, and where its clients look.
pub(crate) const TCP_ENDPOINT: &str = "tcp://127.0.0.1:7733";

/// Every setting, checked. What each is for, its unit and its reason are in `config/laneway.toml`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    pub(crate) db: PathBuf,
    /// Endpoints as libzmq reads them. Once resolved, this or `curve.bind` has some.
    pub(crate) bind: Vec<String>,
    /// Permits endpoints in `bind` that other machines reach.
    pub(crate) anyone_on_the_network_may_do_anything: bool,
    /// Most urgent first, each once.
    pub(crate) lanes: Vec<LaneName>,
    /// One of `lanes`.
    pub(crate) default_lane: LaneName,
    pub(crate) durability: Durability,
    pub(crate) stop_timeout_ms: u64,

    /// Absent: stderr.
    pub(crate) log_file: Option<PathBuf>,
    /// 0: it is not rotated for its size, or its age.
    pub(crate) log_file_bytes_max: u64,
    pub(crate) log_file_age_ms: u64,
    pub(crate) log_files_max: u64,
    pub(crate) log_format: LogFormat,
    /// Levels by target, as `tracing` filters are written.
    pub(crate) log: String,
    pub(crate) log_tasks_per_second_max: u64,

    pub(crate) resume_grace_ms: u64,
    pub(crate) disconnect_grace_ms: u64,
    pub(crate) heartbeat_interval_ms: u64,
    pub(crate) heartbeat_timeout_ms: u64,
    pub(crate) beat_ms: u64,
    pub(crate) stall_ms: u64,
    pub(crate) restart_hold_ms: u64,
    pub(crate) cancel_grace_ms: u64,
    pub(crate) abandon_grace_ms: u64,

    pub(crate) poll_us: u64,
    pub(crate) scheduler_turn_rows: usize,
    pub(crate) window_rows_max: usize,
    pub(crate) window_bytes_max: usize,

    pub(crate) payload_bytes_max: usize,
    /// Absent: `payload_bytes_max`.
    pub(crate) result_bytes_max: Option<usize>,
    pub(crate) backlog_bytes_max: usize,
    pub(crate) wal_alarm_bytes: u64,
    pub(crate) memory_bytes_max: Option<u64>,
    pub(crate) connections_max: usize,
    pub(crate) sessions_max: usize,
    pub(crate) kinds_max: usize,
    pub(crate) waiters_max: usize,

    pub(crate) curve: Curve,
    pub(crate) web: Web,
    pub(crate) retention: Retention,
    pub(crate) defaults: TaskDefaults,
    pub(crate) kinds: BTreeMap<Kind, KindSettings>,
    pub(crate) lane_limits: BTreeMap<LaneName, LaneLimits>,
    /// `*` is every key.
    pub(crate) fair_keys: BTreeMap<FairKey, FairKeyValues>,
}

/// What a commit of the broker survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Submits and outcomes are synced before they are acknowledged: they survive a power loss.
    Full,
    /// They survive `kill -9` of the broker; a power loss may re-run the last tasks and lose the last socket submits.
    Normal,
}

/// Endpoints for peers with keys. Once resolved, all of it is set or nothing is.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Curve {
    pub(crate) bind: Vec<String>,
    /// The broker's own secret file.
    pub(crate) key_file: Option<PathBuf>,
    /// The public files of the peers that are let in.
    pub(crate) keys_folder: Option<PathBuf>,
}

/// The dashboard, and who is let in there.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Web {
    /// Absent: there is none.
    pub(crate) bind: Option<SocketAddr>,
    /// The path under which a reverse proxy shows it; empty at the top.
    pub(crate) base_path: String,
    /// Names, roles and secrets. Absent: everybody who reaches a loopback address may do everything.
    pub(crate) access_file: Option<PathBuf>,
    pub(crate) read_only: bool,
    pub(crate) hide_payloads: bool,
    /// Names of this host besides localhost.
    pub(crate) hosts: Vec<String>,
    /// The keys of observer links. Absent: there are no such links.
    pub(crate) link_key_file: Option<PathBuf>,
    /// Pages of others that may show what such a link opens.
    pub(crate) cors_origins: Vec<String>,
    /// Where people look at a trace.
    pub(crate) trace_url: Option<TraceUrl>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// `Human` on a terminal, `Json` otherwise.
    Auto,
    Human,
    Json,
}

/// When rows of ended tasks are deleted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Retention {
    pub(crate) done_age_ms: u64,
    /// Absent: age alone decides.
    pub(crate) done_count_max: Option<u64>,
    /// Absent, both: as for done ones.
    pub(crate) cancelled_age_ms: Option<u64>,
    pub(crate) cancelled_count_max: Option<u64>,
    /// Absent, both: they stay until a person acts.
    pub(crate) dead_age_ms: Option<u64>,
    pub(crate) dead_count_max: Option<u64>,
    pub(crate) interval_ms: u64,
}

/// What a task gets where its row says NULL.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TaskDefaults {
    pub(crate) max_attempts: u32,
    pub(crate) losses_max: u32,
    pub(crate) timeout_ms: u64,
    pub(crate) backoff_base_ms: u64,
    pub(crate) backoff_max_ms: u64,
}

/// What tasks of one kind get instead of [`TaskDefaults`] and the default lane. Absent: no difference.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct KindSettings {
    /// One of the configured lanes.
    pub(crate) lane: Option<LaneName>,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) backoff_base_ms: Option<u64>,
    pub(crate) backoff_max_ms: Option<u64>,
    /// Tasks that run at a time; 0 is no cap.
    pub(crate) cap: Option<u32>,
    pub(crate) rate: Option<Rate>,
    pub(crate) rate_burst: Option<u32>,
    pub(crate) done_age_ms: Option<u64>,
    pub(crate) done_count_max: Option<u64>,
    pub(crate) cancelled_age_ms: Option<u64>,
    pub(crate) cancelled_count_max: Option<u64>,
    pub(crate) dead_age_ms: Option<u64>,
    pub(crate) dead_count_max: Option<u64>,
}

/// How much of a lane may run, and how much of the hand-outs it gets at least. Absent: no bound.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct LaneLimits {
    /// Tasks that run at a time; 0 is no cap.
    pub(crate) cap: Option<u32>,
    pub(crate) rate: Option<Rate>,
    pub(crate) rate_burst: Option<u32>,
    /// Per cent.
    pub(crate) share: Option<u32>,
}

/// A checked [`Config`] with where each value came from.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) config: Config,
    /// By full name, such as `retention.done_age_ms`; what is not here is a default.
    pub(crate) origins: BTreeMap<String, Origin>,
    /// Odd but harmless input, one line each, to be logged at start.
    pub(crate) warnings: Vec<String>,
}

impl Config {
    /// Lays the sources over the defaults and checks the outcome. Fails with every wrong key and value, and, where there is none, with
    /// what does not go together.
    pub(crate) fn resolve(sources: &Sources) -> Result<Resolved, ConfigError> {
        let mut resolved = Resolved { config: Config::unbound(), origins: BTreeMap::new(), warnings: Vec::new() };
        layers::apply(&mut resolved, sources)?;
        if !resolved.origins.contains_key("bind") {
            resolved.config.bind = default_bind(&resolved.config.db, &mut resolved.warnings);
        }
        validate::validate(&mut resolved)?;
        Ok(resolved)
    }

    /// The defaults, before it is known where the database is and with it the default socket.
    fn unbound() -> Self {
        let lane = |name: &str| LaneName::new(name).expect("the default lanes have valid names");
        Self {
            db: "laneway.db".into(),
            bind: Vec::new(),
            anyone_on_the_network_may_do_anything: false,
            lanes: vec![lane("high"), lane("normal"), lane("low")],
            default_lane: lane("normal"),
            durability: Durability::Full,
            stop_timeout_ms: 10_000,
            log_file: None,
            log_file_bytes_max: 100 * 1024 * 1024,
            log_file_age_ms: 0,
            log_files_max: 10,
            log_format: LogFormat::Auto,
            log: "info".into(),
            log_tasks_per_second_max: 5_000,
            resume_grace_ms: 15_000,
            disconnect_grace_ms: 500,
            heartbeat_interval_ms: 5_000,
            heartbeat_timeout_ms: 15_000,
            beat_ms: 5_000,
            stall_ms: 1_000,
            restart_hold_ms: 2_000,
            cancel_grace_ms: 5_000,
            abandon_grace_ms: 5_000,
            poll_us: 500,
            scheduler_turn_rows: 4_096,
            window_rows_max: 8_192,
            window_bytes_max: 16 * 1024 * 1024,
            payload_bytes_max: 1024 * 1024,
            result_bytes_max: None,
            backlog_bytes_max: 256 * 1024 * 1024,
            wal_alarm_bytes: 256 * 1024 * 1024,
            memory_bytes_max: None,
            connections_max: 32_768,
            sessions_max: 10_000,
            kinds_max: 4_096,
            waiters_max: 10_000,
            curve: Curve::default(),
            web: Web::default(),
            retention: Retention {
                done_age_ms: 7 * 24 * 3_600_000,
                done_count_max: None,
                cancelled_age_ms: None,
                cancelled_count_max: None,
                dead_age_ms: None,
                dead_count_max: None,
                interval_ms: 60_000,
            },
            defaults: TaskDefaults {
                max_attempts: 3,
                losses_max: 3,
                timeout_ms: 3_600_000,
                backoff_base_ms: 1_000,
                backoff_max_ms: 3_600_000,
            },
            kinds: BTreeMap::new(),
            lane_limits: BTreeMap::new(),
            fair_keys: BTreeMap::new(),
        }
    }
}

/// The settings that apply when nothing is said.
impl Default for Config {
    fn default() -> Self {
        let mut config = Self::unbound();
        config.bind = default_bind(&config.db, &mut Vec::new());
        config
    }
}

/// A socket beside the database, and loopback tcp for languages and places where ipc is awkward.
fn default_bind(db: &Path, warnings: &mut Vec<String>) -> Vec<String> {
    let ipc = ipc_beside(db);
    // A deep database path is no reason not to start: clients of that database are told the port by its lock.
    if let Err(reason) = endpoint::check(&ipc) {
        warnings.push(format!(
            "no socket beside the database, only {TCP_ENDPOINT}, where every user of this machine may come: {ipc} {reason}; \
             name a shorter path in bind, as in ipc:///run/laneway/laneway.sock, or put the database in a shorter one"
        ));
        return vec![TCP_ENDPOINT.into()];
    }
    vec![ipc, TCP_ENDPOINT.into()]
}

#[cfg(test)]
mod tests;
