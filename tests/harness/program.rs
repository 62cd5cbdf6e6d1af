//! Any other program that a test starts: an example, a script.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use super::{signal, wait_for};

/// A running program; killed when dropped.
pub(crate) struct Program(Child);

impl Program {
    /// Starts it with nothing in its environment but the search path.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_with(bare(command))
    }

    /// Starts it in the environment that the command has.
    pub(crate) fn start_with(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Starts it in a bare environment; what it says on standard error goes to this file.
    pub(crate) fn start_saying(command: &mut Command, to: &Path) -> Self {
        let err = File::create(to).unwrap();
        Self(bare(command).stdout(Stdio::null()).stderr(err).spawn().unwrap())
    }

    /// Starts it in a bare environment; what it says on standard output goes to this file.
    pub(crate) fn start_printing(command: &mut Command, to: &Path) -> Self {
        let out = File::create(to).unwrap();
        Self(bare(command).stdout(out).stderr(Stdio::null()).spawn().unwrap())
    }

    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// SIGTERM, and waits for the end. Gives the exit code.
    pub(crate) fn stop(mut self) -> i32 {
        self.signal("TERM");
        self.wait()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.0.id(), name);
    }

    pub(crate) fn wait(&mut self) -> i32 {
        wait_for("the program to end", || self.0.try_wait().unwrap()).code().expect("the program was not killed")
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Runs a program to its end, in the same bare environment, and gives what it printed. Panics unless it says success.
#[track_caller]
pub(crate) fn output_of(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = bare(command).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?} ended with {status}\n{out}\n{err}");
    out.into_owned()
}

fn bare(command: &mut Command) -> &mut Command {
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null())
}
