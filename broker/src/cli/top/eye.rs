//! The one part that asks the broker, in a thread of its own: it may wait there as long as it takes, and the screen goes on.
//!
//! A broker that was restarted is found again by the client itself. The inbox is bounded: what finds it full was pressed while an
//! earlier question waits, and is refused.

use std::time::{SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, bounded};
use laneway_protocol::TaskState;
use laneway_protocol::message::{Filter, Kinds, Lanes, TaskRow};
use laneway_web::Ages;

use super::change::Change;
use super::picture::{Pane, Picture};
use crate::cli::Common;
use crate::cli::remote::{self, Remote};
use crate::error::Error;

/// Tasks that one look asks for, the newest ones.
pub(super) const TASKS_MAX: u32 = 200;
/// Pages that they come in at most; wide rows end a page early.
const PAGES_MAX: usize = 8;
/// Questions that wait for this thread.
const QUESTIONS_MAX: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Question {
    Look(Pane),
    Change(Change),
}

#[derive(Debug)]
pub(super) enum Answer {
    Looked(Result<Box<Picture>, String>),
    /// What has been done, or why not.
    Changed(Result<String, String>),
}

pub(super) struct Eye {
    remote: Remote,
    /// Where the database is at hand.
    ages: Option<Ages>,
}

impl Eye {
    /// Fails when no broker answers now.
    pub(super) fn open(common: &Common) -> Result<Self, Error> {
        Ok(Self { remote: Remote::expect(common)?, ages: remote::database(common).map(Ages::new) })
    }

    /// Answers until the questions end.
    pub(super) fn start(mut self) -> Result<(Sender<Question>, Receiver<Answer>), Error> {
        let (questions, inbox) = bounded(QUESTIONS_MAX);
        let (outbox, answers) = bounded(QUESTIONS_MAX);
        let body = move || {
            for question in inbox {
                let answer = match question {
                    Question::Look(pane) => {
                        Answer::Looked(self.look(pane).map(Box::new).map_err(|error| error.chain()))
                    }
                    Question::Change(change) => {
                        Answer::Changed(change.ask(&self.remote).unwrap_or_else(|error| Err(error.chain())))
                    }
                };
                if outbox.send(answer).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("eye".into()).spawn(body);
        thread.map_err(|error| Error::other("start the thread that asks the broker", error))?;
        Ok((questions, answers))
    }

    pub(super) fn look(&mut self, pane: Pane) -> Result<Picture, Error> {
        let remote = &self.remote;
        let stats = remote.stats()?;
        let (lanes, kinds) = (remote.lanes(Lanes::default())?, remote.kinds(Kinds::default())?);
        let tasks = match pane {
            Pane::Running => {
                let mut tasks = list(remote, TaskState::Running)?;
                tasks.sort_by_key(|task| (task.started_at, task.id));
                tasks
            }
            Pane::Dead => list(remote, TaskState::Dead)?,
            Pane::Workers | Pane::Kinds => Vec::new(),
        };
        let oldest = self.ages.as_mut().map(|ages| ages.look(&lanes, &kinds)).unwrap_or_default();
        Ok(Picture { at: now_ms(), stats, lanes, kinds, workers: self.remote.workers()?, pane, tasks, oldest })
    }
}

/// The newest of them.
fn list(remote: &Remote, state: TaskState) -> Result<Vec<TaskRow>, Error> {
    let mut filter = Filter { state: Some(state), limit: TASKS_MAX, ..Filter::default() };
    let mut tasks = Vec::new();
    for _ in 0..PAGES_MAX {
        let page = remote.list(&filter)?;
        filter.limit = filter.limit.saturating_sub(u32::try_from(page.rows.len()).unwrap_or(u32::MAX));
        filter.before = page.next;
        tasks.extend(page.rows);
        if filter.limit == 0 || filter.before.is_none() {
            break;
        }
    }
    Ok(tasks)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
