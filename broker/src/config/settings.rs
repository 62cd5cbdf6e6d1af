//! The one list of settings: name, bounds, and the field it lives in. Everything else about a setting follows from here.

use laneway_protocol::message::FairKeyValues;

use super::field::Field;
use super::{Config, KindSettings, LaneLimits};

/// A setting of `T`: of the whole broker, or of one kind.
pub(super) struct Setting<T> {
    /// As in the file; a dot separates section and key.
    pub(super) name: &'static str,
    /// Least and greatest value of a number.
    pub(super) bounds: Option<(u64, u64)>,
    pub(super) field: fn(&mut T) -> &mut dyn Field,
}

const fn plain<T>(name: &'static str, field: fn(&mut T) -> &mut dyn Field) -> Setting<T> {
    Setting { name, bounds: None, field }
}

const fn number<T>(name: &'static str, min: u64, max: u64, field: fn(&mut T) -> &mut dyn Field) -> Setting<T> {
    Setting { name, bounds: Some((min, max)), field }
}

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// As for a task's own; the store refuses rows with more.
const ATTEMPTS_MAX: u64 = 1_000_000;
const TIMEOUT_MS_MAX: u64 = 315_576_000_000;
const MIB: u64 = 1024 * 1024;
const PAYLOAD_BYTES_MAX: u64 = laneway_protocol::limits::PAYLOAD_BYTES_MAX as u64;
const CAP_MAX: u64 = laneway_protocol::limits::CAP_MAX as u64;
const RATE_STARTS_MAX: u64 = laneway_protocol::limits::RATE_STARTS_MAX as u64;
const KEPT_AGE_MS_MAX: u64 = laneway_protocol::limits::KEPT_AGE_MS_MAX;
const KEPT_COUNT_MAX: u64 = laneway_protocol::limits::KEPT_COUNT_MAX;
const WEIGHT_MAX: u64 = laneway_protocol::limits::WEIGHT_MAX as u64;
const SHARE_MAX: u64 = laneway_protocol::limits::SHARE_MAX as u64;
const WAIT_MS_MAX: u64 = laneway_protocol::limits::WAIT_MS_MAX;
/// A ZMTP heartbeat's time to live travels as 16 bits of tenths of a second, and libzmq overflows it from about a minute on.
const HEARTBEAT_MS_MAX: u64 = 59_999;

/// Each rotation of the log renames all that are kept.
pub(crate) const LOG_FILES_MAX: u64 = 1_000;
const LOG_AGE_MS_MAX: u64 = 3_653 * DAY;

/// In the order of `config/laneway.toml`: top level first, then section by section.
pub(super) const SETTINGS: &[Setting<Config>] = &[
    plain("db", |c| &mut c.db),
    plain("bind", |c| &mut c.bind),
    plain("anyone_on_the_network_may_do_anything", |c| &mut c.anyone_on_the_network_may_do_anything),
    plain("lanes", |c| &mut c.lanes),
    plain("default_lane", |c| &mut c.default_lane),
    plain("durability", |c| &mut c.durability),
    number("stop_timeout_ms", 0, HOUR, |c| &mut c.stop_timeout_ms),
    plain("log_file", |c| &mut c.log_file),
    number("log_file_bytes_max", 0, 1_048_576 * MIB, |c| &mut c.log_file_bytes_max),
    number("log_file_age_ms", 0, LOG_AGE_MS_MAX, |c| &mut c.log_file_age_ms),
    number("log_files_max", 1, LOG_FILES_MAX, |c| &mut c.log_files_max),
    plain("log_format", |c| &mut c.log_format),
    plain("log", |c| &mut c.log),
    number("log_tasks_per_second_max", 1, 1_000_000, |c| &mut c.log_tasks_per_second_max),
    number("resume_grace_ms", 1_000, 10 * MINUTE, |c| &mut c.resume_grace_ms),
    number("disconnect_grace_ms", 0, MINUTE, |c| &mut c.disconnect_grace_ms),
    number("heartbeat_interval_ms", 100, HEARTBEAT_MS_MAX, |c| &mut c.heartbeat_interval_ms),
    number("heartbeat_timeout_ms", 200, HEARTBEAT_MS_MAX, |c| &mut c.heartbeat_timeout_ms),
    number("beat_ms", 100, WAIT_MS_MAX, |c| &mut c.beat_ms),
    number("stall_ms", 50, MINUTE, |c| &mut c.stall_ms),
    number("restart_hold_ms", 0, MINUTE, |c| &mut c.restart_hold_ms),
    number("cancel_grace_ms", 0, 10 * MINUTE, |c| &mut c.cancel_grace_ms),
    number("abandon_grace_ms", 100, HOUR, |c| &mut c.abandon_grace_ms),
    number("poll_us", 50, 1_000_000, |c| &mut c.poll_us),
    number("scheduler_turn_rows", 16, 100_000, |c| &mut c.scheduler_turn_rows),
    number("window_rows_max", 16, 65_536, |c| &mut c.window_rows_max),
    number("window_bytes_max", 64 * 1_024, 4_096 * MIB, |c| &mut c.window_bytes_max),
    number("payload_bytes_max", 1_024, PAYLOAD_BYTES_MAX, |c| &mut c.payload_bytes_max),
    number("result_bytes_max", 1_024, PAYLOAD_BYTES_MAX, |c| &mut c.result_bytes_max),
    number("backlog_bytes_max", MIB, 65_536 * MIB, |c| &mut c.backlog_bytes_max),
    number("wal_alarm_bytes", 8 * MIB, 1_048_576 * MIB, |c| &mut c.wal_alarm_bytes),
    number("memory_bytes_max", 64 * MIB, 1_048_576 * MIB, |c| &mut c.memory_bytes_max),
    number("connections_max", 16, 1_000_000, |c| &mut c.connections_max),
    number("sessions_max", 1, 1_000_000, |c| &mut c.sessions_max),
    number("kinds_max", 1, 65_536, |c| &mut c.kinds_max),
    number("waiters_max", 1, 1_000_000, |c| &mut c.waiters_max),
    plain("curve.bind", |c| &mut c.curve.bind),
    plain("curve.key_file", |c| &mut c.curve.key_file),
    plain("curve.keys_folder", |c| &mut c.curve.keys_folder),
    plain("web.bind", |c| &mut c.web.bind),
    plain("web.base_path", |c| &mut c.web.base_path),
    plain("web.access_file", |c| &mut c.web.access_file),
    plain("web.read_only", |c| &mut c.web.read_only),
    plain("web.hide_payloads", |c| &mut c.web.hide_payloads),
    plain("web.hosts", |c| &mut c.web.hosts),
    plain("web.link_key_file", |c| &mut c.web.link_key_file),
    plain("web.cors_origins", |c| &mut c.web.cors_origins),
    plain("web.trace_url", |c| &mut c.web.trace_url),
    number("retention.done_age_ms", 0, KEPT_AGE_MS_MAX, |c| &mut c.retention.done_age_ms),
    number("retention.done_count_max", 0, KEPT_COUNT_MAX, |c| &mut c.retention.done_count_max),
    number("retention.cancelled_age_ms", 0, KEPT_AGE_MS_MAX, |c| &mut c.retention.cancelled_age_ms),
    number("retention.cancelled_count_max", 0, KEPT_COUNT_MAX, |c| &mut c.retention.cancelled_count_max),
    number("retention.dead_age_ms", 0, KEPT_AGE_MS_MAX, |c| &mut c.retention.dead_age_ms),
    number("retention.dead_count_max", 0, KEPT_COUNT_MAX, |c| &mut c.retention.dead_count_max),
    number("retention.interval_ms", 100, DAY, |c| &mut c.retention.interval_ms),
    number("defaults.max_attempts", 1, ATTEMPTS_MAX, |c| &mut c.defaults.max_attempts),
    number("defaults.losses_max", 1, 1_000, |c| &mut c.defaults.losses_max),
    number("defaults.timeout_ms", 1, TIMEOUT_MS_MAX, |c| &mut c.defaults.timeout_ms),
    number("defaults.backoff_base_ms", 0, 30 * DAY, |c| &mut c.defaults.backoff_base_ms),
    number("defaults.backoff_max_ms", 0, 30 * DAY, |c| &mut c.defaults.backoff_max_ms),
];

/// What stands in a section `[kinds.NAME]`.
pub(super) const KIND_SETTINGS: &[Setting<KindSettings>] = &[
    plain("lane", |k| &mut k.lane),
    number("max_attempts", 1, ATTEMPTS_MAX, |k| &mut k.max_attempts),
    number("timeout_ms", 1, TIMEOUT_MS_MAX, |k| &mut k.timeout_ms),
    number("backoff_base_ms", 0, 30 * DAY, |k| &mut k.backoff_base_ms),
    number("backoff_max_ms", 0, 30 * DAY, |k| &mut k.backoff_max_ms),
    number("done_age_ms", 0, KEPT_AGE_MS_MAX, |k| &mut k.done_age_ms),
    number("done_count_max", 0, KEPT_COUNT_MAX, |k| &mut k.done_count_max),
    number("cancelled_age_ms", 0, KEPT_AGE_MS_MAX, |k| &mut k.cancelled_age_ms),
    number("cancelled_count_max", 0, KEPT_COUNT_MAX, |k| &mut k.cancelled_count_max),
    number("dead_age_ms", 0, KEPT_AGE_MS_MAX, |k| &mut k.dead_age_ms),
    number("dead_count_max", 0, KEPT_COUNT_MAX, |k| &mut k.dead_count_max),
    number("cap", 0, CAP_MAX, |k| &mut k.cap),
    plain("rate", |k| &mut k.rate),
    number("rate_burst", 0, RATE_STARTS_MAX, |k| &mut k.rate_burst),
];

/// What stands in a section `[fair_keys.NAME]`.
pub(super) const FAIR_KEY_SETTINGS: &[Setting<FairKeyValues>] = &[
    number("weight", 1, WEIGHT_MAX, |k| &mut k.weight),
    number("cap", 0, CAP_MAX, |k| &mut k.cap),
    plain("rate", |k| &mut k.rate),
    number("rate_burst", 0, RATE_STARTS_MAX, |k| &mut k.rate_burst),
];

/// What stands in a section `[lane_limits.NAME]`.
pub(super) const LANE_SETTINGS: &[Setting<LaneLimits>] = &[
    number("cap", 0, CAP_MAX, |l| &mut l.cap),
    plain("rate", |l| &mut l.rate),
    number("rate_burst", 0, RATE_STARTS_MAX, |l| &mut l.rate_burst),
    number("share", 0, SHARE_MAX, |l| &mut l.share),
];
