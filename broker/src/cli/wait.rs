//! Waiting for tasks by command line: results on standard output as they come, progress and what else there is to know on
//! standard error.

use std::time::{Duration, Instant};

use laneway::{Ended, News};
use laneway_protocol::message::ProgressEvent;
use laneway_protocol::{Format, TaskId, TaskState};
use serde_json::{Map, Value, json};

use super::remote::Remote;
use super::task::missing;
use super::{Output, output};
use crate::error::Error;

/// After this long without an end, somebody who waits is told why.
const PATIENCE: Duration = Duration::from_secs(2);
/// So many are told why they wait.
const TOLD_WHY_MAX: usize = 4;
/// Told where words of progress are missing.
const MISSED: &str = "some progress is missing: the broker was restarted, or more was said than it keeps";

/// Waits for the end of a task and prints its result; as JSON, `object` with what is known of the end.
pub(super) fn one(
    remote: &Remote,
    task: TaskId,
    limit: Option<Duration>,
    object: &Map<String, Value>,
    output: Output,
) -> Result<(), Error> {
    let waited = follow(remote, &[task], limit, output, |end| {
        print_end(object.clone(), &end, output)?;
        ended_well(&end)
    });
    if let (Output::Json, Err(Error::TimedOut(_))) = (output, &waited) {
        print_live(remote, task, object.clone())?;
    }
    waited
}

/// Waits for many and prints each result as it comes, behind the id of its task. Says at the end which have failed.
pub(super) fn many(remote: &Remote, tasks: &[TaskId], limit: Option<Duration>, output: Output) -> Result<(), Error> {
    let (mut failed, mut live) = (Vec::new(), tasks.to_vec());
    let waited = follow(remote, tasks, limit, output, |end| {
        live.retain(|task| *task != end.task);
        if end.state != TaskState::Done {
            failed.push(end.task);
        }
        match output {
            Output::Json => print_end(named(end.task), &end, output),
            Output::Table => output::line(&format!("task {}: {}", end.task, output::clean(&end_text(&end)))),
        }
    });
    if let (Output::Json, Err(Error::TimedOut(_))) = (output, &waited) {
        live.iter().try_for_each(|task| print_live(remote, *task, named(*task)))?;
    }
    waited?;
    if failed.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = failed.iter().map(TaskId::to_string).collect();
    Err(Error::TaskFailed(format!("{} of {} are dead or cancelled: {}", failed.len(), tasks.len(), ids.join(", "))))
}

/// What is known of a task whose end is still to come.
pub(super) fn named(task: TaskId) -> Map<String, Value> {
    Map::from_iter([("task".to_owned(), json!(task))])
}

/// Shows what is heard of the tasks until all have ended. One that has not started after a while will not surprise: why it waits
/// is told once.
fn follow(
    remote: &Remote,
    tasks: &[TaskId],
    limit: Option<Duration>,
    output: Output,
    mut on_end: impl FnMut(Ended) -> Result<(), Error>,
) -> Result<(), Error> {
    let started = Instant::now();
    let (mut watch, mut patience, mut lost) = (remote.watch(tasks), Some(PATIENCE), Vec::new());
    loop {
        let next = [limit, patience].into_iter().flatten().min();
        match watch.next(next.map(|limit| limit.saturating_sub(started.elapsed()))) {
            Ok(Some(News::Ended(end))) => on_end(end)?,
            Ok(Some(News::NotFound(task))) => lost.push(task),
            Ok(Some(news)) => show(&news, output),
            Ok(None) => return missing(&lost),
            Err(laneway::Error::StillRunning { tasks, group, .. }) => {
                let waited = started.elapsed();
                if limit.is_some_and(|limit| waited >= limit) {
                    return Err(laneway::Error::StillRunning { tasks, group, waited }.into());
                }
                patience = None;
                tell_why(remote, &tasks, output)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn tell_why(remote: &Remote, tasks: &[TaskId], output: Output) -> Result<(), Error> {
    for row in remote.show(&tasks[..tasks.len().min(TOLD_WHY_MAX)])?.rows {
        if let (TaskState::Queued | TaskState::Waiting, Some(why)) = (row.state, &row.explain) {
            output::aside(output, &format!("task {} waits: {why}", row.id), &json!({ "task": row.id, "waits": why }));
        }
    }
    Ok(())
}

/// What is heard on the way.
pub(super) fn show(news: &News, output: Output) {
    match news {
        News::Missed => output::aside(output, MISSED, &json!({ "missed": true })),
        News::Progress(event) => show_progress(event, output),
        // A word of a newer library.
        _ => {}
    }
}

/// Progress goes to standard error, so that standard output holds the result alone.
fn show_progress(event: &ProgressEvent, output: Output) {
    if output == Output::Json {
        let mut object = output::to_object(event);
        output::put_payload(&mut object, "data", event.data.as_ref());
        return output::note(&Value::Object(object).to_string());
    }
    let count = match (event.done, event.total) {
        (Some(done), Some(total)) => Some(format!("{done} of {total}")),
        (done, _) => done.map(|done| done.to_string()),
    };
    let parts = [count, event.note.clone(), event.data.as_ref().map(output::payload_text)];
    let text: Vec<String> = parts.iter().flatten().map(|part| output::clean(part)).collect();
    if !text.is_empty() {
        output::note(&format!("task {}: {}", event.task, text.join(" ")));
    }
    for line in event.log.iter().flat_map(|log| log.lines()) {
        output::note(&format!("task {} | {}", event.task, output::clean(line)));
    }
}

/// A task that was waited for in vain, so that a program learns its id and goes on asking.
fn print_live(remote: &Remote, task: TaskId, mut object: Map<String, Value>) -> Result<(), Error> {
    let state = remote.show(&[task])?.rows.first().map(|row| row.state);
    object.insert("state".into(), json!(state));
    output::json(&Value::Object(object))
}

/// The result on standard output.
fn print_end(mut object: Map<String, Value>, end: &Ended, output: Output) -> Result<(), Error> {
    match (output, &end.payload) {
        (Output::Json, result) => {
            object.insert("state".into(), json!(end.state));
            object.extend(end.error.as_ref().map(|error| ("error".to_owned(), json!(error))));
            output::put_payload(&mut object, "result", result.as_ref());
            output::json(&Value::Object(object))
        }
        // Bytes as they are: `laneway submit thumbnail ... --wait > a.png`.
        (Output::Table, Some(result)) if result.format == Format::Bin => output::bytes(&result.bytes),
        (Output::Table, Some(result)) => output::line(&String::from_utf8_lossy(&result.bytes)),
        (Output::Table, None) => Ok(()),
    }
}

/// An end on one line, behind the name of its task.
fn end_text(end: &Ended) -> String {
    match (end.state, &end.payload) {
        (TaskState::Done, Some(result)) => output::payload_text(result),
        (TaskState::Done, None) => "done".into(),
        (state, _) => format!("{state}: {}", why(end)),
    }
}

/// An end other than done is an error.
fn ended_well(end: &Ended) -> Result<(), Error> {
    match end.state {
        TaskState::Done => Ok(()),
        state => Err(Error::TaskFailed(format!("task {} is {state}: {}", end.task, why(end)))),
    }
}

fn why(end: &Ended) -> &str {
    end.error.as_deref().unwrap_or("no error was recorded")
}

#[cfg(test)]
mod tests {
    use laneway_protocol::Payload;

    use super::*;
    use crate::error::Exit;

    fn end(state: TaskState, payload: Option<Payload>, error: Option<&str>) -> Ended {
        Ended { task: TaskId::new(1).unwrap(), state, payload, error: error.map(Into::into) }
    }

    #[test]
    fn only_done_is_success() {
        // Proves that a script which waits learns of a failure by the exit code.
        assert!(ended_well(&end(TaskState::Done, None, None)).is_ok());
        let error = ended_well(&end(TaskState::Dead, None, Some("no such file"))).unwrap_err();
        assert_eq!((error.exit(), error.to_string().as_str()), (Exit::Failure, "task 1 is dead: no such file"));
    }

    #[test]
    fn an_end_among_many_takes_a_line() {
        // Proves that each says what there is: a result, that there is none, bytes, or why it failed.
        let texts = [
            (end(TaskState::Done, Some(Payload::json("[1]")), None), "[1]"),
            (end(TaskState::Done, None, None), "done"),
            (end(TaskState::Done, Some(Payload::bin([0xff])), None), "1 bytes ff"),
            (end(TaskState::Dead, None, Some("no such file")), "dead: no such file"),
            (end(TaskState::Cancelled, None, None), "cancelled: no error was recorded"),
        ];
        for (end, text) in texts {
            assert_eq!(end_text(&end), text);
        }
    }
}
