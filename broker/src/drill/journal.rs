//! What really ran: each worker process appends a line to a file of its own before a handler starts and after it has
//! ended. One short write to a file opened for appending is whole or missing, whenever the process is killed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// One run of a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Execution {
    pub(super) task: i64,
    /// The hand-out's number and lease, as the worker was told.
    pub(super) run: u32,
    pub(super) lease: i64,
    /// Which worker process: its place in the drill's list of workers.
    pub(super) worker: usize,
    pub(super) started_us: u64,
    /// When and how the handler ended; `None` when its process did not live to say so.
    pub(super) ended: Option<(u64, String)>,
}

/// Where a worker process writes.
pub(super) struct Journal(File);

impl Journal {
    pub(super) fn append(path: &Path) -> io::Result<Self> {
        File::options().create(true).append(true).open(path).map(Self)
    }

    pub(super) fn started(&self, task: u64, run: u32, lease: i64) -> io::Result<()> {
        self.write(&format!("start {task} {run} {lease} {}\n", now_us()))
    }

    pub(super) fn ended(&self, task: u64, lease: i64, how: &str) -> io::Result<()> {
        self.write(&format!("end {task} {lease} {} {how}\n", now_us()))
    }

    fn write(&self, line: &str) -> io::Result<()> {
        (&self.0).write_all(line.as_bytes())
    }
}

/// The executions of one worker process. A worker that never ran anything has no file.
pub(super) fn read(path: &Path, worker: usize) -> io::Result<Vec<Execution>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(parse(&text, worker)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn parse(text: &str, worker: usize) -> Vec<Execution> {
    let mut executions: Vec<Execution> = Vec::new();
    let mut open = std::collections::HashMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["start", task, run, lease, at] => {
                let fields = (task.parse(), run.parse(), lease.parse::<i64>(), at.parse());
                let (Ok(task), Ok(run), Ok(lease), Ok(started_us)) = fields else { continue };
                open.insert((task, lease), executions.len());
                executions.push(Execution { task, run, lease, worker, started_us, ended: None });
            }
            ["end", task, lease, at, how] => {
                let (Ok(task), Ok(lease), Ok(at)) = (task.parse(), lease.parse::<i64>(), at.parse()) else { continue };
                if let Some(place) = open.remove(&(task, lease)) {
                    executions[place].ended = Some((at, how.into()));
                }
            }
            _ => {}
        }
    }
    executions
}

/// Unix microseconds: the clock that processes share.
pub(super) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_read_as_they_were_written() {
        // Proves that starts find their ends, also between others, and that a run without one is told apart.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        assert_eq!(read(&path, 3).unwrap(), []);
        let journal = Journal::append(&path).unwrap();
        journal.started(7, 1, -5).unwrap();
        journal.started(8, 2, 9).unwrap();
        journal.ended(7, -5, "done").unwrap();
        let runs = read(&path, 3).unwrap();
        assert_eq!((runs[0].task, runs[0].run, runs[0].lease, runs[0].worker), (7, 1, -5, 3));
        assert!(runs[0].ended.as_ref().is_some_and(|(at, how)| *at >= runs[0].started_us && how == "done"));
        assert_eq!((runs[1].task, runs[1].run, runs[1].lease, &runs[1].ended), (8, 2, 9, &None));
    }
}
