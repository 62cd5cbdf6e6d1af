//! Groups of tasks, newest first, and how far each is.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::Serialize;

use super::group_counts::{EACH_MAX, GroupCounts, ONE_MAX};
use super::table::{Clock, Table, Trouble, is_broken_off};

/// Counting of another group begins only with so much time left.
const COUNT_TIME: Duration = Duration::from_millis(50);

const GROUPS: &str = "SELECT id, name, last_task, created_at FROM task_groups WHERE id < ?1 ORDER BY id DESC LIMIT ?2";
const GROUP: &str = "SELECT id, name, last_task, created_at FROM task_groups WHERE id = ?1";

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct GroupLine {
    pub(crate) id: i64,
    pub(crate) name: Option<String>,
    pub(crate) last_task: Option<i64>,
    pub(crate) created_at: i64,
    /// Absent where there was no time to count.
    #[serde(flatten)]
    pub(crate) counts: Option<GroupCounts>,
}

pub(crate) fn groups(table: &mut Table, before: Option<i64>, rows_max: usize) -> Result<Vec<GroupLine>, Trouble> {
    table.look(|conn, clock| {
        let mut statement = conn.prepare_cached(GROUPS)?;
        let limit = i64::try_from(rows_max).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![before.unwrap_or(i64::MAX), limit], line)?;
        let mut lines: Vec<GroupLine> = rows.collect::<rusqlite::Result<_>>()?;
        count(conn, clock, &mut lines)?;
        Ok(lines)
    })
}

/// One group, counted further. `None` when nobody has heard of it.
pub(crate) fn group(table: &mut Table, id: i64) -> Result<Option<GroupLine>, Trouble> {
    match look(table, id, ONE_MAX) {
        // From a slow disk. What was read is at hand now.
        Err(Trouble::TooBroad) => look(table, id, EACH_MAX),
        found => found,
    }
}

fn look(table: &mut Table, id: i64, rows_max: u64) -> Result<Option<GroupLine>, Trouble> {
    table.look(|conn, _| {
        let counts = GroupCounts::count(conn, id, rows_max)?;
        let known = conn.prepare_cached(GROUP)?.query_row([id], line).optional()?;
        // A number that an app made up is a group as soon as a task has it.
        let nameless = || GroupLine { id, name: None, last_task: None, created_at: 0, counts: None };
        let found = known.or_else(|| (counts.total() > 0).then(nameless));
        Ok(found.map(|found| GroupLine { counts: Some(counts), ..found }))
    })
}

fn count(conn: &Connection, clock: &Clock, lines: &mut [GroupLine]) -> rusqlite::Result<()> {
    for line in lines {
        if clock.left() < COUNT_TIME {
            break;
        }
        match GroupCounts::count(conn, line.id, EACH_MAX) {
            Ok(counts) => line.counts = Some(counts),
            Err(error) if is_broken_off(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn line(row: &Row<'_>) -> rusqlite::Result<GroupLine> {
    Ok(GroupLine {
        id: row.get(0)?,
        name: row.get(1).ok().flatten(),
        last_task: row.get(2).ok().flatten(),
        created_at: row.get(3).unwrap_or(0),
        counts: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::{self, assert_indexed};

    #[test]
    fn groups_come_newest_first_with_how_far_they_are() {
        // Proves the order, the page and the counts, by the table's own key.
        let place = testing::Place::new();
        assert_indexed(&place.conn(), GROUPS);
        assert_indexed(&place.conn(), GROUP);
        place
            .conn()
            .execute_batch(
                "INSERT INTO task_groups(name) VALUES ('a'), ('b'), ('c');
                 INSERT INTO tasks(kind, state, group_id) VALUES ('k', 'done', 2), ('k', 'queued', 2), ('k', 'queued', 9)",
            )
            .unwrap();
        let mut table = Table::new(place.db());
        let names = |rows: Vec<GroupLine>| rows.into_iter().filter_map(|row| row.name).collect::<Vec<_>>();
        assert_eq!(names(groups(&mut table, None, 2).unwrap()), ["c", "b"]);
        assert_eq!(names(groups(&mut table, Some(2), 2).unwrap()), ["a"]);
        let counts = |line: &GroupLine| line.counts.as_ref().map(|counts| (counts.live(), counts.ended()));
        let list: Vec<_> = groups(&mut table, None, 3).unwrap().iter().map(counts).collect();
        assert_eq!(list, [Some((0, 0)), Some((1, 1)), Some((0, 0))]);
        // With a row of its own, with tasks alone, with neither.
        let mut one = |id| group(&mut table, id).unwrap();
        assert_eq!(one(2).as_ref().and_then(counts), Some((1, 1)));
        assert_eq!(one(9).map(|line| (line.name, line.created_at)), Some((None, 0)));
        assert_eq!(one(10), None);
    }

    #[test]
    fn large_groups_are_counted_up_to_a_bound() {
        // Proves that a page of large groups is a short look, and that one group is counted further than in a list.
        let place = testing::Place::new();
        place
            .conn()
            .execute_batch(
                "INSERT INTO task_groups(name) VALUES ('large');
                 WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 12000)
                 INSERT INTO tasks(kind, group_id) SELECT 'k', 1 FROM n",
            )
            .unwrap();
        let mut table = Table::new(place.db());
        let list = groups(&mut table, None, 30).unwrap().remove(0).counts.unwrap();
        assert_eq!((list.queued, list.at_least.as_slice()), (EACH_MAX, &["queued"][..]));
        let one = group(&mut table, 1).unwrap().unwrap().counts.unwrap();
        assert_eq!((one.queued, one.at_least.len()), (12_000, 0));
    }
}
