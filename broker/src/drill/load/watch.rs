//! Looks at rows that have just ended, all the time, so that the audit can tell whether an end ever changed.

use std::thread;
use std::time::Duration;

use super::super::ledger::Seen;
use super::{Desk, sql};

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Rows noted at each look.
const ROWS: u32 = 8;

pub(super) fn run(desk: &Desk) {
    let app = match sql::open(desk) {
        Ok(app) => app,
        Err(error) => return desk.failed("opening the database", [], &error),
    };
    let mut after = 0;
    while !desk.is_over() {
        let read = || -> rusqlite::Result<Vec<Seen>> {
            let sql = "SELECT id, state, result, lease, finished_at FROM tasks \
                       WHERE id > ?1 AND state IN ('done', 'dead', 'cancelled') ORDER BY id LIMIT ?2";
            let seen = |row: &rusqlite::Row| {
                let (task, state, result) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok(Seen { task, state, result, lease: row.get(3)?, finished_at: row.get(4)? })
            };
            app.prepare_cached(sql)?.query_map((after, ROWS), seen)?.collect()
        };
        match read() {
            Ok(seen) => {
                // A stride, so that the samples keep up with the load; at the end it starts over.
                after = seen.last().map_or(0, |last| last.task + i64::from(ROWS));
                desk.ledger().seen.extend(seen);
            }
            Err(error) => desk.failed("a look at the table", [], &error),
        }
        thread::sleep(LOOK_EVERY);
    }
}
