//! STATS and PING: how it goes.

use serde::{Deserialize, Serialize};

use crate::ids::Epoch;

/// Numbers about the whole broker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StatsReport {
    pub epoch: u64,
    pub version: String,
    pub uptime_ms: u64,
    pub draining: bool,
    /// Nothing is handed out, by a signal, while all else goes on.
    #[serde(default)]
    pub quiet: bool,
    /// Rows by state, from the store's count; it may lag by a moment.
    pub queued: u64,
    pub running: u64,
    pub dead: u64,
    pub workers: u64,
    /// That died, since start; a plain one counts when it ran something.
    #[serde(default)]
    pub workers_lost: u64,
    /// Of these, the newest 16 of the last ten minutes, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost_workers: Vec<LostWorker>,
    pub ready: u64,
    /// Since start, like the next ones: new rows, by SQL, SUBMIT or spawn.
    pub submitted: u64,
    pub handed_out: u64,
    pub done: u64,
    pub failed: u64,
    pub lost: u64,
    pub released: u64,
    /// Tasks that ended so, whether they ran or not.
    pub cancelled: u64,
    pub stale: u64,
    pub bad_messages: u64,
    /// Rows that an app changed or deleted under the broker.
    pub overtaken: u64,
    pub log_lines_dropped: u64,
    pub wal_bytes: u64,
    /// Of a write-ahead log that is too long and cannot shrink: a reader holds a transaction open. 0 while all is well.
    #[serde(default)]
    pub wal_pinned_bytes: u64,
    /// Of the last 1,024 synced commits.
    pub commit_p50_us: u64,
    pub commit_p99_us: u64,
    /// Why the store refuses work, when it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_error: Option<String>,
    pub kinds: Vec<KindRow>,
}

/// A worker whose connections were gone for too long.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostWorker {
    /// As it called itself, or its session.
    pub name: String,
    #[serde(default)]
    pub host: String,
    /// Tasks that it ran, which went back.
    pub running: u32,
    pub ago_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KindRow {
    pub kind: String,
    pub queued: u64,
    /// Connected worker processes that can run it.
    pub workers: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pong {
    pub epoch: Epoch,
    /// The broker's version.
    pub version: String,
}
