//! The log lines of operations, once they are on disk.

use std::collections::HashMap;
use std::sync::Arc;

use laneway_core::{Cause, Count, Ended, EndedAs, Next, Op, OpResult, QueueKey};
use laneway_protocol::{SessionName, TaskId, TaskState};

use crate::store::{Fired, Unstarted};
use crate::telemetry::TaskEvent;

/// The connected workers by the names that people know. A plain worker has none but its session.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<SessionName, Arc<str>>);

impl Names {
    /// Who came, for the lines of these operations.
    pub(super) fn learn(&mut self, ops: &[Op]) {
        for op in ops {
            if let Op::SessionUp { session, name, .. } = op {
                self.0.insert(session.clone(), name.as_str().into());
            }
        }
    }

    /// Who went for good, after the lines of these operations.
    pub(super) fn forget(&mut self, ops: &[Op]) {
        for (at, op) in ops.iter().enumerate() {
            let Op::SessionGone { session } = op else { continue };
            let is_back = |op: &Op| matches!(op, Op::SessionUp { session: up, .. } if up == session);
            if !ops[at..].iter().any(is_back) {
                self.0.remove(session);
            }
        }
    }

    fn of(&self, session: &SessionName) -> Arc<str> {
        self.0.get(session).map_or_else(|| session.as_str().into(), Arc::clone)
    }
}

/// The log line of a task that ended without a run: cancelled, expired or rejected. At most a sweep's rows in one turn.
pub(super) fn tell_ended(Unstarted { end, key }: &Unstarted) {
    let (event, error) = (end.state.as_str(), end.error.as_deref());
    let (kind, lane) = key.as_ref().map(|key| (key.kind.as_str(), key.lane.as_str())).unzip();
    tracing::info!(target: "laneway::task", event, task = end.task.value(), kind, lane, error);
}

/// The log line of a task that waited for others and is queued now. As many come in one turn as it follows up edges; in a second,
/// as of all routine lines.
pub(super) fn let_go_event((task, key): (TaskId, QueueKey)) -> TaskEvent {
    TaskEvent {
        event: "let_go",
        task,
        kind: key.kind,
        lane: key.lane,
        worker: None,
        session: None,
        run: 0,
        attempt: 0,
        wait_ms: None,
        run_ms: None,
        error: None,
    }
}

/// The log lines of schedules: each slot that was fired, and each that makes no sense.
pub(super) fn tell_fired(fired: &Fired) {
    for slot in &fired.slots {
        let (event, task) = (if slot.new { "fired" } else { "met" }, slot.task.value());
        tracing::info!(target: "laneway::schedule", event, schedule = slot.schedule, slot = slot.slot.0, task);
    }
    for (schedule, error) in &fired.wrong {
        tracing::warn!(target: "laneway::schedule", schedule, error, "a schedule makes no sense and does not fire");
    }
}

/// Whether the log line of an operation is one of many.
pub(super) fn is_routine(op: &Op) -> bool {
    matches!(op, Op::Started(_) | Op::Ended(Ended { next: Next::Done(_), .. }))
}

/// The log line of an operation, once it is on disk.
pub(super) fn task_event(op: &Op, result: Option<&OpResult>, names: &Names) -> Option<TaskEvent> {
    match op {
        Op::Started(started) => Some(TaskEvent {
            event: "started",
            task: started.task,
            kind: started.kind.clone(),
            lane: started.lane.clone(),
            worker: Some(names.of(&started.worker)),
            session: Some(started.worker.clone()),
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
            worker: Some(names.of(&ended.worker)),
            session: Some(ended.worker.clone()),
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
        // By the worker's own hand, in SQL.
        Some(OpResult::Ended(EndedAs::Recorded(state))) if ended.next == Next::Already => *state,
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
