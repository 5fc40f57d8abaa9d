//! How claims, lists and transitions change what counts as confirmed about a block. Pure.

use super::block::BlockState;
use crate::cluster::freshness::Proof;

impl Proof {
    /// What a claim proves. `read` is the proof of a read that began before the claim. `had_finalizer` says whether the block may have had
    /// Bobbin's finalizer before the claim. `quiet` says whether the quiet time that follows an outage has not ended yet.
    #[must_use]
    pub fn of_claim(read: Proof, had_finalizer: bool, quiet: bool) -> Proof {
        if quiet || had_finalizer { Proof::AssignmentsUnseen } else { read }
    }

    /// What counts as confirmed after a restart of the agent. `assignments_listed` comes from the checkpoint.
    #[must_use]
    pub fn restored(assignments_listed: bool) -> Proof {
        if assignments_listed { Proof::None } else { Proof::AssignmentsUnseen }
    }

    /// What stays confirmed about a block that enters the state `next`.
    #[must_use]
    pub fn after(self, next: BlockState) -> Proof {
        match next {
            // Another node may assign the block's addresses before this node owns the block again.
            BlockState::Lost => Proof::AssignmentsUnseen,
            BlockState::Doubted { .. } if self != Proof::AssignmentsUnseen => Proof::None,
            _ => self,
        }
    }

    /// What counts as confirmed after the API server showed `found`. `assignments_listed` says whether the block's assignments were listed,
    /// too. Without that list, [`Proof::AssignmentsUnseen`] stays.
    #[must_use]
    pub fn confirmed(self, found: Proof, assignments_listed: bool) -> Proof {
        if assignments_listed || self != Proof::AssignmentsUnseen { found } else { self }
    }
}
