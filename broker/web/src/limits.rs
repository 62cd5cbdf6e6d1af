//! Every bound of the dashboard, with its unit in the name. What is over one of these is shed with a word of when to come back.

use std::time::Duration;

/// Connections at a time; one more is told so and shut.
pub(crate) const CONNECTIONS_MAX: usize = 256;
/// Streams of live updates at a time.
pub(crate) const STREAMS_MAX: usize = 128;
/// What is kept of pages that streams have shown a moment ago: what each shows now, and before.
pub(crate) const PARTS_MAX: usize = 2 * STREAMS_MAX;
/// All live pages that differ take no more than one part in so many of the time of what they are looked up by, together.
pub(crate) const LIVE_SHARE: u32 = 4;
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
/// And one that a page may begin with, whose stream brings the next within a second.
pub(crate) const RECENT: Duration = Duration::from_secs(2);
/// After how long without a look one is taken for the history.
pub(crate) const UNSEEN_TIME: Duration = Duration::from_secs(10);
/// How long a program's question, the first page, and the one after a change wait for a picture.
pub(crate) const LOOK_TIME: Duration = Duration::from_millis(600);
/// How long any other page waits for a new picture before it takes the last one.
pub(crate) const PAGE_TIME: Duration = Duration::from_millis(50);
/// How long one question to the broker is tried.
pub(crate) const BROKER_TIME: Duration = Duration::from_secs(2);
/// How long a look into the table may take, with the wait for those before it: nobody waits for two whole ones.
pub(crate) const QUERY_TIME: Duration = Duration::from_millis(60);
/// What a look has of a processor before it is broken off, however long it waited for that or for its turn.
pub(crate) const QUERY_WORK: Duration = Duration::from_millis(40);
/// And how long that may take.
pub(crate) const QUERY_TIME_MAX: Duration = Duration::from_millis(500);
/// Points of history, about one a second.
pub(crate) const HISTORY_POINTS_MAX: usize = 300;
/// And how far it goes back.
pub(crate) const HISTORY_MS: i64 = 300_000;
/// Rows of a page of tasks.
pub(crate) const PAGE_ROWS: usize = 50;
/// And the most that the API gives in one.
pub(crate) const PAGE_ROWS_MAX: usize = 500;
/// Schedules of a page.
pub(crate) const SCHEDULE_ROWS: usize = 200;
/// Dead rows that are grouped by their error, the newest ones.
pub(crate) const DEAD_ROWS_MAX: usize = 10_000;
/// Payload and result bytes that are shown on a page; the API gives all.
pub(crate) const SHOWN_BYTES_MAX: usize = 64 * 1024;
/// Kinds that are told apart in metrics; the rest is one label, so that no app makes a collector keep a series for each name.
pub(crate) const METRIC_KINDS_MAX: usize = 200;
/// Kinds on the page of lanes: those with the most to do.
pub(crate) const KINDS_SHOWN: usize = 100;
/// Workers on their page: those that are away or leave first.
pub(crate) const WORKERS_SHOWN: usize = 100;

const _: () = assert!(STREAMS_MAX + OBSERVERS_MAX < CONNECTIONS_MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{SECRET_CHARS_MIN, VISITORS_MAX};

    /// Each bound of this file in the words of the guide, or why it is in none.
    fn written() -> Vec<(&'static [&'static str], String)> {
        let n = |n: usize| crate::time::grouped(n as u64);
        let s = |time: Duration| time.as_secs();
        let per_s = GUESSES_MAX as u128 * 1_000 / GUESS_TIME.as_millis();
        assert_eq!(per_s, 32, "the comment beside GUESS_TIME");
        assert_eq!(LIVE_SHARE, 4, "a quarter");
        vec![
            (
                &["CONNECTIONS_MAX", "STREAMS_MAX", "WAITERS_MAX"],
                format!("| {CONNECTIONS_MAX}; {STREAMS_MAX}; {WAITERS_MAX} | 503"),
            ),
            (&["OBSERVERS_MAX", "OBSERVED_MAX"], format!("watched at a time | {OBSERVERS_MAX}; {OBSERVED_MAX} |")),
            (&["ORIGINS_MAX"], format!("256 characters; {ORIGINS_MAX} |")),
            (
                &["GUESSES_MAX", "GUESS_TIME"],
                format!("{VISITORS_MAX}; at least {SECRET_CHARS_MIN} characters; {GUESSES_MAX}, half a second each"),
            ),
            (
                &["BROKER_QUESTIONS_MAX", "ROW_QUESTIONS_MAX"],
                format!(
                    "to the broker; to the table | {BROKER_QUESTIONS_MAX}; {ROW_QUESTIONS_MAX}, and as many of live tabs |"
                ),
            ),
            (
                &["HEAD_BYTES_MAX", "BODY_BYTES_MAX", "HEAD_TIME", "BODY_TIME"],
                format!(
                    "a head of {} KiB, a body of {} MiB, {} s for each",
                    HEAD_BYTES_MAX >> 10,
                    BODY_BYTES_MAX >> 20,
                    s(HEAD_TIME.max(BODY_TIME))
                ),
            ),
            (&["STALLED_TIME"], format!("that takes nothing | {} s |", s(STALLED_TIME))),
            (
                &["QUERY_TIME", "QUERY_WORK", "QUERY_TIME_MAX", "PAGE_ROWS", "PAGE_ROWS_MAX", "DEAD_ROWS_MAX"],
                format!(
                    "{} ms with its wait, {} ms of a processor at least, {} ms at most; {PAGE_ROWS} rows, {PAGE_ROWS_MAX} by the API; the newest {} |",
                    QUERY_TIME.as_millis(),
                    QUERY_WORK.as_millis(),
                    QUERY_TIME_MAX.as_millis(),
                    n(DEAD_ROWS_MAX)
                ),
            ),
            (&["SCHEDULE_ROWS"], format!("a page of schedules | {SCHEDULE_ROWS} rows |")),
            (&["LIVE_SHARE", "PARTS_MAX"], format!("a quarter of the time for looks; {PARTS_MAX} parts kept")),
            (&["SHOWN_BYTES_MAX"], format!("payload or a result on a page | {} KiB |", SHOWN_BYTES_MAX >> 10)),
            (&["KINDS_SHOWN"], format!("kinds on the page of lanes; of the API | {KINDS_SHOWN}; {PAGE_ROWS_MAX} |")),
            (&["WORKERS_SHOWN"], format!("workers on their page; of the API | {WORKERS_SHOWN}; {PAGE_ROWS_MAX} |")),
            (&["METRIC_KINDS_MAX"], format!("kinds by name in the metrics | {METRIC_KINDS_MAX} |")),
            (
                &["HISTORY_POINTS_MAX", "HISTORY_MS"],
                format!("the last {HISTORY_POINTS_MAX} points, {} minutes |", HISTORY_MS / 60_000),
            ),
            // How long is waited, and how often looked: a pace, and nothing that anybody meets as a bound.
            (&["FRESH", "RECENT", "UNSEEN_TIME", "LOOK_TIME", "PAGE_TIME", "BROKER_TIME"], String::new()),
        ]
    }

    #[test]
    fn each_bound_stands_in_the_guide() {
        // Proves that docs/bounds.md tells the bounds that hold, and that none is added here without a line there.
        let guide = include_str!("../../../docs/bounds.md");
        let written = written();
        for (names, words) in &written {
            assert!(guide.contains(words.as_str()), "docs/bounds.md lacks '{words}' of {names:?}");
        }
        let names: Vec<&str> = written.iter().flat_map(|(names, _)| names.iter().copied()).collect();
        let source = include_str!("limits.rs");
        for name in source.lines().filter_map(|line| line.strip_prefix("pub(crate) const ")?.split(':').next()) {
            assert!(names.contains(&name), "{name} stands in no line of docs/bounds.md");
        }
    }
}
