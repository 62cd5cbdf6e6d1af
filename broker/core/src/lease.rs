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

/// The secret of one epoch: 128 random bits, on disk before the first lease is made.
#[derive(Clone)]
pub struct LeaseKey([u8; 16]);

impl LeaseKey {
    pub fn new(secret: [u8; 16]) -> Self {
        Self(secret)
    }

    /// The lease of one hand-out; never 0, so that 0 can mean none.
    pub fn lease(&self, task: TaskId, created_at: UnixMillis, run: u32) -> Lease {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write_u64(task.value());
        hasher.write_i64(created_at.0);
        hasher.write_u32(run);
        Lease::new(hasher.finish().max(1).cast_signed())
    }

    /// What a queued row has for a lease once it was replaced in this epoch: of hand-outs that no row shows, those that an earlier epoch
    /// made have the payload from before. No worker ever holds it, for runs are counted from 1.
    pub(crate) fn mark(&self, task: TaskId, created_at: UnixMillis) -> Lease {
        self.lease(task, created_at, 0)
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
}
