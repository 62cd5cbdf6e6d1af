//! The real broker, as a process.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::process::{Child, Command, Stdio};

use laneway::Client;

use super::{Place, signal, wait_for};

/// A running broker; killed when dropped.
pub(crate) struct Broker {
    child: Child,
    endpoint: String,
    log: std::path::PathBuf,
    /// What stands before it is of earlier brokers at this place.
    log_from: u64,
}

impl Broker {
    /// Starts a broker on the place's database and waits until it is ready.
    pub(crate) fn start(place: &Place) -> Self {
        Self::start_with(place, &[])
    }

    /// The same with settings, each `name=value`.
    pub(crate) fn start_with(place: &Place, settings: &[&str]) -> Self {
        Self::start_under(place, settings, &[])
    }

    /// The same with more in its environment than the search path.
    pub(crate) fn start_under(place: &Place, settings: &[&str], env: &[(&str, OsString)]) -> Self {
        Self::start_as_under(place, &set(settings), env)
    }

    /// The same with words of its own on the command line, such as another `--bind`.
    pub(crate) fn start_as(place: &Place, words: &[&str]) -> Self {
        Self::start_as_under(place, words, &[])
    }

    /// Both: words and variables of its own.
    pub(crate) fn start_as_under(place: &Place, words: &[&str], env: &[(&str, OsString)]) -> Self {
        Self::spawn_as(place, words, env).wait_until_ready()
    }

    fn wait_until_ready(mut self) -> Self {
        wait_for("the broker to be ready", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the broker ended with {status}: {}", std::fs::read_to_string(&self.log).unwrap_or_default());
            }
            (!self.ready_lines().is_empty()).then_some(())
        });
        self
    }

    /// Starts it and waits for nothing.
    pub(crate) fn spawn(place: &Place, settings: &[&str]) -> Self {
        Self::spawn_as(place, &set(settings), &[])
    }

    fn spawn_as(place: &Place, words: &[&str], env: &[(&str, OsString)]) -> Self {
        let log = place.path("broker.log");
        let log_from = std::fs::metadata(&log).map_or(0, |file| file.len());
        let mut command = Command::new(env!("CARGO_BIN_EXE_laneway"));
        command.arg("broker").arg("--db").arg(place.db()).args(["--bind", &place.endpoint()]);
        command.arg("--log-file").arg(&log).args(["--log-format", "json"]);
        command.args(words);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(env.iter().map(|(name, value)| (name, value)));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
        Self { child, endpoint: place.endpoint(), log, log_from }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.endpoint).unwrap()
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// kill -9, and waits for the end.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and waits for the end. Gives the exit code.
    pub(crate) fn stop(mut self) -> i32 {
        self.signal("TERM");
        self.wait()
    }

    pub(crate) fn wait(&mut self) -> i32 {
        wait_for("the broker to end", || self.child.try_wait().unwrap()).code().expect("the broker was not killed")
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Every line that this broker has logged so far.
    pub(crate) fn log(&self) -> Vec<serde_json::Value> {
        let Ok(mut file) = std::fs::File::open(&self.log) else { return Vec::new() };
        file.seek(SeekFrom::Start(self.log_from)).unwrap();
        BufReader::new(file).lines().map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok()).collect()
    }

    /// The lines that say a broker is ready: one for each that a supervisor started.
    pub(crate) fn ready_lines(&self) -> Vec<serde_json::Value> {
        self.log().into_iter().filter(|line| line["message"] == "ready").collect()
    }

    /// Where it listens for tcp, when it was told to. Of the last start.
    pub(crate) fn tcp(&self) -> std::net::SocketAddr {
        let ready = self.ready_lines().pop().unwrap();
        let mut endpoints = ready["endpoints"].as_str().unwrap().split(' ');
        endpoints.find_map(|endpoint| endpoint.strip_prefix("tcp://")).unwrap().parse().unwrap()
    }

    /// Resident memory in KiB.
    pub(crate) fn memory_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// The most it ever was.
    pub(crate) fn memory_peak_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    pub(crate) fn n_descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may be stopped, or have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The words that set these settings, each `name=value`.
fn set<'a>(settings: &[&'a str]) -> Vec<&'a str> {
    settings.iter().flat_map(|setting| ["--set", *setting]).collect()
}
