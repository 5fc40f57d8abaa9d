//! Differences between the node and the desired state. Callers act on the kind of a difference. The text of a
//! difference is for people.

use std::fmt;

use bobbin_ipam::AttachmentKey;

/// Why an object differed from the desired state, and whether it is correct now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DriftKind {
    /// The desired state is new or changed, and the object now matches it. No other program was involved.
    Applied,
    /// Another program had changed a correct object, and the agent restored the object.
    Repaired,
    /// The object is still wrong: the kernel refused the repair, or another program's object conflicts with it.
    NotRepairable,
    /// The host link of a live attachment is gone. Only a new ADD can create a host link.
    LinkMissing,
}

impl DriftKind {
    /// The drift kind of a change that the agent made. A change is a repair only if the object was correct when this
    /// agent last read or changed it.
    pub(crate) fn of_change(was_programmed: bool) -> Self {
        if was_programmed { Self::Repaired } else { Self::Applied }
    }
}

/// What a drifted object belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriftSubject {
    /// The whole node: rules, the anti-spoofing filter, settings of the kernel.
    Node,
    /// One pod: its link, its routes and its neighbours.
    Pod,
    /// One block of this node.
    Block,
    /// The routes to one block of another node (`--routing=direct`).
    DirectRoute,
}

impl DriftSubject {
    /// The names of all subjects.
    pub const NAMES: [&str; 4] = [Self::Node.name(), Self::Pod.name(), Self::Block.name(), Self::DirectRoute.name()];

    /// The subject's name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Pod => "pod",
            Self::Block => "block",
            Self::DirectRoute => "direct_route",
        }
    }
}

/// One difference from the desired state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// Why the object differed, and whether it is correct now.
    pub kind: DriftKind,
    /// What the object belongs to.
    pub subject: DriftSubject,
    /// The attachment that the object belongs to; set only if `subject` is [`DriftSubject::Pod`].
    pub attachment: Option<AttachmentKey>,
    /// What the agent did, or why it could do nothing: one sentence without a full stop.
    pub what: String,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}
