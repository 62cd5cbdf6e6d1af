//! `laneway log`: the broker's log file, the lines that are asked for, and on with those that come, across rotations.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::{Common, Output, broker, output};
use crate::config::LOG_FILES_MAX;
use crate::error::Error;
use crate::telemetry::numbered;

/// Between two looks for new lines.
const LOOK: Duration = Duration::from_millis(200);
/// A longer line is cut: nothing of ours is.
const LINE_BYTES_MAX: u64 = 1024 * 1024;
/// Fields with a place of their own in a line for people.
const PLACED: [&str; 5] = ["timestamp", "level", "target", "message", "event"];

/// Show the lines of the broker's log that are asked for, and follow it
///
/// Of a log in JSON, which it is unless the broker writes to a terminal or was told otherwise. All filters must fit. Without FILE it is
/// the log_file of the settings.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  laneway log /var/log/laneway.log --task 42
  laneway log /var/log/laneway.log -f --level warn
  laneway log /var/log/laneway.log --rotated -n 0 --task 42
  laneway log --config /etc/laneway/laneway.toml -f --kind resize --event dead -o json")]
pub(super) struct LogArgs {
    /// The log [default: log_file of the settings]
    file: Option<PathBuf>,

    /// The settings that the broker has [default: none, or LANEWAY_CONFIG]
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,

    /// Go on with the lines that come, also into the next file when this one is moved away
    #[arg(long, short)]
    follow: bool,

    /// Begin with the oldest of the files that the broker has rotated away: FILE.1, FILE.2 and so on
    #[arg(long)]
    rotated: bool,

    /// The last lines that fit, so many; 0 for all
    #[arg(long, short = 'n', default_value_t = 20)]
    lines: usize,

    /// About this task
    #[arg(long, value_name = "ID")]
    task: Option<u64>,

    /// About tasks of this kind
    #[arg(long)]
    kind: Option<String>,

    /// About tasks of this lane
    #[arg(long)]
    lane: Option<String>,

    /// With this event, such as done, failed, lost or dead
    #[arg(long)]
    event: Option<String>,

    /// About this worker: its name, name@host/pid or session, or the beginning of it
    #[arg(long)]
    worker: Option<String>,

    /// At least this severe
    #[arg(long, value_enum, default_value_t = Level::Trace)]
    level: Level,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

pub(super) fn run(common: &Common, args: &LogArgs) -> Result<(), Error> {
    let path = match &args.file {
        Some(file) => file.clone(),
        None => broker::settings(common, args.config.clone())?.config.log_file.ok_or_else(|| {
            Error::Usage("the settings name no log_file, so the broker writes to standard error: name the file".into())
        })?,
    };
    let mut log = if args.rotated { Log::open_oldest(&path)? } else { Log::open(&path, &path)? };
    let mut last = VecDeque::new();
    while let Some(line) = log.next_of_all()? {
        if let Some(shown) = args.show(&line, common.output) {
            if args.lines > 0 && last.len() == args.lines {
                last.pop_front();
            }
            last.push_back(shown);
        }
    }
    for line in last {
        output::line(&line)?;
    }
    if !args.follow {
        return Ok(());
    }
    loop {
        match log.next_of_all()? {
            Some(line) => args.show(&line, common.output).map_or(Ok(()), |shown| output::line(&shown))?,
            None => std::thread::sleep(LOOK),
        }
    }
}

impl LogArgs {
    /// A line as it is to be shown, if it is.
    fn show(&self, line: &str, format: Output) -> Option<String> {
        let Ok(fields) = serde_json::from_str::<Map<String, Value>>(line) else {
            // Of a log for people, whose fields nobody can tell apart.
            return (!self.has_filter()).then(|| output::clean(line));
        };
        if !self.fits(&fields) {
            return None;
        }
        Some(match format {
            Output::Json => line.to_owned(),
            Output::Table => output::clean(&for_people(&fields)),
        })
    }

    fn has_filter(&self) -> bool {
        let Self { task, kind, lane, event, worker, level, .. } = self;
        let words = [kind, lane, event, worker];
        task.is_some() || words.iter().any(|word| word.is_some()) || *level > Level::Trace
    }

    fn fits(&self, fields: &Map<String, Value>) -> bool {
        let is = |name: &str, wanted: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| fields.get(name).and_then(Value::as_str) == Some(wanted))
        };
        let begins = |name: &str, wanted: &str| {
            fields.get(name).and_then(Value::as_str).is_some_and(|value| value.starts_with(wanted))
        };
        self.task.is_none_or(|task| fields.get("task").and_then(Value::as_u64) == Some(task))
            && is("kind", &self.kind)
            && is("lane", &self.lane)
            && is("event", &self.event)
            && self.worker.as_ref().is_none_or(|worker| begins("worker", worker) || begins("session", worker))
            && level(fields) >= self.level
    }
}

/// A line without one is none of ours, and shown in any case.
fn level(fields: &Map<String, Value>) -> Level {
    let word = fields.get("level").and_then(Value::as_str).unwrap_or("ERROR");
    Level::from_str(word, true).unwrap_or(Level::Error)
}

/// `2026-11-29T09:00:00.123456Z  INFO laneway::task done task=42 kind=resize`
fn for_people(fields: &Map<String, Value>) -> String {
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    let said =
        [text("event"), text("message")].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let rest = fields.iter().filter(|(name, _)| !PLACED.contains(&name.as_str())).map(|(name, value)| match value {
        Value::String(text) if !text.is_empty() && !text.contains(char::is_whitespace) => format!(" {name}={text}"),
        value => format!(" {name}={value}"),
    });
    format!("{} {:>5} {} {said}{}", text("timestamp"), text("level"), text("target"), rest.collect::<String>())
}

/// A file that somebody writes to, and those that it is rotated to.
struct Log {
    /// The name that is written to; the open file may have another by now.
    path: PathBuf,
    file: BufReader<File>,
    /// Of the file that is open.
    inode: u64,
    /// The begin of a line whose end has not been written yet.
    begun: Vec<u8>,
}

impl Log {
    /// Opens the log `path` where it is in `file`, which is the same but for rotated ones.
    fn open(path: &Path, file: &Path) -> Result<Self, Error> {
        let opened = File::open(file).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::NotFound(format!("there is no log {}", file.display())),
            _ => Error::other(format!("open the log {}", file.display()), error),
        })?;
        let inode = inode(&opened.metadata());
        Ok(Self { path: path.into(), file: BufReader::new(opened), inode, begun: Vec::new() })
    }

    fn open_oldest(path: &Path) -> Result<Self, Error> {
        let oldest = (1..=LOG_FILES_MAX).map(|n| numbered(path, n)).take_while(|file| file.exists()).last();
        Self::open(path, oldest.as_deref().unwrap_or(path))
    }

    /// The next whole line, in this file or in the one that follows it; `None` at the end of the last as it is now.
    fn next_of_all(&mut self) -> Result<Option<String>, Error> {
        loop {
            if let Some(line) = self.next()? {
                return Ok(Some(line));
            }
            if !self.is_moved() {
                return Ok(None);
            }
            // Written between the two looks.
            if let Some(line) = self.next()? {
                return Ok(Some(line));
            }
            self.go_on()?;
        }
    }

    /// The next whole line; `None` at the end as it is now.
    fn next(&mut self) -> Result<Option<String>, Error> {
        let room = LINE_BYTES_MAX.saturating_sub(self.begun.len() as u64);
        let read = self.file.by_ref().take(room).read_until(b'\n', &mut self.begun);
        read.map_err(|error| Error::other(format!("read the log {}", self.path.display()), error))?;
        let is_whole = self.begun.last() == Some(&b'\n') || self.begun.len() as u64 >= LINE_BYTES_MAX;
        if !is_whole {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.begun)).trim_end().to_owned();
        Ok(Some(line))
    }

    /// Whether the path leads to another file by now, or this one was cut.
    fn is_moved(&mut self) -> bool {
        let Ok(meta) = std::fs::metadata(&self.path) else { return false };
        meta.ino() != self.inode || self.file.stream_position().is_ok_and(|at| meta.len() < at)
    }

    /// Goes on with the file behind this one, or from the beginning where this one was cut.
    fn go_on(&mut self) -> Result<(), Error> {
        if inode(&std::fs::metadata(&self.path)) == self.inode {
            let rewound = self.file.seek(SeekFrom::Start(0));
            rewound.map_err(|error| Error::other(format!("read the log {}", self.path.display()), error))?;
            self.begun.clear();
            return Ok(());
        }
        loop {
            let found = match Self::open(&self.path, &self.follower()) {
                // Between two names, for a moment.
                Err(Error::NotFound(_)) => return Ok(()),
                found => found?,
            };
            // They may have been renamed meanwhile, one after the other.
            if inode(&std::fs::metadata(self.follower())) == found.inode {
                *self = found;
                return Ok(());
            }
        }
    }

    /// What the file behind the open one is called now. Of one that was rotated by another hand, to a name that nobody knows, or is gone,
    /// it is the one that is written to.
    fn follower(&self) -> PathBuf {
        let is_own = |n: &u64| inode(&std::fs::metadata(numbered(&self.path, *n))) == self.inode;
        let own = (1..=LOG_FILES_MAX).find(is_own).unwrap_or(1);
        let newer = (1..own).rev().map(|n| numbered(&self.path, n)).find(|file| file.exists());
        newer.unwrap_or_else(|| self.path.clone())
    }
}

/// 0 for a file that is not there.
fn inode(meta: &std::io::Result<Metadata>) -> u64 {
    meta.as_ref().map_or(0, MetadataExt::ino)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    const LINE: &str = r#"{"timestamp":"2026-11-29T09:00:00Z","level":"INFO","event":"done","task":42,"kind":"resize","lane":"low","worker":"w@host/7","target":"laneway::task","error":"two words"}"#;

    fn args(words: &[&str]) -> LogArgs {
        let cli = Cli::try_parse_from(["laneway", "log", "file"].iter().chain(words)).unwrap();
        let Command::Log(args) = cli.command else { unreachable!("the words say log") };
        args
    }

    #[test]
    fn a_line_is_shown_when_every_filter_fits() {
        for (words, fits) in [
            (&[][..], true),
            (&["--task", "42", "--kind", "resize", "--lane", "low", "--event", "done", "--worker", "w@"], true),
            (&["--level", "info"], true),
            (&["--level", "warn"], false),
            (&["--task", "4"], false),
            (&["--kind", "res"], false),
            (&["--lane", "high"], false),
            (&["--event", "dead"], false),
            (&["--worker", "host"], false),
        ] {
            assert_eq!(args(words).show(LINE, Output::Json).is_some(), fits, "{words:?}");
        }
        let shown = args(&[]).show(LINE, Output::Table).unwrap();
        let expected = "2026-11-29T09:00:00Z  INFO laneway::task done error=\"two words\" kind=resize lane=low task=42 worker=w@host/7";
        assert_eq!(shown, expected);
        assert_eq!(args(&[]).show("plain", Output::Table).as_deref(), Some("plain"));
        assert_eq!(args(&["--task", "1"]).show("plain", Output::Table), None, "nobody knows what it is about");
    }

    #[test]
    fn a_log_is_read_on_across_a_move_and_a_cut() {
        // Lines that are half written come whole, and the last of a moved file before the first of the next.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l.log");
        let append = |text: &str| {
            let mut file = File::options().append(true).create(true).open(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        append("one\ntw");
        let mut log = Log::open(&path, &path).unwrap();
        assert_eq!(log.next().unwrap().as_deref(), Some("one"));
        assert_eq!(log.next().unwrap(), None);
        append("o\nthree\n");
        assert_eq!(log.next().unwrap().as_deref(), Some("two"));
        std::fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        append("four\n");
        let mut rest = || std::iter::from_fn(|| log.next_of_all().unwrap()).collect::<Vec<_>>();
        assert_eq!(rest(), ["three", "four"]);
        std::fs::write(&path, "5\n").unwrap();
        assert_eq!(rest(), ["5"]);
    }

    #[test]
    fn files_that_were_rotated_several_times_are_read_one_after_the_other() {
        // Proves that a reader which is behind misses none of the files between, that it may begin with the oldest, and that a file
        // which is no more is passed over.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l.log");
        let rotate = |text: &str| {
            for n in (1..5).rev().filter(|n| numbered(&path, *n).exists()) {
                std::fs::rename(numbered(&path, n), numbered(&path, n + 1)).unwrap();
            }
            if path.exists() {
                std::fs::rename(&path, numbered(&path, 1)).unwrap();
            }
            std::fs::write(&path, text).unwrap();
        };
        let all = |log: &mut Log| std::iter::from_fn(|| log.next_of_all().unwrap()).collect::<Vec<_>>();
        rotate("0\n");
        let mut log = Log::open(&path, &path).unwrap();
        assert_eq!(all(&mut log), ["0"]);
        for text in ["1\n", "2\n", "3\n"] {
            rotate(text);
        }
        assert_eq!(all(&mut log), ["1", "2", "3"]);
        assert_eq!(all(&mut Log::open_oldest(&path).unwrap()), ["0", "1", "2", "3"]);
        assert_eq!(all(&mut Log::open(&path, &path).unwrap()), ["3"]);
        for text in ["4\n", "5\n", "6\n"] {
            rotate(text);
        }
        std::fs::remove_file(numbered(&path, 3)).unwrap();
        std::fs::remove_file(numbered(&path, 2)).unwrap();
        assert_eq!(all(&mut log), ["6"], "its own file is gone, and what followed it");
    }
}
