//! Schedules by name, as the table has them.

use rusqlite::params;

use super::table::{Table, Trouble};

const SCHEDULES: &str = "SELECT name, cron, ifnull(time_zone, 'UTC'), kind, lane, paused, next_at, last_at, last_task, error \
                         FROM schedules WHERE name > ?1 ORDER BY name LIMIT ?2";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScheduleLine {
    pub(crate) name: String,
    pub(crate) cron: String,
    pub(crate) time_zone: String,
    pub(crate) kind: String,
    pub(crate) lane: Option<String>,
    pub(crate) is_paused: bool,
    pub(crate) next_at: Option<i64>,
    pub(crate) last_at: Option<i64>,
    pub(crate) last_task: Option<i64>,
    pub(crate) error: Option<String>,
}

/// Those behind this name.
pub(crate) fn schedules(table: &mut Table, after: &str, rows_max: usize) -> Result<Vec<ScheduleLine>, Trouble> {
    table.look(|conn, _| {
        let mut statement = conn.prepare_cached(SCHEDULES)?;
        let limit = i64::try_from(rows_max).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![after, limit], |row| {
            Ok(ScheduleLine {
                name: row.get(0)?,
                cron: row.get(1)?,
                time_zone: row.get(2)?,
                kind: row.get(3)?,
                lane: row.get(4)?,
                is_paused: row.get(5)?,
                next_at: row.get(6)?,
                last_at: row.get(7)?,
                last_task: row.get(8).ok().flatten(),
                error: row.get(9).ok().flatten(),
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
    fn schedules_come_by_name_page_by_page() {
        // Proves the order, what a page begins behind, and that neither sorts the table.
        let place = testing::Place::new();
        assert_indexed(&place.conn(), SCHEDULES);
        place
            .conn()
            .execute_batch(
                "INSERT INTO schedules(name, cron, time_zone, kind, paused) VALUES
                   ('b', '* * * * *', NULL, 'k', 1), ('a', '@daily', 'Europe/Berlin', 'k', 0), ('c', '@daily', 'UTC', 'k', 0)",
            )
            .unwrap();
        let mut table = Table::new(place.db());
        let rows = schedules(&mut table, "", 2).unwrap();
        let seen: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.time_zone.as_str(), row.is_paused)).collect();
        assert_eq!(seen, [("a", "Europe/Berlin", false), ("b", "UTC", true)]);
        assert_eq!(schedules(&mut table, "b", 2).unwrap().len(), 1);
    }
}
