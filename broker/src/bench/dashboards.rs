//! What people who look cost those who work: the same drain without a dashboard and with fifty of them open, in a table with
//! as many finished rows as queued ones, dead ones, groups and schedules ([`Sights`]); how long each page takes meanwhile; and the
//! broker's memory.

use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::drain::LANE;
use super::figure::{Figure, Report, Unit};
use super::footprint::mebibytes;
use super::sights::Sights;
use super::stage::{Durability, Stage};
use super::{Bench, join};
use crate::error::Error;

const TABS: u32 = 50;
const SLOTS: u32 = 4;
/// Between two pages that somebody opens.
const BETWEEN: Duration = Duration::from_millis(100);
/// How long an answer may take before the run has failed.
const WITHIN: Duration = Duration::from_secs(20);
/// After which a reader of a live stream looks whether it is over.
const LOOK: Duration = Duration::from_millis(200);

pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    for (max, tasks) in [(1, bench.scale.watched_tasks_alone), (64, bench.scale.watched_tasks)] {
        let alone = Drained::measure(bench, report, max, tasks, 0)?;
        let watched = Drained::measure(bench, report, max, tasks, TABS)?;
        let name = |what: &str| format!("{SLOTS} slots, max {max}, {what}");
        let rate = |what, rate| Figure::new("dashboards", name(what), Unit::PerSecond, rate);
        report.add(rate("no dashboard", alone.per_s));
        let share = watched.per_s / alone.per_s;
        report.add(rate("50 dashboards", watched.per_s).note(format!("{share:.3} of the rate without")));
        let ms = watched.slowest.as_secs_f64() * 1e3;
        let figure = Figure::new("dashboards", name("slowest page"), Unit::Micros, ms * 1e3);
        report.add(figure.note(format!("{}, the slowest of {} opened", watched.slowest_page, watched.opened)));
        for (what, bytes) in [("broker, no dashboard", alone.memory), ("broker, 50 dashboards", watched.memory)] {
            report.add(Figure::new("dashboards", name(what), Unit::Mebibytes, mebibytes(bytes)));
        }
    }
    Ok(())
}

struct Drained {
    per_s: f64,
    /// The most that was resident, in bytes.
    memory: u64,
    opened: usize,
    slowest: Duration,
    slowest_page: String,
}

impl Drained {
    /// From the moment when the first task may be handed out until so many are done, while so many tabs are open and one more
    /// person goes through all pages. The tabs are opened before, all at once.
    fn measure(bench: &Bench, report: &mut Report, max: u32, tasks: u32, tabs: u32) -> Result<Self, Error> {
        let rows = bench.scale.queued_rows;
        let (mut stage, address) = if tabs == 0 {
            (Stage::open(bench, Durability::Full)?, String::new())
        } else {
            Stage::open_with_dashboard(bench, Durability::Full)?
        };
        stage.pause(&[LANE], true)?;
        let sights = Sights::of(rows, bench.scale.watched_dead);
        sights.insert(&stage)?;
        stage.hire(SLOTS, max)?;
        stage.await_queued(rows)?;

        let over = AtomicBool::new(false);
        let (took, visits) = thread::scope(|scope| {
            let (over, address) = (&over, address.as_str());
            let (opened, is_open) = mpsc::channel();
            let open = |tab: u32| {
                let opened = opened.clone();
                move || follow(address, &sights.tab(tab, tabs), opened, over)
            };
            let all: Vec<_> = (0..tabs).map(|tab| scope.spawn(open(tab))).collect();
            drop(opened);
            // One that fails says nothing, and why when it is joined.
            is_open.iter().for_each(drop);
            let person = (tabs > 0).then(|| scope.spawn(move || open_pages(address, &sights.pages(), over)));
            let started = Instant::now();
            let ended = stage.pause(&[LANE], false).and_then(|()| stage.await_counted_done(tasks));
            over.store(true, Ordering::Relaxed);
            all.into_iter().try_for_each(join)?;
            let visits = person.map(join).transpose()?.unwrap_or_default();
            Ok::<_, Error>((ended?.duration_since(started), visits))
        })?;
        let (_, memory) = stage.broker().memory()?;
        report.count(stage.tally_all(sights.tasks())?);
        let (slowest_page, slowest) = visits.iter().max_by_key(|(_, took)| *took).cloned().unwrap_or_default();
        let per_s = f64::from(tasks) / took.as_secs_f64();
        Ok(Self { per_s, memory, opened: visits.len(), slowest, slowest_page })
    }
}

/// One tab: its page, then its live parts, until it is over. Lets go of `opened` when they have begun.
fn follow(
    address: &str,
    (path, live): &(String, String),
    opened: mpsc::Sender<()>,
    over: &AtomicBool,
) -> Result<(), Error> {
    open_page(address, path)?;
    let fail = |error| Error::other("follow the dashboard", error);
    let mut stream = ask(address, &format!("/events?page={live}")).map_err(fail)?;
    let mut piece = [0; 16 * 1024];
    stream.read(&mut piece).map_err(fail)?;
    drop(opened);
    stream.set_read_timeout(Some(LOOK)).map_err(fail)?;
    while !over.load(Ordering::Relaxed) {
        match stream.read(&mut piece) {
            Ok(0) => return Err(fail(io::Error::from(io::ErrorKind::UnexpectedEof))),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(fail(error)),
        }
    }
    Ok(())
}

/// Each page in turn, again and again; gives how long each took.
fn open_pages(address: &str, pages: &[String], over: &AtomicBool) -> Result<Vec<(String, Duration)>, Error> {
    let mut visits = Vec::new();
    for page in pages.iter().cycle() {
        if over.load(Ordering::Relaxed) && visits.len() >= pages.len() {
            break;
        }
        visits.push((page.clone(), open_page(address, page)?));
        thread::sleep(BETWEEN);
    }
    Ok(visits)
}

/// From the connection to the last byte. Anything but a page is an error: one that is shed is not a quick one.
fn open_page(address: &str, path: &str) -> Result<Duration, Error> {
    let fail = |error| Error::other(format!("open {path} of the dashboard"), error);
    let asked = Instant::now();
    let mut answer = Vec::new();
    ask(address, path).and_then(|mut stream| stream.read_to_end(&mut answer)).map_err(fail)?;
    if !answer.starts_with(b"HTTP/1.1 200") {
        let line = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
        return Err(fail(io::Error::other(format!("the answer is '{line}'"))));
    }
    Ok(asked.elapsed())
}

fn ask(address: &str, path: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(WITHIN))?;
    let mut head = String::new();
    write!(head, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").expect("a string takes all");
    stream.write_all(head.as_bytes())?;
    Ok(stream)
}
