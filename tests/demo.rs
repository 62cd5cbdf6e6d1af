//! `laneway demo`, from the command line to the table it leaves: a person's first sight of the whole, so it must hold what
//! it prints.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// The demo takes about ten seconds where nothing else runs.
const DEADLINE: Duration = Duration::from_mins(2);

/// A folder for the demo's own files, and one with the files it works on.
struct Place {
    temp: TempDir,
    files: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { temp: TempDir::new().unwrap(), files: TempDir::new().unwrap() }
    }

    /// Text, binary and empty files, in folders, one with a name that a shell could stumble over.
    fn fill(&self) -> Vec<PathBuf> {
        let root = self.files.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("in side/deep")).unwrap();
        fs::create_dir_all(root.join(".git")).unwrap();
        fs::write(root.join(".git/config"), "not to be counted").unwrap();
        let mut paths = vec![root.join("empty"), root.join("in side/it's a\nname"), root.join("bytes")];
        fs::write(&paths[0], "").unwrap();
        fs::write(&paths[1], "no newline at the end").unwrap();
        fs::write(&paths[2], (0..=255).cycle().take(300_000).collect::<Vec<u8>>()).unwrap();
        for n in 0..27 {
            let path = root.join(format!("in side/deep/{n}.txt"));
            fs::write(&path, format!("file {n} \u{2192} has words\n").repeat(n * 10)).unwrap();
            paths.push(path);
        }
        paths
    }

    fn command(&self, pause_ms: u32) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_laneway"));
        command.arg("demo").arg(self.files.path()).args(["--pause-ms", &pause_ms.to_string()]);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("TMPDIR", self.temp.path());
        command.stdin(Stdio::null());
        command
    }

    fn run(&self) -> Output {
        self.command(100).output().unwrap()
    }

    /// What the demo left.
    fn folder(&self) -> PathBuf {
        let entries: Vec<PathBuf> =
            fs::read_dir(self.temp.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(entries.len(), 1, "{entries:?}");
        entries[0].clone()
    }

    /// Processes that have something to do with the demo, by their command line.
    fn processes(&self) -> Vec<String> {
        let mark = self.temp.path().to_str().unwrap();
        let line = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("cmdline")).ok();
        let lines = fs::read_dir("/proc").unwrap().filter_map(|entry| line(entry.ok()?));
        lines.filter(|line| line.contains(mark)).collect()
    }
}

/// What stands behind a word that begins a line.
fn told<'a>(text: &'a str, what: &str) -> &'a str {
    let mut lines = text.lines().skip_while(|line| !line.starts_with(what));
    lines.next().unwrap_or_else(|| panic!("no line begins with '{what}':\n{text}"))[what.len()..].trim()
}

fn shell(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// The combined hash, by this test's own code.
fn combined(paths: &[PathBuf]) -> String {
    let line = |path: &PathBuf| format!("{}  {}\0", hex(&Sha256::digest(fs::read(path).unwrap())), path.display());
    let mut lines: Vec<String> = paths.iter().map(line).collect();
    lines.sort();
    hex(&Sha256::digest(lines.concat()))
}

/// Words between white space that have a printable ASCII character, by this test's own code.
fn words(paths: &[PathBuf]) -> usize {
    let count = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap();
        let words = bytes.split(|byte| byte.is_ascii_whitespace() || *byte == 0x0b);
        words.filter(|word| word.iter().any(u8::is_ascii_graphic)).count()
    };
    paths.iter().map(count).sum()
}

#[test]
fn the_demo_does_what_it_tells() {
    // Proves the whole: exit code 0, totals that equal the test's own, shell commands that give the same, every row done,
    // the killed worker's tasks with exactly one loss, and nothing left running.
    let place = Place::new();
    let paths = place.fill();
    let output = place.run();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert_eq!(place.processes(), Vec::<String>::new());

    assert_eq!(told(&out, "sha256"), combined(&paths));
    assert_eq!(told(&out, "words"), words(&paths).to_string());
    let commands: Vec<&str> = out.lines().filter_map(|line| line.strip_prefix("  same as")).collect();
    assert_eq!(shell(commands[0]), combined(&paths));
    // What `wc` calls a word differs between its versions; the demo tells both numbers.
    let by_wc = shell(commands[1]);
    assert!(told(&out, "words") == by_wc || out.contains(&format!("which makes {by_wc}\n")), "{by_wc}:\n{out}");

    let table = Connection::open(place.folder().join("demo.db")).unwrap();
    let count = |condition: &str| {
        let n: u32 =
            table.query_row(&format!("SELECT count(*) FROM tasks WHERE {condition}"), (), |row| row.get(0)).unwrap();
        n as usize
    };
    assert_eq!(count("state = 'done' AND attempts = 1 AND result IS NOT NULL"), paths.len() * 2 + 20);
    assert_eq!((count("lane = 'low'"), count("lane = 'high'")), (paths.len() * 2, 20));
    assert!(count("losses = 1") > 0);
    assert_eq!((count("losses > 1"), count("losses = 1 AND runs <> 2")), (0, 0));
    let mut lost = table.prepare("SELECT task, worker FROM failures WHERE cause = 'lost'").unwrap();
    let lost: Vec<(i64, String)> =
        lost.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    assert_eq!(lost.len(), count("losses = 1"));
    assert_eq!(lost.iter().map(|(_, worker)| worker).collect::<HashSet<_>>().len(), 1, "{lost:?}");
    for (task, worker) in &lost {
        assert_eq!(count(&format!("id = {task} AND losses = 1 AND worker <> '{worker}'")), 1, "task {task}");
    }
}

#[test]
fn an_empty_folder_gets_sample_files() {
    // Proves that the first try needs nothing at all, that the samples are not put into the person's folder, and that a
    // reader who went away leaves no process behind.
    let place = Place::new();
    let output = place.run();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{out}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(told(&out, "files").contains("sample files were made"), "{out}");
    assert_eq!(fs::read_dir(place.files.path()).unwrap().count(), 0);
    assert_eq!(place.processes(), Vec::<String>::new());
}

#[test]
fn ctrl_c_leaves_nothing_running() {
    // Proves that an interrupted demo says where things are, fails, and takes its processes with it.
    let place = Place::new();
    place.fill();
    let mut demo = place.command(2_000).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + DEADLINE;
    let db = |temp: &Path| {
        Some(fs::read_dir(temp).ok()?.next()?.ok()?.path().join("worker-3.err")).filter(|path| path.exists())
    };
    while db(place.temp.path()).is_none() {
        assert!(Instant::now() < until && demo.try_wait().unwrap().is_none(), "no worker was started");
        std::thread::sleep(Duration::from_millis(2));
    }
    let interrupt = format!("kill -s INT {}", demo.id());
    assert!(Command::new("sh").args(["-c", &interrupt]).status().unwrap().success());
    let output = demo.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("interrupted") && err.contains(place.folder().to_str().unwrap()), "{err}");
    assert_eq!(place.processes(), Vec::<String>::new());
}
