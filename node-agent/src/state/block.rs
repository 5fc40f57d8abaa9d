//! The state machine of one block on this node. Pure.
//!
//! A block's state decides whether the node may allocate from the block and whether the agent exports the block's route. It also decides
//! whether a restarted agent may use the block before the API server confirms the block. ARCHITECTURE.md has the table of transitions.

use bobbin_ipam::BootTime;
use serde::{Deserialize, Serialize};

/// The state of a block on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BlockState {
    /// The agent is about to send a claim of the block, or has sent it and does not know the outcome yet.
    Claiming {
        /// True if a watch event or a read during the claim cast doubt on the node's ownership. That event or read may show a state from
        /// before the claim.
        doubted: bool,
        /// True if a watch event during the claim showed this node as the owner. If the API server then refuses the claim, the agent reads
        /// the block, because a proxy or a retry may have sent the claim twice. The first of the two claims may have succeeded.
        #[serde(default)]
        seen_owned: bool,
    },
    /// The API server confirmed the claim. The agent writes the block's route, or waits for the end of the quiet time after an outage.
    Exporting {
        /// When the block entered this state.
        since: BootTime,
        /// The node allocates no address from the block before this time.
        not_before: BootTime,
    },
    /// The node owns and exports the block, and addresses may be allocated from it.
    Serving,
    /// The node owns the block, but must allocate no addresses from it, for example because the pool drains or does not admit the node.
    /// `RetireReason` in `blocks::demand::retire` lists all reasons.
    Retiring,
    /// The node may have lost the block. No address is allocated from the block until a read shows which node owns it.
    Doubted {
        /// The state before the doubt. The block returns to that state if a read shows that the node still owns the block.
        before: SettledState,
        /// Counts the doubts that followed the first one. A read that began before the latest doubt can't settle which node owns the block.
        doubts: u32,
    },
    /// No address of the block is in use, and the node is releasing the block.
    Releasing {
        /// The step of the release that comes next.
        stage: ReleaseStage,
        /// True if the node may have lost the block. If the release of such a block is cancelled, the block becomes doubted.
        doubted: bool,
    },
    /// Another node owns the block. The agent reports this node's pods that still use addresses of the block.
    Lost,
}

/// The states in which the API server has confirmed that this node owns the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SettledState {
    /// See [`BlockState::Exporting`].
    Exporting {
        /// The node allocates no address from the block before this time.
        not_before: BootTime,
    },
    /// See [`BlockState::Serving`].
    Serving,
    /// See [`BlockState::Retiring`].
    Retiring,
}

/// The steps of the release of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReleaseStage {
    /// The agent is deleting this node's assignments in the block.
    #[serde(alias = "DeletingRecords")]
    DeletingAssignments,
    /// The node's assignments in the block are deleted. The agent is withdrawing the block's route, and gives the routers time to drop the
    /// route.
    WithdrawingRoute,
    /// The agent sent the write that releases the block, and does not know the outcome yet.
    Sent,
}

/// An event in the life of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockEvent {
    /// The API server confirmed the claim. The block enters service at `not_before` at the earliest.
    ClaimConfirmed {
        /// The current time.
        now: BootTime,
        /// The end of the quiet time, or the current time if there is no quiet time.
        not_before: BootTime,
    },
    /// The API server refused the claim. The agent then forgets the block. But if a watch event showed this node as the owner, the block
    /// stays, and the agent reads it.
    ClaimRefused,
    /// The claim failed, because a read shows that this node does not own the block, or because the agent can't use the block.
    ClaimFailed,
    /// A watch event shows that this node owns the block.
    SeenOwned,
    /// The block's route is in the kernel, and the agent has saved the block as `Serving` in the checkpoint.
    Exported,
    /// The node must allocate no more addresses from the block.
    Retire,
    /// The node may allocate addresses from the block again. The agent saves the checkpoint before it applies this event.
    Reopen,
    /// The node may have lost the block.
    Doubt,
    /// A read shows that this node owns the block. The agent saves the checkpoint before it applies this event.
    FoundOwned {
        /// The current time.
        now: BootTime,
        /// The value of `doubts` in [`BlockState::Doubted`] when the read began.
        doubts: u32,
    },
    /// The node owns a lost block again. The block enters service at `not_before` at the earliest.
    ClaimedBack {
        /// The current time.
        now: BootTime,
        /// The end of the quiet time, or the current time if there is no quiet time.
        not_before: BootTime,
    },
    /// A read shows that another node owns the block.
    FoundForeign,
    /// A read shows that the block is free or does not exist, and no attachment of this node has an address of the block.
    FoundFree,
    /// The node starts to release the block. No address of the block is in use.
    Release,
    /// The node's assignments in the block are deleted. The agent withdraws the block's route next.
    AssignmentsDeleted,
    /// The agent sends the write that releases the block.
    ReleaseSent,
    /// The API server refused the write that releases the block, or the agent never sent it, because it could not save the checkpoint.
    ReleaseFailed,
    /// The API server confirmed that the node no longer owns the block.
    Released,
    /// An ADD needs the block, so the agent cancels the release. The block enters service at `not_before` at the earliest.
    ReleaseCancelled {
        /// The current time.
        now: BootTime,
        /// The end of the quiet time, or the current time if there is no quiet time.
        not_before: BootTime,
    },
    /// The last attachment with an address of a lost block ended.
    Vacated,
}

/// The effect of an event on a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The block enters this state.
    State(BlockState),
    /// The node forgets the block.
    Forgotten,
    /// The event has no effect in this state.
    Unchanged,
}

impl BlockState {
    /// The state of a block whose claim is about to be sent.
    pub const CLAIMING: Self = Self::Claiming { doubted: false, seen_owned: false };

    /// The effect of an event on a block in this state.
    #[must_use]
    pub fn on(self, event: BlockEvent) -> Next {
        use BlockEvent as E;
        use BlockState as S;
        match (self, event) {
            (S::Claiming { doubted: false, .. }, E::ClaimConfirmed { now, not_before }) => {
                Next::State(S::Exporting { since: now, not_before })
            }
            (S::Claiming { doubted: true, .. }, E::ClaimConfirmed { not_before, .. }) => {
                Next::State(S::Doubted { before: SettledState::Exporting { not_before }, doubts: 0 })
            }
            (S::Claiming { seen_owned, .. }, E::Doubt) => Next::State(S::Claiming { doubted: true, seen_owned }),
            (S::Claiming { doubted, .. }, E::SeenOwned) => Next::State(S::Claiming { doubted, seen_owned: true }),
            (S::Claiming { seen_owned: false, .. }, E::ClaimRefused)
            | (S::Claiming { .. }, E::ClaimFailed)
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
            // The block's route is exported again before any of its addresses is allocated.
            (S::Lost, E::ClaimedBack { now, not_before }) => Next::State(S::Exporting { since: now, not_before }),
            (S::Doubted { .. }, E::FoundForeign) => Next::State(S::Lost),
            (S::Exporting { .. } | S::Serving | S::Retiring, E::Release) => {
                Next::State(S::Releasing { stage: ReleaseStage::DeletingAssignments, doubted: false })
            }
            (S::Releasing { stage, doubted }, event) => stage.on(doubted, event),
            _ => Next::Unchanged,
        }
    }

    /// Whether the node may allocate addresses from a block in this state.
    pub fn assignable(self) -> bool {
        self == BlockState::Serving
    }

    /// Whether the block's routes should be in the kernel. A doubted block stays exported, because pods may use its addresses.
    pub fn exported(self) -> bool {
        match self {
            BlockState::Claiming { .. } | BlockState::Lost => false,
            BlockState::Releasing { stage, .. } => stage == ReleaseStage::DeletingAssignments,
            BlockState::Exporting { .. } | BlockState::Serving | BlockState::Retiring | BlockState::Doubted { .. } => {
                true
            }
        }
    }

    /// Whether the API server may show this node as the block's owner. Such a block counts against `maxBlocksPerNode`.
    pub fn counts_as_ours(self) -> bool {
        self != BlockState::Lost
    }

    /// Whether this state revokes earlier allocations. An ADD must not answer with an address that it got before the block entered this
    /// state.
    pub fn revokes(self) -> bool {
        matches!(self, BlockState::Doubted { .. } | BlockState::Lost)
    }

    /// The block's state after a restart of the agent. Returns `None` if the agent must forget the block. If the node owns a forgotten
    /// block, the agent's next read adds the block again. `trusted` means that the agent was down only briefly; a `Serving` block then
    /// stays in service without a new confirmation.
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

    /// The names of all states.
    pub(crate) const NAMES: [&str; 7] =
        ["claiming", "exporting", "serving", "retiring", "doubted", "releasing", "lost"];

    /// The state's name in logs and metrics.
    pub fn name(self) -> &'static str {
        let [claiming, exporting, serving, retiring, doubted, releasing, lost] = Self::NAMES;
        match self {
            BlockState::Claiming { .. } => claiming,
            BlockState::Exporting { .. } => exporting,
            BlockState::Serving => serving,
            BlockState::Retiring => retiring,
            BlockState::Doubted { .. } => doubted,
            BlockState::Releasing { .. } => releasing,
            BlockState::Lost => lost,
        }
    }
}

impl ReleaseStage {
    /// The effect of an event at this stage of a release. A doubt does not change the stage.
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
