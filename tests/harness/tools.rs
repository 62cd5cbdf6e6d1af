//! Programs of the system that tests run: the sqlite3 shell, Python, valgrind. What is missing is installed when the test
//! runs as root on Debian; otherwise the test fails and says what to install. Nothing is left out silently.
//!
//! Test programs run side by side, so a lock file lets one of them install and the others wait.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The sqlite3 shell.
pub(crate) fn sqlite3() -> &'static str {
    require("sqlite3", "sqlite3", || says_yes(Command::new("sqlite3").arg("--version")));
    "sqlite3"
}

/// Python as the system has it, with its own sqlite3 module.
pub(crate) fn python3() -> &'static str {
    require("Python 3", "python3", || says_yes(Command::new("python3").args(["-c", "import sqlite3"])));
    "python3"
}

/// A Python with pyzmq and msgpack: that of `LANEWAY_PYTHON`, or `python3` if it has them, or else an environment of its
/// own in the target folder, which the first test that needs it makes.
pub(crate) fn python_with_zmq() -> PathBuf {
    let given = std::env::var_os("LANEWAY_PYTHON").map(PathBuf::from);
    if let Some(ready) = given.into_iter().chain([PathBuf::from("python3")]).find(|python| has_zmq(python)) {
        return ready;
    }
    python3();
    // Without ensurepip a venv can be made but nothing can be installed in it.
    let venv = ["-c", "import venv, ensurepip"];
    require("Python's venv", "python3-venv", || says_yes(Command::new("python3").args(venv)));
    let _lock = lock();
    let folder = target().join("python");
    let python = folder.join("bin/python");
    if !has_zmq(&python) {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "pyzmq", "msgpack"];
        run(Command::new(&python).args(pip));
    }
    python
}

/// The library that gives a process another wall clock.
pub(crate) fn libfaketime() -> PathBuf {
    let find = || {
        let folders = std::fs::read_dir("/usr/lib").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|library| library.exists())
    };
    require("libfaketime", "faketime", || find().is_some());
    find().expect("it was found a moment ago")
}

/// Valgrind, which counts instructions.
pub(crate) fn valgrind() -> &'static str {
    require("valgrind", "valgrind", || says_yes(Command::new("valgrind").args(["--tool=callgrind", "--version"])));
    "valgrind"
}

/// Makes sure that `works`, by installing the Debian package if need be and allowed.
#[track_caller]
fn require(what: &str, package: &str, works: impl Fn() -> bool) {
    if works() {
        return;
    }
    let _lock = lock();
    // Another test program may have installed it by now.
    if works() {
        return;
    }
    let may_install = says_yes(Command::new("sh").args(["-c", "test $(id -u) = 0 && command -v apt-get"]));
    assert!(may_install, "this test needs {what}: install it (on Debian: apt-get install {package})");
    run(Command::new("apt-get").args(["update", "-qq"]));
    let install = ["install", "-y", "-qq", "--no-install-recommends", package];
    run(Command::new("apt-get").args(install).env("DEBIAN_FRONTEND", "noninteractive"));
    assert!(works(), "this test needs {what}, and the package {package} did not bring it");
}

fn has_zmq(python: &Path) -> bool {
    says_yes(Command::new(python).args(["-c", "import zmq, msgpack"]))
}

/// Held until it is dropped.
fn lock() -> File {
    let file = File::create(target().join("tools.lock")).unwrap();
    file.lock().unwrap();
    file
}

/// Beside the folder of the profile.
pub(crate) fn target() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_laneway")).ancestors().nth(2).unwrap().to_owned()
}

fn says_yes(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// With the whole environment: it may name a proxy or another index.
#[track_caller]
fn run(command: &mut Command) {
    let status = command.stdin(Stdio::null()).status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?} ended with {status}");
}
