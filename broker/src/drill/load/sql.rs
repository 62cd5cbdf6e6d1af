//! Tasks that come by INSERT, in transactions of an app with the SQLite of this program.

use rusqlite::{Connection, TransactionBehavior, params};

use super::super::job::Job;
use super::{Desk, PATIENCE, Pace, ms_from_now};

/// The most rows in one transaction.
const ROWS_MAX: u64 = 40;
/// An app that stays for a while, then comes anew: closing the last connection while no broker runs tidies the file up.
const TRANSACTIONS_PER_CONNECTION: u32 = 25;

pub(super) fn run(desk: &Desk, mut pace: Pace) {
    loop {
        let mut app = match open(desk) {
            Ok(app) => app,
            Err(error) => return desk.failed("opening the database", [], &error),
        };
        for _ in 0..TRANSACTIONS_PER_CONNECTION {
            let jobs = pace.next(desk, ROWS_MAX);
            if jobs.is_empty() {
                return;
            }
            match insert(&mut app, &jobs) {
                Ok(ids) => note(desk, jobs, ids),
                Err(error) => desk.failed("an INSERT", jobs.iter().map(|job| job.number), &error),
            }
        }
    }
}

/// A connection as an app has it.
pub(super) fn open(desk: &Desk) -> rusqlite::Result<Connection> {
    let app = Connection::open(desk.db())?;
    app.busy_timeout(PATIENCE)?;
    Ok(app)
}

/// The ids of the new rows; `None` where a live task had the same key.
fn insert(app: &mut Connection, jobs: &[Job]) -> rusqlite::Result<Vec<Option<i64>>> {
    let transaction = app.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut ids = Vec::with_capacity(jobs.len());
    {
        let mut statement = transaction.prepare_cached(
            "INSERT INTO tasks (kind, lane, payload, unique_key, max_attempts, timeout_ms, run_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
        )?;
        for job in jobs {
            let run_at = job.delay_ms.map(ms_from_now);
            let timeout_ms = job.timeout_ms.map(u64::cast_signed);
            let key = job.unique_key.as_deref();
            let row = params![job.kind, job.lane, job.payload, key, job.max_attempts, timeout_ms, run_at];
            ids.push((statement.execute(row)? == 1).then(|| transaction.last_insert_rowid()));
        }
    }
    transaction.commit()?;
    Ok(ids)
}

fn note(desk: &Desk, jobs: Vec<Job>, ids: Vec<Option<i64>>) {
    let mut stored = Vec::new();
    for (job, id) in jobs.into_iter().zip(ids) {
        match id {
            Some(id) => stored.push((job, id)),
            None => desk.met(job.number, None),
        }
    }
    desk.acknowledged(stored);
}
