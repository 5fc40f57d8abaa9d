//! The steps of a test run, chosen at random.

use proptest::prelude::*;

use super::{BLOCKS, NODES};

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The operator removes the finalizer of a free block that has no assignments.
    RemoveFinalizer(usize),
    Claim {
        node: usize,
        block: usize,
        answer_lost: bool,
    },
    ReadBackClaim {
        node: usize,
    },
    Serve {
        node: usize,
    },
    /// A watch event, which may be outdated, shows the block with another owner.
    Doubt {
        node: usize,
        block: usize,
    },
    ResolveDoubt {
        node: usize,
    },
    Add {
        node: usize,
    },
    AnswerAssignments {
        node: usize,
    },
    Del {
        node: usize,
        nth: usize,
    },
    Release {
        node: usize,
        block: usize,
    },
    ContinueRelease {
        node: usize,
        answer_lost: bool,
    },
    CancelRelease {
        node: usize,
    },
    Restart {
        node: usize,
        trusted: bool,
    },
    /// The Node is deleted and created again while its pods keep running.
    RecreateNode {
        node: usize,
    },
    /// The node's machine is off, and its Node is deleted. The operator releases the node's blocks.
    DeleteNode {
        node: usize,
    },
    /// An administrator clears the owner of a claimed block.
    ClearOwner(usize),
    /// An administrator deletes a block and its finalizer.
    DeleteBlock(usize),
    /// The pool is deleted and created again, and the operator creates the pool's blocks again.
    CarveAgain,
    Snapshot,
    RestoreSnapshot,
}

/// Chooses a random step that is not a fault of an administrator.
pub(super) fn step() -> impl Strategy<Value = Step> {
    let (node, block) = (0..NODES, 0..BLOCKS);
    prop_oneof![
        2 => block.clone().prop_map(Step::RemoveFinalizer),
        6 => (node.clone(), block.clone(), prop::bool::weighted(0.3)).prop_map(|(node, block, answer_lost)| Step::Claim { node, block, answer_lost }),
        3 => node.clone().prop_map(|node| Step::ReadBackClaim { node }),
        6 => node.clone().prop_map(|node| Step::Serve { node }),
        2 => (node.clone(), block.clone()).prop_map(|(node, block)| Step::Doubt { node, block }),
        5 => node.clone().prop_map(|node| Step::ResolveDoubt { node }),
        8 => node.clone().prop_map(|node| Step::Add { node }),
        4 => node.clone().prop_map(|node| Step::AnswerAssignments { node }),
        4 => (node.clone(), 0_usize..8).prop_map(|(node, nth)| Step::Del { node, nth }),
        4 => (node.clone(), block.clone()).prop_map(|(node, block)| Step::Release { node, block }),
        8 => (node.clone(), prop::bool::weighted(0.3)).prop_map(|(node, answer_lost)| Step::ContinueRelease { node, answer_lost }),
        2 => node.clone().prop_map(|node| Step::CancelRelease { node }),
        2 => (node.clone(), any::<bool>()).prop_map(|(node, trusted)| Step::Restart { node, trusted }),
        1 => node.clone().prop_map(|node| Step::RecreateNode { node }),
        1 => node.prop_map(|node| Step::DeleteNode { node }),
    ]
}

/// Chooses a random step, which may be a fault of an administrator.
pub(super) fn step_or_fault() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => step(),
        1 => prop_oneof![
            (0..BLOCKS).prop_map(Step::ClearOwner),
            (0..BLOCKS).prop_map(Step::DeleteBlock),
            Just(Step::CarveAgain),
            Just(Step::Snapshot),
            Just(Step::RestoreSnapshot),
        ],
    ]
}
