//! Cancels of tasks that were just stored, by CANCEL and by UPDATE in turn.

use std::thread;
use std::time::Duration;

use laneway::{TaskId, Verdict};
use rusqlite::Connection;

use super::super::ledger::{Cancel, Told};
use super::{Desk, sql, wire};

const LOOK_EVERY: Duration = Duration::from_millis(10);

pub(super) fn run(desk: &Desk) {
    let Some(client) = wire::connect(desk) else { return };
    let app = match sql::open(desk) {
        Ok(app) => app,
        Err(error) => return desk.failed("opening the database", [], &error),
    };
    let mut by_sql = false;
    while !desk.is_enough() {
        let Some(task) = desk.candidate() else {
            thread::sleep(LOOK_EVERY);
            continue;
        };
        by_sql = !by_sql;
        let told = if by_sql {
            update(&app, task).map_err(|error| error.to_string())
        } else {
            let id = u64::try_from(task).ok().and_then(TaskId::new);
            id.map_or(Ok(Told::Nothing), |id| client.cancel(&[id]).map(|verdicts| told(&verdicts)))
                .map_err(|error| error.to_string())
        };
        let told = told.unwrap_or_else(|error| {
            desk.failed("a cancel", [], &error);
            Told::Nothing
        });
        desk.ledger().cancels.push(Cancel { task, told });
    }
}

fn update(app: &Connection, task: i64) -> rusqlite::Result<Told> {
    let sql = "UPDATE tasks SET cancel_requested = 1 WHERE id = ?1 AND state IN ('queued', 'running', 'waiting')";
    Ok(if app.prepare_cached(sql)?.execute([task])? == 1 { Told::Requested } else { Told::Nothing })
}

fn told(verdicts: &[Verdict]) -> Told {
    match verdicts {
        [Verdict::Cancelled] => Told::Cancelled,
        [Verdict::Requested] => Told::Requested,
        _ => Told::Nothing,
    }
}
