//! What this machine can do at most, without Laneway: sockets, SQLite on the real schema, the disk. Measured in the same run
//! as everything else, to compare with; short, because the yardstick matters more than its last digit.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::drain::payload;
use super::figure::{Figure, Report, Unit, counted, percentile};
use super::stage::{Durability, Sort, start_worker};
use super::worker::NOOP;
use super::{Bench, large};
use crate::error::Error;
use crate::process::Process;

/// Bytes of one message of a bare socket.
pub(super) const RAW_BYTES: usize = 100;
/// The name of the figure that latencies are compared with.
pub(super) const IDLE_ROUND_TRIP: &str = "REQ to ROUTER and back, idle, p50";
/// Rows of one commit where many are written.
const COMMIT_ROWS: u32 = 1_000;
/// A page of SQLite.
const SYNC_BYTES: usize = 4_096;
/// Pages of the file that is overwritten.
const SYNC_PAGES: u64 = 256;
/// How long a peer may take to say its first word.
pub(super) const WITHIN_MS: i32 = 10_000;

/// The name of the figure: round trips a second of this many peers with one ROUTER.
pub(super) fn round_trips(peers: u32) -> String {
    format!("REQ to ROUTER and back, {}", counted(peers, "peer"))
}

pub(super) fn inserts(durability: Durability) -> String {
    format!("SQLite inserts, {COMMIT_ROWS} a commit, {}", durability.word())
}

pub(super) fn completes(durability: Durability) -> String {
    format!("SQLite queued to done, {COMMIT_ROWS} a commit, {}", durability.word())
}

pub(super) fn single_commits(durability: Durability) -> String {
    format!("SQLite inserts, one a commit, {}", durability.word())
}

pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    for &peers in bench.scale.raw_peers {
        let rate = sockets(bench, peers)?;
        report.add(Figure::new("limits", round_trips(peers), Unit::PerSecond, rate).note("tcp, 100 bytes"));
    }
    let round_trip = idle_round_trip(bench)?;
    report.add(Figure::new("limits", IDLE_ROUND_TRIP, Unit::Micros, round_trip).note("one each 5 ms"));
    large::limit(bench, report)?;
    let dir = tempfile::tempdir_in(&bench.dir)
        .map_err(|error| Error::other(format!("make a folder in {}", bench.dir.display()), error))?;
    for durability in Durability::BOTH {
        bench.check_interrupted()?;
        sqlite(bench, report, dir.path(), durability)?;
    }
    disk(bench, report, dir.path())
}

/// Round trips a second between bare REQ sockets in processes of their own and a bare ROUTER that sends back what comes.
fn sockets(bench: &Bench, peers: u32) -> Result<f64, Error> {
    let fail = |error: zmq::Error| Error::other("measure sockets", error);
    let context = zmq::Context::new();
    let (router, endpoint) = bound_router(&context).map_err(fail)?;
    let processes = peers.min(4);
    let _peers: Vec<Process> = (0..processes)
        .map(|_| start_worker(bench, &endpoint, peers / processes, 1, Sort::Raw))
        .collect::<Result<_, _>>()?;
    // The clock starts when everybody is there; until then nobody is answered.
    let mut waiting = Vec::new();
    for _ in 0..peers {
        waiting.push(receive(&router).map_err(fail)?);
    }
    let started = Instant::now();
    for message in waiting {
        router.send_multipart(message, 0).map_err(fail)?;
    }
    let mut round_trips = 0_u32;
    while started.elapsed() < bench.scale.limit_time {
        // The clock is not read for each.
        for _ in 0..64 {
            router.send_multipart(receive(&router).map_err(fail)?, 0).map_err(fail)?;
        }
        round_trips += 64;
    }
    Ok(f64::from(round_trips) / started.elapsed().as_secs_f64())
}

/// One round trip between two threads that have been asleep, the median in microseconds.
fn idle_round_trip(bench: &Bench) -> Result<f64, Error> {
    let fail = |error: zmq::Error| Error::other("measure sockets", error);
    let samples = bench.scale.latency_samples.min(300);
    let context = zmq::Context::new();
    let (router, endpoint) = bound_router(&context).map_err(fail)?;
    let echo = std::thread::spawn(move || {
        for _ in 0..samples {
            router.send_multipart(receive(&router)?, 0)?;
        }
        Ok::<_, zmq::Error>(())
    });
    let peer_context = zmq::Context::new();
    let peer = peer_context.socket(zmq::REQ).map_err(fail)?;
    peer.set_rcvtimeo(WITHIN_MS).map_err(fail)?;
    peer.connect(&endpoint).map_err(fail)?;
    let mut micros = Vec::new();
    for _ in 0..samples {
        std::thread::sleep(Duration::from_millis(5));
        let started = Instant::now();
        peer.send(&[0; RAW_BYTES][..], 0).map_err(fail)?;
        peer.recv_bytes(0).map_err(fail)?;
        micros.push(started.elapsed().as_secs_f64() * 1e6);
    }
    echo.join().map_err(|_| Error::other("measure sockets", "a thread panicked"))?.map_err(fail)?;
    Ok(percentile(&mut micros, 50))
}

pub(super) fn bound_router(context: &zmq::Context) -> Result<(zmq::Socket, String), zmq::Error> {
    let router = context.socket(zmq::ROUTER)?;
    router.set_linger(0)?;
    router.set_rcvtimeo(WITHIN_MS)?;
    router.bind("tcp://127.0.0.1:*")?;
    let endpoint = router.get_last_endpoint()?.unwrap_or_default();
    Ok((router, endpoint.trim_end_matches('\0').to_owned()))
}

pub(super) fn receive(router: &zmq::Socket) -> Result<Vec<zmq::Message>, zmq::Error> {
    let mut frames = vec![router.recv_msg(0)?];
    while frames.last().is_some_and(zmq::Message::get_more) {
        frames.push(router.recv_msg(0)?);
    }
    Ok(frames)
}

/// Inserts and ends rows of the real table, as one thread that does nothing else.
fn sqlite(bench: &Bench, report: &mut Report, dir: &Path, durability: Durability) -> Result<(), Error> {
    let db = dir.join(durability.word());
    create(bench, &db)?;
    let fail = |error| Error::database("measure SQLite", error);
    let app = Connection::open(&db).map_err(fail)?;
    app.pragma_update(None, "synchronous", durability.word()).map_err(fail)?;
    let rates = rates(&app, bench.scale.limit_rows, bench.scale.limit_commits).map_err(fail)?;
    for (name, rate) in [inserts(durability), completes(durability), single_commits(durability)].into_iter().zip(rates)
    {
        report.add(Figure::new("limits", name, Unit::PerSecond, rate));
    }
    Ok(())
}

/// Rows a second: inserted many a commit, ended many a commit, inserted one a commit.
fn rates(app: &Connection, rows: u32, commits: u32) -> Result<[f64; 3], rusqlite::Error> {
    let text = payload();
    let mut insert = app.prepare("INSERT INTO tasks (kind, lane, payload) VALUES (?1, 'normal', ?2)")?;
    let mut complete = app.prepare(
        "UPDATE tasks SET state = 'done', lease = ?2, runs = 1, attempts = 1, worker = 'w', started_at = ?2, finished_at = ?2
         WHERE id = ?1 AND state = 'queued'",
    )?;
    let inserted = pages(app, rows, |_| insert.execute((NOOP, &text)))?;
    let completed = pages(app, rows, |id| complete.execute((id, 1_700_000_000_000_i64)))?;
    let started = Instant::now();
    for _ in 0..commits {
        insert.execute((NOOP, &text))?;
    }
    Ok([inserted, completed, f64::from(commits) / started.elapsed().as_secs_f64()])
}

/// Calls `step` with 1 to `rows`, many in one transaction; gives calls a second.
fn pages(
    app: &Connection,
    rows: u32,
    mut step: impl FnMut(u32) -> Result<usize, rusqlite::Error>,
) -> Result<f64, rusqlite::Error> {
    let started = Instant::now();
    for first in (1..=rows).step_by(COMMIT_ROWS as usize) {
        app.execute_batch("BEGIN IMMEDIATE")?;
        for row in first..(first + COMMIT_ROWS).min(rows + 1) {
            step(row)?;
        }
        app.execute_batch("COMMIT")?;
    }
    Ok(f64::from(rows) / started.elapsed().as_secs_f64())
}

/// A database with the real schema.
fn create(bench: &Bench, db: &Path) -> Result<(), Error> {
    let mut command = Command::new(&bench.program);
    command.args(["db", "init", "--db"]).arg(db).stdin(Stdio::null()).stdout(Stdio::null());
    let mut process = Process::start(&mut command, "a database")?;
    match process.wait()? {
        status if status.success() => Ok(()),
        status => Err(Error::other("create a database", format!("`laneway db init` has ended with {status}"))),
    }
}

/// Syncs of one page: at the end of a growing file, and over an old one.
fn disk(bench: &Bench, report: &mut Report, dir: &Path) -> Result<(), Error> {
    let fail = |error| Error::other("measure the disk", error);
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(dir.join("sync")).map_err(fail)?;
    let page = [1; SYNC_BYTES];
    let samples = u64::from(bench.scale.limit_commits).min(500);
    let (mut append, mut overwrite) = (Vec::new(), Vec::new());
    for _ in 0..samples.max(SYNC_PAGES) {
        append.push(write_synced(&mut file, &page).map_err(fail)?);
    }
    for at in 0..samples {
        file.seek(SeekFrom::Start(at % SYNC_PAGES * SYNC_BYTES as u64)).map_err(fail)?;
        overwrite.push(write_synced(&mut file, &page).map_err(fail)?);
    }
    for (name, micros) in [("append", &mut append), ("overwrite", &mut overwrite)] {
        for percent in [50, 99] {
            let name = format!("fdatasync of 4 KiB, {name}, p{percent}");
            report.add(Figure::new("limits", name, Unit::Micros, percentile(micros, percent)));
        }
    }
    Ok(())
}

fn write_synced(file: &mut std::fs::File, page: &[u8]) -> std::io::Result<f64> {
    let started = Instant::now();
    file.write_all(page)?;
    file.sync_data()?;
    Ok(started.elapsed().as_secs_f64() * 1e6)
}
