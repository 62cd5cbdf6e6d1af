//! Every bound of the core that is not a setting, with its unit in the name.

use laneway_protocol::limits::{
    BATCH_MAX, BODY_BYTES_MAX, KIND_BYTES_MAX, KINDS_PER_WORKER_MAX, MESSAGE_BYTES_MAX, PAYLOAD_BYTES_MAX,
    TEXT_BYTES_MAX,
};

/// Kinds that a sentence names.
pub(crate) const KINDS_TOLD_MAX: usize = 16;
/// Workers that a sentence names.
pub(crate) const WORKERS_TOLD_MAX: usize = 8;
/// Rows read ahead for each task that the slots of a queue take at once, refilled under half of that: a refill comes behind a
/// turn of the store, and the slots must not run dry meanwhile.
pub(crate) const WINDOW_SHARE: usize = 16;
/// The body of a TASKS answer takes no further task above this; an estimate for each keeps it under the wire's bound.
pub(crate) const HANDOUT_BODY_BYTES_MAX: usize = BODY_BYTES_MAX - 4 * 1024;
/// What a task adds to the body besides its names and its trace.
pub(crate) const HANDOUT_TASK_BYTES: usize = 160;
/// What the code of an outcome adds to it.
pub(crate) const HANDOUT_CODE_BYTES: usize = 10;
/// A TASKS answer takes no further task once its payloads are over this.
pub(crate) const HANDOUT_PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What an answer's other fields may take of its body beside the list of rows, ends or events: ids that are pending, not
/// found or left, and what a submit stored.
pub(crate) const ANSWER_LIST_BYTES: usize = 32 * BATCH_MAX;
/// The results in one answer to `WAIT_FOR`; the others stay pending and come with the next.
pub(crate) const FINALS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Operations given to the store and not yet reported; hand-outs and submits stop above it.
pub(crate) const OPS_MAX: usize = 65_536;
/// How much further outcomes and look-ups go than submits, in operations and in `backlog_bytes_max`.
pub(crate) const BUSY_FACTOR: usize = 2;
/// Above this many operations even outcomes and look-ups are refused, so that no peer can fill the memory while the disk
/// stands; those who run tasks keep them and say them again.
pub(crate) const OPS_BUSY_MAX: usize = BUSY_FACTOR * OPS_MAX;
/// Lists, rows and counts that wait to be read; more are refused, for each may take a millisecond of the store's.
pub(crate) const QUESTIONS_MAX: usize = 128;
/// Progress events kept for one running task.
pub(crate) const EVENTS_PER_TASK_MAX: usize = 64;
/// Partial data kept for one running task.
pub(crate) const EVENT_BYTES_PER_TASK_MAX: usize = 256 * 1024;
/// Tasks whose progress is kept after their run, and how much of it.
pub(crate) const LAST_WORDS_TASKS_MAX: usize = 1_024;
pub(crate) const LAST_WORDS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Fair keys with values of their own that were set while the broker runs.
pub(crate) const FAIR_KEYS_SET_MAX: usize = 10_000;
/// Slots of one session.
pub(crate) const SLOTS_PER_SESSION_MAX: usize = 4_096;
/// Hand-outs remembered until the socket is known to have taken them.
pub(crate) const RECENT_HANDOUTS_MAX: usize = 4_096;
/// Live tasks of a group that are watched at once for those who wait for it, and whose rows they hear of; and those that one
/// operation cancels.
pub(crate) const GROUP_WATCHED_MAX: usize = BATCH_MAX;
pub(crate) const GROUP_CANCELLED_MAX: usize = BATCH_MAX;
/// How long live tasks of a group stay watched when nobody listens: those who wait for it ask again at once.
pub(crate) const CROWD_KEPT_MS: u64 = 500;
/// Ends of parents that one question of a child looks at.
pub(crate) const PARENTS_TOLD_MAX: usize = 128;
/// Tasks that are cancelled when nobody waits for them any more.
pub(crate) const MARKED_MAX: usize = 65_536;
/// Ids with all their detail in one STATUS.
pub(crate) const DETAIL_MAX: usize = 16;
/// A stored progress of a task is written at most this often, but for the last.
pub(crate) const NOTE_INTERVAL_MS: u64 = 500;
/// Batches that run at a time, and those that are over and still told.
pub(crate) const BATCHES_OPEN_MAX: usize = 4;
pub(crate) const BATCHES_KEPT_MAX: usize = 16;
/// Numbers of batches in one epoch.
pub(crate) const EPOCH_BATCHES: u64 = 1_000_000;
/// Of each text in the filter of a batch.
pub(crate) const FILTER_TEXT_BYTES_MAX: usize = 512;
/// Beginnings of sessions in one.
pub(crate) const FILTER_WORKERS_MAX: usize = 64;
/// Workers that died which STATS tells of one by one, and for how long.
pub(crate) const LOST_TOLD_MAX: usize = 16;
pub(crate) const LOST_TOLD_MS: u64 = 10 * 60_000;
/// Leases that a dump tells one by one.
pub(crate) const DUMP_LEASES_MAX: usize = 200;
/// When to ask again while the broker drains or stops.
pub(crate) const DRAIN_PAUSE_MS: u64 = 500;
/// What a host, a name or an SDK version may say about itself.
pub(crate) const LABEL_BYTES_MAX: usize = 128;
/// Of a session, in a sentence that names its worker otherwise: enough to find it in a list.
pub(crate) const SESSION_SHOWN_CHARS: usize = 8;

// The last task taken may add a payload and a checkpoint.
const _: () = assert!(HANDOUT_PAYLOAD_BYTES_MAX + 2 * PAYLOAD_BYTES_MAX <= MESSAGE_BYTES_MAX);
const _: () = assert!(FINALS_BYTES_MAX <= MESSAGE_BYTES_MAX);
// A row with its three texts, and a worker with all its kinds, fit an answer of their own.
const _: () = assert!(ANSWER_LIST_BYTES + 4 * TEXT_BYTES_MAX <= BODY_BYTES_MAX);
const _: () = assert!(ANSWER_LIST_BYTES + KINDS_PER_WORKER_MAX * (KIND_BYTES_MAX + 3) + 8 * 1024 <= BODY_BYTES_MAX);
const _: () = assert!(BATCH_MAX * 8 < OPS_MAX);
