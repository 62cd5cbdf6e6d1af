//! Promise 4 when the power goes: with `durability = "full"` nothing that was acknowledged is lost, wherever the disk
//! stops; with `normal` the last of it is, and the table is whole all the same.
//!
//! A run is recorded through a file system layer (`power/shim.c`): every write and every sync of the broker and of all
//! apps in one order, and between them what each program was told. Then, at many points of this log, the disk of `disk.rs`
//! is asked what it may hold after a loss of power there, and SQLite, the auditor and the real broker look at it.
//!
//! `LANEWAY_POWER_POINTS` takes more points; `LANEWAY_SEED` and `LANEWAY_POWER_REPLAY` (both printed) audit a log again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

mod power {
    pub(crate) mod app;
    pub(crate) mod audit;
    mod disk;
    pub(crate) mod load;
    pub(crate) mod log;
    mod plain;
    pub(crate) mod promise;
    mod revive;
    pub(crate) mod said;
    pub(crate) mod shim;
    mod table;
}

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use harness::{Broker, Place, Random, RawPeer, Table, plain_ready, wait_for};
use laneway::{Payload, Task};
use laneway_protocol::message::{Answer, End, Outcome, OutcomeCode, Ready, Request};
use power::app::App;
use power::audit::{Report, all_that_is_synced, audit};
use power::load;
use power::log::{self, Name, Record, What};
use power::promise::Promise;
use power::said::{By, Said, To, payload};
use power::shim::{self, Shim};

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

#[test]
fn app_process() {
    // Not a test of its own: the apps of the tests in this file begin here.
    power::app::app_main();
}

/// Images of one recorded run, unless `LANEWAY_POWER_POINTS` says how many, and those that come to life.
const POINTS: usize = 200;
const REVIVED: usize = 4;

/// Records a run with this `durability` and audits it. The log is kept until the next run.
fn audited(durability: &str) -> Report {
    let random = Random::new();
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("power-{durability}.log"));
    let replayed = std::env::var_os("LANEWAY_POWER_REPLAY").map(PathBuf::from);
    let log = replayed.unwrap_or_else(|| {
        let place = Place::new();
        std::fs::copy(load::record(&place, durability, has_what_it_is_about), &kept).unwrap();
        kept
    });
    let records = log::read(&log);
    assert!(has_what_it_is_about(&records), "a log of another kind of run");
    let points = std::env::var("LANEWAY_POWER_POINTS").map_or(POINTS, |points| points.parse().unwrap());
    let report = audit(&records, points, REVIVED * points / POINTS, &random);
    say(&format!("LANEWAY_POWER_REPLAY={} {report:#?}", log.display()));
    report
}

#[expect(clippy::print_stdout, reason = "shown by the test runner when the test fails")]
fn say(what: &str) {
    println!("{what}");
}

/// Whether several processes have moved the log into the database, more than once, and it began anew under new commits.
fn has_what_it_is_about(records: &[Record]) -> bool {
    let mut checkpointers: HashMap<u32, usize> = HashMap::new();
    let (mut wal, mut restarts) = (0, 0);
    for Record { pid, what, .. } in records {
        match what {
            What::Created(Name::Wal, inode) => wal = *inode,
            What::SyncEnded { name: Name::Database, .. } => *checkpointers.entry(*pid).or_default() += 1,
            What::Written { inode, offset: 0, .. } if *inode == wal => restarts += 1,
            _ => {}
        }
    }
    let checkpoints: usize = checkpointers.values().sum();
    checkpointers.len() >= 2 && checkpoints >= 10 && restarts >= 3
}

#[test]
fn full_loses_nothing_that_was_acknowledged() {
    // Proves that with `durability = "full"`, wherever the power goes, every submit, outcome, cancel, requeue and pause that
    // was answered and every commit of an app that syncs is in the table, and every result that was told; that hand-outs
    // which the disk has forgotten are taken up by whoever had them, or run again and the late word refused; and that only
    // an app's own `synchronous = NORMAL` loses its last commits, which the auditor sees.
    let report = audited("full");
    assert_eq!(report.damaged, Vec::<String>::new());
    let lost: Vec<_> = report.lost.iter().filter(|(promise, _)| **promise != Promise::Stored(By::Normal)).collect();
    assert!(lost.is_empty(), "{lost:#?}");
    assert!(report.n_lost(Promise::Stored(By::Normal)) > 0, "the auditor finds nothing that is lost");
    assert!(report.forgotten > 0, "no hand-out was forgotten");
}

#[test]
fn normal_loses_the_last_of_it_and_the_table_is_whole() {
    // Proves what docs/durability.md says of `durability = "normal"`: the last submits, ends, cancels and requeues may be
    // gone although they were answered, the apps' own synced commits never are, nor is the broker's secret behind a lease;
    // and no row, no transaction and no database is ever half.
    let report = audited("normal");
    assert_eq!(report.damaged, Vec::<String>::new());
    let never = [Promise::Stored(By::Full), Promise::Stored(By::Python), Promise::CancelRequested, Promise::Epoch];
    assert!(never.iter().all(|&promise| report.n_lost(promise) == 0), "{:#?}", report.lost);
    let lost = [
        Promise::Stored(By::Wire),
        Promise::Ended(To::Worker),
        Promise::Ended(To::Waiter),
        Promise::CancelledOrRequeued,
    ];
    assert!(lost.iter().all(|&promise| report.n_lost(promise) > 0), "{:#?}", report.lost);
}

#[test]
fn what_the_broker_confirms_is_on_disk_though_it_wrote_nothing() {
    // Proves that an end which a worker wrote by SQL without a sync of its own is on disk once the broker has answered
    // `already` to it, also when there is nothing else to be synced.
    let place = Place::new();
    let shim = Shim::build(&place);
    let broker = Broker::start_under(&place, &[], shim.env());
    let app = App::start(&place, &shim, "sql_worker");
    let task = Task::new("sql").payload_raw(Payload::json(payload(By::Wire, 0, 0, 1)));
    let ended = broker.client().submit_and_wait(task).unwrap();
    assert_eq!(ended.state.as_str(), "done");
    let said = |record: &Record| matches!(record.what, What::Mark(Said::Ended { to: To::SqlWorker, .. }));
    let records = wait_for("the answer to the worker", || {
        let mut records = log::read(&shim::log_of(&place));
        let answered = records.iter().position(said)?;
        records.truncate(answered + 1);
        Some(records)
    });
    drop((app, broker));
    let (_, lost) = all_that_is_synced(&records);
    assert!(lost.is_empty(), "{}", lost[0]);
}

#[test]
fn a_worker_of_a_lost_task_is_stale_for_the_next_with_its_id() {
    // Proves that a worker which was handed a task whose INSERT the disk then forgot, for the app did not sync it, cannot
    // end the task that has got the same id after the loss of power.
    let place = Place::new();
    let shim = Shim::build(&place);
    let broker = Broker::start_under(&place, &[], shim.env());
    let app = App::start(&place, &shim, "one_normal");
    let peer = RawPeer::req(broker.endpoint());
    let Answer::Tasks(taken) = peer.ask(Request::Ready(plain_ready("w", "plain", 0, 30_000))) else {
        panic!("a task is due")
    };
    drop((app, broker));
    let (place, _) = all_that_is_synced(&log::read(&shim::log_of(&place)));
    let broker = Broker::start_with(&place, &["restart_hold_ms=0"]);
    let table = Table::open(&place);
    assert_eq!(table.count("1"), 0, "the row was synced, so nothing is shown");
    let id = table.insert("plain", "2");
    assert_eq!(id, taken.tasks[0].task.value().cast_signed());
    let mut late = Outcome::new(taken.tasks[0].task, taken.tasks[0].lease, End::Done);
    late.result = Some(Payload::json("1"));
    let peer = RawPeer::req(broker.endpoint());
    let ready = Ready { max: 0, outcomes: vec![late], ..plain_ready("w", "plain", 0, 0) };
    let Answer::Wait(wait) = peer.ask(Request::Ready(ready)) else { panic!("no answer to the outcome") };
    assert_eq!((wait.outcomes, table.state(id).as_str()), (vec![OutcomeCode::Stale], "queued"));
}
