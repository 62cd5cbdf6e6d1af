//! The running broker, as the commands ask it: which endpoint, is anyone there, and the library's errors as exit codes.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use laneway::{Curve, News, Task, Watch};
use laneway_protocol::message::{
    Batch, BulkFilter, Change, Drain, Drained, FairKeyRow, FairKeys, Filter, GroupRow, KindState, Kinds, LaneRow,
    Lanes, NewGroup, NewSchedule, NewTask, ScheduleRow, ScheduleRows, StatsReport, StatusRows, Stored, Verdict,
    WorkerRow,
};
use laneway_protocol::{Code, Kind, LaneName, TaskId, WireError};

use super::{Common, variable};
use crate::config::{IPC_PATH_BYTES_MAX, TCP_ENDPOINT, ipc_beside, ipc_path};
use crate::error::Error;
use crate::store::lock;

/// How long a loopback port may take to accept.
const CONNECT_MS_MAX: u64 = 1_000;

/// The database file that is meant: `--db`, `LANEWAY_DB`, or the default.
pub(super) fn db(common: &Common) -> PathBuf {
    let from_environment = || variable("LANEWAY_DB").map(PathBuf::from);
    common.db.clone().or_else(from_environment).unwrap_or_else(|| "laneway.db".into())
}

/// Where to look for the broker, and whether somebody named that endpoint. What is typed goes before the environment, and a
/// database means its own broker: the default port may belong to another one, so it is only the last resort where nothing is
/// named and no database lies here.
fn place(common: &Common) -> (String, bool) {
    let named = |endpoint| (endpoint, true);
    let of_db = |db: &Path| (ipc_beside(db), false);
    if let Some(endpoint) = common.endpoint.clone() {
        return named(endpoint);
    }
    if let Some(db) = &common.db {
        return of_db(db);
    }
    if let Some(endpoint) = variable("LANEWAY_ENDPOINT") {
        return named(endpoint);
    }
    match variable("LANEWAY_DB") {
        Some(db) => of_db(Path::new(&db)),
        None => (endpoint_here(&db(common)), false),
    }
}

/// What names a broker by its endpoint where nothing names a database: that broker may have its own anywhere.
pub(super) fn endpoint_alone(common: &Common) -> Option<&'static str> {
    if common.endpoint.is_some() {
        return Some("--endpoint");
    }
    let names_db = common.db.is_some() || variable("LANEWAY_DB").is_some();
    (!names_db && variable("LANEWAY_ENDPOINT").is_some()).then_some("LANEWAY_ENDPOINT")
}

/// The endpoint when nothing is named.
fn endpoint_here(db: &Path) -> String {
    if db.exists() { ipc_beside(db) } else { TCP_ENDPOINT.into() }
}

/// Of a socket that cannot be, for its path is longer than the system takes: who listens there instead only the lock of the database
/// tells. The default port, which a broker has then, may be that of another one.
fn too_long(endpoint: &str) -> Option<String> {
    let bytes = ipc_path(endpoint)?.as_os_str().len();
    let text = || format!("whose path has {bytes} bytes, over the {IPC_PATH_BYTES_MAX} that a socket may have");
    (bytes > IPC_PATH_BYTES_MAX).then(text)
}

fn unreachable(endpoint: String) -> Error {
    Error::Unreachable { detail: too_long(&endpoint), endpoint }
}

/// The default port, when it is asked although nobody named it: it may be another's.
pub(super) fn fallback(common: &Common) -> Option<&'static str> {
    let (endpoint, is_named) = place(common);
    (!is_named && endpoint == TCP_ENDPOINT).then_some(TCP_ENDPOINT)
}

/// Where to look for the broker, now and later, and with which keys. Beside a database whose socket would be too long it must run
/// already.
pub(super) fn address(common: &Common) -> Result<(String, Option<Curve>), Error> {
    let (endpoint, curve) = found(common)?;
    if too_long(&endpoint).is_some() { Err(unreachable(endpoint)) } else { Ok((endpoint, curve)) }
}

/// Where the broker is: one that is found by its database may listen elsewhere than beside it.
fn found(common: &Common) -> Result<(String, Option<Curve>), Error> {
    let (endpoint, is_named) = place(common);
    let curve = curve(common, is_named)?;
    let elsewhere = if is_named || is_alive(&endpoint) { None } else { running(&db(common)) };
    Ok((elsewhere.unwrap_or(endpoint), curve))
}

/// Where to look for the broker.
pub(super) fn endpoint(common: &Common) -> String {
    place(common).0
}

/// The database of the broker that is asked, where that is known: it was found by its file.
pub(super) fn database(common: &Common) -> Option<PathBuf> {
    let (endpoint, is_named) = place(common);
    (!is_named && endpoint != TCP_ENDPOINT).then(|| db(common))
}

/// What the broker of this database answers at, if one runs, wherever it was told to listen.
pub(super) fn running(db: &Path) -> Option<String> {
    lock::endpoints(db)
        .into_iter()
        .find(|endpoint| Remote::glance(endpoint).is_some_and(|broker| broker.stats().is_ok()))
}

/// Whether something accepts connections there, told at once: libzmq itself would try again without a word. An endpoint
/// that cannot be tried in this way is taken for alive.
pub(super) fn is_alive(endpoint: &str) -> bool {
    match endpoint.split_once("://") {
        Some(("ipc", path)) if !path.starts_with('@') => UnixStream::connect(path).is_ok(),
        Some(("tcp", address)) => match address.parse::<SocketAddr>() {
            Ok(address) => TcpStream::connect_timeout(&address, Duration::from_millis(CONNECT_MS_MAX)).is_ok(),
            Err(_) => true,
        },
        _ => true,
    }
}

/// How long a broker that accepts connections may take to answer a question.
const ANSWER_SECONDS_MAX: u64 = 10;
const GLANCE: Duration = Duration::from_secs(1);

/// The keys to speak with: typed, or from the environment. Those are for a broker that somebody named, as the one beside a
/// database takes none.
fn curve(common: &Common, is_named: bool) -> Result<Option<Curve>, Error> {
    let typed = common.key.clone().zip(common.broker_key.clone());
    if typed.is_some() && !is_named {
        let text = "--key and --broker-key are for a CURVE endpoint: name it with --endpoint";
        return Err(Error::Usage(text.into()));
    }
    let keys = match typed {
        Some(keys) => Some(keys),
        None if is_named => match (variable("LANEWAY_KEY"), variable("LANEWAY_BROKER_KEY")) {
            (Some(key), Some(broker)) => Some((key.into(), broker.into())),
            (None, None) => None,
            (Some(_), None) => return Err(Error::Usage("LANEWAY_KEY is set, and LANEWAY_BROKER_KEY is not".into())),
            (None, Some(_)) => return Err(Error::Usage("LANEWAY_BROKER_KEY is set, and LANEWAY_KEY is not".into())),
        },
        None => None,
    };
    Ok(keys.map(|(key, broker)| Curve::from_files(key, broker)).transpose()?)
}

/// A broker that answers.
pub(super) struct Remote {
    client: laneway::Client,
}

impl Remote {
    fn connect(endpoint: &str, curve: Option<Curve>) -> Result<Self, Error> {
        laneway::seed_libzmq();
        let timeout = Duration::from_secs(ANSWER_SECONDS_MAX);
        let client = match curve {
            Some(curve) => laneway::Client::connect_curve(endpoint, curve, timeout)?,
            None => laneway::Client::connect_with(endpoint, timeout)?,
        };
        Ok(Self { client })
    }

    /// `None` when no broker answers and the command may go on with the file.
    pub(super) fn reach(common: &Common) -> Result<Option<Self>, Error> {
        // Somebody who names a broker means that one, and not a file that happens to lie here.
        let (endpoint, curve) = found(common)?;
        if !is_alive(&endpoint) {
            let is_named = place(common).1;
            return if is_named { Err(unreachable(endpoint)) } else { Ok(None) };
        }
        Self::connect(&endpoint, curve).map(Some)
    }

    /// A broker without keys that answers there at once, for what is only nice to know.
    pub(super) fn glance(endpoint: &str) -> Option<Self> {
        if !is_alive(endpoint) {
            return None;
        }
        laneway::seed_libzmq();
        laneway::Client::connect_with(endpoint, GLANCE).ok().map(|client| Self { client })
    }

    /// For commands that need a running broker.
    pub(super) fn expect(common: &Common) -> Result<Self, Error> {
        Self::reach(common)?.ok_or_else(|| unreachable(endpoint(common)))
    }

    pub(super) fn submit(&self, task: NewTask) -> Result<Stored, Error> {
        self.client.submit(task.into()).map_err(about_one)
    }

    /// Like [`Remote::submit`], for a task that is waited for next.
    pub(super) fn submit_awaited(&self, task: NewTask) -> Result<Stored, Error> {
        self.client.submit_awaited(task.into()).map_err(about_one)
    }

    /// All tasks or none, as a group; gives its number.
    pub(super) fn submit_group(&self, mut tasks: Vec<NewTask>, group: NewGroup) -> Result<(Vec<Stored>, u64), Error> {
        let last = group.last.and_then(|_| tasks.pop()).map(Task::from);
        let mut batch = laneway::Batch::new().tasks(tasks.into_iter().map(Task::from));
        batch = match (last, group.anyway) {
            (None, _) => batch,
            (Some(last), false) => batch.last(last),
            (Some(last), true) => batch.last_anyway(last),
        };
        if let Some(name) = group.name {
            batch = batch.name(name);
        }
        let stored = self.client.submit_batch(batch)?;
        Ok((stored.tasks.into_iter().chain(stored.last).collect(), stored.group))
    }

    /// Whether tasks go with the last of those who wait for them.
    pub(super) fn abandon(self, abandon: bool) -> Self {
        Self { client: self.client.abandon(abandon) }
    }

    /// Until these have ended.
    pub(super) fn watch(&self, tasks: &[TaskId]) -> Watch<'_> {
        self.client.watch(tasks)
    }

    /// The newest task of this kind and unique key.
    pub(super) fn find(&self, kind: &Kind, key: &str) -> Result<TaskId, Error> {
        let found = self.client.find(kind.as_str(), key)?;
        found.ok_or_else(|| Error::NotFound(format!("no task of kind '{kind}' has the unique key '{key}'")))
    }

    pub(super) fn list(&self, filter: &Filter) -> Result<StatusRows, Error> {
        Ok(self.client.list(filter.clone())?)
    }

    /// With payload, result, failures and explanation.
    pub(super) fn show(&self, tasks: &[TaskId]) -> Result<StatusRows, Error> {
        Ok(self.client.status(tasks, true)?)
    }

    /// One verdict for each task.
    pub(super) fn change(
        &self,
        change: Change,
        to: Option<&LaneName>,
        tasks: &[TaskId],
    ) -> Result<Vec<Verdict>, Error> {
        Ok(match (change, to) {
            (Change::Requeue, _) => self.client.requeue(tasks)?,
            (Change::Cancel, _) => self.client.cancel(tasks)?,
            (Change::Purge, _) => self.client.purge(tasks)?,
            (Change::Move, Some(to)) => self.client.move_to(to, tasks)?,
            (Change::Move, None) => return Err(Error::Usage("a move needs the lane to move to".into())),
            (Change::RunNow, _) => self.client.run_now(tasks)?,
        })
    }

    pub(super) fn change_all(
        &self,
        change: Change,
        to: Option<&LaneName>,
        filter: BulkFilter,
        dry_run: bool,
    ) -> Result<Batch, Error> {
        Ok(self.client.change_all(change, to, filter, dry_run)?)
    }

    pub(super) fn batch(&self, number: u64, stop: bool) -> Result<Batch, Error> {
        Ok(self.client.batch(number, stop)?)
    }

    pub(super) fn lanes(&self, lanes: Lanes) -> Result<Vec<LaneRow>, Error> {
        Ok(self.client.change_lanes(lanes)?)
    }

    pub(super) fn fair_keys(&self, keys: FairKeys) -> Result<Vec<FairKeyRow>, Error> {
        Ok(self.client.change_fair_keys(keys)?)
    }

    pub(super) fn kinds(&self, kinds: Kinds) -> Result<Vec<KindState>, Error> {
        Ok(self.client.change_kinds(kinds)?)
    }

    pub(super) fn group(&self, group: u64) -> Result<GroupRow, Error> {
        Ok(self.client.group(group)?)
    }

    pub(super) fn cancel_group(&self, group: u64) -> Result<GroupRow, Error> {
        Ok(self.client.cancel_group(group)?)
    }

    pub(super) fn wait_group(
        &self,
        group: u64,
        limit: Option<Duration>,
        on_news: impl FnMut(&News),
    ) -> Result<GroupRow, Error> {
        Ok(self.client.wait_group_with(group, limit, on_news)?)
    }

    pub(super) fn workers(&self) -> Result<Vec<WorkerRow>, Error> {
        Ok(self.client.workers()?)
    }

    pub(super) fn schedules(&self) -> Result<Vec<ScheduleRow>, Error> {
        Ok(self.client.schedules()?)
    }

    /// With its payload.
    pub(super) fn schedule(&self, name: &str) -> Result<ScheduleRow, Error> {
        self.client.schedule(name)?.ok_or_else(|| no_schedule(name))
    }

    pub(super) fn put_schedule(&self, schedule: NewSchedule) -> Result<ScheduleRow, Error> {
        Ok(self.client.put_schedule(schedule)?)
    }

    pub(super) fn change_schedules(
        &self,
        pause: Vec<String>,
        resume: Vec<String>,
        remove: Vec<String>,
    ) -> Result<ScheduleRows, Error> {
        Ok(self.client.change_schedules(pause, resume, remove)?)
    }

    pub(super) fn run_schedule(&self, name: &str) -> Result<Stored, Error> {
        self.client.run_schedule(name)?.ok_or_else(|| no_schedule(name))
    }

    pub(super) fn stats(&self) -> Result<StatsReport, Error> {
        Ok(self.client.stats()?)
    }

    pub(super) fn drain(&self, question: Drain) -> Result<Drained, Error> {
        Ok(self.client.drain(question)?)
    }
}

fn no_schedule(name: &str) -> Error {
    Error::NotFound(format!("no schedule '{name}'"))
}

fn about_one(error: laneway::Error) -> Error {
    match error {
        laneway::Error::Refused(error) => Error::Refused(about_one_task(error)),
        error => error.into(),
    }
}

/// A refusal in the words of somebody who submitted one task: the wire counts them.
fn about_one_task(mut error: WireError) -> WireError {
    if let Some(text) = error.text.strip_prefix("task number 0: ") {
        error.text = text.to_owned();
    }
    error.field = error.field.map(|field| field.strip_prefix("tasks[0].").map_or(field.clone(), str::to_owned));
    error
}

/// The library's errors as exit codes.
impl From<laneway::Error> for Error {
    fn from(error: laneway::Error) -> Self {
        match error {
            laneway::Error::NoBroker { endpoint, waited } => {
                let detail = Some(format!("asked for {} ms", waited.as_millis()));
                Self::Unreachable { endpoint, detail }
            }
            laneway::Error::Refused(error) if error.code == Code::NotFound => Self::NotFound(error.text),
            laneway::Error::Refused(error) => Self::Refused(error),
            laneway::Error::StillRunning { .. } => Self::TimedOut(error.to_string()),
            laneway::Error::NotFound(_) => Self::NotFound(error.to_string()),
            laneway::Error::NotAdmitted { .. } => Self::NotAdmitted(error.to_string()),
            laneway::Error::BadEndpoint { .. } | laneway::Error::BadSetting { .. } | laneway::Error::BadKey { .. } => {
                Self::Usage(error.to_string())
            }
            error => Self::other("ask the broker", error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_database_is_never_mixed_up_with_the_broker_of_another() {
        // Proves that the default port, which may be anyone's, is asked only where nothing is named and nothing lies here, and
        // that what is typed is what is meant.
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("t.db");
        assert_eq!(endpoint_here(&db), TCP_ENDPOINT);
        std::fs::write(&db, "").unwrap();
        let socket = format!("ipc://{}.sock", db.display());
        assert_eq!(endpoint_here(&db), socket);
        let common = |db: Option<&Path>, endpoint: Option<&str>| Common {
            db: db.map(Into::into),
            endpoint: endpoint.map(Into::into),
            key: None,
            broker_key: None,
            output: super::super::Output::Table,
        };
        assert_eq!(place(&common(Some(&db), None)), (socket, false));
        assert_eq!(place(&common(None, Some("tcp://127.0.0.1:1"))), ("tcp://127.0.0.1:1".into(), true));
        // A path that is too long for a socket too: the default port may be another's all the same.
        let long = "d".repeat(120);
        assert_eq!(place(&common(Some(Path::new(&long)), None)), (format!("ipc://{long}.sock"), false));
    }

    #[test]
    fn a_socket_left_behind_by_a_killed_broker_is_no_broker() {
        // Proves that "no broker" is told at once, for a file without a listener and for a closed port.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sock");
        let ipc = format!("ipc://{}", path.display());
        let listener = UnixListener::bind(&path).unwrap();
        assert!(is_alive(&ipc));
        drop(listener);
        assert!(path.exists() && !is_alive(&ipc));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = format!("tcp://{}", listener.local_addr().unwrap());
        assert!(is_alive(&tcp));
        drop(listener);
        assert!(!is_alive(&tcp));
    }
}
