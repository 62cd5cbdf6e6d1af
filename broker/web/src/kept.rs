//! What was looked up a moment ago, for all who want the same: one look at a time, and the next only when the last is stale.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::failure::Failure;

/// By key, so many at most.
pub(crate) struct Kept<K, V> {
    places: Mutex<HashMap<K, Arc<Place<V>>>>,
    max: usize,
}

/// Locked while it is looked up, so that whoever comes meanwhile gets the same.
struct Place<V>(tokio::sync::Mutex<Option<Seen<V>>>);

struct Seen<V> {
    found: V,
    fresh_until: Instant,
}

impl<K: Hash + Eq + Clone, V: Clone> Kept<K, V> {
    pub(crate) fn new(max: usize) -> Self {
        Self { places: Mutex::default(), max }
    }

    /// As it was seen, or as `look` sees it, which also tells how long that may be taken for the present.
    pub(crate) async fn get<F>(&self, key: &K, look: impl FnOnce() -> F) -> Result<V, Failure>
    where
        F: Future<Output = Result<(V, Duration), Failure>>,
    {
        let place = self.place(key)?;
        let mut seen = place.0.lock().await;
        match seen.as_ref() {
            Some(seen) if seen.is_fresh() => Ok(seen.found.clone()),
            _ => {
                let (found, fresh_for) = look().await?;
                *seen = Some(Seen { found: found.clone(), fresh_until: Instant::now() + fresh_for });
                Ok(found)
            }
        }
    }

    /// How many of them somebody wants now, or did a moment ago.
    pub(crate) fn wanted(&self) -> usize {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.values().filter(|place| is_wanted(place)).count()
    }

    fn place(&self, key: &K) -> Result<Arc<Place<V>>, Failure> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get(key) {
            return Ok(Arc::clone(place));
        }
        places.retain(|_, place| is_wanted(place));
        if places.len() >= self.max {
            return Err(Failure::busy());
        }
        let place = Arc::new(Place(tokio::sync::Mutex::default()));
        places.insert(key.clone(), Arc::clone(&place));
        Ok(place)
    }
}

fn is_wanted<V>(place: &Arc<Place<V>>) -> bool {
    Arc::strong_count(place) > 1 || place.is_fresh()
}

impl<V> Place<V> {
    fn is_fresh(&self) -> bool {
        self.0.try_lock().map_or(true, |seen| seen.as_ref().is_some_and(Seen::is_fresh))
    }
}

impl<V> Seen<V> {
    fn is_fresh(&self) -> bool {
        Instant::now() < self.fresh_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn all_who_want_the_same_share_one_look() {
        // Proves that a second one gets what the first one saw, also while that is being looked up, that another key is looked up
        // by itself, and that what is stale is looked up again.
        let kept = Kept::new(9);
        let slow = || async {
            tokio::task::yield_now().await;
            Ok((1, LONG))
        };
        let never = || async { panic!("it was looked up twice") };
        let both = tokio::join!(kept.get(&"a", slow), kept.get(&"a", never));
        assert_eq!((both.0.unwrap(), both.1.unwrap()), (1, 1));
        let stale = |n| move || async move { Ok((n, Duration::ZERO)) };
        assert_eq!(kept.get(&"b", stale(2)).await.unwrap(), 2);
        assert_eq!(kept.get(&"b", stale(3)).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn there_are_so_many_at_most() {
        // Proves that one more than the bound is shed while all are wanted, and has a place when one is stale and nobody's.
        let kept = Kept::new(2);
        let fresh = |time| move || async move { Ok(((), time)) };
        kept.get(&1, fresh(LONG)).await.unwrap();
        kept.get(&2, fresh(Duration::ZERO)).await.unwrap();
        let held = kept.place(&2).unwrap();
        assert_eq!(kept.get(&3, fresh(LONG)).await.unwrap_err().code, "busy");
        assert!(kept.get(&1, fresh(LONG)).await.is_ok());
        drop(held);
        kept.get(&3, fresh(LONG)).await.unwrap();
        assert_eq!(kept.wanted(), 2);
    }
}
