//! Apps' side of the broker: submit, wait, look up, cancel, and what people do by command line.
//!
//! A question is asked again, unchanged, when its answer was lost, so every call is safe to be said twice: a submit keeps
//! its request id, everything else sets a state. One client asks one question at a time; a clone has its own socket.

mod admin;
mod change;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use laneway_protocol::limits::{BATCH_MAX, BODY_BYTES_MAX, MESSAGE_BYTES_MAX};
use laneway_protocol::message::{
    Filter, Final, NewGroup, NewTask, Status, StatusRows, Stored, Submit, Submitted, WaitFor, Waited,
};
use laneway_protocol::{Answer, Code, Kind, Payload, Request, RequestId, TaskId, TaskState, WireError};
use serde::de::DeserializeOwned;

use crate::ahead;
use crate::conn::{Address, Conn, Miss, Patience};
use crate::curve::Curve;
use crate::error::Error;
use crate::link::outbox::new_task_body_bytes;
use crate::lock;
use crate::met::Met;
use crate::payload::decode;
use crate::spans::Sending;
use crate::task::Task;

/// On top of what the broker may take to answer; then the answer was lost.
const ANSWER_SLACK: Duration = Duration::from_secs(3);
/// Between two tries of the same question, unless the broker says when.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How long one question of a wait is parked.
pub(crate) const WAIT_PARKED: Duration = Duration::from_secs(10);
/// Body bytes kept for everything but the tasks.
const SUBMIT_RESERVE_BYTES: usize = 1024;
/// So many pages are worth a second connection.
const AHEAD_PAGES_MIN: usize = 4;
/// Rows that surely fit one answer.
const STATUS_PAGE: usize = 64;
/// Rows with payload, result and failures in one answer.
const DETAIL_PAGE: usize = 16;

/// A connection to a broker. Calls block; each fails with [`Error::NoBroker`] when no broker answers in time, with
/// [`Error::NotAdmitted`] when there is one that does not let this peer in, and with [`Error::Refused`] when it says no.
pub struct Client {
    conn: Mutex<Conn>,
    endpoint: Arc<str>,
    timeout: Duration,
    away_max: Duration,
    abandon: bool,
    met: Met,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// Which task.
    pub task: TaskId,
    /// `done`, `dead` or `cancelled`.
    pub state: TaskState,
    /// What the handler returned; `None` when that was nothing.
    pub payload: Option<Payload>,
    /// Why it is not done.
    pub error: Option<String>,
}

impl Ended {
    /// The result of a task that is done.
    ///
    /// Fails with [`Error::NotDone`] when it ended otherwise, with [`Error::BadPayload`] when the result is not a `T`.
    pub fn result<T: DeserializeOwned>(&self) -> Result<T, Error> {
        if self.state != TaskState::Done {
            return Err(Error::NotDone { task: self.task, state: self.state, error: self.error.clone() });
        }
        decode(self.payload.as_ref())
    }
}

impl From<Final> for Ended {
    fn from(Final { task, state, result, error }: Final) -> Self {
        Self { task, state, payload: result, error }
    }
}

impl Client {
    /// Connects to the broker at `endpoint`, `tcp://HOST:PORT` or `ipc://PATH`, and makes sure that it is there. Each call
    /// is tried for 5 s.
    pub fn connect(endpoint: impl AsRef<str>) -> Result<Self, Error> {
        Self::connect_with(endpoint, Duration::from_secs(5))
    }

    /// Like [`Client::connect`]; this and every later call is tried for `timeout`, on top of the time it is meant to wait.
    pub fn connect_with(endpoint: impl AsRef<str>, timeout: Duration) -> Result<Self, Error> {
        Self::connect_to(Address { endpoint: endpoint.as_ref().into(), curve: None }, timeout)
    }

    /// Like [`Client::connect_with`], to a CURVE endpoint.
    pub fn connect_curve(endpoint: impl AsRef<str>, curve: Curve, timeout: Duration) -> Result<Self, Error> {
        Self::connect_to(Address { endpoint: endpoint.as_ref().into(), curve: Some(curve) }, timeout)
    }

    fn connect_to(address: Address, timeout: Duration) -> Result<Self, Error> {
        let endpoint = Arc::clone(&address.endpoint);
        let mut conn = Conn::new(zmq::Context::new(), address).watched();
        conn.open()?;
        let (conn, away_max, met) = (Mutex::new(conn), Duration::from_mins(1), Met::default());
        let client = Self { conn, endpoint, timeout, away_max, abandon: false, met };
        client.ping()?;
        Ok(client)
    }

    /// How long the broker may be away in the middle of a wait before that fails. Default 60 s, enough for a restart.
    #[must_use]
    pub fn away_max(mut self, away_max: Duration) -> Self {
        self.away_max = away_max;
        self
    }

    /// Whether the tasks that this client waits for are cancelled when nobody waits for them any more: this process died, or a
    /// wait with a limit was over, and for a grace (`abandon_grace_ms` of the broker, 5 s) neither it nor anybody else has come to
    /// wait. Default false: work goes on without an audience.
    ///
    /// Holds for [`Client::submit_and_wait`], [`Client::submit_awaited`] and waits by id, and outlives restarts of the broker as long as
    /// this client does. A wait for a group leaves its tasks alone. So does one for a task that was there already, with the same
    /// unique key, when this client or a clone of it submitted: it is others', who may not want it given up. A wait by id for a task
    /// that no submit of this client has met gives it up, whoever made it.
    #[must_use]
    pub fn abandon(mut self, abandon: bool) -> Self {
        self.abandon = abandon;
        self
    }

    // ---------------------------------------------------------------------------------------------------------- tasks

    /// Stores a task. When this returns it is on disk; `new` is false when a live task with the same kind and unique key
    /// was there already, whose id this is then.
    ///
    /// Said again over lost connections and restarts under one request id, so it is stored once.
    pub fn submit(&self, task: Task) -> Result<Stored, Error> {
        let stored = self.submit_list(vec![task.into_new_task()?], Duration::ZERO, false, None)?.tasks;
        stored.into_iter().next().ok_or_else(|| Error::BadAnswer("no id for the task".into()))
    }

    /// Like [`Client::submit`], for a task that is waited for next: of a client that abandons ([`Client::abandon`]) it is cancelled
    /// too when nobody begins to wait for it within the grace.
    pub fn submit_awaited(&self, task: Task) -> Result<Stored, Error> {
        let stored = self.submit_list(vec![task.into_new_task()?], Duration::ZERO, self.abandon, None)?.tasks;
        stored.into_iter().next().ok_or_else(|| Error::BadAnswer("no id for the task".into()))
    }

    /// Stores many tasks, in order. They go in pages of at most 512, each stored whole or not at all; when one fails the
    /// earlier ones are stored, and of a list of thousands up to three behind it may be, which were on their way. The order is also
    /// that of the ids, unless the broker turns a page away because it is full.
    pub fn submit_many(&self, tasks: impl IntoIterator<Item = Task>) -> Result<Vec<Stored>, Error> {
        let mut tasks = tasks.into_iter().map(Task::into_new_task).collect::<Result<Vec<_>, _>>()?;
        // Before the pages are cut: what a task carries takes room in them.
        let sending = Sending::begin(&self.endpoint, &mut tasks);
        let stored = self.submit_pages(tasks);
        sending.end(stored.as_deref());
        self.note_met(stored.as_deref().unwrap_or_default());
        stored
    }

    /// Submits a task and waits for its end, however long that takes: [`Client::submit`] and [`Client::wait`] in one.
    pub fn submit_and_wait(&self, task: Task) -> Result<Ended, Error> {
        let tasks = vec![task.into_new_task()?];
        let Submitted { tasks, finals, .. } = self.submit_list(tasks, WAIT_PARKED, self.abandon, None)?;
        let stored = tasks.first().ok_or_else(|| Error::BadAnswer("no id for the task".into()))?;
        match finals.into_iter().find(|end| end.task == stored.task) {
            Some(end) => Ok(end.into()),
            None => self.wait(stored.task),
        }
    }

    /// The newest task of this kind and unique key, to be waited for.
    pub fn find(&self, kind: impl AsRef<str>, unique_key: impl Into<String>) -> Result<Option<TaskId>, Error> {
        let kind = Kind::new(kind).map_err(|error| Error::setting("kind", error.to_string()))?;
        let question = WaitFor {
            tasks: Vec::new(),
            kind: Some(kind),
            unique_key: Some(unique_key.into()),
            cursor: None,
            wait_ms: 0,
            abandon: false,
            group: None,
        };
        match self.wait_for(question, Duration::ZERO, false, &mut Away::default()) {
            Ok(waited) => Ok(waited.pending.first().copied().or_else(|| waited.finals.first().map(|end| end.task))),
            Err(Error::Refused(error)) if error.code == Code::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Looks tasks up by id. With `detail`, each row has its payload, result, failures and an explanation.
    pub fn status(&self, tasks: &[TaskId], detail: bool) -> Result<StatusRows, Error> {
        let mut all = StatusRows::default();
        for page in tasks.chunks(if detail { DETAIL_PAGE } else { STATUS_PAGE }) {
            let mut left = page.to_vec();
            while !left.is_empty() {
                let rows = self.status_page(Status { tasks: left, filter: None, detail })?;
                all.rows.extend(rows.rows);
                all.not_found.extend(rows.not_found);
                left = rows.left;
            }
        }
        Ok(all)
    }

    /// One page of tasks, newest first; `next` of the answer goes into `before` for the page after it.
    pub fn list(&self, filter: Filter) -> Result<StatusRows, Error> {
        self.status_page(Status { tasks: Vec::new(), filter: Some(filter), detail: false })
    }

    /// Asks any question. `wait` is how long its answer may be parked; the client's timeout comes on top. Asked again,
    /// unchanged, when the answer is lost or the broker says that this can help.
    pub fn ask(&self, request: &Request, wait: Duration) -> Result<Answer, Error> {
        self.ask_noting(request, wait, self.timeout, &mut Away::default())
    }

    // --------------------------------------------------------------------------------------------------------- private

    /// Tries for `timeout` beyond the time that the broker may `wait`.
    fn ask_noting(
        &self,
        request: &Request,
        wait: Duration,
        timeout: Duration,
        away: &mut Away,
    ) -> Result<Answer, Error> {
        let started = Instant::now();
        let until = started + wait + timeout;
        let mut request = Cow::Borrowed(request);
        loop {
            let asked_at = Instant::now();
            let left = until.saturating_duration_since(asked_at);
            let patience = Patience { connect: left, answer: left.min(wait + ANSWER_SLACK) };
            let asked = lock(&self.conn).ask(request.clone().into_owned(), patience, &mut || true);
            away.note(asked_at, asked.as_ref().err());
            let pause = match asked {
                Ok(Answer::Error(error)) => {
                    let pause = error.after_ms.map_or(RETRY_PAUSE, Duration::from_millis);
                    if !error.retry || Instant::now() + pause >= until {
                        return Err(Error::Refused(error));
                    }
                    pause
                }
                Ok(answer) => return Ok(answer),
                Err(miss @ (Miss::NotConnected | Miss::Disconnected | Miss::Late)) => {
                    if Instant::now() + RETRY_PAUSE >= until {
                        return Err(miss.into_error(&self.endpoint, started.elapsed()));
                    }
                    without_wait(&mut request);
                    RETRY_PAUSE
                }
                Err(miss) => return Err(miss.into_error(&self.endpoint, started.elapsed())),
            };
            thread::sleep(pause);
        }
    }

    /// Each page stored whole or not at all.
    fn submit_pages(&self, tasks: Vec<NewTask>) -> Result<Vec<Stored>, Error> {
        let mut all = Vec::with_capacity(tasks.len());
        let page = |tasks| Ok(Submit { request: request_id()?, tasks, wait_ms: 0, abandon: false, group: None });
        let pages = pages(tasks).into_iter().map(page).collect::<Result<Vec<_>, Error>>()?;
        let mut early = EarlyAnswers::default();
        for (at, page) in pages.iter().enumerate() {
            let stored = if let Some(stored) = early.take(at) {
                stored
            } else {
                let stored = self.submit_page(page.clone(), Duration::ZERO)?.tasks;
                early.ask(self, &pages, at + 1);
                stored
            };
            if stored.len() != page.tasks.len() {
                return Err(Error::BadAnswer(format!("{} ids for {} tasks", stored.len(), page.tasks.len())));
            }
            all.extend(stored);
        }
        Ok(all)
    }

    /// One message, with a span of its own.
    pub(crate) fn submit_list(
        &self,
        mut tasks: Vec<NewTask>,
        wait: Duration,
        abandon: bool,
        group: Option<NewGroup>,
    ) -> Result<Submitted, Error> {
        let sending = Sending::begin(&self.endpoint, &mut tasks);
        let page = request_id().map(|request| Submit { request, tasks, wait_ms: millis(wait), abandon, group });
        let answered = page.and_then(|page| self.submit_page(page, wait));
        sending.end(answered.as_ref().map(|submitted| submitted.tasks.as_slice()));
        self.note_met(answered.as_ref().map_or(&[], |submitted| submitted.tasks.as_slice()));
        answered
    }

    fn submit_page(&self, page: Submit, wait: Duration) -> Result<Submitted, Error> {
        match self.ask(&Request::Submit(page), wait)? {
            Answer::Submit(submitted) => Ok(submitted),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether a wait goes on without a broker.
    pub(crate) fn may_wait(&self, away: &Away) -> bool {
        away.lasts() < self.away_max
    }

    fn note_met(&self, stored: &[Stored]) {
        if self.abandon {
            self.met.note(stored);
        }
    }

    /// Whether a task goes with the last of those who wait for it.
    pub(crate) fn abandons(&self, task: TaskId) -> bool {
        self.abandon && !self.met.contains(task)
    }

    /// The end of a task was told, or it is gone.
    pub(crate) fn forget_met(&self, task: TaskId) {
        self.met.forget(task);
    }

    /// `is_limited`: whoever waits does so for a time of their own, which a broker that is away makes little longer.
    pub(crate) fn wait_for(
        &self,
        question: WaitFor,
        wait: Duration,
        is_limited: bool,
        away: &mut Away,
    ) -> Result<Waited, Error> {
        let timeout = if is_limited { self.timeout.min(ANSWER_SLACK) } else { self.timeout };
        match self.ask_noting(&Request::WaitFor(question), wait, timeout, away)? {
            Answer::WaitFor(waited) => Ok(waited),
            other => Err(unexpected(&other)),
        }
    }

    fn status_page(&self, status: Status) -> Result<StatusRows, Error> {
        match self.ask(&Request::Status(status), Duration::ZERO)? {
            Answer::Status(rows) => Ok(rows),
            other => Err(unexpected(&other)),
        }
    }
}

impl Clone for Client {
    fn clone(&self) -> Self {
        Self {
            conn: Mutex::new(lock(&self.conn).sibling().watched()),
            endpoint: self.endpoint.clone(),
            timeout: self.timeout,
            away_max: self.away_max,
            abandon: self.abandon,
            met: self.met.clone(),
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Since when no broker was there, over several requests. A parked wait that a dying broker breaks is no answer, and yet a
/// sign that one lived until then: time with a broker that is restarted again and again is not time without one.
#[derive(Debug, Default)]
pub(crate) struct Away {
    since: Option<Instant>,
}

impl Away {
    /// Notes how a request ended that was begun at `asked_at`.
    fn note(&mut self, asked_at: Instant, miss: Option<&Miss>) {
        match miss {
            Some(Miss::Disconnected) => self.since = Some(Instant::now()),
            Some(_) => _ = self.since.get_or_insert(asked_at),
            None => self.since = None,
        }
    }

    fn lasts(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// What the pages of a long list were answered with that were sent ahead.
#[derive(Debug, Default)]
struct EarlyAnswers {
    stored: HashMap<usize, Vec<Stored>>,
    /// It brought nothing once: some thing between that takes no second connection, or a broker that is leaving.
    is_in_vain: bool,
}

impl EarlyAnswers {
    fn take(&mut self, at: usize) -> Option<Vec<Stored>> {
        self.stored.remove(&at)
    }

    /// Sends the pages from `first` on ahead, when they are many, until all are stored or something goes wrong.
    fn ask(&mut self, client: &Client, pages: &[Submit], first: usize) {
        let left = pages.get(first..).unwrap_or_default();
        if left.len() < AHEAD_PAGES_MIN || self.is_in_vain {
            return;
        }
        let conn = lock(&client.conn).sibling();
        let requests = left.iter().map(|page| Request::Submit(page.clone()));
        let heard = |place, answer| {
            let Answer::Submit(submitted) = answer else { return false };
            self.stored.insert(first + place, submitted.tasks);
            true
        };
        // What has no answer is asked again, and whatever is wrong is told then.
        drop(ahead::ask(&conn, requests, client.timeout.min(ANSWER_SLACK), heard));
        self.is_in_vain = self.stored.is_empty();
    }
}

/// A submit that was broken off asks for the ids alone when it is said again: they can be waited for as long as it takes, while a
/// wait for the ends would be broken off by each further restart until the time of the submit is over.
fn without_wait(request: &mut Cow<'_, Request>) {
    if matches!(request.as_ref(), Request::Submit(submit) if submit.wait_ms > 0)
        && let Request::Submit(submit) = request.to_mut()
    {
        submit.wait_ms = 0;
    }
}

/// Cuts tasks into messages that stay within every bound.
fn pages(tasks: Vec<NewTask>) -> Vec<Vec<NewTask>> {
    let mut pages = Vec::new();
    let mut page = Vec::new();
    let (mut body, mut payloads) = (0, 0);
    for task in tasks {
        let task_body = new_task_body_bytes(&task);
        let task_payload = task.payload.as_ref().map_or(0, |payload| payload.bytes.len());
        let full = page.len() == BATCH_MAX
            || body + task_body > BODY_BYTES_MAX - SUBMIT_RESERVE_BYTES
            || payloads + task_payload > MESSAGE_BYTES_MAX;
        if full && !page.is_empty() {
            pages.push(std::mem::take(&mut page));
            (body, payloads) = (0, 0);
        }
        body += task_body;
        payloads += task_payload;
        page.push(task);
    }
    if !page.is_empty() {
        pages.push(page);
    }
    pages
}

fn request_id() -> Result<RequestId, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::System(format!("no random bytes: {error}")))?;
    Ok(RequestId(bytes))
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn unexpected(answer: &Answer) -> Error {
    match answer {
        Answer::Error(error) => Error::Refused(WireError::clone(error)),
        other => Error::BadAnswer(format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(payload_bytes: usize, key_bytes: usize) -> NewTask {
        let mut task = NewTask::new(Kind::new("k").unwrap(), Some(Payload::bin(vec![0; payload_bytes])));
        task.unique_key = Some("x".repeat(key_bytes));
        task
    }

    #[test]
    fn many_tasks_go_in_messages_that_fit() {
        // Count, body bytes and payload bytes each end a page; no task is left out.
        let cases = [
            (vec![task(1, 1); 1100], 512),
            (vec![task(1, 500); 300], 110),
            (vec![task(MESSAGE_BYTES_MAX / 3 + 1, 1); 4], 2),
        ];
        for (tasks, longest_max) in cases {
            let n_tasks = tasks.len();
            let pages = pages(tasks);
            assert_eq!(pages.iter().map(Vec::len).sum::<usize>(), n_tasks);
            assert!(pages.iter().map(Vec::len).max().unwrap() <= longest_max);
        }
    }

    #[test]
    fn a_result_is_only_read_from_a_task_that_is_done() {
        // A dead task's missing result is not mistaken for an empty one.
        let id = TaskId::new(3).unwrap();
        let mut ended = Ended { task: id, state: TaskState::Done, payload: None, error: None };
        assert_eq!(ended.result::<Option<u8>>().unwrap(), None);
        ended.state = TaskState::Dead;
        ended.error = Some("no".into());
        assert_eq!(ended.result::<Option<u8>>().unwrap_err().to_string(), "task 3 is dead and has no result: no");
    }

    #[test]
    fn a_broker_that_dies_again_and_again_is_not_away() {
        // Each broken wait starts the count anew, an answer ends it, and a connection that never comes counts from its first try.
        let ago = |ms| Instant::now().checked_sub(Duration::from_millis(ms)).unwrap();
        let mut away = Away::default();
        assert_eq!(away.lasts(), Duration::ZERO);
        away.note(ago(90_000), Some(&Miss::NotConnected));
        away.note(ago(40_000), Some(&Miss::Late));
        assert!(away.lasts() >= Duration::from_secs(90), "{away:?}");
        away.note(ago(30_000), Some(&Miss::Disconnected));
        assert!(away.lasts() < Duration::from_secs(10), "{away:?}");
        away.note(ago(0), None);
        assert_eq!(away.lasts(), Duration::ZERO);
    }

    #[test]
    fn no_broker_is_an_error_that_names_the_endpoint() {
        // A connect to nobody ends in time and says where it looked.
        let dir = tempfile::tempdir().unwrap();
        let endpoint = format!("ipc://{}/nobody", dir.path().display());
        let error = Client::connect_with(&endpoint, Duration::from_millis(200)).unwrap_err();
        assert!(error.retry() && error.to_string().contains(&endpoint), "{error}");
        assert!(matches!(Client::connect("nonsense").unwrap_err(), Error::BadEndpoint { .. }));
    }
}
