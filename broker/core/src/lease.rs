//! Leases: made from a secret instead of drawn and stored.
//!
//! A lease is a keyed hash of (task, when it was made, run) under the secret of a broker epoch, so it cannot repeat, needs no
//! write of its own, and any later broker that knows the secret can tell whether a worker's word is about the one hand-out
//! that was not recorded when the earlier broker died. An id alone is not enough for that: a power cut may take away a row
//! that was handed out and never synced, and its id is then given to another.

use std::hash::Hasher;

use laneway_protocol::{Lease, TaskId};
use siphasher::sip::SipHasher24;

use crate::time::UnixMillis;

/// Whatever a row has for a lease from 1 to this is no lease: it marks that the row was replaced, and stays with it until it is handed out.
pub const MARK_MAX: i64 = u32::MAX as i64;

/// The secret of one epoch: 128 random bits, on disk before the first lease is made.
#[derive(Clone)]
pub struct LeaseKey([u8; 16]);

impl LeaseKey {
    pub fn new(secret: [u8; 16]) -> Self {
        Self(secret)
    }

    /// The lease of one hand-out; never 0, so that 0 can mean none, and never one that could be a mark.
    pub fn lease(&self, task: TaskId, created_at: UnixMillis, run: u32) -> Lease {
        let lease = self.hash(task, created_at, run).cast_signed();
        Lease::new(if (0..=MARK_MAX).contains(&lease) { lease + MARK_MAX + 1 } else { lease })
    }

    /// What a queued row has for a lease once it was replaced in this epoch: of hand-outs that no row shows, those that an earlier epoch
    /// made have the payload from before. From 1 to [`MARK_MAX`], so that a store can tell it from a lease.
    pub(crate) fn mark(&self, task: TaskId, created_at: UnixMillis) -> Lease {
        let low = self.hash(task, created_at, 0) & MARK_MAX.cast_unsigned();
        Lease::new(low.max(1).cast_signed())
    }

    fn hash(&self, task: TaskId, created_at: UnixMillis, run: u32) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write_u64(task.value());
        hasher.write_i64(created_at.0);
        hasher.write_u32(run);
        hasher.finish()
    }
}

// A secret never reaches a log.
impl std::fmt::Debug for LeaseKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LeaseKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hand_out_and_each_epoch_has_its_own_lease() {
        let (a, b) = (LeaseKey::new([1; 16]), LeaseKey::new([2; 16]));
        let (task, made) = (TaskId::new(7).unwrap(), UnixMillis(5));
        assert_eq!(a.lease(task, made, 1), a.lease(task, made, 1));
        assert_ne!(a.lease(task, made, 1), a.lease(task, made, 2));
        assert_ne!(a.lease(task, made, 1), a.lease(task, UnixMillis(6), 1));
        assert_ne!(a.lease(task, made, 1), a.lease(TaskId::new(8).unwrap(), made, 1));
        assert_ne!(a.lease(task, made, 1), b.lease(task, made, 1));
    }

    #[test]
    fn a_mark_is_never_a_lease() {
        let key = LeaseKey::new([1; 16]);
        for n in 1..2_000 {
            let task = TaskId::new(n).unwrap();
            assert!((1..=MARK_MAX).contains(&key.mark(task, UnixMillis(5)).value()));
            assert!(!(0..=MARK_MAX).contains(&key.lease(task, UnixMillis(5), 1).value()));
        }
        assert_ne!(key.mark(TaskId::new(1).unwrap(), UnixMillis(5)), key.mark(TaskId::new(2).unwrap(), UnixMillis(5)));
    }
}
