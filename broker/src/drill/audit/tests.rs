//! The audit finds what it is for: one case for each rule, each a small healthy drill with a single thing wrong.

use super::super::faults::{Done, Stop, WorkerLife};
use super::super::job::{Job, Source};
use super::super::journal::Execution;
use super::super::ledger::{Acknowledged, Call, Cancel, Ledger, Told};
use super::super::table::{FailureRow, TaskRow};
use super::*;

const SEED: u64 = 5;
/// Unix milliseconds of the beginning.
const T0: i64 = 1_700_000_000_000;

/// What a drill left behind: a task with id 1 that was done at once by worker 0 of two.
#[derive(Clone)]
struct Drill {
    rows: Vec<TaskRow>,
    failures: Vec<FailureRow>,
    executions: Vec<Execution>,
    faults: Done,
    ledger: Vec<Acknowledged>,
    cancels: Vec<Cancel>,
    calls: Vec<Call>,
}

fn us(ms: i64) -> u64 {
    u64::try_from(T0 + ms).unwrap() * 1_000
}

fn job() -> Job {
    let jobs = Source::Wire.numbers(0).map(|number| Job::new(SEED, number));
    jobs.into_iter().find(|job| job.kind == "quick" && job.lane.is_none()).unwrap()
}

fn execution(run: u32, worker: usize, at_ms: i64, how: Option<&str>) -> Execution {
    let ended = how.map(|how| (us(at_ms + 1), how.to_owned()));
    Execution { task: 1, run, lease: i64::from(run) * 10, worker, started_us: us(at_ms), ended }
}

fn lost(run: u32, at_ms: i64) -> FailureRow {
    FailureRow {
        task: 1,
        run,
        cause: "lost".into(),
        worker: Some("session-0".into()),
        started_at: None,
        failed_at: T0 + at_ms,
    }
}

fn healthy() -> Drill {
    let job = job();
    let row = TaskRow {
        id: 1,
        number: Some(job.number),
        kind: job.kind.into(),
        lane: Some("normal".into()),
        state: "done".into(),
        payload: Some(job.payload.clone()),
        result: Some(job.result()),
        error: None,
        unique_key: None,
        runs: 1,
        attempts: 1,
        losses: 0,
        releases: 0,
        max_attempts: None,
        lease: Some(10),
        worker: Some("session-0".into()),
        created_at: T0,
        finished_at: Some(T0 + 10),
    };
    let worker = |name: &str| WorkerLife { name: name.into(), ..WorkerLife::default() };
    Drill {
        rows: vec![row],
        failures: Vec::new(),
        executions: vec![execution(1, 0, 5, Some("done"))],
        faults: Done { workers: vec![worker("worker-0"), worker("worker-1")], ..Done::default() },
        ledger: vec![Acknowledged { number: job.number, task: 1 }],
        cancels: Vec::new(),
        calls: Vec::new(),
    }
}

/// Its first run died with worker 0, the second was done by worker 1.
fn with_a_loss() -> Drill {
    let mut drill = healthy();
    drill.executions = vec![execution(1, 0, 5, None), execution(2, 1, 500, Some("done"))];
    drill.faults.workers[0].killed_us = Some(us(100));
    drill.failures.push(lost(1, 101));
    let row = &mut drill.rows[0];
    (row.runs, row.losses, row.lease, row.finished_at) = (2, 1, Some(20), Some(T0 + 502));
    drill
}

fn findings(drill: Drill) -> Findings {
    let Drill { rows, failures, executions, faults, ledger, cancels, calls } = drill;
    let evidence = Evidence::new(SEED, rows, failures, executions, faults);
    audit(&evidence, &Ledger { tasks: ledger, cancels, calls, ..Ledger::default() })
}

/// The rules that do not hold once `wrong` was done to a drill.
fn broken(mut drill: Drill, wrong: impl FnOnce(&mut Drill)) -> Vec<&'static str> {
    wrong(&mut drill);
    findings(drill).violations.iter().map(|violation| violation.rule).collect()
}

#[test]
fn what_is_in_order_passes() {
    // Proves that the other cases fail for what was done to them, and that a kill explains a second execution.
    assert_eq!(findings(healthy()).violations, []);
    let again = findings(with_a_loss());
    assert_eq!(again.violations, []);
    assert_eq!(again.again[&Cause::WorkerKilled].times, 1);
}

#[test]
fn lost_and_foreign_tasks_are_found() {
    // Proves that an acknowledged task must be there as it was given and have ended well.
    assert_eq!(broken(healthy(), |drill| drill.rows.clear()), ["a task was lost"]);
    assert_eq!(broken(healthy(), |drill| drill.ledger.clear()), ["a row is nobody's"]);
    let twice = |drill: &mut Drill| drill.rows.push(TaskRow { id: 2, runs: 0, attempts: 1, ..drill.rows[0].clone() });
    assert!(broken(healthy(), twice).contains(&"a task was stored twice"));
    assert_eq!(broken(healthy(), |drill| drill.rows[0].kind = "slow".into()), ["a row is not as it was given"]);
    assert!(broken(healthy(), |drill| drill.rows[0].state = "queued".into()).contains(&"a task did not end"));
}

#[test]
fn wrong_ends_are_found() {
    // Proves that state and result must be the handler's, and what a caller or a canceller was told.
    assert_eq!(broken(healthy(), |drill| drill.rows[0].result = None), ["a result is wrong"]);
    assert_eq!(broken(healthy(), |drill| drill.executions[0].lease = 11), ["a task ended wrongly"]);
    let cancel = |drill: &mut Drill| drill.cancels.push(Cancel { task: 1, told: Told::Cancelled });
    assert_eq!(broken(healthy(), cancel), ["a task ended wrongly"]);
    let call = |drill: &mut Drill| {
        drill.calls.push(Call { task: 1, state: laneway::TaskState::Dead, result: None });
    };
    assert_eq!(broken(healthy(), call), ["a caller was told another end"]);
}

#[test]
fn repeats_without_a_cause_are_found() {
    // Proves that a second execution needs a kill or a long enough stop, and may never happen under one lease.
    let unhurt = |drill: &mut Drill| drill.faults.workers[0].killed_us = None;
    let rules = broken(with_a_loss(), unhurt);
    assert!(rules.contains(&"a task was executed twice without a cause") && rules.contains(&"a failure has no cause"));
    let stopped = |ms: i64| {
        move |drill: &mut Drill| {
            drill.faults.workers[0].killed_us = None;
            drill.faults.workers[0].stops.push(Stop { from_us: us(0), to_us: us(ms) });
            drill.executions[1].started_us = us(ms);
            drill.failures[0].failed_at = T0 + ms;
        }
    };
    assert_eq!(broken(with_a_loss(), stopped(4_000)), Vec::<&str>::new());
    assert!(!broken(with_a_loss(), stopped(400)).is_empty());
    let same = |drill: &mut Drill| drill.executions[0].lease = 20;
    assert_eq!(broken(with_a_loss(), same), ["a hand-out was executed twice"]);
}

#[test]
fn dishonest_counters_are_found() {
    // Proves that each counter is held against failures, journals and the faults.
    let counters: [fn(&mut TaskRow); 5] = [
        |row| row.attempts = 2,
        |row| row.losses = 0,
        |row| row.runs = 1,
        |row| row.releases = 1,
        |row| row.attempts = 0,
    ];
    for (n, change) in counters.into_iter().enumerate() {
        let rules = broken(with_a_loss(), |drill| change(&mut drill.rows[0]));
        assert!(rules.contains(&"a counter is wrong"), "case {n}: {rules:?}");
    }
    assert_eq!(broken(healthy(), |drill| drill.rows[0].runs = 2), ["a counter is wrong"]);
    let forgotten = |drill: &mut Drill| {
        drill.cancels.push(Cancel { task: 1, told: Told::Requested });
        (drill.rows[0].state, drill.rows[0].runs, drill.rows[0].attempts) = ("cancelled".into(), 0, 0);
    };
    assert_eq!(broken(healthy(), forgotten), ["a counter is wrong"]);
    let with_a_kill = |drill: &mut Drill| {
        forgotten(drill);
        drill.faults.broker_kills_us.push(us(6));
    };
    assert_eq!(broken(healthy(), with_a_kill), Vec::<&str>::new());
}

#[test]
fn two_live_tasks_with_one_key_are_found() {
    // Proves that a key's next task must be younger than the end of the one before.
    let keyed = |created_at: i64| {
        move |drill: &mut Drill| {
            drill.rows[0].unique_key = Some("key".into());
            let next = TaskRow { id: 2, created_at: T0 + created_at, ..drill.rows[0].clone() };
            drill.rows.push(next);
        }
    };
    assert!(broken(healthy(), keyed(5)).contains(&"two live tasks had one key"));
    assert!(!broken(healthy(), keyed(20)).contains(&"two live tasks had one key"));
}
