//! The condition `Terminating`: what the deletion of the pool waits for. Pure.

use bobbin_api_client::list_names;
use bobbin_crds::name;
use kube::ResourceExt;

use super::super::{Counts, Inputs};
use super::{MAX_NAMED_NODES, State, entry, state};
use crate::cache::BlockInfo;

pub(super) fn terminating(inputs: &Inputs<'_>, counts: &Counts) -> State {
    let blocks = inputs.view.blocks.iter().filter(|block| !block.is_free()).count();
    if counts.used == 0 && blocks == 0 {
        // A deleted block without Bobbin's finalizer still exists only because another finalizer keeps it.
        let kept = inputs.view.blocks.iter().find(|block| block.deleting && block.finalizer.is_none());
        if let Some(block) = kept {
            let name = name::block(&inputs.pool.name_any(), block.index);
            return state(
                &entry::DELETION_FOREIGN_FINALIZER,
                format!(
                    "the deletion of the pool waits for AddressBlock {name}, because another program put a finalizer on the block. To see the finalizer, run: kubectl get addressblock {name} -o yaml"
                ),
            );
        }
        let (cooldown, now) = (inputs.pool.spec.cooldown(), inputs.now.0);
        let cools = |block: &BlockInfo| !block.deleting && !block.has_cooled(cooldown, now);
        if inputs.view.cooling > 0 || inputs.view.blocks.iter().any(cools) {
            return state(
                &entry::DELETION_COOLING_DOWN,
                format!(
                    "the deletion of the pool waits until its released addresses have cooled down, which takes up to {} s. To delete the pool at once, set spec.cooldownSeconds to 0",
                    cooldown.as_secs()
                ),
            );
        }
        return state(
            &entry::DELETION_EMPTY,
            "the pool is being deleted and none of its addresses is in use: the operator is about to remove the pool",
        );
    }
    let users = inputs.users;
    let named = users.iter().take(MAX_NAMED_NODES).map(|(node, count)| format!("{node} ({count})"));
    let nodes = list_names(named, users.len());
    if counts.used == 0 {
        return state(
            &entry::DELETION_BLOCKS_CLAIMED,
            format!(
                "the deletion of the pool waits until {blocks} claimed blocks on {} nodes are released: {nodes}. No address is in use, so the nodes release these blocks. If a node keeps its block, check that its agent runs: kubectl get pods -A -o wide -l 'app.kubernetes.io/name=bobbin,app.kubernetes.io/component in (agent,agent-remove)'",
                users.len()
            ),
        );
    }
    state(
        &entry::DELETION_IN_USE,
        format!(
            "the deletion of the pool waits until {} addresses in {blocks} claimed blocks on {} nodes are free: {nodes}. Delete the pods that use these addresses, or evict them: kubectl bobbin drain {} --evict",
            counts.used,
            users.len(),
            inputs.pool.name_any()
        ),
    )
}
