//! Groups of tasks, newest first. How far each is says the broker.

use rusqlite::params;
use serde::Serialize;

use super::table::{Table, Trouble};

const GROUPS: &str = "SELECT id, name, last_task, created_at FROM task_groups WHERE id < ?1 ORDER BY id DESC LIMIT ?2";

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct GroupLine {
    pub(crate) id: i64,
    pub(crate) name: Option<String>,
    pub(crate) last_task: Option<i64>,
    pub(crate) created_at: i64,
}

pub(crate) fn groups(table: &mut Table, before: Option<i64>, rows_max: usize) -> Result<Vec<GroupLine>, Trouble> {
    table.look(|conn, _| {
        let mut statement = conn.prepare_cached(GROUPS)?;
        let limit = i64::try_from(rows_max).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![before.unwrap_or(i64::MAX), limit], |row| {
            Ok(GroupLine {
                id: row.get(0)?,
                name: row.get(1).ok().flatten(),
                last_task: row.get(2).ok().flatten(),
                created_at: row.get(3).unwrap_or(0),
            })
        })?;
        rows.collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::{self, assert_indexed};

    #[test]
    fn groups_come_newest_first() {
        // Proves the order and the page, by the table's own key.
        let place = testing::Place::new();
        assert_indexed(&place.conn(), GROUPS);
        place.conn().execute_batch("INSERT INTO task_groups(name) VALUES ('a'), ('b'), ('c')").unwrap();
        let mut table = Table::new(place.db());
        let names = |rows: Vec<GroupLine>| rows.into_iter().filter_map(|row| row.name).collect::<Vec<_>>();
        assert_eq!(names(groups(&mut table, None, 2).unwrap()), ["c", "b"]);
        assert_eq!(names(groups(&mut table, Some(2), 2).unwrap()), ["a"]);
    }
}
