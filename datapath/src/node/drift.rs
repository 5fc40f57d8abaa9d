//! Differences between the node and the desired state. Callers decide by the kind, never by the sentence.

use std::fmt;

use bobbin_ipam::AttachmentKey;

/// The cause of a difference from the desired state, and its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DriftKind {
    /// The desired state changed, or was applied for the first time. It is applied now. No program interfered.
    Applied,
    /// Another program changed an object that was correct before. It is correct again.
    Repaired,
    /// It is still wrong: the kernel refused the repair, or another program's object is in the way.
    NotRepairable,
    /// The host link of a live attachment is gone. Only a new ADD can create one.
    LinkMissing,
}

impl DriftKind {
    /// The kind of a change that was made: a repair only if this program found or made the object correct before.
    pub(crate) fn of_change(was_programmed: bool) -> Self {
        if was_programmed { Self::Repaired } else { Self::Applied }
    }
}

/// One difference from the desired state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// Its cause, and whether it is correct now.
    pub kind: DriftKind,
    /// The attachment that it belongs to; `None` for what the whole node shares.
    pub attachment: Option<AttachmentKey>,
    /// What was done, or why nothing could be done: one sentence without a full stop.
    pub what: String,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}
