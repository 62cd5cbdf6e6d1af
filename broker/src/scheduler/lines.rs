//! The log lines of operations, once they are on disk.

use laneway_core::{Cause, Count, Ended, EndedAs, Next, Op, OpResult};
use laneway_protocol::TaskState;

use crate::store::Unstarted;
use crate::telemetry::TaskEvent;

/// The log line of a task that ended without a run: cancelled, expired or rejected. At most a sweep's rows in one turn.
pub(super) fn tell_ended(Unstarted { end, key }: &Unstarted) {
    let (event, error) = (end.state.as_str(), end.error.as_deref());
    let (kind, lane) = key.as_ref().map(|key| (key.kind.as_str(), key.lane.as_str())).unzip();
    tracing::info!(target: "laneway::task", event, task = end.task.value(), kind, lane, error);
}

/// Whether the log line of an operation is one of many.
pub(super) fn is_routine(op: &Op) -> bool {
    matches!(op, Op::Started(_) | Op::Ended(Ended { next: Next::Done(_), .. }))
}

/// The log line of an operation, once it is on disk.
pub(super) fn task_event(op: &Op, result: Option<&OpResult>) -> Option<TaskEvent> {
    match op {
        Op::Started(started) => Some(TaskEvent {
            event: "started",
            task: started.task,
            kind: started.kind.clone(),
            lane: started.lane.clone(),
            worker: Some(started.worker.as_str().into()),
            run: started.run,
            attempt: started.attempt,
            wait_ms: Some(started.wait_ms),
            run_ms: None,
            error: None,
        }),
        Op::Ended(ended) => Some(TaskEvent {
            event: event_name(ended, result),
            task: ended.task,
            kind: ended.kind.clone(),
            lane: ended.lane.clone(),
            worker: Some(ended.worker.as_str().into()),
            run: ended.run,
            attempt: ended.attempt,
            wait_ms: None,
            run_ms: Some(ended.run_ms),
            error: ended.error.clone(),
        }),
        _ => None,
    }
}

fn event_name(ended: &Ended, result: Option<&OpResult>) -> &'static str {
    let state = match result {
        Some(OpResult::Ended(EndedAs::Written(state) | EndedAs::SpawnRefused { state, .. })) => *state,
        Some(OpResult::Ended(EndedAs::Recorded(_))) => return "repeated",
        _ => return "overtaken",
    };
    match (state, ended.cause, ended.count) {
        (TaskState::Done, ..) => "done",
        (TaskState::Dead, ..) => "dead",
        (TaskState::Cancelled, ..) => "cancelled",
        (_, Some(Cause::Lost), _) => "lost",
        (_, Some(_), _) => "failed",
        (_, None, Count::Nothing) => "returned",
        (_, None, _) => "released",
    }
}
