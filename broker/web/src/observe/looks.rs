//! One look into the table for all who watch the same task or group, at most about once a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use laneway::Observed;

use crate::failure::Failure;
use crate::limits::{FRESH, OBSERVED_MAX};
use crate::rows::{self, Rows, Standing};

/// A look that took long, into a large group, is worth so many times its time: observers get a twentieth of the thread.
const REST_TIMES: u32 = 20;

/// What was seen of each a moment ago.
#[derive(Default)]
pub(crate) struct Looks(Mutex<HashMap<Observed, Arc<Place>>>);

/// Locked while it is looked at, so that whoever comes meanwhile gets the same.
#[derive(Default)]
struct Place(tokio::sync::Mutex<Option<Seen>>);

struct Seen {
    /// `None`: it is not there.
    found: Option<Standing>,
    fresh_until: Instant,
}

impl Looks {
    pub(crate) async fn look(&self, rows: &Rows, observed: Observed) -> Result<Standing, Failure> {
        let place = self.place(observed)?;
        let mut seen = place.0.lock().await;
        if !seen.as_ref().is_some_and(Seen::is_fresh) {
            let (found, took) = rows
                .ask(move |table| {
                    let begun = Instant::now();
                    let found = rows::standing(table, observed)?;
                    Ok((found, begun.elapsed()))
                })
                .await?;
            *seen = Some(Seen { found, fresh_until: Instant::now() + fresh_for(took) });
        }
        let found = seen.as_ref().and_then(|seen| seen.found.clone());
        found.ok_or_else(|| Failure::not_found(format!("{observed} is not there, or not any more")))
    }

    fn place(&self, observed: Observed) -> Result<Arc<Place>, Failure> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= OBSERVED_MAX && !places.contains_key(&observed) {
            places.retain(|_, place| Arc::strong_count(place) > 1 || place.is_fresh());
            if places.len() >= OBSERVED_MAX {
                return Err(Failure::busy());
            }
        }
        Ok(Arc::clone(places.entry(observed).or_default()))
    }
}

impl Place {
    fn is_fresh(&self) -> bool {
        self.0.try_lock().map_or(true, |seen| seen.as_ref().is_some_and(Seen::is_fresh))
    }
}

impl Seen {
    fn is_fresh(&self) -> bool {
        Instant::now() < self.fresh_until
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
            assert_eq!(looks.look(&rows, task(3)).await.unwrap_err().code, "not_found");
        });
    }

    #[test]
    fn what_is_watched_is_bounded_and_forgotten() {
        // Proves that one more than the bound is shed while all are watched, and has a place when some are not any more.
        let looks = Looks::default();
        let mut held: Vec<_> = (1..=OBSERVED_MAX).map(|id| looks.place(task(id)).unwrap()).collect();
        assert_eq!(looks.place(task(OBSERVED_MAX + 1)).err().unwrap().code, "busy");
        assert!(looks.place(task(1)).is_ok());
        held.pop();
        assert!(looks.place(task(OBSERVED_MAX + 1)).is_ok());
    }

    #[test]
    fn a_slow_look_rests_longer() {
        // Proves that a large group does not take the thread from others.
        assert_eq!(fresh_for(Duration::from_millis(1)), FRESH);
        assert_eq!(fresh_for(Duration::from_millis(100)), Duration::from_secs(2));
    }
}
