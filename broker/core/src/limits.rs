//! Every bound of the core that is not a setting, with its unit in the name.

use laneway_protocol::limits::{BATCH_MAX, BODY_BYTES_MAX, MESSAGE_BYTES_MAX};

/// Rows read ahead for a queue that even one slot serves.
pub(crate) const WINDOW_ROWS_MIN: usize = 32;
/// The body of a TASKS answer; kept under the wire's bound by an estimate for each task.
pub(crate) const HANDOUT_BODY_BYTES_MAX: usize = BODY_BYTES_MAX - 4 * 1024;
/// What a task adds to the body besides its names and its trace.
pub(crate) const HANDOUT_TASK_BYTES: usize = 160;
/// The payloads of one TASKS answer, unless its first is larger.
pub(crate) const HANDOUT_PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The results in one answer to WAIT_FOR; the others stay pending and come with the next.
pub(crate) const FINALS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Operations given to the store and not yet reported; hand-outs and submits stop above it.
pub(crate) const OPS_MAX: usize = 65_536;
/// Progress events kept for one running task.
pub(crate) const EVENTS_PER_TASK_MAX: usize = 64;
/// Partial data kept for one running task.
pub(crate) const EVENT_BYTES_PER_TASK_MAX: usize = 256 * 1024;
/// Slots of one session.
pub(crate) const SLOTS_PER_SESSION_MAX: usize = 4_096;
/// Hand-outs remembered until the socket is known to have taken them.
pub(crate) const RECENT_HANDOUTS_MAX: usize = 4_096;
/// Ids with all their detail in one STATUS.
pub(crate) const DETAIL_MAX: usize = 16;
/// A stored progress of a task is written at most this often.
pub(crate) const NOTE_INTERVAL_MS: u64 = 500;
/// What a host, a name or an SDK version may say about itself.
pub(crate) const LABEL_BYTES_MAX: usize = 128;

const _: () = assert!(HANDOUT_PAYLOAD_BYTES_MAX <= MESSAGE_BYTES_MAX);
const _: () = assert!(FINALS_BYTES_MAX <= MESSAGE_BYTES_MAX);
const _: () = assert!(BATCH_MAX * 8 < OPS_MAX);
