//! Unique keys: never two live tasks of one kind and key, and whoever met one met the right one.

use std::collections::HashMap;

use super::super::job::Job;
use super::super::ledger::Ledger;
use super::super::table::TaskRow;
use super::{Evidence, Findings};

/// Times in rows are rounded to milliseconds.
const ROUNDED_MS: i64 = 1;

pub(super) fn judge(evidence: &Evidence, ledger: &Ledger, findings: &mut Findings) {
    let mut last: HashMap<(&str, &str), &TaskRow> = HashMap::new();
    for row in evidence.rows.values() {
        let Some(key) = row.unique_key.as_deref() else { continue };
        let Some(before) = last.insert((&row.kind, key), row) else { continue };
        if before.finished_at.is_none_or(|ended| ended > row.created_at + ROUNDED_MS) {
            let (ended, stored) = (before.finished_at, row.created_at);
            let text = format!("stored at {stored} while task {} was live until {ended:?}", before.id);
            findings.violation("two live tasks had one key", Some(row.id), text);
        }
    }
    for (number, met) in &ledger.met {
        let job = Job::new(evidence.seed, *number);
        let Some(met) = met else { continue };
        let row = evidence.rows.get(met);
        if row.is_none_or(|row| row.unique_key != job.unique_key || row.kind != job.kind) {
            let text = format!("number {number} was told that this is the task with its key {:?}", job.unique_key);
            findings.violation("a key met another one's task", Some(*met), text);
        }
    }
}
