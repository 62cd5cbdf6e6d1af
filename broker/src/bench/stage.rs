//! One setting of the benchmark: a new database, the real broker on it, and worker processes. Ends with all of them gone
//! and the files removed. The SQL in here is an app's: what anybody would write who inserts tasks and looks at them.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use laneway::{Client, LaneName};
use rusqlite::Connection;
use tempfile::TempDir;

use super::Bench;
use super::figure::Tally;
use crate::error::Error;
use crate::process::Process;

/// For anything that a broker or a worker has to do at once.
const WITHIN: Duration = Duration::from_secs(20);
/// No task ends for so long: something is wrong.
const STUCK: Duration = Duration::from_secs(30);
/// Between two looks at whether a drain is over; each costs two index probes of some microseconds.
const LOOK: Duration = Duration::from_millis(3);
/// Between two questions to the broker how many are done, which cost it more.
const ASK: Duration = Duration::from_millis(10);
/// Workers are processes, up to this many; more slots become threads in them.
const PROCESSES_MAX: u32 = 4;

/// What the broker's commits survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    Full,
    Normal,
}

impl Durability {
    pub(super) const BOTH: [Self; 2] = [Self::Full, Self::Normal];

    /// As in the broker's settings and in SQLite's `synchronous`.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Normal => "normal",
        }
    }
}

/// In drop order: whoever connects goes first, the files last.
pub(super) struct Stage<'a> {
    bench: &'a Bench,
    client: Client,
    endpoint: String,
    workers: Vec<Process>,
    broker: Process,
    db: PathBuf,
    dir: TempDir,
}

impl<'a> Stage<'a> {
    /// Starts a broker on a new database and waits until it answers.
    pub(super) fn open(bench: &'a Bench, durability: Durability) -> Result<Self, Error> {
        Self::open_with(bench, durability, &[])
    }

    /// The same, with a dashboard; gives the address of that too.
    pub(super) fn open_with_dashboard(bench: &'a Bench, durability: Durability) -> Result<(Self, String), Error> {
        let mut stage = Self::open_with(bench, durability, &["--web", "127.0.0.1:0"])?;
        let address = await_in_log(bench, &stage.dir, &mut stage.broker, "address")?;
        Ok((stage, address))
    }

    fn open_with(bench: &'a Bench, durability: Durability, more: &[&str]) -> Result<Self, Error> {
        bench.check_interrupted()?;
        let dir = tempfile::Builder::new()
            .prefix("laneway-bench-")
            .tempdir_in(&bench.dir)
            .map_err(|error| Error::other(format!("make a folder in {}", bench.dir.display()), error))?;
        let db = dir.path().join("bench.db");
        let words = dir.path().join("broker.err");
        let stderr =
            File::create(&words).map_err(|error| Error::other(format!("create {}", words.display()), error))?;
        let mut command = Command::new(&bench.program);
        command
            .args(["broker", "--bind", "tcp://127.0.0.1:0", "--log-format", "json", "--durability", durability.word()])
            .arg("--db")
            .arg(&db)
            .arg("--log-file")
            .arg(dir.path().join("broker.log"))
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        let mut broker = Process::start(&mut command, "a broker")?;
        let endpoint = await_in_log(bench, &dir, &mut broker, "endpoints")?;
        let client = Client::connect_with(&endpoint, WITHIN)?;
        Ok(Self { bench, client, endpoint, workers: Vec::new(), broker, db, dir })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Clients with connections of their own.
    pub(super) fn clients(&self, n: u32) -> Result<Vec<Client>, Error> {
        (0..n).map(|_| Ok(Client::connect_with(&self.endpoint, WITHIN)?)).collect()
    }

    pub(super) fn broker(&self) -> &Process {
        &self.broker
    }

    /// Processor time of all workers together.
    pub(super) fn workers_cpu(&self) -> Result<Duration, Error> {
        self.workers.iter().map(Process::cpu).sum()
    }

    /// A connection as an app has it: SQLite's defaults, and patience.
    pub(super) fn app(&self) -> Result<Connection, Error> {
        let fail = |error| Error::database(format!("open {} as an app", self.db.display()), error);
        let app = Connection::open(&self.db).map_err(fail)?;
        app.busy_timeout(WITHIN).map_err(fail)?;
        Ok(app)
    }

    /// Inserts `rows` tasks in one transaction; `payload` gives what each carries, by its number.
    pub(super) fn insert(
        &self,
        kind: &str,
        lane: Option<&str>,
        rows: u32,
        payload: impl Fn(u32) -> String,
    ) -> Result<(), Error> {
        let mut app = self.app()?;
        let mut insert = || -> Result<(), rusqlite::Error> {
            let transaction = app.transaction()?;
            {
                let mut statement =
                    transaction.prepare("INSERT INTO tasks (kind, lane, payload) VALUES (?1, ?2, ?3)")?;
                for row in 0..rows {
                    statement.execute((kind, lane, payload(row)))?;
                }
            }
            transaction.commit()
        };
        insert().map_err(|error| Error::database("insert tasks", error))
    }

    /// Adds rows that are dead, as if each had failed once, for one of ten reasons.
    pub(super) fn insert_dead(&self, kind: &str, rows: u32) -> Result<(), Error> {
        let insert =
            "INSERT INTO tasks (kind, payload, state, lease, runs, attempts, started_at, finished_at, worker, error)
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
            SELECT ?1, '{\"number\":' || i || '}', 'dead', i, 1, 1, unixepoch() * 1000, unixepoch() * 1000, 'before',
                'no route to host ' || i % 10 || char(10) || 'while number ' || i || ' was sent' FROM n";
        let failures = "INSERT INTO failures (task, run, cause, worker, started_at, failed_at, error)
            SELECT id, 1, 'failed', worker, started_at, finished_at, error FROM tasks WHERE state = 'dead'";
        let app = self.app()?;
        let inserted = app.execute(insert, (kind, rows)).and_then(|_| app.execute(failures, ()));
        inserted.map(drop).map_err(|error| Error::database("insert dead tasks", error))
    }

    /// Makes so many groups, and puts one in `each` of the rows that are there into one of them.
    pub(super) fn group(&self, groups: u32, each: u32) -> Result<(), Error> {
        let insert = "INSERT INTO task_groups (name)
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) SELECT 'group ' || i FROM n";
        let join = "UPDATE tasks SET group_id = 1 + (id / ?2) % ?1 WHERE id % ?2 = 0";
        let app = self.app()?;
        let grouped = app.execute(insert, [groups]).and_then(|_| app.execute(join, [groups, each]));
        grouped.map(drop).map_err(|error| Error::database("make groups", error))
    }

    /// Makes so many schedules, none of which is due while anybody measures.
    pub(super) fn schedule(&self, kind: &str, schedules: u32) -> Result<(), Error> {
        let insert = "INSERT INTO schedules (name, cron, kind, paused)
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
            SELECT 'schedule ' || i, '0 4 29 2 *', ?1, i % 2 FROM n";
        let inserted = self.app()?.execute(insert, (kind, schedules));
        inserted.map(drop).map_err(|error| Error::database("make schedules", error))
    }

    /// Adds rows that have ended, as if they had been run before.
    pub(super) fn insert_finished(&self, kind: &str, rows: u32) -> Result<(), Error> {
        let insert = "INSERT INTO tasks (kind, payload, state, lease, runs, attempts, started_at, finished_at, worker, result)
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
            SELECT ?1, '{\"number\":' || i || '}', 'done', i, 1, 1, unixepoch() * 1000, unixepoch() * 1000, 'before', '{\"ok\":true}' FROM n";
        let inserted = self.app()?.execute(insert, (kind, rows));
        inserted.map(drop).map_err(|error| Error::database("insert finished tasks", error))
    }

    /// Keeps tasks of these lanes from being handed out, or lets them go.
    pub(super) fn pause(&self, lanes: &[&str], paused: bool) -> Result<(), Error> {
        let lanes = lanes.iter().map(|lane| LaneName::new(lane).expect("the default lanes have valid names")).collect();
        let (pause, resume) = if paused { (lanes, Vec::new()) } else { (Vec::new(), lanes) };
        self.client.set_lanes(pause, resume)?;
        Ok(())
    }

    /// Starts workers with so many slots together, and waits until each slot has asked for tasks. At a paused lane, or with
    /// nothing queued: a slot that got tasks at once would be waited for in vain.
    pub(super) fn hire(&mut self, slots: u32, batch: u32) -> Result<(), Error> {
        let processes = slots.min(PROCESSES_MAX);
        for at in 0..processes {
            let of_this = slots / processes + u32::from(at < slots % processes);
            self.workers.push(start_worker(self.bench, &self.endpoint, of_this, batch, Sort::Library)?);
        }
        self.await_that("all slots are ready", |stage| Ok(stage.client.stats()?.ready >= u64::from(slots)))
    }

    /// Starts so many workers that speak the wire themselves, `each` in a process, and waits for nothing: who connects when is
    /// what is measured.
    pub(super) fn hire_plain(&mut self, peers: u32, each: u32) -> Result<(), Error> {
        for first in (0..peers).step_by(each as usize) {
            let of_this = each.min(peers - first);
            self.workers.push(start_worker(self.bench, &self.endpoint, of_this, 1, Sort::Plain)?);
        }
        Ok(())
    }

    /// Waits until the broker has counted this many queued rows: its intake is through.
    pub(super) fn await_queued(&mut self, rows: u32) -> Result<(), Error> {
        self.await_that("all rows are counted", |stage| Ok(stage.client.stats()?.queued >= u64::from(rows)))
    }

    /// Waits until this many rows are done, while more may come in; gives when that was seen.
    pub(super) fn await_done(&mut self, rows: u32) -> Result<Instant, Error> {
        let app = self.app()?;
        let fail = |error| Error::database("count what is done", error);
        let mut count = app.prepare("SELECT count(*) FROM tasks WHERE state = 'done'").map_err(fail)?;
        let mut progress = Progress::new();
        loop {
            // The broker counts at the worker's word. What is on disk is counted only then, for it costs a walk over the table.
            let done = self.client.stats()?.done;
            if done >= u64::from(rows) && count.query_row((), |row| row.get::<_, u32>(0)).map_err(fail)? >= rows {
                return Ok(Instant::now());
            }
            self.check_alive()?;
            progress.check(|| Ok(done))?;
            thread::sleep(ASK);
        }
    }

    /// Waits until the broker has counted this many done since its start, by its workers' word; gives when that was seen.
    pub(super) fn await_counted_done(&mut self, tasks: u32) -> Result<Instant, Error> {
        let mut progress = Progress::new();
        loop {
            let done = self.client.stats()?.done;
            if done >= u64::from(tasks) {
                return Ok(Instant::now());
            }
            self.check_alive()?;
            progress.check(|| Ok(done))?;
            thread::sleep(ASK);
        }
    }

    /// Waits until no row is queued or running any more; gives when that was seen.
    pub(super) fn await_end(&mut self) -> Result<Instant, Error> {
        let app = self.app()?;
        let fail = |error| Error::database("look at the queue", error);
        let mut queued = app
            .prepare("SELECT EXISTS (SELECT 1 FROM tasks INDEXED BY tasks_queue WHERE state = 'queued')")
            .map_err(fail)?;
        let mut running = app
            .prepare("SELECT EXISTS (SELECT 1 FROM tasks INDEXED BY tasks_marked WHERE state = 'running')")
            .map_err(fail)?;
        let mut progress = Progress::new();
        loop {
            let open = |statement: &mut rusqlite::Statement| statement.query_row((), |row| row.get::<_, bool>(0));
            if !open(&mut queued).map_err(fail)? && !open(&mut running).map_err(fail)? {
                return Ok(Instant::now());
            }
            self.check_alive()?;
            progress.check(|| Ok(self.client.stats()?.done))?;
            thread::sleep(LOOK);
        }
    }

    /// Counts what is in the table: `expected` tasks, each done in one run.
    pub(super) fn tally_done(&self, expected: u32) -> Result<Tally, Error> {
        self.tally(expected, "SELECT count(*), coalesce(sum(runs > 1), 0) FROM tasks WHERE state = 'done'")
    }

    /// Counts what is in the table: `expected` tasks in any state, none of which was run twice.
    pub(super) fn tally_all(&self, expected: u32) -> Result<Tally, Error> {
        self.tally(expected, "SELECT count(*), coalesce(sum(runs > 1), 0) FROM tasks")
    }

    /// Counts what is in the table: `expected` tasks, none of which has been run.
    pub(super) fn tally_queued(&self, expected: u32) -> Result<Tally, Error> {
        self.tally(expected, "SELECT count(*), coalesce(sum(runs > 0), 0) FROM tasks WHERE state = 'queued'")
    }

    fn tally(&self, expected: u32, sql: &str) -> Result<Tally, Error> {
        let (found, run_twice): (i64, i64) = self
            .app()?
            .query_row(sql, (), |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(|error| Error::database("count the tasks", error))?;
        let lost = i64::from(expected).abs_diff(found);
        Ok(Tally { tasks: expected.into(), lost, run_twice: run_twice.unsigned_abs() })
    }

    fn await_that(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> Result<bool, Error>) -> Result<(), Error> {
        let until = Instant::now() + WITHIN;
        while !is_so(self)? {
            self.check_alive()?;
            if Instant::now() > until {
                return Err(Error::TimedOut(format!("waited {} s until {what}", WITHIN.as_secs())));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Fails when a process has ended, or this one is to.
    fn check_alive(&mut self) -> Result<(), Error> {
        self.bench.check_interrupted()?;
        if let Some(status) = self.broker.ended() {
            return Err(broker_ended(&self.dir, status));
        }
        match self.workers.iter_mut().find_map(Process::ended) {
            Some(status) => Err(Error::other("go on", format!("a worker has ended with {status}"))),
            None => Ok(()),
        }
    }
}

/// Whether tasks go on ending.
struct Progress {
    done: u64,
    since: Instant,
}

impl Progress {
    fn new() -> Self {
        Self { done: 0, since: Instant::now() }
    }

    /// Fails when no task has ended for too long. `done` is asked seldom.
    fn check(&mut self, done: impl FnOnce() -> Result<u64, Error>) -> Result<(), Error> {
        if self.since.elapsed() <= STUCK {
            return Ok(());
        }
        let done = done()?;
        if done == self.done {
            return Err(Error::TimedOut(format!("no task has ended for {} s", STUCK.as_secs())));
        }
        *self = Self { done, since: Instant::now() };
        Ok(())
    }
}

/// What a worker process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// Slots of the library.
    Library,
    /// Sockets that send back what comes.
    Raw,
    /// Sockets that speak the wire, each for one task.
    Plain,
}

/// Starts one worker process.
pub(super) fn start_worker(bench: &Bench, to: &str, slots: u32, batch: u32, sort: Sort) -> Result<Process, Error> {
    let mut command = Command::new(&bench.program);
    command.args(["bench-worker", "--to", to, "--slots", &slots.to_string(), "--batch", &batch.to_string()]);
    match sort {
        Sort::Library => {}
        Sort::Raw => _ = command.arg("--raw"),
        Sort::Plain => _ = command.arg("--plain"),
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    Process::start(&mut command, "a worker")
}

/// Reads from the log where the broker listens, which a line says in this field: the system chose the port.
fn await_in_log(bench: &Bench, dir: &TempDir, broker: &mut Process, field: &str) -> Result<String, Error> {
    let until = Instant::now() + WITHIN;
    loop {
        // There is no log until the broker has got that far.
        let log = fs::read_to_string(dir.path().join("broker.log")).unwrap_or_default();
        if let Some(place) = log.lines().find_map(|line| text_in(line, field)) {
            return Ok(place);
        }
        bench.check_interrupted()?;
        if let Some(status) = broker.ended() {
            return Err(broker_ended(dir, status));
        }
        if Instant::now() > until {
            return Err(Error::TimedOut(format!("the broker was not ready within {} s", WITHIN.as_secs())));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// What this field of a line says. A line that is only half written says nothing.
fn text_in(line: &str, field: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields").unwrap_or(&line);
    Some(fields.get(field)?.as_str()?.to_owned())
}

fn broker_ended(dir: &TempDir, status: std::process::ExitStatus) -> Error {
    let words = fs::read_to_string(dir.path().join("broker.err")).unwrap_or_default();
    let words = words.lines().last().unwrap_or("it said nothing").to_owned();
    Error::other("go on", format!("the broker has ended with {status}: {words}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_is_found_in_the_log() {
        // Proves that both forms of a JSON line are read, and that others are passed over.
        let endpoint = Some("tcp://127.0.0.1:4711".to_owned());
        assert_eq!(text_in(r#"{"message":"ready","endpoints":"tcp://127.0.0.1:4711"}"#, "endpoints"), endpoint);
        assert_eq!(text_in(r#"{"fields":{"endpoints":"tcp://127.0.0.1:4711"}}"#, "endpoints"), endpoint);
        for other in ["", r#"{"message":"ready","endp"#, r#"{"message":"started"}"#] {
            assert_eq!(text_in(other, "endpoints"), None, "{other}");
        }
    }
}
