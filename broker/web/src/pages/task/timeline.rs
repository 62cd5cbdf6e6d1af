//! The runs of a task on a line of time: how long it waited, how long each run took and how it ended.

use std::fmt::Write as _;

use laneway::TaskState;
use laneway_protocol::message::TaskRow;

use super::super::short;
use super::when;
use crate::time::span;

/// One line of the list below the bar.
pub(super) struct Step {
    pub(super) title: String,
    /// Of its dot.
    pub(super) class: &'static str,
    pub(super) at: String,
    /// How long it waited before.
    pub(super) waited: String,
    pub(super) took: String,
    pub(super) worker: String,
    pub(super) text: String,
}

pub(super) struct Timeline {
    pub(super) bar: String,
    pub(super) waited: String,
    /// Empty for a task that has never run.
    pub(super) ran: String,
    pub(super) steps: Vec<Step>,
}

struct Run {
    number: u32,
    from: i64,
    to: i64,
    class: &'static str,
    title: String,
    worker: String,
    text: String,
}

pub(super) fn timeline(row: &TaskRow, now: i64) -> Timeline {
    let runs = runs(row, now);
    let begin = row.created_at;
    let end = row.finished_at.unwrap_or(now).max(begin + 1);
    let ran: i64 = runs.iter().map(|run| (run.to - run.from).max(0)).sum();
    let mut steps = vec![Step {
        title: "Created".into(),
        class: "waiting",
        at: when(begin),
        waited: String::new(),
        took: String::new(),
        worker: String::new(),
        text: row
            .run_at
            .filter(|at| *at > begin && row.runs == 0)
            .map_or_else(String::new, |at| format!("due {}", span(at - begin) + " later")),
    }];
    let mut last = begin;
    for run in &runs {
        steps.push(Step {
            title: run.title.clone(),
            class: run.class,
            at: when(run.from),
            waited: if run.from > last { span(run.from - last) } else { String::new() },
            took: span(run.to - run.from),
            worker: run.worker.clone(),
            text: run.text.clone(),
        });
        last = run.to;
    }
    if let Some(at) = row.finished_at.filter(|_| row.state == TaskState::Cancelled || runs.is_empty()) {
        steps.push(Step {
            title: format!("Ended as {}", row.state),
            class: row.state.as_str(),
            at: when(at),
            waited: String::new(),
            took: String::new(),
            worker: String::new(),
            text: String::new(),
        });
    }
    Timeline {
        bar: bar(&runs, begin, end),
        waited: span(end - begin - ran),
        ran: if runs.is_empty() { String::new() } else { span(ran) },
        steps,
    }
}

fn runs(row: &TaskRow, now: i64) -> Vec<Run> {
    let mut runs: Vec<Run> = row
        .failures
        .iter()
        .map(|failure| Run {
            number: failure.run,
            from: failure.started_at.unwrap_or(failure.failed_at),
            to: failure.failed_at,
            class: "dead",
            title: format!("Run {}: {}", failure.run, failure.cause),
            worker: failure.worker.as_deref().map(short).unwrap_or_default(),
            text: failure.error.clone(),
        })
        .collect();
    let is_told = runs.iter().any(|run| run.number == row.runs);
    let Some(from) = row.started_at.filter(|_| !is_told && row.runs > 0) else { return runs };
    let (class, word) = match row.state {
        TaskState::Running => ("running", "running"),
        TaskState::Done => ("done", "done"),
        TaskState::Cancelled => ("cancelled", "cancelled"),
        TaskState::Dead => ("dead", "dead"),
        // It was handed back: the next run will be told.
        TaskState::Queued | TaskState::Waiting => return runs,
    };
    runs.push(Run {
        number: row.runs,
        from,
        to: row.finished_at.unwrap_or(now).max(from),
        class,
        title: format!("Run {}: {word}", row.runs),
        worker: row.worker.as_deref().map(short).unwrap_or_default(),
        text: String::new(),
    });
    runs
}

/// From creation to the end: what is not a run is waiting. A run too short to be seen is made wide enough.
fn bar(runs: &[Run], begin: i64, end: i64) -> String {
    const WIDTH: i64 = 1_000;
    const NARROW: i64 = 6;
    let place = |at: i64| (at - begin).clamp(0, end - begin).saturating_mul(WIDTH) / (end - begin).max(1);
    let mut text = String::from(
        "<svg class=\"timeline\" viewBox=\"0 0 1000 16\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
         <rect class=\"track\" width=\"1000\" height=\"16\"/>",
    );
    for run in runs {
        let (from, to) = (place(run.from).min(WIDTH - NARROW), place(run.to));
        let width = (to - from).max(NARROW);
        write!(text, "<rect class=\"s-{}\" x=\"{from}\" width=\"{width}\" height=\"16\"/>", run.class)
            .expect("writing to a string cannot fail");
    }
    text + "</svg>"
}

#[cfg(test)]
mod tests {
    use laneway::TaskId;
    use laneway_protocol::message::FailureRow;

    use super::*;

    fn row(state: TaskState, runs: u32) -> TaskRow {
        let mut row: TaskRow = serde_json::from_value(serde_json::json!({
            "id": 1, "kind": "a", "state": "queued", "runs": runs, "attempts": 0, "losses": 0, "releases": 0, "created_at": 1000,
        }))
        .unwrap();
        (row.id, row.state) = (TaskId::new(1).unwrap(), state);
        row
    }

    #[test]
    fn runs_and_waits_add_up_to_a_life() {
        // Proves that a failed run, the wait behind it and the run that did it stand in order, with their lengths.
        let mut row = row(TaskState::Done, 2);
        row.failures = vec![FailureRow {
            run: 1,
            cause: "failed".into(),
            worker: Some("w".into()),
            started_at: Some(2_000),
            failed_at: 5_000,
            error: "no".into(),
        }];
        (row.started_at, row.finished_at) = (Some(9_000), Some(11_000));
        let timeline = timeline(&row, 99_000);
        let seen: Vec<_> =
            timeline.steps.iter().map(|s| (s.title.as_str(), s.waited.as_str(), s.took.as_str())).collect();
        assert_eq!(seen, [("Created", "", ""), ("Run 1: failed", "1.0 s", "3.0 s"), ("Run 2: done", "4.0 s", "2.0 s")]);
        assert_eq!((timeline.ran.as_str(), timeline.waited.as_str()), ("5.0 s", "5.0 s"));
        assert!(timeline.bar.contains("x=\"100\" width=\"300\"") && timeline.bar.contains("x=\"800\" width=\"200\""));
    }

    #[test]
    fn a_task_that_never_ran_has_a_life_too() {
        // Proves that a cancelled or waiting task is drawn without a run.
        let mut cancelled = row(TaskState::Cancelled, 0);
        cancelled.finished_at = Some(2_000);
        assert_eq!(timeline(&cancelled, 9_000).steps.len(), 2);
        assert_eq!(timeline(&row(TaskState::Waiting, 0), 9_000).steps.len(), 1);
        assert_eq!(timeline(&row(TaskState::Queued, 0), 9_000).ran, "");
    }
}
