//! Tasks that come over the socket, through the library as any app uses it.

use laneway::protocol::message::NewTask;
use laneway::{Client, Error, Kind, LaneName, Payload, Task};

use super::super::job::Job;
use super::super::ledger::Call;
use super::{Desk, PATIENCE, Pace, ms_from_now};

/// The most tasks in one SUBMIT of many.
const BATCH_MAX: u64 = 200;

/// One SUBMIT for each task.
pub(super) fn run_single(desk: &Desk, mut pace: Pace) {
    let Some(client) = connect(desk) else { return };
    while let Some(job) = pace.next(desk, 1).pop() {
        match new_task(&job).and_then(|task| client.submit(task)) {
            Ok(stored) if stored.new => desk.acknowledged([(job, id(stored.task))]),
            Ok(stored) => desk.met(job.number, Some(id(stored.task))),
            Err(error) => desk.failed("a submit", [job.number], &error),
        }
    }
}

/// Many tasks in one SUBMIT.
pub(super) fn run_batch(desk: &Desk, mut pace: Pace) {
    let Some(client) = connect(desk) else { return };
    loop {
        let jobs = pace.next(desk, BATCH_MAX);
        if jobs.is_empty() {
            return;
        }
        let tasks: Result<Vec<Task>, Error> = jobs.iter().map(new_task).collect();
        match tasks.and_then(|tasks| client.submit_many(tasks)) {
            Ok(stored) => desk.acknowledged(jobs.into_iter().zip(stored.iter().map(|stored| id(stored.task)))),
            Err(error) => desk.failed("a submit of many", jobs.iter().map(|job| job.number), &error),
        }
    }
}

/// One task after the other, each waited for.
pub(super) fn run_calls(desk: &Desk, mut pace: Pace) {
    let Some(client) = connect(desk) else { return };
    while let Some(job) = pace.next(desk, 1).pop() {
        let number = job.number;
        match new_task(&job).and_then(|task| client.submit_and_wait(task)) {
            Ok(ended) => {
                let task = id(ended.task);
                desk.acknowledged([(job, task)]);
                let result = ended.payload.map(|payload| String::from_utf8_lossy(&payload.bytes).into_owned());
                desk.ledger().calls.push(Call { task, state: ended.state, result });
            }
            Err(error) => desk.failed("a call", [number], &error),
        }
    }
}

/// `None` when no broker came up in all that time, which is noted.
pub(super) fn connect(desk: &Desk) -> Option<Client> {
    match Client::connect_with(desk.endpoint(), PATIENCE) {
        Ok(client) => Some(client),
        Err(error) => {
            desk.failed("a connect", [], &error);
            None
        }
    }
}

fn new_task(job: &Job) -> Result<Task, Error> {
    let invalid = |error: laneway::protocol::InvalidName| Error::System(error.to_string());
    let mut task = NewTask::new(Kind::new(job.kind).map_err(invalid)?, Some(Payload::json(job.payload.clone())));
    task.lane = job.lane.map(LaneName::new).transpose().map_err(invalid)?;
    task.unique_key.clone_from(&job.unique_key);
    task.max_attempts = job.max_attempts;
    task.timeout_ms = job.timeout_ms;
    task.run_at = job.delay_ms.map(ms_from_now);
    Ok(task.into())
}

fn id(task: laneway::TaskId) -> i64 {
    i64::try_from(task.value()).unwrap_or(i64::MAX)
}
