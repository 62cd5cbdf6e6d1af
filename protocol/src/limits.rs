//! Every bound of the wire, with its unit in the name. A message over one of these is refused before it is parsed.

/// The `MessagePack` map of a message.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Tasks, outcomes or leases in one message; longer lists go in pages.
pub const BATCH_MAX: usize = 512;
/// Frames behind the body: a payload for each task, and one for each task that an outcome spawns.
pub const PAYLOAD_FRAMES_MAX: usize = 2 * BATCH_MAX;
/// One payload, result or piece of partial data, unless the broker's settings say less.
pub const PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// All payload frames of one message together.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Nested arrays and maps in a body. Known messages need five; deeper ones are hostile.
pub const BODY_DEPTH_MAX: usize = 16;
/// The name of a kind.
pub const KIND_BYTES_MAX: usize = 128;
/// The name of a lane.
pub const LANE_BYTES_MAX: usize = 64;
/// A session, which a worker process chooses at random when it starts.
pub const SESSION_BYTES_MAX: usize = 64;
/// A fair key.
pub const FAIR_KEY_BYTES_MAX: usize = 255;
/// A unique key.
pub const UNIQUE_KEY_BYTES_MAX: usize = 512;
/// A trace context.
pub const TRACE_BYTES_MAX: usize = 512;
/// An error text or a progress note; longer ones are cut at a character boundary.
pub const TEXT_BYTES_MAX: usize = 8 * 1024;
/// Kinds that one worker may name.
pub const KINDS_PER_WORKER_MAX: usize = 256;
/// Tasks that WORKERS lists of one worker.
pub const RUNNING_LISTED_MAX: usize = 64;
/// How long a question may ask to be parked.
pub const WAIT_MS_MAX: u64 = 60_000;
/// Extra time, on top of `wait_ms`, after which a well-formed question has surely been answered.
pub const ANSWER_SLACK_MS: u64 = 1_000;

const _: () = assert!(PAYLOAD_BYTES_MAX <= MESSAGE_BYTES_MAX);
const _: () = assert!(BATCH_MAX <= PAYLOAD_FRAMES_MAX);
// A full batch of leases fits the body: 2 integers of at most 9 bytes and the array's byte.
const _: () = assert!(BATCH_MAX * 19 < BODY_BYTES_MAX);
/// Tasks of a group in one state that are counted.
pub const GROUP_COUNT_MAX: u64 = 1_000_000;
/// What counts of the first line of an error, see [`error_line`](crate::message::error_line).
pub const ERROR_LINE_CHARS_MAX: usize = 128;
/// The name of a group.
pub const GROUP_NAME_BYTES_MAX: usize = 128;
/// Open dependencies that STATUS names.
pub const WAITS_FOR_MAX: usize = 16;
/// Tasks before another in its lane that STATUS counts.
pub const AHEAD_MAX: u32 = 10_000;
/// The highest cap of a kind or a lane.
pub const CAP_MAX: u32 = 1_000_000;
/// Starts in the unit of a rate, and at once after a quiet time.
pub const RATE_STARTS_MAX: u32 = 1_000_000;
/// The highest `max_attempts` and `timeout_ms` that a row or a kind may say; the longest delay of a retry.
pub const ATTEMPTS_MAX: u32 = 1_000_000;
pub const TIMEOUT_MS_MAX: u64 = 315_576_000_000;
pub const BACKOFF_MS_MAX: u64 = 30 * 24 * 3_600_000;
/// The longest that ended tasks are kept, and the most of them, which is as good as for ever and all.
pub const KEPT_AGE_MS_MAX: u64 = 100 * 365 * 24 * 3_600_000;
pub const KEPT_COUNT_MAX: u64 = 1_000_000_000_000;
/// The highest weight of a fair key.
pub const WEIGHT_MAX: u32 = 1_000;
/// The shares of all lanes together, in per cent.
pub const SHARE_MAX: u32 = 100;
/// The name of a schedule.
pub const SCHEDULE_NAME_CHARS_MAX: usize = 128;
