//! What is said of the times of a task that has not started.

use laneway_protocol::message::{FailureRow, TaskRow};

use super::world::{World, id};
use crate::due::{due, expiry};
use crate::time::{Millis, Now, UnixMillis};

const NOW: Now = Now { mono: Millis(0), wall: UnixMillis(1_000_000) };

fn failure(run: u32, cause: &str) -> FailureRow {
    let (cause, error) = (cause.into(), "no route\nto host".into());
    FailureRow { run, cause, worker: None, started_at: None, failed_at: NOW.wall.0 - 3_000, error }
}

fn row(runs: u32, attempts: u32, failures: Vec<FailureRow>) -> TaskRow {
    let mut world = World::new();
    world.insert("low", "a", 1);
    let row = world.table.show(&[id(1)]).rows.remove(0);
    TaskRow { runs, attempts, failures, run_at: Some(NOW.wall.0 + 12_000), ..row }
}

#[test]
fn a_retry_is_told_with_the_attempt_its_error_and_the_next() {
    // A run behind the failed one that was snoozed, a loss, and a person's requeue, which takes the attempts back, are none.
    let says = |row: &TaskRow, max| due(row, max, NOW).unwrap();
    let plain = "it is due in 12 s";
    assert_eq!(says(&row(0, 0, Vec::new()), Some(5)), plain);
    let retry = "it is a retry: attempt 2 of 5 failed 3000 ms ago (no route), and the next is due in 12 s";
    assert_eq!(says(&row(3, 2, vec![failure(1, "failed"), failure(3, "failed")]), Some(5)), retry);
    let late = "it is a retry: attempt 1 ran out of time 3000 ms ago (no route), and the next is due in 12 s";
    assert_eq!(says(&row(1, 1, vec![failure(1, "timeout")]), None), late);
    for other in [row(4, 2, vec![failure(3, "failed")]), row(3, 0, vec![failure(3, "failed")])] {
        assert_eq!(says(&other, Some(5)), plain);
    }
    assert_eq!(says(&row(2, 1, vec![failure(1, "failed"), failure(2, "lost")]), Some(5)), plain);
    assert_eq!(due(&TaskRow { run_at: Some(NOW.wall.0), ..row(1, 1, vec![failure(1, "failed")]) }, None, NOW), None);
}

#[test]
fn when_it_expires_is_told_until_its_first_run() {
    let at = |at: i64, runs| expiry(&TaskRow { expires_at: Some(NOW.wall.0 + at), ..row(runs, 0, Vec::new()) }, NOW);
    assert_eq!(at(5_000, 0), "; it expires in 5000 ms unless it has started by then");
    assert_eq!(at(0, 0), "; its time to start is over, so it is about to be cancelled");
    assert_eq!(at(5_000, 1), "");
    assert_eq!(expiry(&row(0, 0, Vec::new()), NOW), "");
}
