//! One log line for each event in a task's life, formatted on a thread of its own.
//!
//! Router and scheduler push small structs and never wait. At most `log_tasks_per_second_max` lines a second are written;
//! failures, losses and dead letters have that bound once more for themselves, so that a storm of routine lines does not
//! hide them. What is over it is dropped before it is formatted, counted, and told in one line a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use laneway_protocol::{Kind, LaneName, SessionName, TaskId};

use super::Dropped;

/// The target to filter these lines by: `LANEWAY_LOG=info,laneway::task=off`.
pub(super) const TARGET: &str = "laneway::task";

const SECOND: Duration = Duration::from_secs(1);
/// Any length will do.
const IDLE: Duration = Duration::from_mins(1);

/// Something happened to a task; one log line.
#[derive(Debug, Clone)]
pub(crate) struct TaskEvent {
    /// `let_go`, `started`, `done`, `failed`, `lost`, `dead`, `released`, `cancelled` and the like.
    pub(crate) event: &'static str,
    pub(crate) task: TaskId,
    pub(crate) kind: Kind,
    pub(crate) lane: LaneName,
    /// The worker process as people know it, and its session, which is the row's `worker`.
    pub(crate) worker: Option<Arc<str>>,
    pub(crate) session: Option<SessionName>,
    pub(crate) run: u32,
    pub(crate) attempt: u32,
    /// From due to handed out.
    pub(crate) wait_ms: Option<u64>,
    /// From handed out to ended.
    pub(crate) run_ms: Option<u64>,
    pub(crate) error: Option<String>,
}

impl TaskEvent {
    /// Whether the line is one of many of its sort on a good day.
    fn is_routine(&self) -> bool {
        matches!(self.event, "started" | "done" | "let_go")
    }
}

/// Takes events from router and scheduler.
#[derive(Debug, Clone)]
pub(crate) struct TaskLog {
    batches: Sender<Vec<TaskEvent>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    wanted: AtomicBool,
    per_second_max: AtomicU64,
    /// No more routine lines in this second.
    saturated: AtomicBool,
    dropped: Dropped,
}

impl TaskLog {
    /// Whether routine lines are written at all right now. A caller may spare itself the building of `started` and `done`
    /// events when not; those are then missing from the count of dropped lines.
    pub(crate) fn is_wanted(&self) -> bool {
        self.shared.is_wanted() && !self.shared.saturated.load(Ordering::Relaxed)
    }

    /// From now on so many lines a second are written at most, or none at all.
    pub(super) fn set(&self, per_second_max: u64, wanted: bool) {
        self.shared.per_second_max.store(per_second_max, Ordering::Relaxed);
        self.shared.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Never waits. Events over the bound are dropped and counted.
    pub(crate) fn push(&self, mut events: Vec<TaskEvent>) {
        if !self.shared.is_wanted() {
            return;
        }
        if self.shared.saturated.load(Ordering::Relaxed) {
            let before = events.len();
            events.retain(|event| !event.is_routine());
            self.shared.drop_lines(before - events.len());
        }
        if events.is_empty() {
            return;
        }
        if let Err(error) = self.batches.try_send(events) {
            self.shared.drop_lines(error.into_inner().len());
        }
    }
}

impl Shared {
    fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    fn drop_lines(&self, n: usize) {
        self.dropped.tasks.fetch_add(n as u64, Ordering::Relaxed);
    }
}

/// The other end, to be run on its own thread.
pub(super) struct Formatter {
    inbox: Receiver<Vec<TaskEvent>>,
    stopped: Receiver<()>,
    shared: Arc<Shared>,
    /// The second that is being counted, and its lines so far: routine, others.
    since: Instant,
    routine: u64,
    others: u64,
    /// Dropped lines that were told of.
    told: u64,
}

pub(super) fn new(
    batches: Sender<Vec<TaskEvent>>,
    inbox: Receiver<Vec<TaskEvent>>,
    stopped: Receiver<()>,
    dropped: Dropped,
    per_second_max: u64,
    wanted: bool,
) -> (TaskLog, Formatter) {
    let (wanted, per_second_max) = (AtomicBool::new(wanted), AtomicU64::new(per_second_max));
    let shared = Arc::new(Shared { wanted, per_second_max, saturated: AtomicBool::new(false), dropped });
    let log = TaskLog { batches, shared: shared.clone() };
    let since = Instant::now();
    (log, Formatter { inbox, stopped, shared, since, routine: 0, others: 0, told: 0 })
}

impl Formatter {
    /// Until told to stop; then writes what waits, within the bound.
    pub(super) fn run(mut self) {
        loop {
            // While a bound is in force or drops are untold, the end of the second matters; otherwise nothing does.
            let wait = if self.is_counting() { SECOND.saturating_sub(self.since.elapsed()) } else { IDLE };
            crossbeam_channel::select! {
                recv(self.inbox) -> events => match events {
                    Ok(events) => self.write(events),
                    Err(_) => break,
                },
                recv(self.stopped) -> _ => break,
                default(wait) => {}
            }
            self.next_second();
        }
        while let Ok(events) = self.inbox.try_recv() {
            self.write(events);
        }
        self.tell();
    }

    fn is_counting(&self) -> bool {
        self.routine > 0 || self.others > 0 || self.shared.dropped.lines() != self.told
    }

    fn next_second(&mut self) {
        if self.since.elapsed() < SECOND {
            return;
        }
        self.tell();
        (self.since, self.routine, self.others) = (Instant::now(), 0, 0);
        self.shared.saturated.store(false, Ordering::Relaxed);
    }

    fn tell(&mut self) {
        let lines = self.shared.dropped.lines();
        if lines > self.told {
            tracing::warn!(lines = lines - self.told, total = lines, "log lines dropped");
            self.told = lines;
        }
    }

    fn write(&mut self, events: Vec<TaskEvent>) {
        let per_second_max = self.shared.per_second_max.load(Ordering::Relaxed);
        for event in events {
            let count = if event.is_routine() { &mut self.routine } else { &mut self.others };
            if *count >= per_second_max {
                self.shared.drop_lines(1);
                continue;
            }
            *count += 1;
            line(&event);
        }
        self.shared.saturated.store(self.routine >= per_second_max, Ordering::Relaxed);
    }
}

fn line(event: &TaskEvent) {
    tracing::info!(
        target: TARGET,
        event = event.event,
        task = event.task.value(),
        kind = event.kind.as_str(),
        lane = event.lane.as_str(),
        worker = event.worker.as_deref(),
        session = event.session.as_ref().map(SessionName::as_str),
        run = event.run,
        attempt = event.attempt,
        wait_ms = event.wait_ms,
        run_ms = event.run_ms,
        error = event.error.as_deref(),
    );
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Mutex;

    use super::*;

    /// Collects what a subscriber writes.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn event(event: &'static str, task: u64) -> TaskEvent {
        TaskEvent {
            event,
            task: TaskId::new(task).unwrap(),
            kind: Kind::new("resize").unwrap(),
            lane: LaneName::new("high").unwrap(),
            worker: Some("w1".into()),
            session: Some(SessionName::new("0a1b").unwrap()),
            run: 2,
            attempt: 1,
            wait_ms: Some(3),
            run_ms: None,
            error: (event == "failed").then(|| "no \u{1b}[31m such\nfile".into()),
        }
    }

    /// Pushes one batch through a log with this bound; the JSON lines and the number of dropped ones.
    fn log(events: Vec<TaskEvent>, per_second_max: u64, wanted: bool) -> (Vec<serde_json::Value>, u64) {
        let (writer, _guard) = tracing_appender::non_blocking(std::io::sink());
        let dropped = Dropped { tasks: Arc::default(), failed: Arc::default(), waiting: writer.error_counter() };
        let (batches, inbox) = crossbeam_channel::bounded(1);
        let (stop, stopped) = crossbeam_channel::bounded(1);
        let (tasks, formatter) = new(batches, inbox, stopped, dropped.clone(), per_second_max, wanted);
        tasks.push(events);
        stop.send(()).unwrap();
        let lines = Lines::default();
        let out = lines.clone();
        let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || out.clone()).finish();
        tracing::subscriber::with_default(subscriber, || formatter.run());
        let bytes = lines.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), dropped.lines())
    }

    #[test]
    fn an_event_is_one_flat_json_object() {
        // Proves that `jq .event` and the like work, that what is unknown is left out, and that a line stays one line.
        let (lines, dropped) = log(vec![event("failed", 7)], 10, true);
        assert_eq!((lines.len(), dropped), (1, 0));
        let line = lines[0].as_object().unwrap();
        for (key, value) in
            [("event", "failed"), ("kind", "resize"), ("lane", "high"), ("worker", "w1"), ("session", "0a1b")]
        {
            assert_eq!(line[key], value);
        }
        for (key, value) in [("task", 7), ("run", 2), ("attempt", 1), ("wait_ms", 3)] {
            assert_eq!(line[key], value);
        }
        assert_eq!(line["target"], TARGET);
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["error"], "no \u{1b}[31m such\nfile");
        assert!(!line.contains_key("run_ms"));
    }

    #[test]
    fn a_storm_of_routine_lines_is_cut_and_told_and_hides_no_failure() {
        // Proves the bound for each second, the count of what is dropped, and that failures have a bound of their own.
        let mut events: Vec<TaskEvent> = (1..=100).map(|task| event("done", task)).collect();
        events.extend((1..=5).map(|task| event("failed", task)));
        let (lines, dropped) = log(events, 10, true);
        let count = |word: &str| lines.iter().filter(|line| line["event"] == word).count();
        assert_eq!((count("done"), count("failed"), dropped), (10, 5, 90));
        let told: u64 = lines.iter().filter_map(|line| line["lines"].as_u64()).sum();
        assert_eq!(told, 90);
    }

    #[test]
    fn a_log_without_these_lines_takes_nothing() {
        // Proves that a filter which switches these lines off makes them free, and not dropped ones.
        assert_eq!(log(vec![event("done", 1)], 10, false), (vec![], 0));
    }
}
