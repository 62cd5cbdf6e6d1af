//! The processes of the drill: one broker and a handful of workers, each this very program started again. Kills them, holds
//! them still, lets them go on, and starts anew what was killed; notes all of it with its times. None outlives this value.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::faults::{Done, Fault, HEARTBEAT_INTERVAL_MS, HEARTBEAT_TIMEOUT_MS, Stop, WorkerLife};
use super::journal::now_us;
use crate::error::Error;
use crate::process::Process;

/// After SIGTERM or the end of their input.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What each place runs, again and again.
const WORKERS: [&[&str]; 6] = [
    &["--slots", "4"],
    &["--slots", "3"],
    &["--slots", "2", "--batch", "16"],
    &["--plain"],
    &["--plain"],
    &["--plain", "--committed"],
];
pub(super) const PLACES: usize = WORKERS.len();

/// How long the broker may be away before the workers' running tasks are given to others.
pub(super) const RESUME_GRACE_MS: u64 = 5_000;
/// Catches what a plain worker held that was killed while there was no broker to see it.
pub(super) const TIMEOUT_MS: u64 = 8_000;
/// Timeouts that are owed to kills must not use the attempts up.
pub(super) const MAX_ATTEMPTS: u32 = 12;
pub(super) const LOSSES_MAX: u32 = 3;

pub(super) struct Crew {
    program: PathBuf,
    folder: PathBuf,
    broker: Process,
    broker_stopped: bool,
    workers: Vec<Place>,
    done: Done,
    /// Since when; what goes on again at which moment. `None` is the broker.
    pending: BTreeMap<(Instant, u64), Option<usize>>,
    /// What nobody had asked for, for the audit.
    complaints: Vec<String>,
}

/// A process and its number among all workers there ever were.
struct Place {
    process: Process,
    number: usize,
    stopped: bool,
}

impl Crew {
    /// Starts broker and workers; none is ready yet.
    pub(super) fn start(folder: &Path) -> Result<Self, Error> {
        let program = std::env::current_exe().map_err(|error| Error::other("find this program", error))?;
        let broker = start_broker(&program, folder)?;
        let mut crew = Self {
            program,
            folder: folder.into(),
            broker,
            broker_stopped: false,
            workers: Vec::new(),
            done: Done::default(),
            pending: BTreeMap::new(),
            complaints: Vec::new(),
        };
        for place in 0..PLACES {
            let worker = crew.start_worker(place)?;
            crew.workers.push(worker);
        }
        Ok(crew)
    }

    /// Does to the processes what was planned.
    pub(super) fn hurt(&mut self, fault: Fault) -> Result<(), Error> {
        match fault {
            Fault::KillBroker => self.kill_broker(),
            Fault::KillWorker { place } => self.kill_worker(place),
            Fault::StopBroker { ms } => self.stop_broker(Duration::from_millis(ms)),
            Fault::StopWorker { place, ms } => self.stop_worker(place, Duration::from_millis(ms)),
        }
    }

    /// Lets go on what was held still for long enough, and starts anew what has ended by itself, which is noted. To be
    /// called all the time.
    pub(super) fn look(&mut self) -> Result<(), Error> {
        while let Some(entry) = self.pending.first_entry().filter(|entry| entry.key().0 <= Instant::now()) {
            let who = entry.remove();
            self.go_on(who)?;
        }
        if let Some(status) = self.broker.ended() {
            self.complaints.push(format!("the broker ended by itself, {status}: {}", self.last_words("broker.err")));
            self.broker = start_broker(&self.program, &self.folder)?;
        }
        for place in 0..self.workers.len() {
            if let Some(status) = self.workers[place].process.ended() {
                let name = self.done.workers[self.workers[place].number].name.clone();
                let words = self.last_words(&format!("{name}.err"));
                self.complaints.push(format!("{name} ended by itself, {status}: {words}"));
                self.workers[place] = self.start_worker(place)?;
            }
        }
        Ok(())
    }

    /// Nothing is held still any more.
    pub(super) fn let_all_go_on(&mut self) -> Result<(), Error> {
        for who in std::mem::take(&mut self.pending).into_values() {
            self.go_on(who)?;
        }
        Ok(())
    }

    /// Sends all home: workers by the end of their input, then the broker by SIGTERM. What did not end well is noted.
    pub(super) fn finish(mut self) -> Result<(Done, Vec<String>), Error> {
        self.let_all_go_on()?;
        for place in 0..self.workers.len() {
            self.workers[place].process.close_input();
        }
        let until = Instant::now() + STOP_TIMEOUT;
        let names: Vec<String> =
            self.workers.iter().map(|place| self.done.workers[place.number].name.clone()).collect();
        for (place, name) in self.workers.iter_mut().zip(names) {
            self.complaints.extend(wait_for_end(&mut place.process, &name, until));
        }
        self.broker.signal("TERM").map_err(|error| Error::other("stop the broker", error))?;
        self.complaints.extend(wait_for_end(&mut self.broker, "the broker", Instant::now() + STOP_TIMEOUT));
        Ok((std::mem::take(&mut self.done), std::mem::take(&mut self.complaints)))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What nobody had asked for and happened all the same, if anything did.
    pub(super) fn first_complaint(&self) -> Option<Error> {
        self.complaints.first().map(|text| Error::other("go on", text.clone()))
    }

    pub(super) fn done(&self) -> &Done {
        &self.done
    }

    // ------------------------------------------------------------------------------------------------------- private

    fn kill_broker(&mut self) -> Result<(), Error> {
        let at = now_us();
        self.broker.kill();
        self.done.broker_kills_us.push(at);
        if std::mem::take(&mut self.broker_stopped) {
            self.end_stop(None);
        }
        self.broker = start_broker(&self.program, &self.folder)?;
        Ok(())
    }

    fn kill_worker(&mut self, place: usize) -> Result<(), Error> {
        let at = now_us();
        self.workers[place].process.kill();
        self.done.workers[self.workers[place].number].killed_us = Some(at);
        if self.workers[place].stopped {
            self.end_stop(Some(place));
        }
        self.workers[place] = self.start_worker(place)?;
        Ok(())
    }

    fn stop_broker(&mut self, time: Duration) -> Result<(), Error> {
        if std::mem::replace(&mut self.broker_stopped, true) {
            return Ok(());
        }
        self.done.broker_stops.push(Stop { from_us: now_us(), to_us: u64::MAX });
        signal(&self.broker, "STOP")?;
        self.resume_in(time, None);
        Ok(())
    }

    fn stop_worker(&mut self, place: usize, time: Duration) -> Result<(), Error> {
        let worker = &mut self.workers[place];
        if std::mem::replace(&mut worker.stopped, true) {
            return Ok(());
        }
        self.done.workers[worker.number].stops.push(Stop { from_us: now_us(), to_us: u64::MAX });
        signal(&worker.process, "STOP")?;
        self.resume_in(time, Some(place));
        Ok(())
    }

    fn resume_in(&mut self, time: Duration, who: Option<usize>) {
        let key = (Instant::now() + time, who.map_or(0, |place| place as u64 + 1));
        self.pending.insert(key, who);
    }

    fn go_on(&mut self, who: Option<usize>) -> Result<(), Error> {
        match who {
            None => signal(&self.broker, "CONT")?,
            Some(place) => signal(&self.workers[place].process, "CONT")?,
        }
        self.end_stop(who);
        Ok(())
    }

    fn end_stop(&mut self, who: Option<usize>) {
        let stops = if let Some(place) = who {
            self.workers[place].stopped = false;
            &mut self.done.workers[self.workers[place].number].stops
        } else {
            self.broker_stopped = false;
            &mut self.done.broker_stops
        };
        if let Some(stop) = stops.last_mut() {
            stop.to_us = now_us();
        }
        self.pending.retain(|_, pending| *pending != who);
    }

    fn start_worker(&mut self, place: usize) -> Result<Place, Error> {
        let number = self.done.workers.len();
        let name = format!("worker-{number}");
        let words = WORKERS[place];
        let mut command = Command::new(&self.program);
        command.args(["drill-worker", "--to", &endpoint(&self.folder), "--name", &name]).args(words);
        command.arg("--journal").arg(journal(&self.folder, number));
        // A group of its own: Ctrl-C reaches the drill alone, which then ends everything.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null());
        command.stderr(file(&self.folder.join(format!("{name}.err")))?);
        let process = Process::start(&mut command, "a worker")?;
        let (plain, committed) = (words.contains(&"--plain"), words.contains(&"--committed"));
        self.done.workers.push(WorkerLife { name, plain, committed, ..WorkerLife::default() });
        Ok(Place { process, number, stopped: false })
    }

    /// The last line in a file of what a process said.
    fn last_words(&self, name: &str) -> String {
        let said = std::fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        said.trim_end().lines().next_back().unwrap_or("it said nothing").into()
    }
}

pub(super) fn db(folder: &Path) -> PathBuf {
    folder.join("drill.db")
}

pub(super) fn endpoint(folder: &Path) -> String {
    format!("ipc://{}", folder.join("drill.sock").display())
}

/// Where worker number `number` writes what it runs.
pub(super) fn journal(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("worker-{number}.journal"))
}

fn start_broker(program: &Path, folder: &Path) -> Result<Process, Error> {
    let mut command = Command::new(program);
    command.arg("broker").arg("--db").arg(db(folder)).args(["--bind", &endpoint(folder)]);
    command.arg("--log-file").arg(folder.join("broker.log")).args(["--log-format", "json"]);
    let settings = [
        format!("heartbeat_interval_ms={HEARTBEAT_INTERVAL_MS}"),
        format!("heartbeat_timeout_ms={HEARTBEAT_TIMEOUT_MS}"),
        format!("resume_grace_ms={RESUME_GRACE_MS}"),
        "cancel_grace_ms=300".into(),
        format!("defaults.timeout_ms={TIMEOUT_MS}"),
        format!("defaults.max_attempts={MAX_ATTEMPTS}"),
        format!("defaults.losses_max={LOSSES_MAX}"),
        "defaults.backoff_base_ms=50".into(),
        "defaults.backoff_max_ms=500".into(),
        "log=info,laneway::task=off".into(),
    ];
    for setting in settings {
        command.args(["--set", &setting]);
    }
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(file(&folder.join("broker.err"))?);
    Process::start(&mut command, "the broker")
}

fn file(path: &Path) -> Result<File, Error> {
    let open = File::options().create(true).append(true).open(path);
    open.map_err(|error| Error::other(format!("open {}", path.display()), error))
}

fn signal(process: &Process, name: &str) -> Result<(), Error> {
    process.signal(name).map_err(|error| Error::other(format!("send SIG{name}"), error))
}

/// What there is to say about how it ended.
fn wait_for_end(process: &mut Process, name: &str, until: Instant) -> Option<String> {
    loop {
        match process.ended() {
            Some(status) if status.success() => return None,
            Some(status) => return Some(format!("{name} ended with {status}")),
            None if Instant::now() >= until => {
                process.kill();
                return Some(format!("{name} did not stop within {} s", STOP_TIMEOUT.as_secs()));
            }
            None => thread::sleep(LOOK_EVERY),
        }
    }
}
