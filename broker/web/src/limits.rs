//! Every bound of the dashboard, with its unit in the name. What is over one of these is shed with a word of when to come back.

use std::time::Duration;

/// Connections at a time; one more is told so and shut.
pub(crate) const CONNECTIONS_MAX: usize = 256;
/// Streams of live updates at a time.
pub(crate) const STREAMS_MAX: usize = 128;
/// Streams of those who come by an observer link, at a time: with the tabs they leave some connections for all else.
pub(crate) const OBSERVERS_MAX: usize = 64;
/// Tasks and groups that are looked at for observers within a second or two.
pub(crate) const OBSERVED_MAX: usize = 256;
/// The origins whose pages may embed what an observer link shows.
pub(crate) const ORIGINS_MAX: usize = 64;
/// Requests that wait for the end of a task at a time.
pub(crate) const WAITERS_MAX: usize = 64;
/// Wrong passwords and tokens that wait for their answer at a time; one more is told to come back later.
pub(crate) const GUESSES_MAX: usize = 16;
/// How long the answer to a wrong one is held back: with [`GUESSES_MAX`] at a time nobody tries more than 32 a second.
pub(crate) const GUESS_TIME: Duration = Duration::from_millis(500);
/// Questions that wait for the thread that asks the broker.
pub(crate) const BROKER_QUESTIONS_MAX: usize = 64;
/// Questions that wait for the thread that reads the table.
pub(crate) const ROW_QUESTIONS_MAX: usize = 64;
/// What a request may carry: a page of tasks with their payloads.
pub(crate) const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The head of a request.
pub(crate) const HEAD_BYTES_MAX: usize = 32 * 1024;
/// From a connection's beginning, or the last answer on it, to the end of the next head.
pub(crate) const HEAD_TIME: Duration = Duration::from_secs(20);
/// From the head to the end of the body.
pub(crate) const BODY_TIME: Duration = Duration::from_secs(20);
/// How long a reader of a stream may take none of it.
pub(crate) const STALLED_TIME: Duration = Duration::from_secs(20);
/// How old a picture of the broker may be that is shown as the present one.
pub(crate) const FRESH: Duration = Duration::from_millis(900);
/// After how long without a look one is taken for the history.
pub(crate) const UNSEEN_TIME: Duration = Duration::from_secs(10);
/// How long a program's question, the first page, and the one after a change wait for a picture.
pub(crate) const LOOK_TIME: Duration = Duration::from_millis(600);
/// How long any other page waits for a new picture before it takes the last one.
pub(crate) const PAGE_TIME: Duration = Duration::from_millis(80);
/// How long one question to the broker is tried.
pub(crate) const BROKER_TIME: Duration = Duration::from_secs(2);
/// How long one look into the table may take.
pub(crate) const QUERY_TIME: Duration = Duration::from_millis(150);
/// Points of history, about one a second.
pub(crate) const HISTORY_POINTS_MAX: usize = 300;
/// And how far it goes back.
pub(crate) const HISTORY_MS: i64 = 300_000;
/// Rows of a page of tasks.
pub(crate) const PAGE_ROWS: usize = 50;
/// And the most that the API gives in one.
pub(crate) const PAGE_ROWS_MAX: usize = 500;
/// Dead rows that are grouped by their error, the newest ones.
pub(crate) const DEAD_ROWS_MAX: usize = 10_000;
/// Payload and result bytes that are shown on a page; the API gives all.
pub(crate) const SHOWN_BYTES_MAX: usize = 64 * 1024;
/// Kinds that are told apart in metrics; the rest is one label, so that no app makes a collector keep a series for each name.
pub(crate) const METRIC_KINDS_MAX: usize = 200;

const _: () = assert!(STREAMS_MAX + OBSERVERS_MAX < CONNECTIONS_MAX);
