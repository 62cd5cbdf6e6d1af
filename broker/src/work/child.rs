//! One process for one task: started with its pipes, listened to, and ended with everything that it started.
//!
//! Its group is its own, so that a Ctrl-C in a terminal ends the worker in order instead of its tasks, and so that one signal
//! reaches all of it.

use std::io::{BufRead as _, BufReader, PipeReader, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use command_fds::{CommandFdExt as _, FdMapping};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use laneway::{Context, Payload};
use laneway_protocol::TraceContext;
use laneway_protocol::limits::{PAYLOAD_BYTES_MAX, TEXT_BYTES_MAX};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::Program;
use super::ends::End;

const PROGRESS_FD: i32 = 3;
/// Of one line of progress; the rest of a longer one is left out.
const LINE_BYTES_MAX: u64 = 8 * 1_024;
/// Lines of progress that wait to be said. More hold the program up.
const LINES_WAITING_MAX: usize = 64;
/// After the end of all its group: how long what it wrote is waited for. A process that left the group may hold the pipes.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// When memory runs out, a task ends before its worker does.
const OOM_SCORE: &str = "500";

pub(super) struct Child {
    process: std::process::Child,
    group: Pid,
    heard: Receiver<Said>,
    out: Arc<Mutex<Out>>,
    err: Arc<Mutex<String>>,
    /// When it is killed.
    kill_at: Option<Instant>,
    /// It has ended; what it wrote is still on its way until then.
    ended_until: Option<Instant>,
}

pub(super) enum Heard {
    Progress(String),
    Ended(End),
}

/// What the threads at the pipes tell.
enum Said {
    Progress(String),
    /// The process has ended, and is not yet forgotten by the system.
    Exited,
    TooMuch,
}

#[derive(Debug, Default)]
struct Out {
    bytes: Vec<u8>,
    is_over: bool,
}

impl Child {
    pub(super) fn start(program: &Program, payload: Option<Payload>, ctx: &Context) -> io::Result<Self> {
        let (progress, progress_end) = io::pipe()?;
        let mut command = Command::new(&program.path);
        command.args(&program.args).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("LANEWAY_TASK", ctx.id().to_string());
        command.env("LANEWAY_KIND", ctx.kind().as_str()).env("LANEWAY_LANE", ctx.lane().as_str());
        command.env("LANEWAY_ATTEMPT", ctx.attempt().to_string());
        command.env("LANEWAY_MAX_ATTEMPTS", ctx.max_attempts().to_string());
        command.env("LANEWAY_PROGRESS_FD", PROGRESS_FD.to_string());
        set_trace(&mut command, ctx.trace());
        let mapping = FdMapping { parent_fd: progress_end.into(), child_fd: PROGRESS_FD };
        command.fd_mappings(vec![mapping]).map_err(io::Error::other)?;
        let mut process = command.spawn()?;
        // With it goes our copy of the end that the process writes to.
        drop(command);
        let pid = process.id();
        // Not allowed everywhere, and no task depends on it.
        fs::write(format!("/proc/{pid}/oom_score_adj"), OOM_SCORE).ok();
        let group = Pid::from_raw(i32::try_from(pid).expect("process ids are small"));

        let (say, heard) = bounded(LINES_WAITING_MAX);
        let (out, err) = (Arc::<Mutex<Out>>::default(), Arc::<Mutex<String>>::default());
        let (stdin, stdout, stderr) = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let (out_of, err_of) = (Arc::clone(&out), Arc::clone(&err));
        let (say_out, say_err, say_progress, say_end) = (say.clone(), say.clone(), say.clone(), say);
        let child = Self { process, group, heard, out, err, kill_at: None, ended_until: None };
        listen("work-in", move || give(stdin, payload))?;
        listen("work-out", move || take_result(stdout, &out_of, &say_out))?;
        listen("work-err", move || {
            pass_on(stderr, &err_of);
            // The channel is closed when every pipe is at its end.
            drop(say_err);
        })?;
        listen("work-progress", move || take_progress(progress, &say_progress))?;
        listen("work-end", move || wait(group, &say_end))?;
        Ok(child)
    }

    /// Tells it to end, once; it is killed when it has not within the grace.
    pub(super) fn ask_to_end(&mut self, grace: Duration) {
        if self.kill_at.is_none() {
            self.kill_at = Some(Instant::now() + grace);
            self.signal(Signal::SIGTERM);
        }
    }

    /// What it says next, within this time.
    pub(super) fn hear(&mut self, timeout: Duration) -> Option<Heard> {
        if self.kill_at.is_some_and(|at| at <= Instant::now()) {
            self.signal(Signal::SIGKILL);
        }
        match self.heard.recv_timeout(timeout) {
            Ok(Said::Progress(line)) => return Some(Heard::Progress(line)),
            Ok(Said::TooMuch) => self.signal(Signal::SIGKILL),
            Ok(Said::Exited) => {
                // What it started and left behind ends with it. It was not waited for yet, so the group is still its own.
                self.signal(Signal::SIGKILL);
                self.ended_until = Some(Instant::now() + LAST_WORDS);
            }
            Err(RecvTimeoutError::Timeout) if self.ended_until.is_none_or(|until| Instant::now() < until) => {}
            // Every pipe is at its end, or held by a process that left the group.
            Err(_) => return Some(Heard::Ended(self.end())),
        }
        None
    }

    fn end(&mut self) -> End {
        let status = self.process.wait().unwrap_or_default();
        let out = std::mem::take(&mut *lock(&self.out));
        End { status, out: out.bytes, is_over: out.is_over, err: std::mem::take(&mut *lock(&self.err)) }
    }

    fn signal(&self, signal: Signal) {
        // Fails when nobody is left in the group.
        killpg(self.group, signal).ok();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Only where a thread could not be started: else it has ended and was waited for.
        if self.process.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal(Signal::SIGKILL);
            self.process.wait().ok();
        }
    }
}

/// The column as it is, and what it says of a trace under the names that libraries look for. What the worker itself was started
/// with is no task's.
fn set_trace(command: &mut Command, column: Option<&str>) {
    for name in ["LANEWAY_TRACE", "TRACEPARENT", "TRACESTATE"] {
        command.env_remove(name);
    }
    // No variable can have a zero byte in it, and with one no process would be started.
    let Some(column) = column.filter(|column| !column.contains('\0')) else { return };
    command.env("LANEWAY_TRACE", column);
    let Some(context) = TraceContext::parse(column) else { return };
    command.env("TRACEPARENT", context.traceparent());
    if !context.tracestate().is_empty() {
        command.env("TRACESTATE", context.tracestate());
    }
}

fn listen(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.into()).spawn(body).map(drop)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn give(stdin: Option<ChildStdin>, payload: Option<Payload>) {
    if let (Some(mut stdin), Some(payload)) = (stdin, payload) {
        // A program that does not read all of it has what it needs.
        stdin.write_all(&payload.bytes).ok();
    }
}

fn take_result(stdout: Option<impl Read>, out: &Mutex<Out>, say: &Sender<Said>) {
    let Some(mut stdout) = stdout else { return };
    let mut piece = vec![0; 64 * 1_024];
    while let Ok(n @ 1..) = stdout.read(&mut piece) {
        let mut out = lock(out);
        if out.is_over {
            continue;
        }
        out.bytes.extend_from_slice(&piece[..n]);
        if out.bytes.len() > PAYLOAD_BYTES_MAX {
            *out = Out { bytes: Vec::new(), is_over: true };
            drop(out);
            say.send(Said::TooMuch).ok();
        }
    }
}

/// Hands standard error on as it comes, and keeps its end.
fn pass_on(stderr: Option<impl Read>, err: &Mutex<String>) {
    let Some(mut stderr) = stderr else { return };
    let mut piece = [0; 4 * 1_024];
    let mut tail: Vec<u8> = Vec::new();
    while let Ok(n @ 1..) = stderr.read(&mut piece) {
        // A closed terminal is no reason to hold the program up.
        io::stderr().write_all(&piece[..n]).ok();
        tail.extend_from_slice(&piece[..n]);
        tail.drain(..tail.len().saturating_sub(TEXT_BYTES_MAX));
        *lock(err) = String::from_utf8_lossy(&tail).into_owned();
    }
}

fn take_progress(progress: PipeReader, say: &Sender<Said>) {
    let mut lines = BufReader::new(progress);
    let mut line = Vec::new();
    while let Ok(1..) = lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(&line).into_owned();
        if say.send(Said::Progress(text)).is_err() {
            return;
        }
        if line.last() != Some(&b'\n') && lines.skip_until(b'\n').is_err() {
            return;
        }
        line.clear();
    }
}

fn wait(pid: Pid, say: &Sender<Said>) {
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(nix::errno::Errno::EINTR) {}
    say.send(Said::Exited).ok();
}
