//! How long the oldest due task of each lane has been due: one or two seeks for each queue, never a walk.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use laneway_protocol::message::{KindState, LaneRow};
use rusqlite::{OptionalExtension as _, params};

use super::table::{Table, Trouble};
use crate::time::now_ms;

/// Queues that are looked at; more kinds than this wait nowhere that a person looks at lanes.
const QUEUES_MAX: usize = 128;
/// Fair keys of a queue that are looked at, each a seek.
const KEYS_MAX: usize = 8;

/// Due at once: the first in the index with neither key nor time is the one that was inserted first.
const AT_ONCE: &str = "SELECT created_at FROM tasks INDEXED BY tasks_queue WHERE state = 'queued' AND lane IS ?1 AND kind = ?2 \
                       AND fair_key IS ?3 AND run_at IS NULL ORDER BY id LIMIT 1";
const LATER: &str = "SELECT run_at FROM tasks INDEXED BY tasks_queue WHERE state = 'queued' AND lane IS ?1 AND kind = ?2 \
                     AND fair_key IS ?3 AND run_at <= ?4 ORDER BY run_at LIMIT 1";
const NEXT_KEY: &str = "SELECT fair_key FROM tasks INDEXED BY tasks_queue WHERE state = 'queued' AND lane IS ?1 AND kind = ?2 \
                        AND fair_key > ?3 ORDER BY fair_key LIMIT 1";

/// Rows of one kind that name this lane, or none.
pub(super) struct Queue {
    lane: String,
    /// As it stands in the rows.
    written: Option<String>,
    kind: String,
}

/// The same looks for those who have no dashboard: on a connection of their own that can only read.
pub struct Ages {
    table: Table,
}

impl Ages {
    /// Of this database, which is opened at the first look. One that is not there is not made.
    pub fn new(db: PathBuf) -> Self {
        Self { table: Table::new(db) }
    }

    /// By lane: since when its oldest due task has been due, Unix milliseconds. A lane without one is not in it, and none is when
    /// the table has no time for it: the look takes 100 ms at most.
    pub fn look(&mut self, lanes: &[LaneRow], kinds: &[KindState]) -> BTreeMap<String, i64> {
        self.table.asked(Instant::now());
        oldest(&mut self.table, &queues(lanes, kinds)).unwrap_or_default()
    }
}

pub(super) fn queues(lanes: &[LaneRow], kinds: &[KindState]) -> Vec<Queue> {
    let mut queues = Vec::new();
    for kind in kinds.iter().filter(|kind| kind.queued > 0) {
        let of = |lane: &str, written| Queue { lane: lane.into(), written, kind: kind.kind.to_string() };
        queues.push(of(kind.lane.as_str(), None));
        let lanes = lanes.iter().filter(|lane| lane.queued > 0);
        queues.extend(lanes.map(|lane| of(&lane.lane, Some(lane.lane.clone()))));
    }
    queues.truncate(QUEUES_MAX);
    queues
}

pub(super) fn oldest(table: &mut Table, queues: &[Queue]) -> Result<BTreeMap<String, i64>, Trouble> {
    table.look(|conn, clock| {
        let mut oldest: BTreeMap<String, i64> = BTreeMap::new();
        let mut at_once = conn.prepare_cached(AT_ONCE)?;
        let mut later = conn.prepare_cached(LATER)?;
        let mut next_key = conn.prepare_cached(NEXT_KEY)?;
        let now = now_ms();
        for Queue { lane, written, kind } in queues {
            if clock.left().is_zero() {
                break;
            }
            let mut key: Option<String> = None;
            for _ in 0..KEYS_MAX {
                // What an app wrote may be no number at all.
                let first = at_once.query_row(params![written, kind, key], |row| row.get::<_, i64>(0)).optional();
                let second = later.query_row(params![written, kind, key, now], |row| row.get::<_, i64>(0)).optional();
                for since in [first, second].into_iter().filter_map(|found| found.ok().flatten()) {
                    oldest.entry(lane.clone()).and_modify(|oldest| *oldest = since.min(*oldest)).or_insert(since);
                }
                let after = key.as_deref().unwrap_or("");
                let next = next_key.query_row(params![written, kind, after], |row| row.get(0)).optional();
                let Ok(Some(next)) = next else { break };
                key = Some(next);
            }
        }
        Ok(oldest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::{self, assert_indexed};

    #[test]
    fn the_oldest_due_task_of_a_lane_is_found_by_seeks() {
        // Proves that rows for later do not count, that fair keys do, and that a row without a lane is in its kind's own.
        let place = testing::Place::new();
        let conn = place.conn();
        for sql in [AT_ONCE, LATER, NEXT_KEY] {
            assert_indexed(&conn, sql);
        }
        conn.execute_batch(
            "INSERT INTO tasks(kind, lane, created_at, run_at, fair_key) VALUES
               ('a', 'high', 500, NULL, NULL), ('a', 'high', 300, NULL, 'acme'), ('a', NULL, 900, NULL, NULL),
               ('a', NULL, 100, 4000000000000, NULL), ('a', NULL, 100, 700, NULL)",
        )
        .unwrap();
        let queue = |lane: &str, written: Option<&str>| Queue {
            lane: lane.into(),
            written: written.map(String::from),
            kind: "a".into(),
        };
        let queues = [queue("high", Some("high")), queue("normal", None), queue("low", Some("low"))];
        let found = oldest(&mut Table::new(place.db()), &queues).unwrap();
        assert_eq!(found, BTreeMap::from([("high".into(), 300), ("normal".into(), 700)]));
        // Told of the lanes and kinds alone, it comes to the same; where there is no database there are no ages.
        let high = LaneRow { queued: 2, ..LaneRow::new("high".into()) };
        let (lanes, kinds) = ([high], [crate::snapshot::tests::kind("a", 5, 0)]);
        assert_eq!(Ages::new(place.db()).look(&lanes, &kinds), found);
        assert!(Ages::new(place.db().with_file_name("none.db")).look(&lanes, &kinds).is_empty());
    }
}
