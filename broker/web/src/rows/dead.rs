//! Dead tasks by what killed them: grouped by kind and the first line of the error, over the newest of them.

use std::collections::HashMap;

use laneway_protocol::message::error_line;
use rusqlite::params;
use serde::Serialize;

use super::table::{Table, Trouble};
use crate::limits::DEAD_ROWS_MAX;

/// Ids of each group that are shown.
const SHOWN: usize = 3;

const DEAD: &str = "SELECT id, kind, substr(error, 1, 128), finished_at FROM tasks INDEXED BY tasks_marked \
                    WHERE state = 'dead' AND id < ?1 ORDER BY id DESC LIMIT ?2";

/// Tasks that died alike.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct DeadGroup {
    pub(crate) kind: String,
    /// Of each of them, and of no other dead task of this kind: what a filter says with `line:`.
    pub(crate) error: String,
    pub(crate) n: usize,
    /// The newest of them.
    pub(crate) tasks: Vec<i64>,
    /// Of the newest and the oldest, Unix milliseconds.
    pub(crate) last_at: Option<i64>,
    pub(crate) first_at: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct DeadGroups {
    /// The largest first.
    pub(crate) groups: Vec<DeadGroup>,
    pub(crate) looked_at: usize,
    /// There are older ones, which are in no group.
    pub(crate) more: bool,
}

pub(crate) fn dead_groups(table: &mut Table) -> Result<DeadGroups, Trouble> {
    table.look(|conn, clock| {
        let mut found: HashMap<(String, String), DeadGroup> = HashMap::new();
        let mut statement = conn.prepare_cached(DEAD)?;
        let mut rows = statement.query(params![i64::MAX, i64::try_from(DEAD_ROWS_MAX + 1).unwrap_or(i64::MAX)])?;
        let mut all = DeadGroups::default();
        while let Some(row) = rows.next()? {
            if all.looked_at == DEAD_ROWS_MAX || clock.left() < std::time::Duration::from_millis(10) {
                all.more = true;
                break;
            }
            all.looked_at += 1;
            let text = |n: usize| row.get::<_, Option<String>>(n).ok().flatten().unwrap_or_default();
            let (id, kind, error): (i64, _, _) = (row.get(0)?, text(1), error_line(&text(2)).to_owned());
            let at = row.get::<_, Option<i64>>(3).ok().flatten();
            let group = found.entry((kind.clone(), error.clone())).or_insert_with(|| DeadGroup {
                kind,
                error,
                n: 0,
                tasks: Vec::new(),
                last_at: at,
                first_at: at,
            });
            group.n += 1;
            // By id, and one that was tried for long has died later than its followers.
            group.last_at = group.last_at.max(at);
            group.first_at = group.first_at.map_or(at, |first| Some(at.map_or(first, |at| first.min(at))));
            if group.tasks.len() < SHOWN {
                group.tasks.push(id);
            }
        }
        all.groups = found.into_values().collect();
        all.groups.sort_by(|a, b| b.n.cmp(&a.n).then_with(|| b.tasks.cmp(&a.tasks)));
        Ok(all)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::{self, assert_indexed};

    #[test]
    fn tasks_that_died_alike_are_one_group() {
        // Proves grouping by kind and first line, the largest first, by the index of dead rows; from the first death to the last by time.
        let place = testing::Place::new();
        assert_indexed(&place.conn(), DEAD);
        place
            .conn()
            .execute_batch(
                "INSERT INTO tasks(kind, state, error, finished_at) VALUES
                   ('a', 'dead', 'no route' || char(10) || 'at x', 20), ('a', 'dead', 'no route' || char(10) || 'at y', 10),
                   ('b', 'dead', 'no route', 30), ('a', 'done', NULL, 40), ('a', 'dead', NULL, 50)",
            )
            .unwrap();
        let found = dead_groups(&mut Table::new(place.db())).unwrap();
        let seen: Vec<_> =
            found.groups.iter().map(|g| (g.kind.as_str(), g.error.as_str(), g.n, g.tasks.clone())).collect();
        assert_eq!(seen, [("a", "no route", 2, vec![2, 1]), ("a", "", 1, vec![5]), ("b", "no route", 1, vec![3])]);
        assert_eq!((found.looked_at, found.more), (4, false));
        assert_eq!((found.groups[0].first_at, found.groups[0].last_at), (Some(10), Some(20)));
    }
}
