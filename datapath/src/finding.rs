//! What a comparison of the node with the desired state found. Callers decide by the kind, never by the sentence.

use std::fmt;

use bobbin_ipam::AttachmentKey;

/// How something came to differ from the desired state, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FindingKind {
    /// The desired state changed, or it was never applied before: it is applied now. Nobody interfered.
    Applied,
    /// Another program changed something of ours that was right before; it is right again.
    Repaired,
    /// It is still wrong: the kernel refused, or another program's object is in its place.
    NotRepairable,
    /// The host link of a live attachment is gone. Only a new ADD can make one.
    LinkMissing,
}

/// One thing that was not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it came about, and whether it is right now.
    pub kind: FindingKind,
    /// The attachment that it belongs to; `None` for what the whole node shares.
    pub attachment: Option<AttachmentKey>,
    /// What was done, or why nothing could be done: one sentence without a full stop.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}
