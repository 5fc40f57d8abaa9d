//! The errors with which a reconcile pass of a pool ends early.

use bobbin_api_client::{ReadError, Refusal, UnknownWhy, Unreadable};

/// Why a reconcile pass of a pool did not finish.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum ReconcileError {
    /// A read from the API server failed.
    #[error("reading from the API server failed: {0}")]
    Read(#[from] ReadError),
    /// The API server refused a write. The message says what to correct.
    #[error("the API server refused a write ({what}): {why}")]
    Refused {
        /// The write that the operator tried, for example "a new block".
        what: &'static str,
        /// Why the API server refused the write.
        why: Refusal,
    },
    /// The object was changed or deleted since the operator read it. The next pass reads the object again.
    #[error("an object was changed or deleted since the operator read it")]
    Stale,
    /// The pool can no longer be decoded. The pool watch reports the unreadable pool.
    #[error("the pool can't be decoded: {0}")]
    Unreadable(#[from] Box<Unreadable>),
    /// The operator does not know whether the API server executed a write. The next pass reads the object again.
    #[error("the operator does not know whether the API server executed a write ({what}): {why}")]
    Unknown {
        /// The write that the operator tried, for example "a new block".
        what: &'static str,
        /// Why the outcome of the write is unknown.
        why: UnknownWhy,
    },
}

impl ReconcileError {
    /// Whether the API server refused a write. It would also refuse the same write a little later, so the operator may
    /// wait longer after a refusal.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// Whether the error is part of normal operation, so that the operator logs no warning.
    pub(super) fn is_expected(&self) -> bool {
        matches!(self, Self::Stale | Self::Unreadable(_))
    }
}
