//! Where one task or one group stands, as much of it as an observer link shows: a few columns, never payload or result.

use laneway::{Observed, TaskState};
use rusqlite::{Connection, OptionalExtension as _};

use super::group_counts::{GroupCounts, ONE_MAX};
use super::table::{Table, Trouble};

/// The beginnings of what a worker said and of the error are enough for a page.
const TASK: &str = "SELECT state, progress_done, progress_total, substr(progress_note, 1, 200), created_at, started_at, finished_at, \
                    substr(error, 1, 500) FROM tasks WHERE id = ?1";
const GROUP: &str = "SELECT created_at FROM task_groups WHERE id = ?1";

/// A task, or the tasks of a group taken together. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) state: TaskState,
    /// How far: of a task what its worker said last, of a group the tasks that have ended.
    pub(crate) done: Option<u64>,
    pub(crate) total: Option<u64>,
    /// Of a group: dead and cancelled ones.
    pub(crate) failed: Option<u64>,
    pub(crate) note: Option<String>,
    pub(crate) created_at: Option<i64>,
    pub(crate) started_at: Option<i64>,
    pub(crate) finished_at: Option<i64>,
    /// Its beginning, of a task that is dead or cancelled.
    pub(crate) error: Option<String>,
}

/// `None` when it is not there, or not any more.
pub(crate) fn standing(table: &mut Table, observed: Observed) -> Result<Option<Standing>, Trouble> {
    table.look(|conn, _| match observed {
        Observed::Task(task) => of_task(conn, task.value()),
        Observed::Group(group) => of_group(conn, group),
    })
}

fn of_task(conn: &Connection, id: u64) -> rusqlite::Result<Option<Standing>> {
    let found = conn.prepare_cached(TASK)?.query_row([signed(id)], |row| {
        // An app may have written anything into a column: what does not fit is shown as if it were not there.
        let text = |n: usize| row.get::<_, Option<String>>(n).ok().flatten();
        let number = |n: usize| row.get::<_, Option<i64>>(n).ok().flatten();
        let count = |n: usize| number(n).and_then(|n| u64::try_from(n).ok());
        let Some(state) = text(0).and_then(|word| TaskState::parse(&word)) else { return Ok(None) };
        // What an earlier run said stays in the row until the next one says something.
        let has_run = state.is_final() || state == TaskState::Running;
        Ok(Some(Standing {
            state,
            done: count(1).filter(|_| has_run),
            total: count(2).filter(|_| has_run),
            failed: None,
            note: text(3).filter(|_| has_run && state != TaskState::Done),
            created_at: number(4),
            started_at: number(5).filter(|_| has_run),
            finished_at: number(6),
            error: text(7).filter(|_| state.is_final() && state != TaskState::Done),
        }))
    });
    Ok(found.optional()?.flatten())
}

fn of_group(conn: &Connection, group: u64) -> rusqlite::Result<Option<Standing>> {
    let counts = GroupCounts::count(conn, signed(group), ONE_MAX)?;
    let GroupCounts { waiting, queued, running, dead, cancelled, .. } = counts;
    let (live, ended) = (counts.live(), counts.ended());
    let known: Option<Option<i64>> =
        conn.prepare_cached(GROUP)?.query_row([signed(group)], |row| Ok(row.get(0).ok())).optional()?;
    if known.is_none() && live + ended == 0 {
        return Ok(None);
    }
    // The first that holds. A group without tasks yet waits for its first one.
    let state = [
        (running > 0 || (live > 0 && ended > 0), TaskState::Running),
        (queued > 0 || live + ended == 0, TaskState::Queued),
        (waiting > 0, TaskState::Waiting),
        (dead > 0, TaskState::Dead),
        (cancelled > 0, TaskState::Cancelled),
    ];
    let state = state.into_iter().find(|(holds, _)| *holds).map_or(TaskState::Done, |(_, state)| state);
    Ok(Some(Standing {
        state,
        done: Some(ended),
        total: Some(live + ended),
        failed: Some(dead + cancelled),
        note: None,
        created_at: known.flatten(),
        started_at: None,
        finished_at: None,
        error: None,
    }))
}

fn signed(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use laneway::TaskId;

    use super::*;
    use crate::rows::testing::{self, assert_indexed};

    #[test]
    fn a_task_shows_what_its_state_allows() {
        // Proves that progress of an earlier run and an error of one that goes on are not shown, and which columns are read.
        let place = testing::Place::new();
        let conn = place.conn();
        for sql in [TASK, GROUP] {
            assert_indexed(&conn, sql);
        }
        conn.execute_batch(
            "INSERT INTO tasks(kind, state, progress_done, progress_total, progress_note, started_at, error, payload, result) VALUES
             ('a', 'running', 3, 10, 'third', 5, 'earlier', '\"secret\"', NULL), ('a', 'queued', 3, 10, 'third', 5, 'earlier', '{}', NULL),
             ('a', 'dead', 3, NULL, NULL, 5, 'no route', '{}', NULL), ('a', 'done', NULL, NULL, NULL, 5, 'earlier', '{}', '\"secret\"')",
        )
        .unwrap();
        let mut table = Table::new(place.db());
        let mut look = |id| standing(&mut table, TaskId::new(id).unwrap().into()).unwrap();
        let running = look(1).unwrap();
        assert_eq!((running.state, running.done, running.total), (TaskState::Running, Some(3), Some(10)));
        assert_eq!((running.note.as_deref(), running.started_at, &running.error), (Some("third"), Some(5), &None));
        let queued = look(2).unwrap();
        assert_eq!(
            (queued.done, queued.total, queued.note, queued.started_at, queued.error),
            (None, None, None, None, None)
        );
        assert_eq!(look(3).unwrap().error.as_deref(), Some("no route"));
        assert_eq!((look(4).unwrap().state, look(4).unwrap().error), (TaskState::Done, None));
        assert_eq!(look(5), None);
    }

    #[test]
    fn a_group_is_what_its_tasks_are_together() {
        // Proves each state of a group, from one without tasks to one with failures.
        let place = testing::Place::new();
        let conn = place.conn();
        let mut table = Table::new(place.db());
        let mut look = || standing(&mut table, Observed::Group(7)).unwrap();
        assert_eq!(look(), None);
        conn.execute_batch("INSERT INTO task_groups(id, created_at) VALUES (7, 9)").unwrap();
        for (states, state, done, failed) in [
            ("", TaskState::Queued, 0, 0),
            ("waiting", TaskState::Waiting, 0, 0),
            ("waiting queued", TaskState::Queued, 0, 0),
            ("queued running", TaskState::Running, 0, 0),
            ("queued done", TaskState::Running, 1, 0),
            ("done done", TaskState::Done, 2, 0),
            ("done cancelled", TaskState::Cancelled, 2, 1),
            ("done cancelled dead", TaskState::Dead, 3, 2),
        ] {
            conn.execute("DELETE FROM tasks", []).unwrap();
            for word in states.split_whitespace() {
                conn.execute("INSERT INTO tasks(kind, state, group_id) VALUES ('a', ?1, 7)", [word]).unwrap();
            }
            let found = look().unwrap();
            let total = states.split_whitespace().count() as u64;
            assert_eq!((found.state, found.total, found.created_at), (state, Some(total), Some(9)), "{states}");
            assert_eq!((found.done, found.failed), (Some(done), Some(failed)), "{states}");
        }
    }
}
