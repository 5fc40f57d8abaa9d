//! A finding of the checker: the broken invariant, and a sentence that explains it to the reader of a failed test.

use std::fmt;

/// The invariant that a finding breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Two living attachments have the same address, according to namespaces, kernels and checkpoints, or according to
    /// two assignments.
    DuplicateAddress,
    /// A pod's namespace has an address that is missing in the node's checkpoint, or that is in no block of the node.
    AddressInUseFreed,
    /// A node exports another node's block, and attachments on the exporting node use addresses of that block.
    ForeignBlockUsed,
    /// Two different holders have the same address. They are two pod objects, or holders of different kinds (pod
    /// object, assignment, attachment).
    ConflictingHolders,
    /// An address is in use, but has no assignment.
    MissingAssignment,
    /// An assignment's pod or Node does not exist, the pod has ended or is on another node, or the node's checkpoint lacks
    /// the attachment.
    LeakedAssignment,
    /// An assignment's block does not exist, lacks an address of the assignment, or does not belong to the assignment's
    /// node.
    VoidAssignment,
    /// A block is claimed by a Node that does not exist, or by an earlier Node with the same name and another UID.
    BlockOfMissingNode,
    /// Two blocks have an address in common.
    OverlappingBlocks,
    /// A block lies in no accepted subnet of its pool.
    BlockOutsidePool,
    /// A node's checkpoint lacks a block that the node has claimed, or the agent assigns addresses of a block that the node
    /// has not claimed.
    SavedBlocksDiffer,
    /// An attachment is in the checkpoint, but a part of it is missing in the kernel or in the namespaces.
    MissingInKernel,
    /// The kernel has a link or a route of an attachment, but the checkpoint does not have this attachment.
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
    /// The counts in a pool's status don't add up, or don't match the API objects.
    WrongPoolCounts,
    /// Two accepted subnets have an address in common.
    OverlappingSubnets,
    /// Two accepted subnets of one pool have a block index in common.
    OverlappingIndices,
    /// The checker could not read something that it must check.
    Unread,
}

impl Kind {
    /// Whether the finding is about two holders of one address. The holders may come from any two sources.
    pub fn is_duplicate(self) -> bool {
        matches!(self, Kind::DuplicateAddress | Kind::ConflictingHolders)
    }

    /// Whether the finding is not allowed even for a moment. Findings of other kinds are allowed while the cluster
    /// changes.
    pub fn is_never_allowed(self) -> bool {
        matches!(self, Kind::DuplicateAddress | Kind::AddressInUseFreed | Kind::ForeignBlockUsed)
    }
}

/// One broken invariant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The broken invariant.
    pub kind: Kind,
    /// One sentence that says what is wrong.
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

    /// Returns the findings in a stable order, without duplicates.
    pub(super) fn finish(mut self) -> Vec<Finding> {
        self.0.sort();
        self.0.dedup();
        self.0
    }
}
