//! `laneway demo`: the main job in one command, on the person's own files, with the real broker, real worker processes and
//! real sockets. Tells a story and proves it from the table. Called by the command line only.
//!
//! Owns the order of the story; [`files`] chooses the files, [`table`] is the app, [`children`] the processes, [`worker`] what
//! they run, [`report`] the result. It reaches into no part of the broker: everything goes through SQL, signals and the library
//! that apps use.

mod children;
mod count;
mod files;
mod report;
mod screen;
mod table;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use laneway::Client;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::children::Children;
use self::files::{FILES_MIN, Files};
use self::report::{Killed, Member, Story};
use self::screen::Screen;
use self::table::{Counts, Table};
pub(crate) use self::worker::{DemoWorkerArgs, work};
use crate::clock::Clock;
use crate::error::Error;

const N_WORKERS: u64 = 3;
const N_URGENT: usize = 20;
/// For the broker to answer and the workers to connect, on a slow machine too.
const START_TIMEOUT: Duration = Duration::from_secs(15);
/// Nothing in the table has changed for this long: something hangs, and the demo says so instead of hanging too.
const STUCK_TIMEOUT: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What the pauses of all low tasks aim at, and their bounds. Real work comes on top.
const WATCHED_MS: u64 = 5_000;
const PAUSE_MS_MAX: u64 = 250;

const _: () = assert!(N_URGENT <= FILES_MIN * 2, "every urgent task has a file and kind of its own");

/// See it all work on your own files, in about ten seconds
///
/// Starts a broker on a temporary database and three workers, inserts two rows for each file by SQL (its SHA-256 and its
/// words, lane low), half-way twenty urgent ones (lane high), kills a worker with kill -9 while it runs tasks, and shows how
/// everything gets done all the same, with totals that can be checked by sha256sum and wc. Reads files, changes none.
///
/// Takes at most 5000 files of at most 64 MiB, 1 GiB in all, and leaves out the folders .git and target. The database
/// stays, to be looked at. Exit code 1 when a task was lost or a total is wrong.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  laneway demo\n  laneway demo ~/Documents")]
pub(crate) struct DemoArgs {
    /// The folder with the files
    #[arg(default_value = ".")]
    dir: PathBuf,

    /// How long each task pauses before it works, so that there is time to watch [default: 1 to 250, so that all of them
    /// take about 5 seconds]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(..=10_000))]
    pause_ms: Option<u64>,
}

pub(crate) fn run(args: &DemoArgs) -> Result<(), Error> {
    let interrupted = catch_signals().map_err(|error| Error::other("take signals", error))?;
    let mut files = Files::choose(&args.dir)?;
    let folder = tempfile::Builder::new().prefix("laneway-demo-").tempdir();
    let folder = folder.map_err(|error| Error::other("make a temporary folder", error))?.keep();
    let prepared = files.fill_up(&folder.join("samples")).and_then(|()| files.write_list(&folder.join("files")));
    prepared.map_err(|error| Error::other(format!("write to {}", folder.display()), error))?;
    let screen = Screen::new();
    screen.say("files", &introduce(&files, &args.dir))?;
    let pause = pause(args, &files);
    let told = Demo::start(&folder, pause, screen, interrupted).and_then(|demo| demo.play(&files));
    told.map_err(|error| {
        // A check that failed was told above, with the same places.
        if error.is_closed_pipe() || matches!(error, Error::TaskFailed(_)) {
            return error;
        }
        Error::other(format!("finish the demo; database and logs are in {}", folder.display()), error.chain())
    })
}

/// The processes, and where the story goes.
struct Demo {
    // Dropped first: no child outlives the demo, however it ends.
    children: Children,
    folder: PathBuf,
    table: Table,
    members: Vec<Member>,
    pause: Duration,
    screen: Screen,
    interrupted: Arc<AtomicBool>,
}

impl Demo {
    /// Starts broker and workers, and waits until all are connected.
    fn start(folder: &Path, pause: Duration, screen: Screen, interrupted: Arc<AtomicBool>) -> Result<Self, Error> {
        let (db, socket) = (db(folder), folder.join("demo.sock"));
        let endpoint = format!("ipc://{}", socket.display());
        let mut children = Children::new(folder);
        let pid = children.start_broker(&db, &endpoint)?;
        let client = wait_for("the broker", &mut children, &interrupted, || {
            // Each try is short, so that a broker that ended at once is noticed at once.
            Ok(Client::connect_with(&endpoint, Duration::from_millis(200)).ok())
        })?;
        screen.say("broker", &format!("process {pid}, database {}", db.display()))?;
        let mut pids = Vec::new();
        for n in 1..=N_WORKERS {
            pids.push(children.start_worker(&format!("worker-{n}"), &endpoint, pause)?);
        }
        let members = wait_for("the workers", &mut children, &interrupted, || connected(&client, &pids))?;
        let (slots, high) = (worker::SLOTS, worker::SLOTS_FOR_HIGH);
        let processes = members.iter().map(|worker| worker.pid.to_string()).collect::<Vec<_>>().join(", ");
        let text = format!("processes {processes}, {slots} slots each, {high} of them kept for the lane high");
        screen.say("workers", &text)?;
        let table = Table::open(&db)?;
        Ok(Self { children, folder: folder.into(), table, members, pause, screen, interrupted })
    }

    /// The story, then the proof.
    fn play(mut self, files: &Files) -> Result<(), Error> {
        let n_low = self.insert_low(files)?;
        self.watch(|counts| counts.low_done >= n_low / 2)?;
        let queued = self.insert_urgent(files)?;
        self.watch(|counts| counts.high_done == N_URGENT && counts.low_done >= n_low * 5 / 8)?;
        let killed = self.kill_one()?;
        self.watch(|counts| counts.queued + counts.running == 0)?;
        self.screen.finish();
        let complaints = self.children.stop();
        let story = Story {
            n_tasks: files.paths.len() * 2 + N_URGENT,
            queued_before_urgent: queued,
            killed,
            lost: self.table.lost()?,
            members: std::mem::take(&mut self.members),
            rows: self.table.all()?,
            complaints,
        };
        report::print(&self.screen, files, &self.folder, &story, &self.interrupted)
    }

    fn insert_low(&mut self, files: &Files) -> Result<usize, Error> {
        let started = Instant::now();
        self.table.insert("low", table::tasks(&files.paths))?;
        let (n_tasks, ms) = (files.paths.len() * 2, started.elapsed().as_millis());
        self.screen.expect(n_tasks);
        let pause = self.pause.as_millis();
        let text = format!("{n_tasks} rows by SQL into the lane low, in one transaction ({ms} ms)");
        self.screen.say("tasks", &format!("{text}; each also pauses {pause} ms, to be watched"))?;
        Ok(n_tasks)
    }

    /// Gives the number of low tasks that were queued before.
    fn insert_urgent(&mut self, files: &Files) -> Result<usize, Error> {
        let queued = self.table.insert("high", table::tasks(&files.paths).take(N_URGENT))?;
        self.screen.expect(N_URGENT);
        let text = format!("{N_URGENT} rows into the lane high, behind {queued} that are queued in the lane low");
        self.screen.say("urgent", &text)?;
        Ok(queued)
    }

    /// Kills a worker and waits until the broker took back what it held. `None` when everything was done before.
    fn kill_one(&mut self) -> Result<Option<Killed>, Error> {
        let Some(member) = self.freeze_one()? else { return Ok(None) };
        let at = Clock::start().now().wall.0;
        self.children.kill_worker(member.pid)?;
        let text = format!("{} (process {}) while it runs tasks; nobody replaces it", member.name, member.pid);
        self.screen.say("kill -9", &text)?;
        self.watch(|counts| counts.lost > 0)?;
        for lost in self.table.lost()? {
            let text = format!("task {} was in its hands, taken back {} ms after the kill", lost.task, lost.at - at);
            self.screen.say("lost", &text)?;
        }
        Ok(Some(Killed { member, at }))
    }

    /// Holds a worker still while it runs something, so that the kill surely hits a task: a running one could finish
    /// between the look and the kill.
    fn freeze_one(&mut self) -> Result<Option<Member>, Error> {
        let until = Instant::now() + START_TIMEOUT;
        for member in self.members.iter().cycle() {
            go_on(&mut self.children, &self.interrupted)?;
            self.children.freeze(member.pid)?;
            if self.holds_tasks(&member.session)? {
                return Ok(Some(member.clone()));
            }
            self.children.thaw(member.pid)?;
            if self.table.counts()?.queued == 0 || Instant::now() > until {
                break;
            }
        }
        Ok(None)
    }

    /// Whether a frozen worker holds tasks, once its last words before have reached the table.
    fn holds_tasks(&self, session: &str) -> Result<bool, Error> {
        let (mut held, mut n_equal) = (Vec::new(), 0);
        while n_equal < 5 {
            thread::sleep(LOOK_EVERY / 2);
            let now = self.table.held_by(session)?;
            n_equal = if now == held { n_equal + 1 } else { 0 };
            held = now;
        }
        Ok(!held.is_empty())
    }

    /// Shows how far it is until `reached`.
    fn watch(&mut self, reached: impl Fn(&Counts) -> bool) -> Result<(), Error> {
        let (mut last, mut changed) = (Counts::default(), Instant::now());
        loop {
            go_on(&mut self.children, &self.interrupted)?;
            let counts = self.table.counts()?;
            self.screen.show(&counts);
            // Whatever was waited for, nothing more will happen.
            if reached(&counts) || counts.queued + counts.running == 0 {
                return Ok(());
            }
            if counts != last {
                (last, changed) = (counts, Instant::now());
            } else if changed.elapsed() > STUCK_TIMEOUT {
                let text = format!("{} queued and {} running tasks for", counts.queued, counts.running);
                return Err(Error::TimedOut(format!("nothing happened to {text} {} s", STUCK_TIMEOUT.as_secs())));
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

fn db(folder: &Path) -> PathBuf {
    folder.join("demo.db")
}

fn introduce(files: &Files, dir: &Path) -> String {
    let (n_files, samples) = (files.paths.len() - files.n_samples, files.n_samples);
    let mut parts = vec![format!("{n_files} in {}, {}", dir.display(), report::bytes(files.bytes))];
    parts.extend((samples > 0).then(|| format!("too few to see anything, so {samples} sample files were made")));
    let left_out = files.left_out();
    parts.extend((!left_out.is_empty()).then(|| format!("left out: {left_out}")));
    parts.join("; ")
}

fn pause(args: &DemoArgs, files: &Files) -> Duration {
    let n_tasks = files.paths.len() as u64 * 2;
    // One slot of each worker takes low tasks.
    let chosen = || (WATCHED_MS * N_WORKERS / n_tasks.max(1)).clamp(1, PAUSE_MS_MAX);
    Duration::from_millis(args.pause_ms.unwrap_or_else(chosen))
}

/// The flag turns true at the first of the signals that ask the demo to end; it is looked at all the time.
fn catch_signals() -> Result<Arc<AtomicBool>, std::io::Error> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    Ok(interrupted)
}

/// Fails when the demo should end: asked to, or a process is gone.
fn go_on(children: &mut Children, interrupted: &AtomicBool) -> Result<(), Error> {
    if interrupted.load(Ordering::SeqCst) {
        return Err(Error::other("go on", "interrupted by a signal"));
    }
    children.check()
}

fn wait_for<T>(
    what: &str,
    children: &mut Children,
    interrupted: &AtomicBool,
    mut look: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<T, Error> {
    let until = Instant::now() + START_TIMEOUT;
    loop {
        go_on(children, interrupted)?;
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > until {
            return Err(Error::TimedOut(format!("{what} did not get ready within {} s", START_TIMEOUT.as_secs())));
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// The workers, once all of `pids` are connected.
fn connected(client: &Client, pids: &[u32]) -> Result<Option<Vec<Member>>, Error> {
    let workers = match client.workers() {
        Ok(workers) => workers,
        Err(error) if error.retry() => return Ok(None),
        Err(error) => return Err(Error::other("ask the broker for its workers", error)),
    };
    let member = |pid: &u32| {
        let row = workers.iter().find(|row| row.pid == *pid)?;
        Some(Member { name: row.name.clone(), pid: *pid, session: row.session.to_string() })
    };
    Ok(pids.iter().map(member).collect())
}
