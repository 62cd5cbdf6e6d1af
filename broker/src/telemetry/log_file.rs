//! The log file, on the thread that writes it: appended to by whole lines, opened anew when told so, and rotated when it is full or old:
//! NAME becomes NAME.1, that becomes NAME.2, and so on. Nothing that goes wrong with a name costs a line: the open file goes on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::config::{Config, LOG_FILES_MAX};

/// Between two tries to rotate a file that cannot be rotated.
const TRY_AGAIN: Duration = Duration::from_mins(1);
/// Of a file's first line, as much as its time takes.
const FIRST_BYTES: u64 = 64;

/// When the file is rotated, and how many are kept beside it. Settings of the same names; 0 is never.
#[derive(Debug, Default)]
pub(super) struct Rotation {
    bytes_max: AtomicU64,
    age_ms: AtomicU64,
    files_max: AtomicU64,
}

/// Who rotates the file that several processes append to: a supervisor follows its broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rotator {
    This,
    Another,
}

pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    reopen: Arc<AtomicBool>,
    /// Lines that the disk has refused, and times that the file could not be opened anew.
    failed: Arc<AtomicU64>,
    rotation: Arc<Rotation>,
    rotator: Rotator,
    bytes: u64,
    /// Unix milliseconds of its first line.
    begun: i64,
    /// It could not be rotated: not before then is it tried again. And how often so far.
    rests_until: Option<Instant>,
    n_failed: u64,
}

impl Rotation {
    pub(super) fn set(&self, config: &Config) {
        self.bytes_max.store(config.log_file_bytes_max, Ordering::Relaxed);
        self.age_ms.store(config.log_file_age_ms, Ordering::Relaxed);
        self.files_max.store(config.log_files_max, Ordering::Relaxed);
    }
}

impl LogFile {
    pub(super) fn open(
        path: &Path,
        rotator: Rotator,
        rotation: Arc<Rotation>,
        reopen: Arc<AtomicBool>,
        failed: Arc<AtomicU64>,
    ) -> io::Result<Self> {
        let mut log = Self {
            file: append(path)?,
            path: path.into(),
            reopen,
            failed,
            rotation,
            rotator,
            bytes: 0,
            begun: 0,
            rests_until: None,
            n_failed: 0,
        };
        log.look()?;
        Ok(log)
    }

    /// What the file holds already.
    fn look(&mut self) -> io::Result<()> {
        let meta = self.file.metadata()?;
        self.bytes = meta.len();
        // By its own first line, so that neither a restart nor a copy makes it younger; of another program's file by its last change.
        let changed = meta.modified().map_or(0, unix_ms);
        self.begun = first_time(&self.path).unwrap_or(changed);
        Ok(())
    }

    fn open_anew(&mut self) -> io::Result<()> {
        self.file = append(&self.path)?;
        self.look()
    }

    /// Whether the name leads to another file by now, or to none.
    fn is_moved(&self) -> bool {
        let (Ok(own), found) = (self.file.metadata(), fs::metadata(&self.path)) else { return false };
        found.map_or(true, |found| (found.dev(), found.ino()) != (own.dev(), own.ino()))
    }

    fn is_due(&self, more_bytes: u64) -> bool {
        if self.bytes == 0 || self.rests_until.is_some_and(|until| Instant::now() < until) {
            return false;
        }
        let Rotation { bytes_max, age_ms, .. } = &*self.rotation;
        let (bytes_max, age_ms) = (bytes_max.load(Ordering::Relaxed), age_ms.load(Ordering::Relaxed));
        let is_full = bytes_max > 0 && self.bytes + more_bytes > bytes_max;
        is_full || (age_ms > 0 && unix_ms(SystemTime::now()).saturating_sub_unsigned(age_ms) >= self.begun)
    }

    fn rotate(&mut self) -> io::Result<()> {
        // Another hand may have moved it already: what has the name now is not ours.
        if !self.is_moved() {
            shift(&self.path, self.rotation.files_max.load(Ordering::Relaxed).max(1))?;
        }
        self.open_anew()
    }

    fn rest(&mut self, error: &io::Error) {
        self.rests_until = Some(Instant::now() + TRY_AGAIN);
        self.n_failed += 1;
        tracing::warn!(
            target: "laneway::log",
            path = %self.path.display(),
            %error,
            times = self.n_failed,
            "the log file cannot be rotated and grows; it is tried again in a minute"
        );
    }
}

impl Write for LogFile {
    /// Takes whole lines, and never fails: an error would end the thread that writes.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let follows = self.rotator == Rotator::Another && self.is_moved();
        if self.reopen.swap(false, Ordering::Relaxed) || follows {
            // Failing that, the old file goes on: its lines can still be found.
            match self.open_anew() {
                Ok(()) => self.rests_until = None,
                Err(_) => _ = self.failed.fetch_add(1, Ordering::Relaxed),
            }
        }
        if self.rotator == Rotator::This && self.is_due(lines.len() as u64) {
            match self.rotate() {
                Ok(()) => self.rests_until = None,
                Err(error) => self.rest(&error),
            }
        }
        if self.bytes == 0 {
            self.begun = unix_ms(SystemTime::now());
        }
        // A full disk must not end the writing thread, so that lines come again when there is room.
        match self.file.write_all(lines) {
            Ok(()) => self.bytes += lines.len() as u64,
            Err(_) => _ = self.failed.fetch_add(n_lines(lines), Ordering::Relaxed),
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn n_lines(lines: &[u8]) -> u64 {
    lines.split(|byte| *byte == b'\n').count() as u64 - 1
}

fn append(path: &Path) -> Result<File, io::Error> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// NAME becomes NAME.1 and each kept one the next, up to the first gap or to the last that may be kept, which goes.
fn shift(path: &Path, files_max: u64) -> io::Result<()> {
    // Fewer may be kept than before. What cannot be deleted now is the next time.
    for n in files_max + 1..=LOG_FILES_MAX {
        if fs::remove_file(numbered(path, n)).is_err() {
            break;
        }
    }
    let is_there = |n: &u64| numbered(path, *n).symlink_metadata().is_ok();
    let free = (1..files_max).find(|n| !is_there(n)).unwrap_or(files_max);
    for n in (1..free).rev() {
        fs::rename(numbered(path, n), numbered(path, n + 1))?;
    }
    fs::rename(path, numbered(path, 1))
}

/// NAME.n
pub(crate) fn numbered(path: &Path, n: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

fn unix_ms(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// When the first line was written, by its own word: all of ours begin with a time, in JSON and for people.
fn first_time(path: &Path) -> Option<i64> {
    let mut first = Vec::new();
    File::open(path).ok()?.take(FIRST_BYTES).read_to_end(&mut first).ok()?;
    let text = String::from_utf8_lossy(&first);
    let text = text.strip_prefix("{\"timestamp\":\"").unwrap_or(&text);
    let word = text.split(['"', ' ', '\n']).next()?;
    word.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = b"0123456789\n";

    /// A log in a folder of its own.
    struct Place {
        folder: tempfile::TempDir,
        rotation: Arc<Rotation>,
    }

    impl Place {
        fn new(bytes_max: u64, age_ms: u64, files_max: u64) -> Self {
            let rotation = Rotation { bytes_max: bytes_max.into(), age_ms: age_ms.into(), files_max: files_max.into() };
            Self { folder: tempfile::tempdir().unwrap(), rotation: Arc::new(rotation) }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn open(&self, rotator: Rotator) -> LogFile {
            let rotation = Arc::clone(&self.rotation);
            LogFile::open(&self.path("l"), rotator, rotation, Arc::default(), Arc::default()).unwrap()
        }

        /// What a file holds; `None` when it is not there.
        fn read(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.path(name)).ok()
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.folder.path()).unwrap();
            let mut names: Vec<String> =
                entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        }
    }

    fn lines(log: &mut LogFile, numbers: std::ops::Range<u32>) {
        numbers.for_each(|n| log.write_all(format!("line {n}\n").as_bytes()).unwrap());
    }

    #[test]
    fn a_full_file_is_rotated_and_no_line_is_lost() {
        // Proves that each line is in one file, in order and whole, that no file is over the bound, and that the oldest go.
        let place = Place::new(21, 0, 2);
        let mut log = place.open(Rotator::This);
        lines(&mut log, 0..9);
        let read = |name| place.read(name).unwrap();
        assert_eq!((read("l.2"), read("l.1")), ("line 0\nline 1\nline 2\n".into(), "line 3\nline 4\nline 5\n".into()));
        lines(&mut log, 9..10);
        assert_eq!((read("l.1"), read("l")), ("line 6\nline 7\nline 8\n".into(), "line 9\n".into()));
        assert_eq!(place.names(), ["l", "l.1", "l.2"]);
        // A line that is longer than a file may be has one of its own.
        log.write_all(&[b'x'; 50]).unwrap();
        log.write_all(LINE).unwrap();
        assert_eq!((read("l.2"), read("l.1").len(), read("l").len()), ("line 9\n".into(), 50, LINE.len()));
    }

    #[test]
    fn what_was_in_the_file_before_counts() {
        // Proves that a broker that is started often does not let its file grow, and that 0 is no bound.
        let place = Place::new(20, 0, 3);
        place.open(Rotator::This).write_all(LINE).unwrap();
        place.open(Rotator::This).write_all(LINE).unwrap();
        assert_eq!(place.names(), ["l", "l.1"]);
        place.rotation.bytes_max.store(0, Ordering::Relaxed);
        let mut log = place.open(Rotator::This);
        lines(&mut log, 0..1_000);
        assert_eq!(place.names(), ["l", "l.1"]);
    }

    #[test]
    fn the_age_of_a_file_is_that_of_its_first_line() {
        // Proves that an old file is rotated by the first line of the next start, whatever it was written last, in both formats, and
        // that a young one is not; a file of another program is as old as its last change.
        for (first, moves) in [
            ("{\"timestamp\":\"2026-01-01T00:00:00.000001Z\",\"level\":\"INFO\"}\n", true),
            ("2026-01-01T00:00:00.000001Z  INFO laneway: ready\n", true),
            ("2226-01-01T00:00:00.000001Z  INFO a clock that was wrong\n", false),
            ("something else\n", false),
        ] {
            let place = Place::new(0, 3_600_000, 3);
            fs::write(place.path("l"), first).unwrap();
            let mut log = place.open(Rotator::This);
            log.write_all(LINE).unwrap();
            log.write_all(LINE).unwrap();
            assert_eq!(place.names().len(), if moves { 2 } else { 1 }, "{first}");
            assert_eq!(place.read("l.1").as_deref(), moves.then_some(first));
        }
    }

    #[test]
    fn a_name_that_is_taken_costs_no_line() {
        // Proves that where a file cannot be rotated it grows, that this is not tried at each line, and that it goes well later.
        let place = Place::new(20, 0, 1);
        fs::create_dir_all(place.path("l.1/in-the-way")).unwrap();
        let mut log = place.open(Rotator::This);
        lines(&mut log, 0..10);
        assert_eq!(place.read("l").unwrap().lines().count(), 10);
        assert_eq!((log.n_failed, log.failed.load(Ordering::Relaxed)), (1, 0));
        fs::remove_dir_all(place.path("l.1")).unwrap();
        log.rests_until = None;
        lines(&mut log, 10..11);
        assert_eq!((place.read("l.1").unwrap().lines().count(), place.read("l").as_deref()), (10, Some("line 10\n")));
    }

    #[test]
    fn fewer_are_kept_when_fewer_may_be() {
        // Proves that the bound on the number holds also for what an earlier one has left, and that a gap is filled first.
        let place = Place::new(5, 0, 5);
        let mut log = place.open(Rotator::This);
        lines(&mut log, 0..6);
        assert_eq!(place.names(), ["l", "l.1", "l.2", "l.3", "l.4", "l.5"]);
        place.rotation.files_max.store(3, Ordering::Relaxed);
        fs::remove_file(place.path("l.2")).unwrap();
        lines(&mut log, 6..7);
        assert_eq!(place.names(), ["l", "l.1", "l.2", "l.3"]);
        assert_eq!((place.read("l.3").as_deref(), place.read("l.2").as_deref()), (Some("line 2\n"), Some("line 4\n")));
    }

    #[test]
    fn a_moved_log_file_is_opened_anew() {
        // Proves that after a rotation by another hand lines go to a new file under the old name, and none is lost; and that a file
        // which has been moved already is not moved again.
        let place = Place::new(0, 0, 3);
        let mut log = place.open(Rotator::This);
        log.write_all(b"one\n").unwrap();
        fs::rename(place.path("l"), place.path("moved")).unwrap();
        log.write_all(b"two\n").unwrap();
        log.reopen.store(true, Ordering::Relaxed);
        log.write_all(b"three\n").unwrap();
        assert_eq!((place.read("moved").as_deref(), place.read("l").as_deref()), (Some("one\ntwo\n"), Some("three\n")));
        assert_eq!(log.failed.load(Ordering::Relaxed), 0);
        place.rotation.bytes_max.store(8, Ordering::Relaxed);
        fs::rename(place.path("l"), place.path("moved")).unwrap();
        fs::write(place.path("l"), "of another\n").unwrap();
        log.write_all(b"four\n").unwrap();
        assert_eq!(
            (place.names(), place.read("l").unwrap()),
            (vec!["l".into(), "moved".into()], "of another\nfour\n".into())
        );
    }

    #[test]
    fn a_second_process_follows_the_one_that_rotates_the_file() {
        // Proves that a supervisor writes behind its broker's lines and rotates nothing itself.
        let place = Place::new(15, 0, 3);
        let (mut broker, mut supervisor) = (place.open(Rotator::This), place.open(Rotator::Another));
        lines(&mut supervisor, 0..5);
        assert_eq!(place.names(), ["l"]);
        lines(&mut broker, 5..8);
        lines(&mut supervisor, 8..9);
        assert!(place.read("l").unwrap().ends_with("line 8\n"), "{:?}", place.names());
    }

    #[test]
    fn a_full_disk_is_counted_and_not_an_end() {
        // Proves that lines which the disk refuses are counted while the writer lives on.
        let path = PathBuf::from("/dev/full");
        let mut log = LogFile::open(&path, Rotator::This, Arc::default(), Arc::default(), Arc::default()).unwrap();
        log.write_all(b"one\n").unwrap();
        log.write_all(b"two\nthree\n").unwrap();
        assert_eq!(log.failed.load(Ordering::Relaxed), 3);
    }
}
