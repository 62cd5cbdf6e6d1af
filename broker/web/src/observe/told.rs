//! What an observer is told, as JSON: the least that a public page needs. The element in `widget.js` reads it.

use laneway::{Observed, ObserverLink, TaskState};
use serde::Serialize;

use crate::rows::Standing;

/// Times are Unix milliseconds. What is not known is left out.
#[derive(Debug, Serialize)]
struct Told<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<u64>,
    state: &'static str,
    /// Nothing more will come.
    ended: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

pub(super) fn told(link: &ObserverLink, standing: &Standing) -> String {
    let (task, group) = match link.observed() {
        Observed::Task(task) => (Some(task.value()), None),
        Observed::Group(group) => (None, Some(group)),
    };
    let told = Told {
        task,
        group,
        state: standing.state.as_str(),
        ended: standing.state.is_final(),
        done: standing.done,
        total: standing.total,
        percent: percent(standing),
        failed: standing.failed,
        note: standing.note.as_deref(),
        created_at: standing.created_at,
        started_at: standing.started_at,
        finished_at: standing.finished_at,
        error: standing.error.as_deref().filter(|_| link.shows_error()),
    };
    serde_json::to_string(&told).expect("texts and numbers have a JSON text")
}

/// For people, on one line.
pub(super) fn said(standing: &Standing) -> String {
    let state = match standing.state {
        TaskState::Waiting => "Waiting",
        TaskState::Queued => "Queued",
        TaskState::Running => "Running",
        TaskState::Done => "Done",
        TaskState::Dead => "Failed",
        TaskState::Cancelled => "Cancelled",
    };
    match percent(standing) {
        Some(percent) if standing.state == TaskState::Running => format!("{state}, {percent} %"),
        _ => state.into(),
    }
}

/// Rounded down, so that all of it is done at a hundred and not before.
fn percent(standing: &Standing) -> Option<u64> {
    if standing.state == TaskState::Done {
        return Some(100);
    }
    let (done, total) = (standing.done?, standing.total.filter(|total| *total > 0)?);
    Some(u64::try_from(u128::from(done.min(total)) * 100 / u128::from(total)).unwrap_or(100))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use laneway::TaskId;

    use super::*;

    fn standing(state: TaskState, done: Option<u64>, total: Option<u64>) -> Standing {
        Standing {
            state,
            done,
            total,
            failed: None,
            note: None,
            created_at: Some(1),
            started_at: None,
            finished_at: None,
            error: Some("at /srv/app".into()),
        }
    }

    #[test]
    fn an_error_is_told_to_links_that_show_it() {
        // Proves the whole text for a public link, and the one word more of the other sort.
        let link = ObserverLink::new(TaskId::new(12).unwrap(), Duration::from_mins(1)).unwrap();
        let dead = standing(TaskState::Dead, Some(1), Some(3));
        let public = r#"{"task":12,"state":"dead","ended":true,"done":1,"total":3,"percent":33,"created_at":1}"#;
        assert_eq!(told(&link, &dead), public);
        assert!(told(&link.with_error(), &dead).ends_with(r#","error":"at /srv/app"}"#));
    }

    #[test]
    fn percents_are_whole_and_never_too_good() {
        // Proves the edges: no total, nothing to do, nearly all, more than all, and the largest numbers.
        for (done, total, percent) in [
            (Some(1), None, None),
            (None, Some(3), None),
            (Some(0), Some(0), None),
            (Some(999), Some(1_000), Some(99)),
            (Some(5), Some(4), Some(100)),
            (Some(u64::MAX / 2), Some(u64::MAX), Some(49)),
        ] {
            assert_eq!(super::percent(&standing(TaskState::Running, done, total)), percent, "{done:?} of {total:?}");
        }
        assert_eq!(said(&standing(TaskState::Running, Some(1), Some(3))), "Running, 33 %");
        assert_eq!(said(&standing(TaskState::Done, None, None)), "Done");
    }
}
