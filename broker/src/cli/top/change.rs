//! What people can change from the screen: which key means what of the selected row, what is asked back, and what the broker says.

use laneway_protocol::message::{Change as TaskChange, Drain, Kinds, Lanes, Verdict};
use laneway_protocol::{Kind, LaneName, SessionName, TaskId};

use super::picture::{Pane, Picture, worker_name};
use super::sheet::Key;
use crate::cli::change;
use crate::cli::remote::Remote;
use crate::error::Error;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    PauseLane(LaneName),
    ResumeLane(LaneName),
    PauseKind(Kind),
    ResumeKind(Kind),
    Requeue(TaskId),
    Cancel(TaskId),
    /// With the name that people know it by.
    Drain(SessionName, String),
    Undrain(SessionName, String),
}

impl Change {
    /// What the key would do to the row that is selected, if there is one. Fails with what to do instead.
    pub(super) fn of_key(key: char, selected: Option<&Key>, pane: Pane, picture: &Picture) -> Result<Self, String> {
        match (key, selected) {
            ('p', Some(Key::Lane(name))) => {
                let lane = LaneName::new(name).map_err(|error| format!("{error}: cancel or move its tasks"))?;
                let is_paused = picture.lanes.iter().any(|row| row.lane == *name && row.paused);
                Ok(if is_paused { Self::ResumeLane(lane) } else { Self::PauseLane(lane) })
            }
            ('p', Some(Key::Kind(kind))) => {
                let is_paused = picture.kinds.iter().any(|row| row.kind == *kind && row.paused);
                Ok(if is_paused { Self::ResumeKind(kind.clone()) } else { Self::PauseKind(kind.clone()) })
            }
            ('c', Some(Key::Task(task))) if pane == Pane::Running => Ok(Self::Cancel(*task)),
            ('r', Some(Key::Task(task))) if pane == Pane::Dead => Ok(Self::Requeue(*task)),
            ('d', Some(Key::Worker(session))) => {
                let row = picture.workers.iter().find(|row| row.session == *session);
                let name = row.map_or_else(|| session.to_string(), worker_name);
                let is_draining = row.is_some_and(|row| row.draining);
                let of = if is_draining { Self::Undrain } else { Self::Drain };
                Ok(of(session.clone(), name))
            }
            ('p', _) => Err("p pauses and resumes a lane or a kind: press 0 or 3 and select one".into()),
            ('c', _) => Err("c cancels a running task: press 1 and select one".into()),
            ('r', _) => Err("r queues a dead task again: press 4 and select one".into()),
            _ => Err("d sends a worker away: press 2 and select one".into()),
        }
    }

    /// What is asked back.
    pub(super) fn question(&self) -> String {
        match self {
            Self::PauseLane(lane) => format!("pause lane {lane}? what runs goes on"),
            Self::ResumeLane(lane) => format!("resume lane {lane}?"),
            Self::PauseKind(kind) => format!("pause kind {kind}? what runs goes on"),
            Self::ResumeKind(kind) => format!("resume kind {kind}?"),
            Self::Requeue(task) => format!("queue task {task} again, its attempts at zero?"),
            Self::Cancel(task) => format!("cancel task {task}? its worker is asked to stop"),
            Self::Drain(_, name) => format!("send worker {name} away once what it runs has ended?"),
            Self::Undrain(_, name) => format!("give worker {name} tasks again?"),
        }
    }

    /// Asks the broker. Gives what it says of it: done, or left alone and why.
    pub(super) fn ask(&self, remote: &Remote) -> Result<Result<String, String>, Error> {
        let text = match self {
            Self::PauseLane(lane) => {
                remote.lanes(Lanes { pause: vec![lane.clone()], ..Lanes::default() })?;
                format!("lane {lane} is paused")
            }
            Self::ResumeLane(lane) => {
                remote.lanes(Lanes { resume: vec![lane.clone()], ..Lanes::default() })?;
                format!("lane {lane} is open")
            }
            Self::PauseKind(kind) => {
                remote.kinds(Kinds { pause: vec![kind.clone()], ..Kinds::default() })?;
                format!("kind {kind} is paused")
            }
            Self::ResumeKind(kind) => {
                remote.kinds(Kinds { resume: vec![kind.clone()], ..Kinds::default() })?;
                format!("kind {kind} is open")
            }
            Self::Requeue(task) => return of_task(remote, TaskChange::Requeue, *task),
            Self::Cancel(task) => return of_task(remote, TaskChange::Cancel, *task),
            Self::Drain(session, name) => {
                let worker = Some(session.as_str().into());
                let stand = remote.drain(Drain { worker, ..Drain::default() })?;
                format!("worker {name} gets no more tasks and leaves; {} still run", stand.running)
            }
            Self::Undrain(session, name) => {
                let worker = Some(session.as_str().into());
                remote.drain(Drain { off: true, worker, ..Drain::default() })?;
                format!("worker {name} gets tasks again")
            }
        };
        Ok(Ok(text))
    }
}

fn of_task(remote: &Remote, change: TaskChange, task: TaskId) -> Result<Result<String, String>, Error> {
    let verdict = remote.change(change, None, &[task])?.first().copied().unwrap_or(Verdict::Unknown);
    let text = format!("task {task}: {}", change::words(verdict));
    let is_done = matches!(verdict, Verdict::Cancelled | Verdict::Requested | Verdict::Requeued);
    Ok(if is_done { Ok(text) } else { Err(text) })
}
