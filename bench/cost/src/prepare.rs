//! The database to drain, by SQL alone. The same words make the same rows on each machine.

use std::path::Path;

use clap::Args;
use laneway_broker::internals::Table;

/// Rows of one transaction: few enough for the log, many enough for speed.
const PIECE: u64 = 500_000;
/// When the first row was created; each came a millisecond after the one before.
const CREATED_AT: i64 = 1_700_000_000_000;

#[derive(Args)]
pub(crate) struct Rows {
    /// Queued rows; the kinds take turns.
    #[arg(long, default_value_t = 20_000)]
    queued: u64,
    /// Done rows, older than the queued ones.
    #[arg(long, default_value_t = 0)]
    finished: u64,
    #[arg(long, default_value_t = 1)]
    kinds: usize,
}

pub(crate) fn prepare(db: &Path, rows: &Rows) {
    let table = Table::sqlite(db);
    table.execute("PRAGMA synchronous = OFF; PRAGMA cache_size = -500000");
    let kinds = rows.kinds.max(1);
    let common = format!("'kind-' || (i % {kinds}), {CREATED_AT} + i, '{{\"number\":' || i || '}}'");
    let queued = format!("INSERT INTO tasks (kind, created_at, payload) SELECT {common} FROM n");
    let finished = format!(
        "INSERT INTO tasks (kind, created_at, payload, state, lease, runs, attempts, started_at, finished_at, worker, result)
         SELECT {common}, 'done', i * 0x1234567, 1, 1, {CREATED_AT} + i + 20, {CREATED_AT} + i + 35,
                '0123456789abcdef0123456789abcdef', '{{\"ok\":true}}' FROM n"
    );
    insert(&table, &finished, rows.finished);
    insert(&table, &queued, rows.queued);
}

/// The statement takes its numbers from a table `n` with a column `i`.
fn insert(table: &Table, statement: &str, rows: u64) {
    for from in (0..rows).step_by(usize::try_from(PIECE).expect("a small number")) {
        let last = rows.min(from + PIECE) - 1;
        let numbers = format!("WITH n (i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM n WHERE i < {last})");
        table.execute(&format!("{numbers} {statement}; PRAGMA wal_checkpoint(TRUNCATE)"));
    }
}
