//! Waiting for tasks, or for a group of them: their progress and their ends, each told as it comes, over lost answers and restarts of the
//! broker.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use laneway_protocol::TaskId;
use laneway_protocol::limits::BATCH_MAX;
use laneway_protocol::message::{Cursor, GroupRow, ProgressEvent, WaitFor, Waited};

use crate::client::{Away, Client, Ended, WAIT_PARKED, millis};
use crate::error::Error;
use crate::task::Task;

/// With more tasks than one question takes, each of their questions comes about this often.
const ROUND: Duration = Duration::from_secs(1);
/// How often a wait for a group hears where it stands, when none of its tasks says anything.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is heard of tasks that are waited for.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum News {
    /// Words of progress are missing here: the broker was restarted, which forgets them, or more was said than it keeps. What comes
    /// next goes on from there; after a restart it begins with how far each task is by its row.
    Missed,
    /// A word of progress, a piece of data or a line of a log; first of all how far a task was when nobody waited for it.
    Progress(ProgressEvent),
    /// A task has ended, and everything that is known of its progress was told. Of a group that is waited for as a whole, its last task
    /// alone, if it has one: what it returned is the group's result.
    Ended(Ended),
    /// Where the group stands that is waited for, when that has changed.
    Group(GroupRow),
    /// There is no such task, or its row is deleted. Nothing more is told of it.
    NotFound(TaskId),
}

/// A wait for any number of tasks, see [`Client::watch`], or for a group, see [`Client::watch_group`].
#[derive(Debug)]
pub struct Watch<'a> {
    client: &'a Client,
    /// Each is asked about in its turn; those without a task left are gone.
    pages: VecDeque<Page>,
    news: VecDeque<News>,
    away: Away,
    /// The questions that are still to be asked although the time is over.
    unseen: Option<usize>,
}

/// Tasks that are waited for by one question.
#[derive(Debug)]
struct Page {
    pending: Vec<TaskId>,
    /// They go with the last of those who wait.
    abandon: bool,
    group: Option<GroupPage>,
    /// As the last answer had it. It alone says what was told, so no number of an event is looked at here.
    cursor: Option<Cursor>,
}

/// A group that is waited for; the pending tasks are some of it.
#[derive(Debug)]
struct GroupPage {
    group: u64,
    /// Where it stood when that was told.
    told: Option<GroupRow>,
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
        let tasks = tasks.iter().copied().filter(|task| seen.insert(*task));
        let (own, others): (Vec<TaskId>, Vec<TaskId>) = tasks.partition(|task| self.abandons(*task));
        let page = |abandon| move |page: &[TaskId]| Page { pending: page.to_vec(), abandon, group: None, cursor: None };
        let pages = own.chunks(BATCH_MAX).map(page(true)).chain(others.chunks(BATCH_MAX).map(page(false)));
        Watch::new(self, pages.collect())
    }

    /// Waits until no task of a group is live, those that join meanwhile among them, and gives what there is to hear, one piece after
    /// the other: what its tasks say, in the order in which they say it ([`News::Progress`]), where the group stands
    /// ([`News::Group`]), and at the end how its last task ended, if it has one ([`News::Ended`]).
    ///
    /// First comes how far its tasks were when nobody waited, for up to 512 that are live, those that run before the others.
    ///
    /// ```no_run
    /// use laneway::{Client, News};
    ///
    /// # fn show(client: &Client, group: u64) -> Result<(), laneway::Error> {
    /// let mut watch = client.watch_group(group);
    /// while let Some(news) = watch.next(None)? {
    ///     match news {
    ///         News::Progress(word) => println!("task {}: {:?} {:?}", word.task, word.done, word.note),
    ///         News::Ended(last) => println!("its result is {:?}", last.payload),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch_group(&self, group: u64) -> Watch<'_> {
        let page =
            Page { pending: Vec::new(), abandon: false, group: Some(GroupPage { group, told: None }), cursor: None };
        Watch::new(self, VecDeque::from([page]))
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
        while let Some(news) = watch.next_since(started, limit)? {
            on_news(&news);
            match news {
                News::Ended(end) => _ = ends.insert(end.task, end),
                News::NotFound(task) => return Err(Error::NotFound(task)),
                News::Missed | News::Progress(_) | News::Group(_) => {}
            }
        }
        tasks.iter().map(|task| ends.get(task).cloned().ok_or(Error::NotFound(*task))).collect()
    }
}

impl<'a> Watch<'a> {
    fn new(client: &'a Client, pages: VecDeque<Page>) -> Self {
        Self { client, pages, news: VecDeque::new(), away: Away::default(), unseen: None }
    }

    /// The next piece of news for one who has listened since `started` and does so for `limit` in all.
    pub(crate) fn next_since(&mut self, started: Instant, limit: Option<Duration>) -> Result<Option<News>, Error> {
        let left = limit.map(|limit| limit.saturating_sub(started.elapsed()));
        self.next(left).map_err(|error| match error {
            Error::StillRunning { tasks, group, .. } => Error::StillRunning { tasks, group, waited: started.elapsed() },
            error => error,
        })
    }

    /// The next piece of news, waiting for it at most for `limit`; `None` when all tasks, or those of the group, have ended and all is
    /// told.
    ///
    /// Fails with [`Error::StillRunning`] when the limit is over, and with [`Error::NoBroker`] when the broker is away for longer than
    /// [`Client::away_max`]; for a group that nobody knows with [`Error::Refused`], code `not_found`. Nothing is lost by that: the next
    /// call goes on.
    pub fn next(&mut self, limit: Option<Duration>) -> Result<Option<News>, Error> {
        let started = Instant::now();
        loop {
            if let Some(news) = self.news.pop_front() {
                return Ok(Some(news));
            }
            let left = limit.map_or(WAIT_PARKED, |limit| limit.saturating_sub(started.elapsed()));
            if !left.is_zero() {
                self.unseen = None;
            } else if !self.pages.is_empty() {
                // Even without time each task is looked at once; and no more, though calls without time go on giving what is heard.
                let unseen = self.unseen.get_or_insert(self.pages.len());
                if *unseen == 0 {
                    self.unseen = None;
                    let group = self.pages.iter().find_map(|page| page.group.as_ref()).map(|page| page.group);
                    let tasks = self.pending().collect();
                    return Err(Error::StillRunning { tasks, group, waited: started.elapsed() });
                }
                *unseen -= 1;
            }
            let Some(page) = self.pages.pop_front() else { return Ok(None) };
            let n_pages = u32::try_from(self.pages.len() + 1).unwrap_or(u32::MAX);
            let parked = left.min(match (n_pages, &page.group) {
                (1, Some(_)) => LOOK_EVERY,
                (1, None) => WAIT_PARKED,
                _ => ROUND / n_pages,
            });
            let asked = self.ask(&page, parked, limit.is_some());
            self.pages.push_back(page);
            match asked {
                Ok(waited) if self.is_of_a_group() => self.take_of_group(waited)?,
                Ok(waited) => self.take(waited),
                Err(error) if error.retry() && self.client.may_wait(&self.away) && !left.is_zero() => {}
                Err(error) => {
                    self.unseen = None;
                    return Err(error);
                }
            }
        }
    }

    /// The tasks that have not ended, as far as the broker has told; of a group some of them.
    pub fn pending(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.pages.iter().flat_map(|page| page.pending.iter().copied())
    }

    fn ask(&mut self, page: &Page, parked: Duration, is_limited: bool) -> Result<Waited, Error> {
        let group = page.group.as_ref().map(|page| page.group);
        let question = WaitFor {
            tasks: if group.is_some() { Vec::new() } else { page.pending.clone() },
            kind: None,
            unique_key: None,
            cursor: page.cursor,
            wait_ms: millis(parked),
            abandon: page.abandon,
            group,
        };
        self.client.wait_for(question, parked, is_limited, &mut self.away)
    }

    /// Takes in what was answered to the question of the last page.
    fn take(&mut self, waited: Waited) {
        let Some(page) = self.pages.back_mut() else { return };
        page.cursor = Some(waited.cursor);
        let ended: HashSet<TaskId> = waited.finals.iter().map(|end| end.task).collect();
        let lost = waited.not_found.into_iter().chain(waited.pruned);
        let lost: Vec<TaskId> = lost.filter(|task| page.pending.contains(task)).collect();
        page.pending.retain(|task| !ended.contains(task) && !lost.contains(task));
        ended.iter().chain(&lost).for_each(|task| self.client.forget_met(*task));
        if page.pending.is_empty() {
            self.pages.pop_back();
        }
        self.news.extend(waited.gap.then_some(News::Missed));
        self.news.extend(waited.events.into_iter().map(News::Progress));
        self.news.extend(waited.finals.into_iter().map(|end| News::Ended(end.into())));
        self.news.extend(lost.into_iter().map(News::NotFound));
    }

    /// Whether the question of the last page was about a group.
    fn is_of_a_group(&self) -> bool {
        self.pages.back().is_some_and(|page| page.group.is_some())
    }

    /// The same of a group: it is over when nothing is pending, and that is so when all is told.
    fn take_of_group(&mut self, waited: Waited) -> Result<(), Error> {
        let row = waited.group.ok_or_else(|| Error::BadAnswer("no counts of the group".into()))?;
        let Some(Page { pending, group: Some(group), cursor, .. }) = self.pages.back_mut() else { return Ok(()) };
        (*pending, *cursor) = (waited.pending, Some(waited.cursor));
        let is_over = pending.is_empty();
        let has_changed = group.told.as_ref() != Some(&row);
        if has_changed {
            group.told = Some(row.clone());
        }
        if is_over {
            self.pages.pop_back();
        }
        self.news.extend(waited.gap.then_some(News::Missed));
        self.news.extend(waited.events.into_iter().map(News::Progress));
        self.news.extend(has_changed.then_some(News::Group(row)));
        self.news.extend(waited.finals.into_iter().map(|end| News::Ended(end.into())));
        Ok(())
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
