//! Tasks that belong together: built up, submitted in one piece, waited for and cancelled as one.

use std::time::{Duration, Instant};

use laneway_protocol::limits::BATCH_MAX;
use laneway_protocol::message::{AboutGroup, GroupRow, NewGroup, Stored};
use laneway_protocol::{Answer, Request};

use crate::client::{Client, unexpected};
use crate::error::Error;
use crate::task::Task;
use crate::watch::News;

/// Tasks that are submitted together as a group, with one that runs last if there is one.
///
/// ```
/// use laneway::{Batch, Task};
///
/// let batch = Batch::new()
///     .name("nightly")
///     .task(Task::new("count").payload(&0))
///     .task(Task::new("count").payload(&1))
///     .last(Task::new("sum"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Batch {
    group: NewGroup,
    tasks: Vec<Task>,
    last: Option<Task>,
}

/// A group that is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredBatch {
    /// Its number, for [`Client::group`] and the `group_id` of its rows.
    pub group: u64,
    /// Its tasks in the order in which they were added.
    pub tasks: Vec<Stored>,
    /// The one that runs last.
    pub last: Option<Stored>,
}

impl Batch {
    /// An empty one. A group needs at least one task.
    pub fn new() -> Self {
        Self::default()
    }

    /// What people see; at most 128 bytes are kept.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.group.name = Some(name.into());
        self
    }

    /// Adds a task. It may wait for others of the batch, by their places from 0 ([`Task::after_number`]).
    #[must_use]
    pub fn task(mut self, task: Task) -> Self {
        self.tasks.push(task);
        self
    }

    /// Adds many.
    #[must_use]
    pub fn tasks(mut self, tasks: impl IntoIterator<Item = Task>) -> Self {
        self.tasks.extend(tasks);
        self
    }

    /// The task that waits for all others, those that join later among them. Cancelled when one of them is dead or cancelled.
    #[must_use]
    pub fn last(mut self, task: Task) -> Self {
        (self.last, self.group.anyway) = (Some(task), false);
        self
    }

    /// Like [`Batch::last`], and runs though some are dead or cancelled.
    #[must_use]
    pub fn last_anyway(mut self, task: Task) -> Self {
        (self.last, self.group.anyway) = (Some(task), true);
        self
    }
}

impl Client {
    /// Stores all tasks, or none, in one transaction; they may wait for each other by their places in the list
    /// ([`Task::after_number`]), in any order.
    ///
    /// At most 512 tasks that fit one message (64 kB but for their payloads). Fails with [`Error::Refused`] for a ring, or a task
    /// to wait for that is not there.
    pub fn submit_together(&self, tasks: impl IntoIterator<Item = Task>) -> Result<Vec<Stored>, Error> {
        let tasks = tasks.into_iter().map(Task::into_new_task).collect::<Result<Vec<_>, _>>()?;
        fits_one(tasks.len())?;
        Ok(self.submit_list(tasks, Duration::ZERO, false, None)?.tasks)
    }

    /// Stores a batch as a group, all of it or nothing, under the bounds of [`Client::submit_together`]. More tasks can join
    /// ([`Task::group`], [`Task::join`]).
    pub fn submit_batch(&self, batch: Batch) -> Result<StoredBatch, Error> {
        let Batch { mut group, mut tasks, last } = batch;
        let has_last = last.is_some();
        tasks.extend(last);
        fits_one(tasks.len())?;
        group.last = if has_last { u32::try_from(tasks.len() - 1).ok() } else { None };
        let tasks = tasks.into_iter().map(Task::into_new_task).collect::<Result<Vec<_>, _>>()?;
        let submitted = self.submit_list(tasks, Duration::ZERO, false, Some(group))?;
        let group = submitted.group.ok_or_else(|| Error::BadAnswer("no number for the group".into()))?;
        let mut tasks = submitted.tasks;
        let last = if has_last { tasks.pop() } else { None };
        Ok(StoredBatch { group, tasks, last })
    }

    /// Where a group stands: its tasks by state.
    pub fn group(&self, group: u64) -> Result<GroupRow, Error> {
        self.about_group(group, false)
    }

    /// Cancels what of a group has not ended, its last task too: what waits or is queued ends, what runs is asked to stop.
    /// Gives where the group stands then; what ends a moment later is not in it.
    pub fn cancel_group(&self, group: u64) -> Result<GroupRow, Error> {
        self.about_group(group, true)
    }

    /// Waits until no task of the group is live, those that join meanwhile among them, at most for `limit`. Gives where it stands then,
    /// and calls `on_change` when its counts have changed, about once a second.
    ///
    /// Fails with [`Error::StillRunning`] when the limit is reached.
    pub fn wait_group(
        &self,
        group: u64,
        limit: Option<Duration>,
        mut on_change: impl FnMut(&GroupRow),
    ) -> Result<GroupRow, Error> {
        self.wait_group_with(group, limit, |news| {
            if let News::Group(row) = news {
                on_change(row);
            }
        })
    }

    /// Like [`Client::wait_group`], and calls `on_news` for everything that there is to hear, as [`Client::watch_group`] gives it: what
    /// the group's tasks say, and at the end how its last task ended, whose result is the group's.
    pub fn wait_group_with(
        &self,
        group: u64,
        limit: Option<Duration>,
        mut on_news: impl FnMut(&News),
    ) -> Result<GroupRow, Error> {
        let started = Instant::now();
        let (mut watch, mut stands) = (self.watch_group(group), None);
        while let Some(news) = watch.next_since(started, limit)? {
            on_news(&news);
            if let News::Group(row) = news {
                stands = Some(row);
            }
        }
        stands.ok_or_else(|| Error::BadAnswer("no counts of the group".into()))
    }

    fn about_group(&self, group: u64, cancel: bool) -> Result<GroupRow, Error> {
        match self.ask(&Request::Group(AboutGroup { group, cancel }), Duration::ZERO)? {
            Answer::Group(row) => Ok(row),
            other => Err(unexpected(&other)),
        }
    }
}

fn fits_one(n_tasks: usize) -> Result<(), Error> {
    if n_tasks > BATCH_MAX {
        let text = format!(
            "{n_tasks} tasks, at most {BATCH_MAX} go in one piece: let later ones join the group, or spawn them"
        );
        return Err(Error::setting("tasks", text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_one_message_is_refused_before_it_is_sent() {
        // With the bound and the way out: in two messages it would not be all or none.
        let error = fits_one(513).unwrap_err().to_string();
        assert!(error.contains("513 tasks, at most 512") && error.contains("join the group"), "{error}");
        assert!(fits_one(512).is_ok());
    }
}
