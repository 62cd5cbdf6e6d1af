//! The database file as the commands use it while no broker answers: look at tasks and put new ones in. Says so on standard
//! error, so that nobody mistakes a waiting row for a running one.

use std::path::PathBuf;

use laneway_protocol::message::{Filter, NewGroup, NewTask, StatusRows, Stored};
use laneway_protocol::{Code, TaskId, TaskState, WireError};

use super::{Common, Output, output, remote};
use crate::error::Error;
use crate::store::{StoreError, offline};

/// A database that exists.
pub(super) struct File {
    path: PathBuf,
    output: Output,
}

/// Fails with the exit code of "no broker" when there is no file either.
pub(super) fn open(common: &Common) -> Result<File, Error> {
    let (path, endpoint) = (remote::db(common), remote::endpoint(common));
    if !path.exists() {
        let detail = Some(format!("and there is no database {}", path.display()));
        return Err(Error::Unreachable { endpoint, detail });
    }
    output::remark(common.output, &format!("no broker answers at {endpoint}; using the file {}", path.display()));
    Ok(File { path, output: common.output })
}

impl File {
    /// Puts a task in, to wait for the next broker.
    pub(super) fn submit(&self, task: &NewTask) -> Result<Stored, Error> {
        if let Some(lane) = &task.lane
            && !offline::knows_lanes(&self.path).map_err(|error| self.error("read", error))?
        {
            let text = format!("no broker has run on this file, so nothing tells whether there is a lane {lane}");
            output::remark(self.output, &text);
        }
        let stored = offline::submit(&self.path, task).map_err(|error| self.error("write to", error))?;
        stored.map_err(|bad| refused(bad.field, bad.reason))
    }

    /// The same for tasks that are a group; gives its number.
    pub(super) fn submit_group(&self, tasks: &[NewTask], group: &NewGroup) -> Result<(Vec<Stored>, u64), Error> {
        let stored = offline::submit_group(&self.path, tasks, group).map_err(|error| self.error("write to", error))?;
        stored.map_err(|(number, bad)| refused(bad.field, format!("task number {number}: {}", bad.reason)))
    }

    pub(super) fn list(&self, filter: &Filter) -> Result<StatusRows, Error> {
        offline::list(&self.path, filter).map_err(|error| self.error("read", error))
    }

    /// With payload, result, failures and explanation.
    pub(super) fn show(&self, tasks: &[TaskId]) -> Result<StatusRows, Error> {
        let mut found = offline::show(&self.path, tasks).map_err(|error| self.error("read", error))?;
        for row in found.rows.iter_mut().filter(|row| row.state == TaskState::Queued) {
            // What the table says of it holds once somebody acts on it.
            row.explain = row.explain.take().map(|why| format!("no broker runs; when one does: {why}"));
        }
        Ok(found)
    }

    fn error(&self, doing: &str, error: StoreError) -> Error {
        match error {
            // By a trigger or a constraint of the app.
            StoreError::Refused(reason) => Error::Refused(WireError::new(Code::BadTask, reason)),
            error => Error::database(format!("{doing} the database {}", self.path.display()), error),
        }
    }
}

/// In the broker's codes and words, so that a script sees no difference.
fn refused(field: &'static str, reason: String) -> Error {
    let code = match field {
        "lane" => Code::UnknownLane,
        "on_conflict" => Code::Conflict,
        _ => Code::BadTask,
    };
    Error::Refused(WireError::new(code, reason).field(field))
}
