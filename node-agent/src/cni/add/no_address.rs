//! Says why the node has no address of a pool for a new pod, and what to do about it.

use bobbin_crds::AddressPoolStatus;

use crate::agent::Agent;
use crate::blocks::claim::{ClaimError, NODE_NETWORK_REMEDY, has_uncreated_blocks};

/// Whether all addresses of the pool are reserved, according to its status.
fn all_reserved(agent: &Agent, pool: &str) -> bool {
    let status = agent.cluster.pool(pool).and_then(|pool| pool.status.clone());
    let counts = status.and_then(|status| status.addresses.ipv4.or(status.addresses.ipv6));
    counts.is_some_and(|counts| counts.total > 0 && counts.reserved == counts.total)
}

/// The number of the pool's blocks that no node has claimed, according to the pool's status. The status also counts blocks that the
/// operator has not created yet. The status may be older than the latest claims of other nodes.
fn unclaimed_blocks(agent: &Agent, pool: &str) -> i64 {
    agent.cluster.pool(pool).and_then(|pool| pool.status.as_ref().map(|status| status.blocks.free)).unwrap_or_default()
}

/// Whether an ADD should wait for the operator: the node found no suitable block, but the operator can still create blocks of
/// the pool. In a burst, nodes claim blocks faster than the operator creates them.
pub(super) fn operator_can_help(agent: &Agent, pool: &str, trouble: &ClaimError) -> bool {
    match trouble {
        ClaimError::PoolFull(_) => unclaimed_blocks(agent, pool) > 0,
        ClaimError::OnlyCooling(_) => agent.cluster.pool(pool).is_some_and(|pool| has_uncreated_blocks(&pool)),
        _ => false,
    }
}

/// What the pool's status says about the whole pool. This node has `held` addresses in use. Returns `None` if the status counts fewer
/// than `held` addresses in use, because the status is then out of date.
fn whole_pool(status: &AddressPoolStatus, held: u32) -> Option<String> {
    let blocks = &status.blocks;
    if status.used < i64::from(held) {
        return None;
    }
    let addresses = status.addresses.ipv4.or(status.addresses.ipv6).map_or(0, |counts| counts.total);
    // If every block is claimed, each free address lies in a claimed block.
    let elsewhere = match status.free {
        count if count > 0 && blocks.free == 0 => {
            format!(
                ". The claimed blocks have {count} free addresses, but only the node of a block can assign its addresses"
            )
        }
        _ => String::new(),
    };
    let used = status.used;
    Some(format!(
        ". According to its status, the whole pool has {used} of its {addresses} addresses in use, and {} of its {} blocks are claimed{elsewhere}",
        blocks.claimed, blocks.total
    ))
}

/// Why the node has no address of the pool for a new pod, and what to do. `trouble` is the error of the last claim.
pub(super) fn sentence(agent: &Agent, pool: &str, trouble: Option<&ClaimError>) -> String {
    let node = &agent.args.node_name;
    let uses = agent.node_state.pool_use(pool, agent.cooldown(pool));
    let held: u32 = uses.iter().map(|block| block.held).sum();
    let remedy = match trouble {
        Some(ClaimError::Limit { .. }) => {
            "set a larger maxBlocksPerNode in the pool, or delete pods on this node that use the pool".to_owned()
        }
        Some(ClaimError::NodeNetwork { .. }) => {
            format!("{NODE_NETWORK_REMEDY}, or schedule the pod on another node")
        }
        Some(ClaimError::PoolFull(_) | ClaimError::OnlyCooling(_)) if all_reserved(agent, pool) => {
            "remove entries of the pool's spec.reserved, or append a subnet, because all addresses of the pool are reserved"
                .to_owned()
        }
        Some(ClaimError::PoolFull(_)) if unclaimed_blocks(agent, pool) > 0 => {
            let count = unclaimed_blocks(agent, pool);
            format!(
                "check that bobbin-operator is running, because it must create blocks. The pool's status counts {count} blocks that no node has claimed. If the pool is full nevertheless, append a subnet, or delete pods that use the pool"
            )
        }
        Some(ClaimError::PoolFull(_) | ClaimError::OnlyCooling(_)) => {
            "append a subnet to the pool, or delete pods that use the pool".to_owned()
        }
        Some(ClaimError::NotReady { .. } | ClaimError::Refused { .. } | ClaimError::UnusableBlock { .. }) => {
            format!("see kubectl get addresspool {pool} -o yaml, and kubectl describe node {node}")
        }
        _ => "read the agent's log on this node, and check whether the API server answers".to_owned(),
    };
    let why = trouble.map_or_else(|| "the node could not claim a block in time".to_owned(), ToString::to_string);
    let free = agent.cluster.pool(pool).and_then(|pool| whole_pool(pool.status.as_ref()?, held)).unwrap_or_default();
    format!(
        "pool {pool:?} has no free address for node {node}: {held} addresses in the node's {} blocks are in use; {why}{free}. What to do: {remedy}. The runtime repeats the ADD",
        uses.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_pool_says_how_many_free_addresses_claimed_blocks_have() {
        let status = |used: i64, claimed: i64| -> AddressPoolStatus {
            serde_json::from_value(serde_json::json!({
                "used": used, "free": 8 - used, "blocks": {"total": 2, "claimed": claimed, "free": 2 - claimed},
                "addresses": {"ipv4": {"total": 8, "reserved": 0, "assigned": used, "cooling": 0, "free": 8 - used}},
            }))
            .unwrap()
        };
        let full = whole_pool(&status(5, 2), 4).unwrap();
        assert!(full.contains("5 of its 8 addresses in use, and 2 of its 2 blocks are claimed"), "{full}");
        assert!(full.contains("The claimed blocks have 3 free addresses"), "{full}");
        assert!(!whole_pool(&status(5, 1), 4).unwrap().contains("The claimed"), "a block is unclaimed");
        assert!(!whole_pool(&status(8, 2), 4).unwrap().contains("The claimed"), "no address is free");
        assert_eq!(whole_pool(&status(3, 2), 4), None, "the status is older than this node's attachments");
    }
}
