//! Waiting for tasks: their progress and their ends, each told as it comes, over lost answers and restarts of the broker.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use laneway_protocol::TaskId;
use laneway_protocol::limits::BATCH_MAX;
use laneway_protocol::message::{Cursor, ProgressEvent, WaitFor, Waited};

use crate::client::{Away, Client, Ended, WAIT_PARKED, millis};
use crate::error::Error;
use crate::task::Task;

/// With more tasks than one question takes, each of their questions comes about this often.
const ROUND: Duration = Duration::from_secs(1);

/// What is heard of tasks that are waited for.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum News {
    /// Words of progress are missing here: the broker was restarted, which forgets them, or more was said than it keeps. What comes
    /// next goes on from there; after a restart it begins with how far each task is by its row.
    Missed,
    /// A word of progress, a piece of data or a line of a log; first of all how far a task was when nobody waited for it.
    Progress(ProgressEvent),
    /// A task has ended, and everything that is known of its progress was told.
    Ended(Ended),
    /// There is no such task, or its row is deleted. Nothing more is told of it.
    NotFound(TaskId),
}

/// A wait for any number of tasks, see [`Client::watch`].
#[derive(Debug)]
pub struct Watch<'a> {
    client: &'a Client,
    /// Each is asked about in its turn; those without a task left are gone.
    pages: VecDeque<Page>,
    news: VecDeque<News>,
    away: Away,
}

/// Tasks that are waited for by one question.
#[derive(Debug)]
struct Page {
    pending: Vec<TaskId>,
    /// As the last answer had it. It alone says what was told, so no number of an event is looked at here.
    cursor: Option<Cursor>,
}

impl Client {
    /// Waits for tasks and gives what there is to hear of them, one piece after the other, in the order in which it comes: results as
    /// they end, and progress on the way.
    ///
    /// ```no_run
    /// use laneway::{Client, News, TaskId};
    ///
    /// # fn show(client: &Client, tasks: &[TaskId]) -> Result<(), laneway::Error> {
    /// let mut watch = client.watch(tasks);
    /// while let Some(news) = watch.next(None)? {
    ///     if let News::Ended(end) = news {
    ///         println!("task {} is {}", end.task, end.state);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(&self, tasks: &[TaskId]) -> Watch<'_> {
        let mut seen = HashSet::with_capacity(tasks.len());
        let tasks: Vec<TaskId> = tasks.iter().copied().filter(|task| seen.insert(*task)).collect();
        let pages = tasks.chunks(BATCH_MAX).map(|page| Page { pending: page.to_vec(), cursor: None }).collect();
        Watch { client: self, pages, news: VecDeque::new(), away: Away::default() }
    }

    /// Submits a task and waits for its end, however long that takes, with what is heard of it on the way: [`Client::submit_awaited`]
    /// and [`Client::wait_with`] in one.
    pub fn submit_and_wait_with(&self, task: Task, on_news: impl FnMut(&News)) -> Result<Ended, Error> {
        let stored = self.submit_awaited(task)?;
        self.wait_with(stored.task, on_news)
    }

    /// Waits for the end of a task, however long that takes and across restarts of the broker.
    ///
    /// Fails with [`Error::NotFound`] when there is no such task (any more).
    pub fn wait(&self, task: TaskId) -> Result<Ended, Error> {
        self.wait_with(task, |_| {})
    }

    /// Like [`Client::wait`], and calls `on_news` for each word of progress and piece of data, in order and none twice. Where some are
    /// missing it is told so ([`News::Missed`]); after a restart of the broker how far the task is comes next, as its row has it.
    pub fn wait_with(&self, task: TaskId, on_news: impl FnMut(&News)) -> Result<Ended, Error> {
        let ended = self.wait_all(&[task], None, on_news)?;
        ended.into_iter().next().ok_or_else(|| Error::BadAnswer(format!("no end for task {task}")))
    }

    /// Waits for the end of all `tasks`, at most for `limit`. The ends are in the order of `tasks`; `on_news` hears each as it comes,
    /// and the progress of all.
    ///
    /// Fails with [`Error::StillRunning`] when the limit is reached, with [`Error::NotFound`] for the first that is not there. What
    /// had ended by then was told to `on_news`; [`Client::watch`] goes on after a limit.
    pub fn wait_all(
        &self,
        tasks: &[TaskId],
        limit: Option<Duration>,
        mut on_news: impl FnMut(&News),
    ) -> Result<Vec<Ended>, Error> {
        let started = Instant::now();
        let mut ends: HashMap<TaskId, Ended> = HashMap::with_capacity(tasks.len());
        let mut watch = self.watch(tasks);
        loop {
            let news = match watch.next(limit.map(|limit| limit.saturating_sub(started.elapsed()))) {
                Err(Error::StillRunning { tasks, .. }) => {
                    return Err(Error::StillRunning { tasks, waited: started.elapsed() });
                }
                news => news?,
            };
            let Some(news) = news else { break };
            on_news(&news);
            match news {
                News::Ended(end) => _ = ends.insert(end.task, end),
                News::NotFound(task) => return Err(Error::NotFound(task)),
                News::Missed | News::Progress(_) => {}
            }
        }
        tasks.iter().map(|task| ends.get(task).cloned().ok_or(Error::NotFound(*task))).collect()
    }
}

impl Watch<'_> {
    /// The next piece of news, waiting for it at most for `limit`; `None` when all tasks have ended and all is told.
    ///
    /// Fails with [`Error::StillRunning`] when the limit is over, and with [`Error::NoBroker`] when the broker is away for longer than
    /// [`Client::away_max`]. Nothing is lost by that: the next call goes on.
    pub fn next(&mut self, limit: Option<Duration>) -> Result<Option<News>, Error> {
        let started = Instant::now();
        // Even without time each task is looked at once.
        let mut unseen = self.pages.len();
        loop {
            if let Some(news) = self.news.pop_front() {
                return Ok(Some(news));
            }
            let Some(page) = self.pages.pop_front() else { return Ok(None) };
            let left = limit.map_or(WAIT_PARKED, |limit| limit.saturating_sub(started.elapsed()));
            let n_pages = u32::try_from(self.pages.len() + 1).unwrap_or(u32::MAX);
            let parked = left.min(if n_pages == 1 { WAIT_PARKED } else { ROUND / n_pages });
            let asked = self.ask(&page, parked);
            self.pages.push_back(page);
            match asked {
                Ok(waited) => self.take(waited),
                Err(error) if error.retry() && self.client.may_wait(&self.away) && !left.is_zero() => continue,
                Err(error) => return Err(error),
            }
            unseen = unseen.saturating_sub(1);
            if unseen == 0 && self.news.is_empty() && !self.pages.is_empty() && left.is_zero() {
                return Err(Error::StillRunning { tasks: self.pending().collect(), waited: started.elapsed() });
            }
        }
    }

    /// The tasks that have not ended, as far as the broker has told.
    pub fn pending(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.pages.iter().flat_map(|page| page.pending.iter().copied())
    }

    fn ask(&mut self, page: &Page, parked: Duration) -> Result<Waited, Error> {
        let question = WaitFor {
            tasks: page.pending.clone(),
            kind: None,
            unique_key: None,
            cursor: page.cursor,
            wait_ms: millis(parked),
            abandon: self.client.abandons(),
            group: None,
        };
        self.client.wait_for(question, parked, &mut self.away)
    }

    /// Takes in what was answered to the question of the last page.
    fn take(&mut self, waited: Waited) {
        let Some(page) = self.pages.back_mut() else { return };
        page.cursor = Some(waited.cursor);
        let ended: HashSet<TaskId> = waited.finals.iter().map(|end| end.task).collect();
        let lost = waited.not_found.into_iter().chain(waited.pruned);
        let lost: Vec<TaskId> = lost.filter(|task| page.pending.contains(task)).collect();
        page.pending.retain(|task| !ended.contains(task) && !lost.contains(task));
        if page.pending.is_empty() {
            self.pages.pop_back();
        }
        self.news.extend(waited.gap.then_some(News::Missed));
        self.news.extend(waited.events.into_iter().map(News::Progress));
        self.news.extend(waited.finals.into_iter().map(|end| News::Ended(end.into())));
        self.news.extend(lost.into_iter().map(News::NotFound));
    }
}

impl News {
    /// The word of progress, if it is one.
    pub fn progress(&self) -> Option<&ProgressEvent> {
        match self {
            Self::Progress(event) => Some(event),
            _ => None,
        }
    }
}
