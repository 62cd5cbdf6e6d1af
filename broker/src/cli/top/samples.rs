//! A made-up picture, for the tests of the files beside it.

use std::collections::BTreeMap;

use laneway_protocol::message::{KindState, LaneRow, StatsReport, TaskRow, WorkerRow};
use laneway_protocol::{Kind, LaneName, SessionName, TaskId, TaskState};
use laneway_web::Oldest;

use super::picture::{Pane, Picture};

/// Unix milliseconds of now, in the pictures.
pub(super) const NOW: i64 = 1_800_000_000_000;

/// Three lanes, of which one is paused; two tasks run in one worker.
pub(super) fn picture() -> Picture {
    let lane = |name: &str, queued, running| LaneRow { configured: true, queued, running, ..LaneRow::new(name.into()) };
    let stats = StatsReport {
        epoch: 7,
        version: "0.1.0".into(),
        uptime_ms: 11_520_000,
        queued: 1_234,
        running: 2,
        dead: 3,
        workers: 1,
        commit_p50_us: 900,
        commit_p99_us: 3_100,
        wal_bytes: 4_194_304,
        ..StatsReport::default()
    };
    let mut slow = task(1204, "report", NOW - 61_000);
    (slow.progress_done, slow.progress_total) = (None, None);
    slow.worker = Some("0badcafe00".into());
    Picture {
        at: NOW,
        stats,
        lanes: vec![
            lane("high", 0, 1),
            lane("normal", 1_200, 1),
            LaneRow { paused: true, share: Some(10), ..lane("low", 34, 0) },
        ],
        kinds: vec![kind("report", 30, 0), kind("resize", 1_204, 1)],
        workers: vec![worker()],
        pane: Pane::Running,
        tasks: vec![task(12, "resize", NOW - 7_500_000), slow],
        oldest: Oldest {
            since: BTreeMap::from([("low".into(), NOW - 3_660_000), ("normal".into(), NOW - 3_200)]),
            ..Oldest::default()
        },
    }
}

fn worker() -> WorkerRow {
    WorkerRow {
        session: SessionName::new("5e55104a").unwrap(),
        name: "thumbs-1".into(),
        host: "app-1".into(),
        pid: 4_711,
        sdk: "rust".into(),
        kinds: vec![Kind::new("resize").unwrap()],
        lanes: vec![LaneName::new("high").unwrap(), LaneName::new("normal").unwrap()],
        slots: 4,
        ready: 2,
        running: vec![TaskId::new(12).unwrap(), TaskId::new(1_204).unwrap()],
        connected_ms: 90_000,
        away: false,
        draining: false,
    }
}

fn kind(name: &str, queued: u64, workers: u64) -> KindState {
    let state = serde_json::json!({
        "kind": name, "paused": false, "queued": queued, "running": 1, "workers": workers, "lane": "normal", "max_attempts": 3,
        "timeout_ms": 1, "backoff_base_ms": 1, "backoff_max_ms": 1,
    });
    serde_json::from_value(state).unwrap()
}

pub(super) fn task(id: u64, kind: &str, started_at: i64) -> TaskRow {
    let row = serde_json::json!({
        "id": id, "kind": kind, "lane": "normal", "state": TaskState::Running, "runs": 1, "attempts": 1, "losses": 0,
        "releases": 0, "worker": "5e55104a", "created_at": started_at, "started_at": started_at, "finished_at": started_at,
        "progress_done": 2, "progress_total": 5, "progress_note": "scaling", "error": "no route to host",
    });
    serde_json::from_value(row).unwrap()
}
