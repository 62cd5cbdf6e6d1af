//! One look into the table for all who watch the same task or group, at most about once a second.

use std::time::{Duration, Instant};

use laneway::Observed;

use crate::failure::Failure;
use crate::kept::Kept;
use crate::limits::{FRESH, OBSERVED_MAX};
use crate::rows::{self, Rows, Standing};

/// A look that took long, into a large group, is worth so many times its time: observers get a twentieth of the thread.
const REST_TIMES: u32 = 20;

/// What was seen of each a moment ago; `None` where it is not there.
pub(crate) struct Looks(Kept<Observed, Option<Standing>>);

impl Default for Looks {
    fn default() -> Self {
        Self(Kept::new(OBSERVED_MAX))
    }
}

impl Looks {
    pub(crate) async fn look(&self, rows: &Rows, observed: Observed) -> Result<Standing, Failure> {
        let look = || async {
            let (found, took) = rows
                .ask(move |table| {
                    let begun = Instant::now();
                    let found = rows::standing(table, observed)?;
                    Ok((found, begun.elapsed()))
                })
                .await?;
            Ok((found, fresh_for(took)))
        };
        let found = self.0.get(&observed, look).await?;
        found.ok_or_else(|| {
            Failure::not_found(format!("{observed} is not there, or not any more"))
                .next("it may have been deleted after its end: ask who made the link")
        })
    }
}

fn fresh_for(took: Duration) -> Duration {
    FRESH.max(took * REST_TIMES)
}

#[cfg(test)]
mod tests {
    use laneway::TaskId;

    use super::*;
    use crate::rows::testing;

    fn task(id: usize) -> Observed {
        Observed::Task(TaskId::new(id as u64).unwrap())
    }

    #[test]
    fn all_who_watch_the_same_share_one_look() {
        // Proves that a second look within the second sees what the first one saw, and that another task is looked at by itself.
        let place = testing::Place::new();
        let conn = place.conn();
        conn.execute_batch("INSERT INTO tasks(kind) VALUES ('a'), ('a')").unwrap();
        let (rows, _thread) = Rows::start(place.db()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let looks = Looks::default();
            // On a machine that hangs for a second the first look is not the latest any more, and the rest still holds.
            let begun = Instant::now();
            let first = looks.look(&rows, task(1)).await.unwrap();
            conn.execute_batch("UPDATE tasks SET state = 'done', finished_at = 1").unwrap();
            let again = looks.look(&rows, task(1)).await.unwrap();
            if begun.elapsed() < FRESH {
                assert_eq!(again, first);
            }
            assert_eq!(looks.look(&rows, task(2)).await.unwrap().state, laneway::TaskState::Done);
            let missing = looks.look(&rows, task(3)).await.unwrap_err();
            assert!(missing.code == "not_found" && missing.next.is_some(), "{missing:?}");
        });
    }

    #[test]
    fn a_slow_look_rests_longer() {
        // Proves that a large group does not take the thread from others.
        assert_eq!(fresh_for(Duration::from_millis(1)), FRESH);
        assert_eq!(fresh_for(Duration::from_millis(100)), Duration::from_secs(2));
    }
}
