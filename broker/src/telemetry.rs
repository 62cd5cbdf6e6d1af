//! Logs: where lines go, how they look, and the lines about single tasks.
//!
//! No thread of the broker ever waits for a log. Lines go through a bounded writer that drops and counts when it is full;
//! events of tasks go as small structs in batches to a thread of their own, which formats them and keeps to
//! `log_tasks_per_second_max`. `run` starts it first and ends it last. It takes no settings but [`Config`]'s.

use std::io::{self, BufWriter, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

use crate::config::{Config, LogFormat};

mod log_file;
mod seldom;
mod task_log;
mod worker_log;

use log_file::{LogFile, Rotation};

pub(crate) use log_file::{Rotator, numbered};
pub(crate) use seldom::Seldom;
pub(crate) use task_log::{TaskEvent, TaskLog};
pub(crate) use worker_log::{tell_abandoned, tell_worker};

/// Lines that wait for a slow disk or terminal; beyond this they are dropped.
const LINES_WAITING_MAX: usize = 16_384;
/// Lines that are waiting go to the disk or terminal in blocks of so many bytes, a system call each. As many as the smallest file may
/// have: it is rotated between two blocks.
const BLOCK_BYTES: usize = 4 * 1024;
/// Batches of task events that wait for the formatting thread.
const BATCHES_WAITING_MAX: usize = 64;
/// How long the end of the process may wait for the formatting thread.
const STOP_MS_MAX: u64 = 500;

/// The running log. Dropped at the very end of the process: it writes out what waits, for about a second at most.
pub(crate) struct Telemetry {
    dropped: Dropped,
    reopen: Arc<AtomicBool>,
    rotation: Arc<Rotation>,
    levels: reload::Handle<Targets, Registry>,
    tasks: TaskLog,
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
    // After the thread above, whose last lines it writes.
    _writer: WorkerGuard,
}

/// Counts log lines that were not written, for any reason.
#[derive(Debug, Clone)]
pub(crate) struct Dropped {
    /// Events of tasks over the bound, or without room in the channel.
    tasks: Arc<AtomicU64>,
    /// Refused by the disk.
    failed: Arc<AtomicU64>,
    /// Without room in the writer.
    waiting: ErrorCounter,
}

/// A log of tasks that nobody reads, for the simulation.
#[cfg(feature = "internals")]
pub(crate) fn no_task_log() -> TaskLog {
    static SINK: std::sync::OnceLock<(TaskLog, WorkerGuard)> = std::sync::OnceLock::new();
    let (log, _) = SINK.get_or_init(|| {
        let (writer, guard) = NonBlockingBuilder::default().finish(io::sink());
        let none = || Arc::new(AtomicU64::new(0));
        let dropped = Dropped { tasks: none(), failed: none(), waiting: writer.error_counter() };
        let (batches, inbox) = bounded(1);
        (task_log::new(batches, inbox, crossbeam_channel::never(), dropped, 0, false).0, guard)
    });
    log.clone()
}

impl Telemetry {
    /// Opens the log file, if any, and becomes the log of this process. A log that was set up earlier in this process
    /// stays (tests start several brokers in one).
    pub(crate) fn start(config: &Config, rotator: Rotator) -> Result<Self, io::Error> {
        let (reopen, failed, rotation) = (Arc::default(), Arc::default(), Arc::new(Rotation::default()));
        rotation.set(config);
        let file = config.log_file.as_deref();
        let file = file
            .map(|path| LogFile::open(path, rotator, Arc::clone(&rotation), Arc::clone(&reopen), Arc::clone(&failed)));
        let (writer, guard, terminal) = writer(file.transpose()?);
        let dropped = Dropped { tasks: Arc::default(), failed, waiting: writer.error_counter() };

        // A wrong filter was refused with the settings.
        let levels = levels(&config.log).unwrap_or_default();
        let wanted = levels.would_enable(task_log::TARGET, &tracing::Level::INFO);
        let levels = install(writer, levels, config.log_format, terminal);

        let (batches, inbox) = bounded(BATCHES_WAITING_MAX);
        let (stop, stopped) = bounded(1);
        let (tasks, formatter) =
            task_log::new(batches, inbox, stopped, dropped.clone(), config.log_tasks_per_second_max, wanted);
        let thread = std::thread::Builder::new().name("task-log".into()).spawn(move || formatter.run())?;
        Ok(Self { dropped, reopen, rotation, levels, tasks, stop, thread: Some(thread), _writer: guard })
    }

    /// Takes events of tasks; cheap to clone, one for each thread that has some.
    pub(crate) fn task_log(&self) -> TaskLog {
        self.tasks.clone()
    }

    pub(crate) fn dropped(&self) -> Dropped {
        self.dropped.clone()
    }

    /// Takes over what a running log can: which lines, how many of tasks, and when the file is rotated.
    pub(crate) fn reload(&self, config: &Config) {
        let levels = levels(&config.log).unwrap_or_default();
        let wanted = levels.would_enable(task_log::TARGET, &tracing::Level::INFO);
        // An error only says that this process has another log.
        self.levels.reload(levels).ok();
        self.rotation.set(config);
        self.tasks.set(config.log_tasks_per_second_max, wanted);
    }

    /// Opens the log file anew at the next line, because it was moved away. Nothing happens when the log is stderr.
    pub(crate) fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        // A full channel means that a stop is on its way already.
        self.stop.try_send(()).ok();
        let Some(thread) = self.thread.take() else { return };
        let deadline = std::time::Instant::now() + Duration::from_millis(STOP_MS_MAX);
        while !thread.is_finished() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Dropped {
    pub(crate) fn lines(&self) -> u64 {
        let waiting = u64::try_from(self.waiting.dropped_lines()).unwrap_or(u64::MAX);
        self.tasks.load(Ordering::Relaxed) + self.failed.load(Ordering::Relaxed) + waiting
    }
}

/// Reads levels as they stand in `log`: a level for Laneway's own lines, and levels by target, with commas between. Without
/// the first it is info. Libraries speak from warn on unless they are named. The error follows the value in a message.
pub(crate) fn levels(text: &str) -> Result<Targets, String> {
    let (mut own, mut named) = (LevelFilter::INFO, Vec::new());
    for part in text.split(',').map(str::trim) {
        match part.split_once('=') {
            Some((target, word)) if !target.is_empty() => named.push((target, level(word)?)),
            Some(_) => return Err(format!("'{part}' has no target before the =")),
            // A bare word that is no level would silence everything but a target of that name: it is a slip.
            None => own = level(part)?,
        }
    }
    // Somebody has sent a signal to see these.
    let dump = if own == LevelFilter::OFF { own } else { own.max(LevelFilter::INFO) };
    // A target stands for all that begin with it: this is the program, the SDK and the tasks' lines.
    let targets = Targets::new().with_default(own.min(LevelFilter::WARN)).with_target("laneway", own);
    Ok(targets.with_target(crate::dump::TARGET, dump).with_targets(named))
}

fn level(word: &str) -> Result<LevelFilter, String> {
    match word.to_ascii_lowercase().as_str() {
        "off" => Ok(LevelFilter::OFF),
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(format!("'{word}' is not a level: must be error, warn, info, debug, trace or off")),
    }
}

/// Standard error where there is no file. Tells also whether somebody looks at it on a terminal.
fn writer(file: Option<LogFile>) -> (NonBlocking, WorkerGuard, bool) {
    let builder =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_WAITING_MAX).thread_name("log-writer");
    let is_terminal = file.is_none() && io::stderr().is_terminal();
    // Flushed whenever no line waits, so that none stays here.
    let (writer, guard) = match file {
        Some(file) => builder.finish(BufWriter::with_capacity(BLOCK_BYTES, file)),
        None => builder.finish(BufWriter::with_capacity(BLOCK_BYTES, io::stderr())),
    };
    (writer, guard, is_terminal)
}

/// Gives what changes the levels later.
fn install(
    writer: NonBlocking,
    levels: Targets,
    format: LogFormat,
    terminal: bool,
) -> reload::Handle<Targets, Registry> {
    let (levels, handle) = reload::Layer::new(levels);
    let json = match format {
        LogFormat::Auto => !terminal,
        LogFormat::Human => false,
        LogFormat::Json => true,
    };
    // An error only says that this process has a log already.
    drop(if json {
        let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(false);
        let layer = layer.with_span_list(false).with_writer(writer);
        tracing_subscriber::registry().with(levels).with(layer).try_init()
    } else {
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let layer = tracing_subscriber::fmt::layer().with_ansi(colour).with_writer(writer);
        tracing_subscriber::registry().with(levels).with(layer).try_init()
    });
    handle
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_and_slips_refused() {
        // Proves that a filter says what it means, and that a misspelt level is not taken for a target.
        let filter = levels("warn,laneway::task=off, laneway_broker::router=DEBUG").unwrap();
        assert!(!filter.would_enable("laneway::task", &tracing::Level::ERROR));
        assert!(filter.would_enable("laneway_broker::router", &tracing::Level::DEBUG));
        assert!(!filter.would_enable("laneway_broker::scheduler", &tracing::Level::INFO));
        let filter = levels("laneway::task=off,refinery_core=info").unwrap();
        for (target, level, is_on) in [
            ("laneway", tracing::Level::INFO, true),
            ("laneway_broker::run", tracing::Level::INFO, true),
            ("laneway::task", tracing::Level::INFO, false),
            ("refinery_core::traits", tracing::Level::INFO, true),
            ("zmq", tracing::Level::INFO, false),
            ("zmq", tracing::Level::WARN, true),
            ("laneway::dump", tracing::Level::INFO, true),
        ] {
            assert_eq!(filter.would_enable(target, &level), is_on, "{target} {level}");
        }
        assert!(levels("error").unwrap().would_enable("laneway::dump", &tracing::Level::INFO));
        for off in ["off", "info,laneway::dump=off"] {
            assert!(!levels(off).unwrap().would_enable("laneway::dump", &tracing::Level::ERROR));
        }
        assert!(!levels("off").unwrap().would_enable("zmq", &tracing::Level::ERROR));
        for bad in ["", "deubg", "laneway=loud", "=info", "info,"] {
            assert!(levels(bad).is_err(), "'{bad}' was taken");
        }
    }
}
