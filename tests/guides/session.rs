//! A shell in which a page's commands are typed, one after the other, as a reader would: what one exports the next one sees,
//! and what it starts in the background goes on. All of it is killed at the end.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use crate::harness::DEADLINE;

pub(crate) struct Session {
    shell: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Session {
    /// Starts `command`, which is a bash.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut shell = command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (shell.stdin.take().unwrap(), shell.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            // It ends with the shell and all that has its output, or with the test.
            lines.find(|line| sender.send(line.clone()).is_err())
        });
        Self { shell, stdin, lines }
    }

    /// Types one command and waits for its end. Gives its exit code and what it printed.
    pub(crate) fn run(&mut self, command: &str) -> (i32, Vec<String>) {
        // As a file, so that no command reads the next one as its input.
        let quoted = command.replace('\'', r"'\''");
        writeln!(self.stdin, "printf '%s\\n' '{quoted}' > .command; . ./.command < /dev/null").unwrap();
        writeln!(self.stdin, "printf '\\n<end %s>\\n' $?").unwrap();
        let (until, mut printed) = (Instant::now() + DEADLINE, Vec::new());
        loop {
            let line = match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => panic!("waited {DEADLINE:?} for the end of: {command}\n{printed:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("the shell ended with: {command}\n{printed:?}"),
            };
            if let Some(code) = line.strip_prefix("<end ").and_then(|rest| rest.strip_suffix('>')) {
                return (code.parse().unwrap(), printed);
            }
            printed.push(line);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // What it has started is in its group. Of a group that is gone kill says so.
        let group = format!("-{}", self.shell.id());
        Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status().ok();
        self.shell.wait().ok();
    }
}
