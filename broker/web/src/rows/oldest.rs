//! How long the oldest due task of each lane has been due: one or two seeks for each queue, never a walk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

use laneway_protocol::message::{KindState, LaneRow};
use rusqlite::{OptionalExtension as _, params};

use super::table::{Table, Trouble};
use crate::time::now_ms;

/// Queues that are looked at. Of a lane with more the age is told as a part: at least so old.
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

/// Since when the oldest due task of each lane has been due.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Oldest {
    /// By lane, Unix milliseconds.
    pub since: BTreeMap<String, i64>,
    /// Lanes of which not every queue was looked at.
    pub partial: BTreeSet<String>,
}

impl Oldest {
    /// Unix milliseconds. `None` for a lane in which no due task was found.
    pub fn since(&self, lane: &str) -> Option<i64> {
        self.since.get(lane).copied()
    }

    /// Whether an older due task may be there than the one that was found, or one where none was: there are too many kinds or fair
    /// keys, or the table had no time.
    pub fn is_partial(&self, lane: &str) -> bool {
        self.partial.contains(lane)
    }

    /// Lanes with a due task, by name.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = (&String, i64)> {
        self.since.iter().map(|(lane, since)| (lane, *since))
    }

    fn note(&mut self, lane: &str, since: i64) {
        self.since.entry(lane.into()).and_modify(|oldest| *oldest = since.min(*oldest)).or_insert(since);
    }

    fn note_partial(&mut self, lane: &str) {
        if !self.is_partial(lane) {
            self.partial.insert(lane.into());
        }
    }
}

/// What is looked at, and whose lanes have more.
#[derive(Debug, Default)]
pub(super) struct Queues {
    some: Vec<Queue>,
    rest: Oldest,
}

impl Queues {
    fn add(&mut self, lane: &str, written: Option<&str>, kind: &str) {
        if self.some.len() < QUEUES_MAX {
            self.some.push(Queue { lane: lane.into(), written: written.map(String::from), kind: kind.into() });
        } else {
            self.rest.note_partial(lane);
        }
    }

    /// What is known when no look was possible.
    pub(super) fn unknown(mut self) -> Oldest {
        for queue in &self.some {
            self.rest.note_partial(&queue.lane);
        }
        self.rest
    }
}

/// Rows of one kind that name this lane, or none.
#[derive(Debug, Clone)]
struct Queue {
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

    /// The look takes 100 ms at most.
    pub fn look(&mut self, lanes: &[LaneRow], kinds: &[KindState]) -> Oldest {
        self.table.asked(Instant::now());
        let queues = queues(lanes, kinds);
        oldest(&mut self.table, &queues).unwrap_or_else(|_| queues.unknown())
    }
}

/// A lane in which nothing waits has none.
pub(super) fn queues(lanes: &[LaneRow], kinds: &[KindState]) -> Queues {
    let (empty, waiting): (Vec<_>, Vec<_>) = lanes.iter().partition(|lane| lane.queued == 0);
    let mut queues = Queues::default();
    for kind in kinds.iter().filter(|kind| kind.queued > 0) {
        if empty.iter().all(|lane| lane.lane != kind.lane.as_str()) {
            queues.add(kind.lane.as_str(), None, kind.kind.as_str());
        }
        for lane in &waiting {
            queues.add(&lane.lane, Some(&lane.lane), kind.kind.as_str());
        }
    }
    queues
}

pub(super) fn oldest(table: &mut Table, queues: &Queues) -> Result<Oldest, Trouble> {
    table.look(|conn, clock| {
        let mut oldest = queues.rest.clone();
        let mut at_once = conn.prepare_cached(AT_ONCE)?;
        let mut later = conn.prepare_cached(LATER)?;
        let mut next_key = conn.prepare_cached(NEXT_KEY)?;
        let now = now_ms();
        for Queue { lane, written, kind } in &queues.some {
            let (mut key, mut keys): (Option<String>, usize) = (None, 0);
            let is_whole = loop {
                if clock.left().is_zero() || keys == KEYS_MAX {
                    break false;
                }
                keys += 1;
                // What an app wrote may be no number at all.
                let first = at_once.query_row(params![written, kind, key], |row| row.get::<_, i64>(0)).optional();
                let second = later.query_row(params![written, kind, key, now], |row| row.get::<_, i64>(0)).optional();
                for since in [first, second].into_iter().filter_map(|found| found.ok().flatten()) {
                    oldest.note(lane, since);
                }
                let after = key.as_deref().unwrap_or("");
                let next = next_key.query_row(params![written, kind, after], |row| row.get(0)).optional();
                match next {
                    Ok(Some(next)) => key = Some(next),
                    Ok(None) => break true,
                    Err(_) => break false,
                }
            };
            if !is_whole {
                oldest.note_partial(lane);
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
        let some = vec![queue("high", Some("high")), queue("normal", None), queue("low", Some("low"))];
        let found = oldest(&mut Table::new(place.db()), &Queues { some, ..Queues::default() }).unwrap();
        assert_eq!(["high", "normal", "low"].map(|lane| found.since(lane)), [Some(300), Some(700), None]);
        assert!(found.partial.is_empty());
        // Told of the lanes and kinds alone, it comes to the same; where there is no database there are no ages.
        let high = LaneRow { queued: 2, ..LaneRow::new("high".into()) };
        let (lanes, kinds) = ([high], [crate::snapshot::tests::kind("a", 5, 0)]);
        assert_eq!(Ages::new(place.db()).look(&lanes, &kinds), found);
        let unknown = Ages::new(place.db().with_file_name("none.db")).look(&lanes, &kinds);
        assert!(unknown.since.is_empty() && unknown.is_partial("high") && unknown.is_partial("normal"));
    }

    #[test]
    fn an_age_that_is_of_a_part_says_so() {
        // Proves that more kinds, or more fair keys, than are looked at mark the lanes that have them and no lane that is empty.
        let place = testing::Place::new();
        let conn = place.conn();
        let mut lanes = ["high", "normal", "low"].map(|lane| LaneRow::new(lane.into()));
        (lanes[0].queued, lanes[1].queued) = (1, 1);
        let kinds = |n: usize| -> Vec<KindState> {
            (0..n).map(|n| crate::snapshot::tests::kind(&format!("k{n}"), 1, 0)).collect()
        };
        let mut ages = Ages::new(place.db());
        let mut look = |n: usize| ages.look(&lanes, &kinds(n));
        assert!(look(QUEUES_MAX / 3).partial.is_empty());
        let found = look(QUEUES_MAX / 3 + 2);
        assert_eq!(["high", "normal", "low"].map(|lane| found.is_partial(lane)), [true, true, false]);
        let keys = |n: usize| {
            conn.execute("DELETE FROM tasks", []).unwrap();
            for n in 0..n {
                let sql = "INSERT INTO tasks(kind, lane, created_at, fair_key) VALUES ('k0', 'high', 500, ?1)";
                conn.execute(sql, [format!("key{n}")]).unwrap();
            }
        };
        // One look is for rows without a key.
        keys(KEYS_MAX - 1);
        assert!(!look(1).is_partial("high"));
        keys(KEYS_MAX);
        assert!(look(1).is_partial("high") && !look(1).is_partial("normal"));
    }
}
