//! Real worker processes on the SDK, and the journal of what they ran.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use laneway::{Context, Curve, Failure, Worker};

use super::{Place, signal, wait_for};

const ENDPOINT: &str = "LANEWAY_TEST_ENDPOINT";
const JOURNAL: &str = "LANEWAY_TEST_JOURNAL";
const OPTIONS: &str = "LANEWAY_TEST_WORKER";

/// A worker process; killed when dropped.
pub(crate) struct WorkerProcess {
    child: Child,
}

impl WorkerProcess {
    /// Starts a worker. `options` are words of `name=value`: `slots`, `batch`, `lanes` (with commas), `reserve` (lane:n),
    /// `kinds` (with commas; default all of [`worker_main`]), `name`, `stop_ms`. Does not wait until it is connected.
    pub(crate) fn start(place: &Place, options: &str) -> Self {
        Self::start_at(place, &place.endpoint(), options)
    }

    /// The same at another endpoint. For a CURVE one `secret` and `broker` are its files of keys.
    pub(crate) fn start_at(place: &Place, endpoint: &str, options: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["worker_process", "--exact", "--nocapture", "--test-threads=1"]);
        command.env(ENDPOINT, endpoint).env(JOURNAL, place.path("journal")).env(OPTIONS, format!("on=1 {options}"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
        Self { child }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and waits for the end. Gives the exit code.
    pub(crate) fn stop(mut self) -> i32 {
        self.signal("TERM");
        self.wait()
    }

    pub(crate) fn wait(&mut self) -> i32 {
        wait_for("the worker to end", || self.child.try_wait().unwrap()).code().expect("the worker was not killed")
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        // It may be stopped, or have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The lines that handlers leave.
#[derive(Clone)]
pub(crate) struct Journal {
    path: PathBuf,
}

/// One line of the journal: a handler began or ended a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Run {
    /// `begin` or `end`.
    pub(crate) what: String,
    pub(crate) task: i64,
    pub(crate) number: u32,
    pub(crate) attempt: u32,
    pub(crate) pid: u32,
    /// Unix microseconds.
    pub(crate) at_us: u64,
}

impl Journal {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn lines(&self) -> Vec<Run> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        // The last line may be half written.
        text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(parse).collect()
    }

    pub(crate) fn begun(&self, task: i64) -> Vec<Run> {
        self.lines().into_iter().filter(|line| line.task == task && line.what == "begin").collect()
    }

    pub(crate) fn ended(&self, task: i64) -> Vec<Run> {
        self.lines().into_iter().filter(|line| line.task == task && line.what == "end").collect()
    }

    /// Waits until a task has begun so many times.
    #[track_caller]
    pub(crate) fn wait_for_begin(&self, task: i64, times: usize) -> Run {
        wait_for(&format!("task {task} to begin {times} times"), || self.begun(task).get(times - 1).cloned())
    }

    fn write(&self, what: &str, ctx: &Context) {
        let at_us = now_us();
        let line = format!("{what} {} {} {} {} {at_us}\n", ctx.id(), ctx.run(), ctx.attempt(), std::process::id());
        // One short write to a file opened for appending is not interleaved with another process's.
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&self.path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

fn parse(line: &str) -> Run {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |i: usize| words[i].parse::<u64>().unwrap();
    Run {
        what: words[0].into(),
        task: i64::try_from(number(1)).unwrap(),
        number: u32::try_from(number(2)).unwrap(),
        attempt: u32::try_from(number(3)).unwrap(),
        pid: u32::try_from(number(4)).unwrap(),
        at_us: number(5),
    }
}

/// Microseconds that can be compared between processes.
pub(crate) fn now_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_micros()).unwrap()
}

/// The body of the test `worker_process` of every test binary: nothing, unless [`WorkerProcess`] has started it.
///
/// Kinds: `echo` gives its payload back; `sleep` {"ms": n} sleeps and gives how long, ending early as cancelled; `stuck`
/// {"ms": n} sleeps and does not listen; `fail`, `panic` and `die` do so always; `fail_once` fails in its first attempt;
/// `progress` {"steps": n} reports each step with a piece of data; `log` {"lines": n, "path": p} tells
/// each line and then its number as data, and waits until the file exists, if one is named; `gate` {"path": p} waits until the file exists; `who`
/// {"path": p} waits for the file p.RUN, does not listen, and gives its process id.
pub(crate) fn worker_main() {
    let Ok(options) = std::env::var(OPTIONS) else { return };
    let options: HashMap<&str, &str> = options.split_whitespace().filter_map(|word| word.split_once('=')).collect();
    let endpoint = std::env::var(ENDPOINT).unwrap();
    let journal = Journal::new(std::env::var_os(JOURNAL).unwrap().into());
    let number = |name: &str, default: u32| options.get(name).map_or(default, |value| value.parse().unwrap());

    let mut builder = Worker::builder(endpoint)
        .name(options.get("name").copied().unwrap_or("test"))
        .slots(number("slots", 1))
        .batch(number("batch", 1))
        .stop_timeout(Duration::from_millis(number("stop_ms", 30_000).into()));
    if let Some(lanes) = options.get("lanes") {
        builder = builder.lanes(lanes.split(','));
    }
    if let Some((lane, n)) = options.get("reserve").and_then(|word| word.split_once(':')) {
        builder = builder.reserve(lane, n.parse().unwrap());
    }
    if let (Some(secret), Some(broker)) = (options.get("secret"), options.get("broker")) {
        builder = builder.curve(Curve::from_files(secret, broker).unwrap());
    }
    let kinds = ["echo", "sleep", "stuck", "fail", "fail_once", "panic", "die", "progress", "log", "gate", "who"];
    let wanted: Vec<&str> = options.get("kinds").map_or(kinds.to_vec(), |names| names.split(',').collect());
    for kind in wanted {
        let journal = journal.clone();
        builder = builder.handle(kind, move |payload: serde_json::Value, ctx: &Context| {
            journal.write("begin", ctx);
            let result = work(ctx.kind().as_str(), &payload, ctx);
            journal.write("end", ctx);
            result
        });
    }
    builder.build().unwrap().run().unwrap();
}

fn work(kind: &str, payload: &serde_json::Value, ctx: &Context) -> Result<serde_json::Value, Failure> {
    let ms = Duration::from_millis(payload["ms"].as_u64().unwrap_or(0));
    let begun = Instant::now();
    match kind {
        "sleep" => {
            while begun.elapsed() < ms {
                if ctx.cancelled() {
                    return Err(Failure::cancelled());
                }
                std::thread::sleep(ms.saturating_sub(begun.elapsed()).min(Duration::from_millis(5)));
            }
            Ok(payload["ms"].clone())
        }
        "stuck" => {
            std::thread::sleep(ms);
            Ok(payload["ms"].clone())
        }
        "fail" => Err(Failure::new("it always fails")),
        "fail_once" if ctx.attempt() == 1 => {
            Err(Failure::retry_after(Duration::from_millis(1), "the first attempt fails"))
        }
        "panic" => panic!("it always panics"),
        "die" => std::process::abort(),
        "progress" => {
            let steps = payload["steps"].as_u64().unwrap();
            for step in 1..=steps {
                ctx.send_data(&step).map_err(Failure::new)?;
                ctx.progress(step, steps, &format!("step {step}"));
                std::thread::sleep(ms);
            }
            Ok(serde_json::json!({ "steps": steps }))
        }
        "log" => {
            for line in 1..=payload["lines"].as_u64().unwrap() {
                ctx.log(format!("line {line}")).map_err(Failure::new)?;
                ctx.send_data(&line).map_err(Failure::new)?;
            }
            payload["path"].as_str().map_or(Ok(()), |path| wait_at(path, ctx))?;
            Ok(payload["lines"].clone())
        }
        "gate" => {
            wait_at(payload["path"].as_str().unwrap(), ctx)?;
            Ok(payload["path"].clone())
        }
        "who" => {
            let path = PathBuf::from(payload["path"].as_str().unwrap()).with_extension(ctx.run().to_string());
            while !path.exists() {
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(std::process::id().into())
        }
        _ => Ok(payload.clone()),
    }
}

/// Until the file exists.
fn wait_at(path: &str, ctx: &Context) -> Result<(), Failure> {
    while !Path::new(path).exists() {
        if ctx.cancelled() {
            return Err(Failure::cancelled());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
