//! The schema that the database has, by the list of migrations that the broker's program has made.

use rusqlite::OptionalExtension as _;

use super::table::{Table, Trouble};

const HISTORY: &str = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'laneway_schema_history'";
const VERSION: &str = "SELECT coalesce(max(version), 0) FROM laneway_schema_history";

/// 0 when it has none.
pub(crate) fn schema(table: &mut Table) -> Result<u32, Trouble> {
    table.look(|conn, _| match conn.query_row(HISTORY, [], |_| Ok(())).optional()? {
        Some(()) => conn.query_row(VERSION, [], |row| row.get(0)),
        None => Ok(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing;

    #[test]
    fn a_database_has_a_schema_or_none() {
        // Proves that one of an app alone is told from one that was upgraded.
        let place = testing::Place::new();
        let mut table = Table::new(place.db());
        assert_eq!(schema(&mut table), Ok(0));
        let made =
            "CREATE TABLE laneway_schema_history (version INTEGER); INSERT INTO laneway_schema_history VALUES (9), (7)";
        place.conn().execute_batch(made).unwrap();
        assert_eq!(schema(&mut table), Ok(9));
    }
}
