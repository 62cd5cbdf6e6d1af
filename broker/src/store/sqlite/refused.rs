//! Writes that an app's own trigger or constraint refuses: they cost their row and nobody else anything.

use crate::store::StoreError;

/// What the write gave; `None` when an app refuses it. Then the row stays as it is, and the log tells `what` was refused.
pub(super) fn unless_refused<T, E: Into<StoreError>>(
    written: Result<T, E>,
    task: i64,
    what: &'static str,
) -> Result<Option<T>, StoreError> {
    match written.map_err(E::into) {
        Ok(given) => Ok(Some(given)),
        Err(StoreError::Refused(reason)) => {
            tracing::warn!(task, reason, "{what}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
