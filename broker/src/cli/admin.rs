//! `laneway lane`, `worker`, `stats` and `drain`: the running broker itself. All need one that answers.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use laneway_protocol::LaneName;
use laneway_protocol::message::{Drain, Drained, LaneRow, Lanes, StatsReport, WorkerRow};

use super::output::{Table, or_dash};
use super::remote::Remote;
use super::{Common, Output, kind, output, submit, when};
use crate::error::Error;

/// List lanes, pause them, and set their caps, rates and shares
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  laneway lane list\n  laneway lane pause low")]
pub(super) enum LaneCommand {
    /// List the lanes with what waits and runs, most urgent first
    #[command(after_help = "Example:\n  laneway lane list")]
    List,
    /// Stop handing out tasks of these lanes; what runs goes on
    #[command(after_help = "Example:\n  laneway lane pause low")]
    Pause(LaneArgs),
    /// Hand out tasks of these lanes again
    #[command(after_help = "Example:\n  laneway lane resume low")]
    Resume(LaneArgs),
    /// Set bounds of a lane, over those of the settings; kept until a reset, also over restarts
    ///
    /// cap: tasks that run at a time. rate: starts in a second, minute, hour or day (10/s, 90/m, 1/h, 5/d). rate_burst: starts
    /// at once after a quiet time. share: the least part of the hand-outs in per cent while the lane has tasks, against starving
    /// beneath higher lanes. `none` takes a cap, a rate or a share away.
    #[command(after_help = "\
Examples:
  laneway lane set low cap=8
  laneway lane set low share=10
  laneway lane set low rate=90/m rate_burst=10")]
    Set(kind::SetLaneArgs),
    /// Go back to what the settings say of these lanes; a pause stays
    #[command(after_help = "Example:\n  laneway lane reset low")]
    Reset(LaneArgs),
}

#[derive(Debug, Args)]
pub(super) struct LaneArgs {
    #[arg(required = true, value_name = "LANE", value_parser = submit::lane)]
    lanes: Vec<LaneName>,
}

/// Look at the connected workers, send one away
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  laneway worker list\n  laneway worker drain thumbs-1 --wait 60")]
pub(super) enum WorkerCommand {
    /// List the worker processes that are connected
    #[command(after_help = "Example:\n  laneway worker list")]
    List,
    Drain(WorkerDrainArgs),
}

/// Give one worker no more tasks and let it finish and leave; the others go on
///
/// A worker that starts anew in its place is another one. A restart of the broker forgets the drain; the worker goes on leaving.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  laneway worker drain thumbs-1 --wait 60
  laneway worker drain 3fa85f64 --release")]
pub(super) struct WorkerDrainArgs {
    /// Its name, alone or as name@host/pid, its session, or how that begins
    #[arg(value_name = "WORKER")]
    worker: String,

    #[command(flatten)]
    how: DrainArgs,
}

/// Stop handing out tasks and let the workers finish and leave
///
/// New tasks are still taken and wait. Workers that are told to drain end by themselves.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  laneway drain --wait 60
  laneway drain --release --wait 10
  laneway drain --off")]
pub(super) struct DrainArgs {
    /// Workers hand back what they run instead of finishing it; nothing is counted against the tasks
    #[arg(long, conflicts_with = "off")]
    release: bool,

    /// Hand out tasks again; workers that left must be started again
    #[arg(long, conflicts_with = "wait")]
    off: bool,

    /// Until no worker is connected and nothing runs, but no longer than this (30, 500ms, 5m)
    #[arg(long, value_name = "TIME", value_parser = when::duration)]
    wait: Option<Duration>,
}

/// How often a drain is asked after.
const DRAIN_ASK_MS: u64 = 100;

pub(super) fn lane(common: &Common, command: LaneCommand) -> Result<(), Error> {
    let remote = Remote::expect(common)?;
    let rows = match command {
        LaneCommand::List => remote.lanes(Lanes::default())?,
        LaneCommand::Pause(args) => remote.lanes(Lanes { pause: args.lanes, ..Lanes::default() })?,
        LaneCommand::Resume(args) => remote.lanes(Lanes { resume: args.lanes, ..Lanes::default() })?,
        LaneCommand::Reset(args) => remote.lanes(Lanes { reset: args.lanes, ..Lanes::default() })?,
        LaneCommand::Set(args) => remote.lanes(Lanes { set: vec![kind::set_lane(args)?], ..Lanes::default() })?,
    };
    if common.output == Output::Json {
        return rows.iter().try_for_each(output::json);
    }
    let mut table = Table::new(&["LANE", "STATE", "QUEUED", "RUNNING", "READY SLOTS", "CAP", "RATE", "SHARE"]);
    for row in &rows {
        let counts = [row.queued, row.running, row.ready].map(|n| n.to_string());
        let [queued, running, ready] = counts;
        table.row([
            row.lane.clone(),
            lane_state(row).into(),
            queued,
            running,
            ready,
            or_dash(row.cap),
            kind::rate(row.rate, row.rate_burst),
            share(row),
        ]);
    }
    table.print()
}

/// In per cent, and what that comes to.
fn share(row: &LaneRow) -> String {
    match (row.share, row.one_of) {
        (Some(share), Some(n)) => format!("{share} %, 1 of {n}"),
        (share, _) => or_dash(share),
    }
}

fn lane_state(row: &LaneRow) -> &'static str {
    match (row.configured, row.paused) {
        (false, _) => "not in the settings",
        (true, true) => "paused",
        (true, false) => "open",
    }
}

pub(super) fn worker(common: &Common, command: &WorkerCommand) -> Result<(), Error> {
    match command {
        WorkerCommand::List => workers(common),
        WorkerCommand::Drain(args) => drain_worker(common, args),
    }
}

fn workers(common: &Common) -> Result<(), Error> {
    let rows = Remote::expect(common)?.workers()?;
    if common.output == Output::Json {
        return rows.iter().try_for_each(output::json);
    }
    let mut table =
        Table::new(&["WORKER", "HOST", "PID", "SLOTS", "READY", "RUNNING", "CONNECTED", "KINDS", "LANES", "SESSION"]);
    for row in &rows {
        let kinds: Vec<&str> = row.kinds.iter().map(laneway_protocol::Kind::as_str).collect();
        let lanes: Vec<&str> = row.lanes.iter().map(LaneName::as_str).collect();
        table.row([
            if row.name.is_empty() { row.session.to_string() } else { row.name.clone() },
            row.host.clone(),
            row.pid.to_string(),
            row.slots.to_string(),
            row.ready.to_string(),
            row.running.len().to_string(),
            connected(row),
            output::cut(&kinds.join(","), 40),
            lanes.join(","),
            // As much of it as the errors of tasks quote.
            row.session.as_str().chars().take(8).collect(),
        ]);
    }
    table.print()
}

fn connected(row: &WorkerRow) -> String {
    match (row.away, row.draining) {
        (true, _) => "away".into(),
        (false, true) => "draining".into(),
        (false, false) => when::span(row.connected_ms),
    }
}

pub(super) fn stats(common: &Common) -> Result<(), Error> {
    let report = Remote::expect(common)?.stats()?;
    if common.output == Output::Json {
        return output::json(&report);
    }
    print_stats(&report)
}

fn print_stats(report: &StatsReport) -> Result<(), Error> {
    let mut table = Table::pairs();
    if let Some(error) = &report.storage_error {
        table.pair("STORAGE ERROR", &error);
    }
    table.pair("version", &report.version);
    table.pair("epoch", &report.epoch);
    table.pair("up", &when::span(report.uptime_ms));
    table.pair("draining", &if report.draining { "yes" } else { "no" });
    if report.quiet {
        table.pair("quiet", &"yes: nothing is handed out (SIGTSTP); SIGCONT ends that");
    }
    table.pair("queued", &report.queued);
    table.pair("running", &report.running);
    table.pair("dead", &report.dead);
    table.pair("workers", &report.workers);
    table.pair("ready slots", &report.ready);
    for lost in &report.lost_workers {
        table.pair("LOST WORKER", &output::lost(lost));
    }
    let since_start = [
        ("workers lost", report.workers_lost),
        ("submitted by SQL or socket", report.submitted),
        ("handed out", report.handed_out),
        ("done", report.done),
        ("failed", report.failed),
        ("lost", report.lost),
        ("released", report.released),
        ("cancelled", report.cancelled),
        ("stale words", report.stale),
        ("overtaken rows", report.overtaken),
        ("bad messages", report.bad_messages),
        ("dropped log lines", report.log_lines_dropped),
    ];
    for (name, n) in since_start {
        table.pair(name, &format!("{n} since start"));
    }
    table.pair("commit", &format!("{} µs median, {} µs p99", report.commit_p50_us, report.commit_p99_us));
    let pinned = if report.wal_pinned_bytes > 0 { output::PINNED } else { "" };
    table.pair("WAL", &format!("{} kB{pinned}", report.wal_bytes / 1_000));
    table.print()?;
    if report.kinds.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["KIND", "QUEUED", "WORKERS"]);
    for kind in &report.kinds {
        table.row([kind.kind.clone(), kind.queued.to_string(), or_dash((kind.workers > 0).then_some(kind.workers))]);
    }
    table.print()
}

pub(super) fn drain(common: &Common, args: &DrainArgs) -> Result<(), Error> {
    let question = Drain { release: args.release, off: args.off, worker: None };
    let remote = Remote::expect(common)?;
    drain_until(&remote, &question, args.wait, common.output)
}

fn drain_worker(common: &Common, args: &WorkerDrainArgs) -> Result<(), Error> {
    let DrainArgs { release, off, wait } = args.how;
    let question = Drain { release, off, worker: Some(args.worker.clone()) };
    let remote = Remote::expect(common)?;
    drain_until(&remote, &question, wait, common.output)
}

fn drain_until(remote: &Remote, question: &Drain, wait: Option<Duration>, output: Output) -> Result<(), Error> {
    let started = Instant::now();
    let mut asked = false;
    loop {
        let stand = match remote.drain(question.clone()) {
            // It was there, and has left.
            Err(Error::NotFound(_)) if asked => Drained { draining: true, workers: 0, running: 0 },
            stand => stand?,
        };
        asked = true;
        let over = stand.workers == 0 && stand.running == 0;
        match wait {
            Some(limit) if !over && started.elapsed() >= limit => {
                print_drain(&stand, output)?;
                return Err(Error::TimedOut(format!("left: {}", left(&stand))));
            }
            Some(_) if !over => std::thread::sleep(Duration::from_millis(DRAIN_ASK_MS)),
            _ => return print_drain(&stand, output),
        }
    }
}

fn print_drain(stand: &Drained, output: Output) -> Result<(), Error> {
    if output == Output::Json {
        return output::json(stand);
    }
    let word = if stand.draining { "draining" } else { "not draining" };
    output::line(&format!("{word}: {}", left(stand)))
}

fn left(stand: &Drained) -> String {
    let workers = output::count(stand.workers, "worker", "workers");
    format!("{workers}, {} running", output::count(stand.running, "task", "tasks"))
}
