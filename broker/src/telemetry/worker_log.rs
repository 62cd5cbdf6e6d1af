//! The log lines of workers that come and go, for people who look for the process behind a task, and of tasks that went with
//! those who waited for them. Written by the router at once: they are few.

use laneway_core::{WorkerEvent, WorkerName};
use laneway_protocol::{Kind, LaneName, TaskId};

/// Kinds, or lanes, in one line; longer lists are cut.
const LIST_CHARS_MAX: usize = 200;

/// Writes a line in the target `laneway::worker`. The same `worker` and `session` stand in the lines of the tasks it runs.
pub(crate) fn tell_worker(event: &WorkerEvent) {
    match event {
        WorkerEvent::Connected { worker, kinds, lanes } => {
            let WorkerName { session, name, host, pid } = worker;
            let kinds = list(kinds.iter().map(Kind::as_str));
            let lanes = lanes.as_ref().map_or_else(|| "all".into(), |lanes| list(lanes.iter().map(LaneName::as_str)));
            tracing::info!(
                target: "laneway::worker",
                event = "connected",
                worker = worker.label(),
                session = session.as_str(),
                name,
                host,
                pid,
                kinds,
                lanes,
            );
        }
        WorkerEvent::Left { worker } => {
            let session = worker.session.as_str();
            tracing::info!(target: "laneway::worker", event = "left", worker = worker.label(), session);
        }
        WorkerEvent::Lost { worker, running } => {
            let session = worker.session.as_str();
            tracing::warn!(target: "laneway::worker", event = "lost", worker = worker.label(), session, running);
        }
    }
}

/// Writes a line for each task that was cancelled, or asked to stop, because nobody waited for it any more. At most a message's
/// tasks in one call.
pub(crate) fn tell_abandoned(tasks: &[TaskId]) {
    for task in tasks {
        tracing::info!(target: "laneway::task", event = "abandoned", task = task.value());
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for name in names {
        if !text.is_empty() {
            text.push(',');
        }
        if text.len() + name.len() > LIST_CHARS_MAX {
            text.push('…');
            break;
        }
        text.push_str(name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut() {
        // Proves that a worker with hundreds of kinds does not fill the log.
        assert_eq!(list(["a", "b"].into_iter()), "a,b");
        let long = list(std::iter::repeat_n("123456789", 256));
        assert!(long.len() < 210 && long.ends_with(",…"), "{long}");
    }
}
