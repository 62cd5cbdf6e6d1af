//! What a row says of the times of a task that has not started: when it is due, that it is tried again and why, when it expires. The
//! same words with a broker and from the file alone.

use laneway_protocol::message::{FailureRow, TaskRow, error_line};

use crate::admin::span;
use crate::time::Now;

/// Of a queued task that is due later. `max_attempts`: its own, or that of its kind where that is known.
pub fn due(row: &TaskRow, max_attempts: Option<u32>, now: Now) -> Option<String> {
    let wait = span(row.run_at.filter(|&at| at > now.wall.0)?.abs_diff(now.wall.0));
    let Some(failure) = failed_attempt(row) else { return Some(format!("it is due in {wait}")) };
    let of = max_attempts.map_or_else(String::new, |max| format!(" of {max}"));
    let how = if failure.cause == "timeout" { "ran out of time" } else { "failed" };
    let ago = span(now.wall.0.abs_diff(failure.failed_at.min(now.wall.0)));
    let error = error_line(&failure.error);
    Some(format!(
        "it is a retry: attempt {}{of} {how} {ago} ago ({error}), and the next is due in {wait}",
        row.attempts
    ))
}

/// Of a task that must start in time, behind what else is said of it.
pub fn expiry(row: &TaskRow, now: Now) -> String {
    match row.expires_at.filter(|_| row.runs == 0) {
        None => String::new(),
        Some(at) if at <= now.wall.0 => "; its time to start is over, so it is about to be cancelled".into(),
        Some(at) => format!("; it expires in {} unless it has started by then", span(at.abs_diff(now.wall.0))),
    }
}

/// The failed attempt that its last run was. A run that was snoozed, released or lost waits for other reasons.
fn failed_attempt(row: &TaskRow) -> Option<&FailureRow> {
    let last = row.failures.last().filter(|last| last.run == row.runs && row.attempts > 0)?;
    matches!(last.cause.as_str(), "failed" | "timeout").then_some(last)
}
