//! The processes of the demo: one broker and the workers, each this very program started again. However the demo ends, by an
//! error or a panic too, none of them outlives this value; only a kill -9 of the demo itself leaves them.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::process::Process;

/// After SIGTERM. A worker ends its tasks within 3 s, the broker needs a commit or two.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The running ones; stopped, then killed, when dropped.
pub(super) struct Children {
    folder: PathBuf,
    broker: Option<Member>,
    workers: Vec<Member>,
}

struct Member {
    name: String,
    process: Process,
    log: PathBuf,
}

impl Children {
    /// Logs go into `folder`, and so do relative paths of the children.
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.into(), broker: None, workers: Vec::new() }
    }

    /// Starts the broker; it is not ready yet. Gives its process id.
    pub(super) fn start_broker(&mut self, db: &Path, endpoint: &str) -> Result<u32, Error> {
        let log = self.folder.join("broker.log");
        let mut command = self.program("broker", "broker.err")?;
        command.arg("broker").arg("--db").arg(db).args(["--bind", endpoint]);
        command.arg("--log-file").arg(&log).args(["--log-format", "json"]);
        let broker = Member::spawn("the broker", command, self.folder.join("broker.err"))?;
        let pid = broker.process.pid();
        self.broker = Some(broker);
        Ok(pid)
    }

    /// Starts a worker; it is not connected yet. Gives its process id.
    pub(super) fn start_worker(&mut self, name: &str, endpoint: &str, pause: Duration) -> Result<u32, Error> {
        let log = format!("{name}.err");
        let mut command = self.program(name, &log)?;
        command.args(["demo-worker", "--broker", endpoint, "--name", name]);
        command.args(["--pause-ms", &pause.as_millis().to_string()]);
        let worker = Member::spawn(name, command, self.folder.join(log))?;
        let pid = worker.process.pid();
        self.workers.push(worker);
        Ok(pid)
    }

    /// Fails when one has ended, with its last words.
    pub(super) fn check(&mut self) -> Result<(), Error> {
        for member in self.broker.iter_mut().chain(&mut self.workers) {
            if let Some(status) = member.process.ended() {
                return Err(Error::other("go on", format!("{} ended: {status}{}", member.name, member.last_words())));
            }
        }
        Ok(())
    }

    /// Holds a worker still.
    pub(super) fn freeze(&self, pid: u32) -> Result<(), Error> {
        self.worker(pid)?.process.signal("STOP").map_err(|error| Error::other("stop a worker for a moment", error))
    }

    pub(super) fn thaw(&self, pid: u32) -> Result<(), Error> {
        self.worker(pid)?.process.signal("CONT").map_err(|error| Error::other("let a worker go on", error))
    }

    /// kill -9 of a worker, which is not replaced.
    pub(super) fn kill_worker(&mut self, pid: u32) -> Result<(), Error> {
        let is_meant = |worker: &Member| worker.process.pid() == pid;
        let at = self.workers.iter().position(is_meant).ok_or_else(|| unknown(pid))?;
        self.workers.remove(at).process.kill();
        Ok(())
    }

    /// Stops the workers, then the broker, by SIGTERM. Tells what did not end well: ended with an error, or had to be killed.
    pub(super) fn stop(&mut self) -> Vec<String> {
        let mut complaints = stop_all(std::mem::take(&mut self.workers));
        complaints.extend(stop_all(self.broker.take().into_iter().collect()));
        complaints
    }

    fn worker(&self, pid: u32) -> Result<&Member, Error> {
        self.workers.iter().find(|worker| worker.process.pid() == pid).ok_or_else(|| unknown(pid))
    }

    fn program(&self, name: &str, log: &str) -> Result<Command, Error> {
        let doing = |error| Error::other(format!("start {name}"), error);
        let program = std::env::current_exe().map_err(doing)?;
        let log = File::create(self.folder.join(log)).map_err(doing)?;
        let mut command = Command::new(program);
        command.current_dir(&self.folder).stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(doing)?).stderr(log);
        // A group of its own: Ctrl-C reaches the demo alone, which then stops everything in order.
        command.process_group(0);
        Ok(command)
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Member {
    fn spawn(name: &str, mut command: Command, log: PathBuf) -> Result<Self, Error> {
        let process = Process::start(&mut command, name)?;
        Ok(Self { name: name.into(), process, log })
    }

    /// The end by `until`, else killed.
    fn end(&mut self, until: Instant) -> Option<ExitStatus> {
        loop {
            if let Some(status) = self.process.ended() {
                return Some(status);
            }
            if Instant::now() >= until {
                self.process.kill();
                return None;
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// The end of what it said on standard error, with a colon before it.
    fn last_words(&self) -> String {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        said.trim_end().lines().next_back().map_or_else(String::new, |line| format!(": {line}"))
    }
}

fn stop_all(mut members: Vec<Member>) -> Vec<String> {
    for Member { process, .. } in &members {
        // Fails when it has ended already; one that is frozen has to wake up for SIGTERM.
        process.signal("TERM").and_then(|()| process.signal("CONT")).ok();
    }
    let until = Instant::now() + STOP_TIMEOUT;
    let mut complaints = Vec::new();
    for member in &mut members {
        match member.end(until) {
            Some(status) if status.success() => {}
            Some(status) => {
                let how = status.signal().map_or_else(|| status.to_string(), |signal| format!("signal {signal}"));
                complaints.push(format!("{} ended with {how}{}", member.name, member.last_words()));
            }
            None => complaints.push(format!("{} did not stop within {} s", member.name, STOP_TIMEOUT.as_secs())),
        }
    }
    complaints
}

fn unknown(pid: u32) -> Error {
    Error::other("find a worker", format!("no worker has the process id {pid}"))
}
