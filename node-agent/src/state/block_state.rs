//! The state of one block on this node, and every transition between states. Pure.
//!
//! What may be assigned, exported, trusted after a restart or counted as stock is derived from the state and stands nowhere else. The
//! table of transitions is in ARCHITECTURE.md.

use bobbin_ipam::BootTime;
use serde::{Deserialize, Serialize};

/// Where a block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlockState {
    /// A claim was sent, and its outcome is unknown.
    Claiming {
        /// Something said meanwhile that the block is not ours, which may be older or newer than the claim.
        doubted: bool,
    },
    /// The API server confirmed the claim. The route is being written, or the quiet time after an outage runs.
    Exporting {
        /// Since when.
        since: BootTime,
        /// It does not serve before this moment.
        not_before: BootTime,
    },
    /// Confirmed and exported: addresses go out.
    Serving,
    /// Ours, but nothing new goes out: its pool or subnet closes, the node is not admitted or leaves, or the block is being deleted.
    Retiring,
    /// Something says that the block may not be ours. Nothing goes out until a read tells.
    Doubted {
        /// The state that it returns to if it is ours.
        before: Settled,
        /// Counts the doubts: a read that began before the last of them settles nothing.
        doubts: u32,
    },
    /// No address is in use; the block is on its way back to the pool.
    Releasing {
        /// How far that has come.
        stage: Release,
        /// The block may not be ours any more: should the release be cancelled, a read comes first.
        doubted: bool,
    },
    /// Another node has it. Attachments that still have addresses of it are reported.
    Lost,
}

/// The states in which a block is ours by the API server's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Settled {
    /// See [`BlockState::Exporting`].
    Exporting {
        /// It does not serve before this moment.
        not_before: BootTime,
    },
    /// See [`BlockState::Serving`].
    Serving,
    /// See [`BlockState::Retiring`].
    Retiring,
}

/// How far a release has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Release {
    /// Our records of its addresses are being deleted.
    DeletingRecords,
    /// The records are gone; the route is being withdrawn, or the routers get time to forget it.
    WithdrawingRoute,
    /// The write that gives the block back was sent, perhaps without an answer.
    Sent,
}

/// Something that happened to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockEvent {
    /// The API server confirmed the claim, at this moment. The block does not serve before `not_before`.
    ClaimConfirmed {
        /// Now.
        now: BootTime,
        /// The end of the quiet time; now if there is none.
        not_before: BootTime,
    },
    /// The claim did not get the block.
    ClaimFailed,
    /// The route is written, and the checkpoint says so.
    ExportedBlocks,
    /// Nothing new may go out.
    Retire,
    /// New addresses may go out again, and the checkpoint says so.
    Reopen,
    /// The block may not be ours.
    Doubt,
    /// A read says that it is ours. It goes back into service through the checkpoint.
    FoundOurs {
        /// Now.
        now: BootTime,
        /// The doubts when the read began.
        doubts: u32,
    },
    /// A lost block is ours again. It does not serve before `not_before`.
    ClaimedBack {
        /// Now.
        now: BootTime,
        /// The end of the quiet time; now if there is none.
        not_before: BootTime,
    },
    /// A read says that it is another node's.
    FoundOthers,
    /// A read says that it is nobody's, or there is no such block, and nobody here has an address of it.
    FoundVacant,
    /// No address is in use, and the block is to go back.
    Release,
    /// The records are gone: the route goes next.
    RecordsGone,
    /// The write that gives the block back is being sent.
    ReleaseSent,
    /// The write was refused, or the checkpoint could not be written before it.
    ReleaseFailed,
    /// The API server says that the block is not ours any more.
    Released,
    /// An ADD wants the block after all. It does not serve before `not_before`.
    ReleaseCancelled {
        /// Now.
        now: BootTime,
        /// The end of the quiet time; now if there is none.
        not_before: BootTime,
    },
    /// The last attachment with an address of a lost block ended.
    Vacated,
}

/// What becomes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It goes on in this state.
    State(BlockState),
    /// The node has nothing to do with it any more.
    Forgotten,
    /// The event says nothing new to a block in this state.
    Unchanged,
}

impl BlockState {
    /// What an event makes of the block.
    #[must_use]
    pub fn on(self, event: BlockEvent) -> Next {
        use BlockEvent as E;
        use BlockState as S;
        match (self, event) {
            (S::Claiming { doubted: false }, E::ClaimConfirmed { now, not_before }) => {
                Next::State(S::Exporting { since: now, not_before })
            }
            (S::Claiming { doubted: true }, E::ClaimConfirmed { not_before, .. }) => {
                Next::State(S::Doubted { before: Settled::Exporting { not_before }, doubts: 0 })
            }
            (S::Claiming { .. }, E::Doubt) => Next::State(S::Claiming { doubted: true }),
            (S::Claiming { .. }, E::ClaimFailed)
            | (S::Doubted { .. }, E::FoundVacant)
            | (S::Releasing { .. }, E::Released)
            | (S::Lost, E::Vacated) => Next::Forgotten,
            (S::Exporting { .. }, E::ExportedBlocks) | (S::Retiring, E::Reopen) => Next::State(S::Serving),
            (S::Serving, E::Retire) => Next::State(S::Retiring),
            (S::Exporting { .. } | S::Serving | S::Retiring, E::Doubt) => {
                Next::State(S::Doubted { before: self.settled(), doubts: 0 })
            }
            (S::Doubted { before, doubts }, E::Doubt) => {
                Next::State(S::Doubted { before, doubts: doubts.wrapping_add(1) })
            }
            (S::Doubted { before, doubts }, E::FoundOurs { now, doubts: at_read }) if doubts == at_read => {
                Next::State(before.resume(now))
            }
            // Claimed back: it is exported anew before anything goes out.
            (S::Lost, E::ClaimedBack { now, not_before }) => Next::State(S::Exporting { since: now, not_before }),
            (S::Doubted { .. }, E::FoundOthers) => Next::State(S::Lost),
            (S::Exporting { .. } | S::Serving | S::Retiring, E::Release) => {
                Next::State(S::Releasing { stage: Release::DeletingRecords, doubted: false })
            }
            (S::Releasing { stage, doubted }, event) => stage.on(doubted, event),
            _ => Next::Unchanged,
        }
    }

    /// Whether new addresses may go out.
    pub fn assignable(self) -> bool {
        self == BlockState::Serving
    }

    /// Whether the block's routes should be in the kernel. What is in doubt stays exported, for pods may use it.
    pub fn exported(self) -> bool {
        match self {
            BlockState::Claiming { .. } | BlockState::Lost => false,
            BlockState::Releasing { stage, .. } => stage == Release::DeletingRecords,
            BlockState::Exporting { .. } | BlockState::Serving | BlockState::Retiring | BlockState::Doubted { .. } => {
                true
            }
        }
    }

    /// Whether the API server may say that the block is this node's: it counts against `maxBlocksPerNode`.
    pub fn counts_as_ours(self) -> bool {
        self != BlockState::Lost
    }

    /// Whether an ADD that took an address before the block came into this state must not be answered.
    pub fn revokes(self) -> bool {
        matches!(self, BlockState::Doubted { .. } | BlockState::Lost)
    }

    /// The state that a restart begins with; `None`: a restart forgets it and learns of it from the API server. `trusted`: the agent was
    /// away for so short a time that what served may go on serving without the API server's word.
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

    fn settled(self) -> Settled {
        match self {
            BlockState::Serving => Settled::Serving,
            BlockState::Retiring => Settled::Retiring,
            BlockState::Exporting { not_before, .. } => Settled::Exporting { not_before },
            _ => Settled::Exporting { not_before: BootTime::default() },
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

impl Release {
    /// What an event makes of a release that has come so far. Doubt does not move it.
    fn on(self, doubted: bool, event: BlockEvent) -> Next {
        use BlockEvent as E;
        let stage = |stage| Next::State(BlockState::Releasing { stage, doubted });
        match (self, event) {
            (_, E::Doubt) if !doubted => Next::State(BlockState::Releasing { stage: self, doubted: true }),
            (Release::DeletingRecords, E::RecordsGone) | (Release::Sent, E::ReleaseFailed) => {
                stage(Release::WithdrawingRoute)
            }
            (Release::WithdrawingRoute, E::ReleaseSent) => stage(Release::Sent),
            (Release::DeletingRecords | Release::WithdrawingRoute, E::ReleaseCancelled { now, not_before }) => {
                let before = Settled::Exporting { not_before };
                Next::State(if doubted { BlockState::Doubted { before, doubts: 0 } } else { before.resume(now) })
            }
            _ => Next::Unchanged,
        }
    }
}

impl Settled {
    fn resume(self, now: BootTime) -> BlockState {
        match self {
            Settled::Exporting { not_before } => BlockState::Exporting { since: now, not_before },
            Settled::Serving => BlockState::Serving,
            Settled::Retiring => BlockState::Retiring,
        }
    }
}

#[cfg(test)]
mod tests;
