//! Changes of tasks that are there: some by their ids, or all that a filter meets.

use std::time::Duration;

use laneway_protocol::limits::BATCH_MAX;
use laneway_protocol::message::{Batch, Bulk, BulkFilter, Bulked, Change, Tasks, Verdict};
use laneway_protocol::{Answer, LaneName, Request, TaskId};

use super::{Client, unexpected};
use crate::error::Error;

impl Client {
    /// Cancels tasks: queued ones at once, running ones by telling their worker. One verdict for each, on disk.
    pub fn cancel(&self, tasks: &[TaskId]) -> Result<Vec<Verdict>, Error> {
        self.verdicts(tasks, Request::Cancel)
    }

    /// Queues dead or cancelled tasks again, their attempts and losses at zero. One verdict for each, on disk.
    pub fn requeue(&self, tasks: &[TaskId]) -> Result<Vec<Verdict>, Error> {
        self.verdicts(tasks, Request::Requeue)
    }

    /// Deletes ended tasks. One verdict for each, on disk.
    pub fn purge(&self, tasks: &[TaskId]) -> Result<Vec<Verdict>, Error> {
        self.change(tasks, Change::Purge, None)
    }

    /// Puts tasks that do not run into another lane. One verdict for each, on disk.
    pub fn move_to(&self, lane: &LaneName, tasks: &[TaskId]) -> Result<Vec<Verdict>, Error> {
        self.change(tasks, Change::Move, Some(lane))
    }

    /// Lets queued tasks run at once that wait for a later time. One verdict for each, on disk.
    pub fn run_now(&self, tasks: &[TaskId]) -> Result<Vec<Verdict>, Error> {
        self.change(tasks, Change::RunNow, None)
    }

    /// Starts a batch that changes all tasks that `filter` meets, in the background of the broker; with `dry_run` it only counts
    /// them. `lane` is for a move. Said again while it runs, it is the same batch. A restart of the broker forgets it: what it
    /// has changed is on disk, and to start it again goes on with the rest.
    pub fn change_all(
        &self,
        change: Change,
        lane: Option<&LaneName>,
        filter: BulkFilter,
        dry_run: bool,
    ) -> Result<Batch, Error> {
        let (change, filter) = (Some(change), Some(Box::new(filter)));
        self.bulk(Bulk { change, lane: lane.cloned(), filter, dry_run, ..Bulk::default() })
    }

    /// Where a batch stands, by its number; with `stop` it ends there.
    pub fn batch(&self, number: u64, stop: bool) -> Result<Batch, Error> {
        self.bulk(Bulk { batch: Some(number), stop, ..Bulk::default() })
    }

    fn bulk(&self, bulk: Bulk) -> Result<Batch, Error> {
        match self.ask(&Request::Bulk(bulk), Duration::ZERO)? {
            Answer::Bulk(Bulked { batch: Some(batch), .. }) => Ok(batch),
            other => Err(unexpected(&other)),
        }
    }

    fn change(&self, tasks: &[TaskId], change: Change, lane: Option<&LaneName>) -> Result<Vec<Verdict>, Error> {
        self.verdicts(tasks, |Tasks { tasks }| {
            Request::Bulk(Bulk { change: Some(change), lane: lane.cloned(), tasks, ..Bulk::default() })
        })
    }

    fn verdicts(&self, tasks: &[TaskId], request: impl Fn(Tasks) -> Request) -> Result<Vec<Verdict>, Error> {
        let mut all = Vec::with_capacity(tasks.len());
        for page in tasks.chunks(BATCH_MAX) {
            match self.ask(&request(Tasks { tasks: page.to_vec() }), Duration::ZERO)? {
                Answer::Cancel(verdicts) | Answer::Requeue(verdicts) => all.extend(verdicts.verdicts),
                Answer::Bulk(bulked) => all.extend(bulked.verdicts),
                other => return Err(unexpected(&other)),
            }
        }
        Ok(all)
    }
}
