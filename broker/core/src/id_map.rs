//! Maps by number.

use rustc_hash::{FxHashMap, FxHashSet};

/// A map by numbers that the broker or its database has given. No peer can choose them so that they collide, as it could
/// with names; so a hash of one multiplication does, in place of a keyed one.
pub type IdMap<K, V> = FxHashMap<K, V>;

/// A set of such numbers.
pub type IdSet<K> = FxHashSet<K>;
