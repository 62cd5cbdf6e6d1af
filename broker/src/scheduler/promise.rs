//! What an operation means for when its turn is told: whether it promises something, and whether the router must hear of it
//! before it hears of new work. Both lists are closed, so that a new operation has to say.

use laneway_core::{Next, Op};

/// Submits, outcomes and checkpoints are acknowledged; hand-outs, other progress and sessions are not. What was found decides what a worker's
/// late word is answered with (`recorded`, say), and that is an acknowledgement too.
pub(super) fn needs_sync(op: &Op) -> bool {
    match op {
        Op::Ended(_)
        | Op::Find(_)
        | Op::Submit { .. }
        | Op::Cancel(_)
        | Op::Requeue(_)
        | Op::Edit { .. }
        | Op::PauseLane { .. }
        | Op::SetKind { .. }
        | Op::SetLane { .. }
        | Op::SetFairKey { .. }
        | Op::CancelGroup { .. } => true,
        Op::Schedules(schedules) => schedules.is_change(),
        Op::Bulk(slice) => !slice.dry_run,
        Op::Noted(noted) => noted.checkpoint.is_some(),
        Op::Started(_)
        | Op::FindKey { .. }
        | Op::FindTwins(_)
        | Op::Endings(_)
        | Op::List(_)
        | Op::Show { .. }
        | Op::Counts
        | Op::Group { .. }
        | Op::Parents { .. }
        | Op::SessionUp { .. }
        | Op::SessionGone { .. } => false,
    }
}

/// Whether a row that the router knows may be read again with the turn of this operation: then the router must hear of the
/// operation before it hears of the row.
pub(super) fn brings_back(op: &Op) -> bool {
    match op {
        Op::Ended(ended) => matches!(ended.next, Next::Queued { .. }),
        Op::Submit { secured, .. } => !secured.is_empty(),
        Op::Cancel(_)
        | Op::Requeue(_)
        | Op::Edit { .. }
        | Op::Bulk(_)
        | Op::CancelGroup { .. }
        | Op::PauseLane { .. }
        | Op::SetKind { .. }
        | Op::SetLane { .. }
        | Op::SetFairKey { .. } => true,
        Op::Started(_)
        | Op::Noted(_)
        | Op::Schedules(_)
        | Op::Find(_)
        | Op::FindKey { .. }
        | Op::FindTwins(_)
        | Op::Endings(_)
        | Op::List(_)
        | Op::Show { .. }
        | Op::Counts
        | Op::Group { .. }
        | Op::Parents { .. }
        | Op::SessionUp { .. }
        | Op::SessionGone { .. } => false,
    }
}
