//! A child process that cannot outlive its parent's value for it, and what Linux says about a process. The demo, the
//! benchmark and the drill start this very program through it.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;
use std::{fs, thread};

use crate::error::Error;

/// Killed when dropped; whoever wants a goodbye says it before.
pub(crate) struct Process(Child);

impl Process {
    /// Starts `command` without the settings that the person has in the environment for a broker of their own.
    pub(crate) fn start(command: &mut Command, what: &str) -> Result<Self, Error> {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("LANEWAY_") {
                command.env_remove(name);
            }
        }
        Self::start_as_is(command, what)
    }

    /// Starts `command` with this process' whole environment.
    pub(crate) fn start_as_is(command: &mut Command, what: &str) -> Result<Self, Error> {
        command.spawn().map(Self).map_err(|error| Error::other(format!("start {what}"), error))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, when it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().ok().flatten()
    }

    /// Sends a signal, by its name without SIG. The process was not waited for, so its id cannot be another's.
    pub(crate) fn signal(&self, name: &str) -> io::Result<()> {
        let pid = self.pid().to_string();
        // The shell's own `kill`: the standard library sends no signal but SIGKILL, and procps may not be installed.
        let output = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &pid]).output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }

    /// Ends its standard input, when that is a pipe.
    pub(crate) fn close_input(&mut self) {
        self.0.stdin.take();
    }

    /// kill -9, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        // Both fail only when it has ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus, Error> {
        self.0.wait().map_err(|error| Error::other(format!("wait for process {}", self.pid()), error))
    }

    /// Processor time of all its living threads.
    pub(crate) fn cpu(&self) -> Result<Duration, Error> {
        cpu(self.pid())
    }

    /// Resident memory now, and the most it ever was, in bytes.
    pub(crate) fn memory(&self) -> Result<(u64, u64), Error> {
        memory(self.pid())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// In a child whose parent holds the other end of its standard input: however the parent ends, `stop` is called.
pub(crate) fn on_end_of_input(stop: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let wait = move || {
        let mut rest = Vec::new();
        io::stdin().lock().read_to_end(&mut rest).ok();
        stop();
    };
    let thread = thread::Builder::new().name("end-of-input".into()).spawn(wait);
    thread.map(drop).map_err(|error| Error::other("start a thread", error))
}

fn cpu(pid: u32) -> Result<Duration, Error> {
    let fail = |error| Error::other(format!("read the processor time of process {pid}"), error);
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).map_err(fail)? {
        // A thread may end between the list and the look.
        let Ok(text) = fs::read_to_string(thread.map_err(fail)?.path().join("schedstat")) else { continue };
        nanos += text.split_whitespace().next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

/// Resident memory of a process now, and the most it ever was, in bytes.
pub(crate) fn memory(pid: u32) -> Result<(u64, u64), Error> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .map_err(|error| Error::other(format!("read the memory of process {pid}"), error))?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
    };
    bytes("VmRSS:")
        .zip(bytes("VmHWM:"))
        .ok_or_else(|| Error::other(format!("read the memory of process {pid}"), "/proc has no VmRSS or VmHWM"))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn this_process_uses_time_and_memory() {
        // Proves that what Linux says is read in the right unit: work shows, and memory is more than a page.
        let pid = std::process::id();
        let before = cpu(pid).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while cpu(pid).unwrap() < before + Duration::from_millis(5) {
            assert!(Instant::now() < deadline, "10 s of work use no processor time");
        }
        let (now, most) = memory(pid).unwrap();
        assert!(now > 1024 * 1024 && most >= now);
    }
}
