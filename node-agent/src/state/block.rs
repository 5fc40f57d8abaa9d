//! The state machine of one block on this node. Pure.
//!
//! Everything else is derived from the state: whether addresses may be allocated, whether the route is exported, and what the agent
//! trusts after a restart. ARCHITECTURE.md has the table of transitions.

use bobbin_ipam::BootTime;
use serde::{Deserialize, Serialize};

/// The state of a block on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlockState {
    /// A claim was sent; its outcome is unknown.
    Claiming {
        /// Whether a watch event or a read showed meanwhile that the node may not own the block. It may be older or newer than the
        /// claim.
        doubted: bool,
    },
    /// The API server confirmed the claim. The agent writes the route, or waits for the quiet time after an outage to end.
    Exporting {
        /// When it entered this state.
        since: BootTime,
        /// The block does not serve before this moment.
        not_before: BootTime,
    },
    /// Owned and exported: addresses may be allocated.
    Serving,
    /// Owned, but closed for new allocations: its pool or subnet drains, the pool does not admit the node, or the block is being deleted.
    Retiring,
    /// The node may have lost the block. No address is allocated until a read of the block decides.
    Doubted {
        /// The block's state before the doubt. The block returns to it if a read shows that the node still owns the block.
        before: SettledState,
        /// Counts the doubts, so that a read that began before the last one does not end the doubt.
        doubts: u32,
    },
    /// No address is in use; the node returns the block to the pool.
    Releasing {
        /// The step that comes next.
        stage: ReleaseStage,
        /// Whether the node may have lost the block. If the release is cancelled, the block then becomes doubted.
        doubted: bool,
    },
    /// Another node owns it. Attachments that still have addresses of it are reported.
    Lost,
}

/// The states in which the API server has confirmed the ownership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettledState {
    /// See [`BlockState::Exporting`].
    Exporting {
        /// The block does not serve before this moment.
        not_before: BootTime,
    },
    /// See [`BlockState::Serving`].
    Serving,
    /// See [`BlockState::Retiring`].
    Retiring,
}

/// The steps of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReleaseStage {
    /// This node's assignments in the block are being deleted.
    #[serde(alias = "DeletingRecords")]
    DeletingAssignments,
    /// The assignments are deleted; the agent withdraws the route and gives the routers time to drop it.
    WithdrawingRoute,
    /// The write that releases the block was sent. Its answer may be missing.
    Sent,
}

/// What happened to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockEvent {
    /// The API server confirmed the claim. The block does not serve before `not_before`.
    ClaimConfirmed {
        /// Now.
        now: BootTime,
        /// The end of the quiet time; now if there is none.
        not_before: BootTime,
    },
    /// The claim failed.
    ClaimFailed,
    /// The route is in the kernel, and the checkpoint is written.
    Exported,
    /// The block must be closed for new allocations.
    Retire,
    /// The block may be opened for new allocations again. The checkpoint is written first.
    Reopen,
    /// The node may have lost the block.
    Doubt,
    /// A read shows that this node owns it. The checkpoint is written first.
    FoundOwned {
        /// Now.
        now: BootTime,
        /// The count of doubts when the read began.
        doubts: u32,
    },
    /// The node owns a lost block again. It does not serve before `not_before`.
    ClaimedBack {
        /// Now.
        now: BootTime,
        /// The end of the quiet time; now if there is none.
        not_before: BootTime,
    },
    /// A read shows that another node owns it.
    FoundForeign,
    /// A read shows that nobody owns it or that it does not exist, and no attachment here has an address of it.
    FoundFree,
    /// The node starts to release the block. No address of it is in use.
    Release,
    /// Its assignments are deleted; the route is withdrawn next.
    AssignmentsDeleted,
    /// The agent sends the write that releases the block.
    ReleaseSent,
    /// The API server refused the write, or the checkpoint could not be written before it.
    ReleaseFailed,
    /// The API server confirmed that the node no longer owns the block.
    Released,
    /// An ADD needs the block after all. It does not serve before `not_before`.
    ReleaseCancelled {
        /// Now.
        now: BootTime,
        /// The end of the quiet time; now if there is none.
        not_before: BootTime,
    },
    /// The last attachment with an address of a lost block ended.
    Vacated,
}

/// What an event does to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The block enters this state.
    State(BlockState),
    /// The node forgets the block.
    Forgotten,
    /// The event means nothing in this state.
    Unchanged,
}

impl BlockState {
    /// The effect of an event.
    #[must_use]
    pub fn on(self, event: BlockEvent) -> Next {
        use BlockEvent as E;
        use BlockState as S;
        match (self, event) {
            (S::Claiming { doubted: false }, E::ClaimConfirmed { now, not_before }) => {
                Next::State(S::Exporting { since: now, not_before })
            }
            (S::Claiming { doubted: true }, E::ClaimConfirmed { not_before, .. }) => {
                Next::State(S::Doubted { before: SettledState::Exporting { not_before }, doubts: 0 })
            }
            (S::Claiming { .. }, E::Doubt) => Next::State(S::Claiming { doubted: true }),
            (S::Claiming { .. }, E::ClaimFailed)
            | (S::Doubted { .. }, E::FoundFree)
            | (S::Releasing { .. }, E::Released)
            | (S::Lost, E::Vacated) => Next::Forgotten,
            (S::Exporting { .. }, E::Exported) | (S::Retiring, E::Reopen) => Next::State(S::Serving),
            (S::Serving, E::Retire) => Next::State(S::Retiring),
            (S::Exporting { .. } | S::Serving | S::Retiring, E::Doubt) => {
                Next::State(S::Doubted { before: self.settled(), doubts: 0 })
            }
            (S::Doubted { before, doubts }, E::Doubt) => {
                Next::State(S::Doubted { before, doubts: doubts.wrapping_add(1) })
            }
            (S::Doubted { before, doubts }, E::FoundOwned { now, doubts: at_read }) if doubts == at_read => {
                Next::State(before.resume(now))
            }
            // The block's route is exported again before any address is allocated.
            (S::Lost, E::ClaimedBack { now, not_before }) => Next::State(S::Exporting { since: now, not_before }),
            (S::Doubted { .. }, E::FoundForeign) => Next::State(S::Lost),
            (S::Exporting { .. } | S::Serving | S::Retiring, E::Release) => {
                Next::State(S::Releasing { stage: ReleaseStage::DeletingAssignments, doubted: false })
            }
            (S::Releasing { stage, doubted }, event) => stage.on(doubted, event),
            _ => Next::Unchanged,
        }
    }

    /// Whether addresses may be allocated.
    pub fn assignable(self) -> bool {
        self == BlockState::Serving
    }

    /// Whether the block's routes should be in the kernel. A doubted block stays exported, because pods may use it.
    pub fn exported(self) -> bool {
        match self {
            BlockState::Claiming { .. } | BlockState::Lost => false,
            BlockState::Releasing { stage, .. } => stage == ReleaseStage::DeletingAssignments,
            BlockState::Exporting { .. } | BlockState::Serving | BlockState::Retiring | BlockState::Doubted { .. } => {
                true
            }
        }
    }

    /// Whether the node may be the block's owner at the API server. Such a block counts against `maxBlocksPerNode`.
    pub fn counts_as_ours(self) -> bool {
        self != BlockState::Lost
    }

    /// Whether an ADD must not answer if it got its address before the block entered this state.
    pub fn revokes(self) -> bool {
        matches!(self, BlockState::Doubted { .. } | BlockState::Lost)
    }

    /// The state after a restart of the agent. `None`: the agent forgets the block until it reads the block from the API server.
    /// `trusted`: the agent was down so briefly that a serving block may continue to serve before the API server confirms it.
    #[must_use]
    pub fn restored(self, trusted: bool) -> Option<BlockState> {
        match self {
            BlockState::Claiming { .. } => None,
            BlockState::Serving if trusted => Some(BlockState::Serving),
            BlockState::Exporting { .. } | BlockState::Serving | BlockState::Retiring => {
                Some(BlockState::Doubted { before: self.settled(), doubts: 0 })
            }
            BlockState::Releasing { stage, doubted } => {
                Some(BlockState::Releasing { stage, doubted: doubted || !trusted })
            }
            BlockState::Doubted { .. } | BlockState::Lost => Some(self),
        }
    }

    fn settled(self) -> SettledState {
        match self {
            BlockState::Serving => SettledState::Serving,
            BlockState::Retiring => SettledState::Retiring,
            BlockState::Exporting { not_before, .. } => SettledState::Exporting { not_before },
            _ => SettledState::Exporting { not_before: BootTime::default() },
        }
    }

    /// The state's name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            BlockState::Claiming { .. } => "claiming",
            BlockState::Exporting { .. } => "exporting",
            BlockState::Serving => "serving",
            BlockState::Retiring => "retiring",
            BlockState::Doubted { .. } => "doubted",
            BlockState::Releasing { .. } => "releasing",
            BlockState::Lost => "lost",
        }
    }
}

impl ReleaseStage {
    /// The effect of an event at this stage. Doubt does not change the stage.
    fn on(self, doubted: bool, event: BlockEvent) -> Next {
        use BlockEvent as E;
        let stage = |stage| Next::State(BlockState::Releasing { stage, doubted });
        match (self, event) {
            (_, E::Doubt) if !doubted => Next::State(BlockState::Releasing { stage: self, doubted: true }),
            (ReleaseStage::DeletingAssignments, E::AssignmentsDeleted) | (ReleaseStage::Sent, E::ReleaseFailed) => {
                stage(ReleaseStage::WithdrawingRoute)
            }
            (ReleaseStage::WithdrawingRoute, E::ReleaseSent) => stage(ReleaseStage::Sent),
            (
                ReleaseStage::DeletingAssignments | ReleaseStage::WithdrawingRoute,
                E::ReleaseCancelled { now, not_before },
            ) => {
                let before = SettledState::Exporting { not_before };
                Next::State(if doubted { BlockState::Doubted { before, doubts: 0 } } else { before.resume(now) })
            }
            _ => Next::Unchanged,
        }
    }
}

impl SettledState {
    fn resume(self, now: BootTime) -> BlockState {
        match self {
            SettledState::Exporting { not_before } => BlockState::Exporting { since: now, not_before },
            SettledState::Serving => BlockState::Serving,
            SettledState::Retiring => BlockState::Retiring,
        }
    }
}

#[cfg(test)]
mod tests;
