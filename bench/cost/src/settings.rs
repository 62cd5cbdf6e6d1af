//! The broker's settings at their defaults, but for syncs, which cost no instructions and would only take time.

use std::collections::{BTreeMap, HashMap};

use laneway_broker::internals::DeskSettings;
use laneway_core::{KindSettings, Settings};
use laneway_protocol::{Kind, LaneName};

const PAYLOAD_BYTES_MAX: usize = 1 << 20;
const WINDOW_BYTES_MAX: usize = 16 << 20;

pub(crate) fn core() -> Settings {
    let defaults = KindSettings {
        lane: lane("normal"),
        max_attempts: 3,
        timeout_ms: 3_600_000,
        backoff_base_ms: 1_000,
        backoff_max_ms: 3_600_000,
    };
    Settings {
        lanes: lanes(),
        defaults,
        kinds: HashMap::new(),
        kind_values: BTreeMap::new(),
        fair_key_values: BTreeMap::new(),
        lane_values: BTreeMap::new(),
        losses_max: 3,
        resume_grace_ms: 15_000,
        // Nobody is left of an earlier run who could come back.
        restart_hold_ms: 0,
        disconnect_grace_ms: 500,
        cancel_grace_ms: 5_000,
        abandon_grace_ms: 5_000,
        beat_ms: 5_000,
        payload_bytes_max: PAYLOAD_BYTES_MAX,
        result_bytes_max: PAYLOAD_BYTES_MAX,
        bulk_rows: 256,
        window_rows_min: 128,
        window_rows_max: 8_192,
        window_bytes_max: WINDOW_BYTES_MAX,
        backlog_bytes_max: 256 << 20,
        sessions_max: 10_000,
        kinds_max: 4_096,
        waiters_max: 10_000,
    }
}

pub(crate) fn desk() -> DeskSettings {
    DeskSettings {
        lanes: lanes(),
        default_lane: lane("normal"),
        kind_lanes: HashMap::new(),
        payload_bytes_max: PAYLOAD_BYTES_MAX,
        turn_rows: 4_096,
        window_bytes: WINDOW_BYTES_MAX,
        full_durability: false,
        done_age_ms: None,
        dead_age_ms: None,
        prune_interval_ms: 60_000,
        prune_rows: 1_000,
    }
}

pub(crate) fn kind(n: usize) -> Kind {
    Kind::new(format!("kind-{n}")).expect("a short word is a kind")
}

fn lanes() -> Vec<LaneName> {
    ["high", "normal", "low"].map(lane).into()
}

fn lane(name: &str) -> LaneName {
    LaneName::new(name).expect("a short word is a lane")
}
