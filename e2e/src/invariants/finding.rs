//! What the checker found: the broken invariant, and one sentence for the reader of a failed test.

use std::fmt;

/// The invariant that a finding breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Two living attachments have one address: in namespaces, kernels or checkpoints, or by two assignments.
    DuplicateAddress,
    /// An address is in use in a namespace, but counts as free for the agent or at the API server.
    AddressInUseFreed,
    /// A node exports another node's block and uses addresses of it.
    ForeignBlockUsed,
    /// Two pod objects, or two holders of different kinds (pod object, assignment, attachment), have one address.
    ConflictingHolders,
    /// An address is in use, but has no assignment.
    MissingAssignment,
    /// An assignment's pod or attachment does not exist.
    LeakedAssignment,
    /// An assignment's address is not in the block that it names, or its node does not own that block.
    VoidAssignment,
    /// A block is claimed by a Node that does not exist.
    BlockOfMissingNode,
    /// Two blocks have an address in common.
    OverlappingBlocks,
    /// A block lies in no accepted subnet of its pool.
    BlockOutsidePool,
    /// A claimed block and the node's saved blocks disagree.
    SavedBlocksDiffer,
    /// The checkpoint has an attachment that the kernel or the namespaces lack.
    MissingInKernel,
    /// The kernel has a link or a route of an attachment that the checkpoint lacks.
    MissingInCheckpoint,
    /// A pod's route uses the link of another attachment.
    WrongRoute,
    /// The node lacks a rule, the anti-spoofing filter or a permanent neighbour.
    IncompleteNetwork,
    /// A claimed block is not exported, or has no blackhole route.
    NotExported,
    /// A node exports a network that is not one of the node's blocks.
    ForeignExport,
    /// Two nodes export the same addresses.
    ExportedTwice,
    /// The counts of a pool's status don't add up, or don't agree with the objects.
    WrongPoolCounts,
    /// Two accepted subnets have an address in common.
    OverlappingSubnets,
    /// Two accepted subnets of one pool have a block index in common.
    OverlappingIndices,
    /// Something that the checker must see could not be read.
    Unread,
}

impl Kind {
    /// Whether the finding names two holders of one address. Any two sources may show these holders.
    pub fn is_duplicate(self) -> bool {
        matches!(self, Kind::DuplicateAddress | Kind::ConflictingHolders)
    }

    /// Whether the finding is never allowed, not even for a moment. Findings of other kinds are allowed while the
    /// cluster changes.
    pub fn is_never_allowed(self) -> bool {
        matches!(self, Kind::DuplicateAddress | Kind::AddressInUseFreed | Kind::ForeignBlockUsed)
    }
}

/// One broken invariant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The broken invariant.
    pub kind: Kind,
    /// What is wrong, in one sentence.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.text)
    }
}

/// The findings of one snapshot.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    pub(super) fn add(&mut self, kind: Kind, text: String) {
        self.0.push(Finding { kind, text });
    }

    /// The findings in a stable order, each once.
    pub(super) fn finish(mut self) -> Vec<Finding> {
        self.0.sort();
        self.0.dedup();
        self.0
    }
}
