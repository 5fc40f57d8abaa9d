//! Why a reconcile pass did not finish.

use bobbin_api_client::{ReadError, Refusal, UnknownWhy, Unreadable};

/// Why a reconcile pass did not finish.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReconcileError {
    /// A live read failed.
    #[error("reading from the API server failed: {0}")]
    Read(#[from] ReadError),
    /// The API server refused a write. Somebody has to remove the cause.
    #[error("the API server refused a write ({what}): {why}")]
    Refused {
        /// What the write concerned.
        what: &'static str,
        /// Why the API server refused it.
        why: Refusal,
    },
    /// The object was changed or deleted since it was read: read it again.
    #[error("the object was changed or deleted since it was read")]
    Stale,
    /// The pool can't be decoded any more. The watch will show that, too.
    #[error("the pool can't be decoded: {0}")]
    Unreadable(#[from] Box<Unreadable>),
    /// The outcome of a write is unknown. The next pass reads the object again.
    #[error("it is unknown whether the API server executed a write ({what}): {why}")]
    Unknown {
        /// What the write concerned.
        what: &'static str,
        /// Why the outcome is unknown.
        why: UnknownWhy,
    },
}

impl ReconcileError {
    /// Whether the error is part of normal operation, so that it is no reason for a warning.
    pub(super) fn is_expected(&self) -> bool {
        matches!(self, Self::Stale | Self::Unreadable(_))
    }
}
