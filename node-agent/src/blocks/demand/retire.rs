//! Decides from which blocks the node assigns no new addresses, and why. Each pass decides again from the current pool, Node and block.

use bobbin_crds::AddressPool;
use bobbin_messages::event::agent as event;

use super::DemandController;
use crate::cluster::pool_selection::{has_subnet_of, pool_info};
use crate::cluster::{CachedKind, NodeInfo};
use crate::state::{BlockEvent, BlockState, BlockView};

/// Why the node assigns no new addresses from a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetireReason {
    /// The agent is being uninstalled from the node.
    Uninstalling,
    /// The Node was deleted or is out of service.
    NodeGone,
    /// The block object is being deleted.
    BlockDeleted,
    /// The pool does not exist.
    PoolGone,
    /// The pool is draining or being deleted.
    PoolClosing,
    /// The pool no longer has a subnet that contains the block.
    SubnetGone,
    /// The pool's nodeSelector does not admit the node.
    NotAdmitted,
}

/// The inputs of the decision, besides the block itself.
pub(super) struct RetireInputs<'a> {
    pub(super) uninstalling: bool,
    pub(super) node_gone: bool,
    pub(super) pools_known: bool,
    pub(super) pool: Option<&'a AddressPool>,
    pub(super) node: Option<&'a NodeInfo>,
}

/// Returns why the node must assign no new addresses from a block. Returns `None` if the node may assign new addresses from it. A pool or
/// Node that the agent has not read yet is no reason to retire a block.
pub(super) fn reason(block: &BlockView, inputs: &RetireInputs<'_>) -> Option<RetireReason> {
    if inputs.uninstalling {
        return Some(RetireReason::Uninstalling);
    }
    if inputs.node_gone {
        return Some(RetireReason::NodeGone);
    }
    if block.held.deleting {
        return Some(RetireReason::BlockDeleted);
    }
    let Some(pool) = inputs.pool else { return inputs.pools_known.then_some(RetireReason::PoolGone) };
    let info = pool_info(pool, None, inputs.node);
    if info.draining || info.deleting {
        return Some(RetireReason::PoolClosing);
    }
    if !has_subnet_of(pool, &block.held.range) {
        return Some(RetireReason::SubnetGone);
    }
    (inputs.node.is_some() && !info.admits_node).then_some(RetireReason::NotAdmitted)
}

impl DemandController {
    fn reason(&self, block: &BlockView, node: Option<&NodeInfo>) -> Option<RetireReason> {
        let pool = self.0.cluster.pool(&block.held.pool);
        let inputs = RetireInputs {
            uninstalling: self.0.uninstalling,
            node_gone: self.0.cluster.node_is_gone(),
            pools_known: self.0.cluster.has_synced(CachedKind::Pools),
            pool: pool.as_deref(),
            node,
        };
        reason(block, &inputs)
    }

    /// The blocks of a pool that have no reason to retire. The agent may cancel the release of such a block.
    pub(super) fn wanted_blocks(&self, pool: &str) -> Vec<String> {
        let node = self.0.cluster.node();
        let wanted = |block: &BlockView| block.held.pool == pool && self.reason(block, node.as_ref()).is_none();
        self.0.node_state.blocks().into_iter().filter(wanted).map(|block| block.held.name).collect()
    }

    /// Retires blocks, reopens retired blocks, and releases retired blocks that are empty.
    pub(super) fn retire(&self) {
        let node = self.0.cluster.node();
        for block in self.0.node_state.blocks() {
            let name = &block.held.name;
            match (block.state, self.reason(&block, node.as_ref())) {
                (BlockState::Serving, Some(why)) => {
                    tracing::info!(
                        block = name,
                        ?why,
                        residents = block.residents,
                        "the block is retiring: the node allocates no new addresses from the block"
                    );
                    self.0.node_state.on(name, BlockEvent::Retire);
                    if why == RetireReason::BlockDeleted && block.residents > 0 {
                        self.report_deleted(&block);
                    }
                    self.0.node_state.begin_release(name);
                }
                (BlockState::Retiring | BlockState::Exporting { .. }, Some(_)) => {
                    self.0.node_state.begin_release(name);
                }
                (BlockState::Retiring, None) => self.reopen(name),
                _ => {}
            }
        }
    }

    fn report_deleted(&self, block: &BlockView) {
        let (name, node) = (&block.held.name, self.0.cluster.node_name());
        let sentence = format!(
            "block {name} ({}) of pool {} is being deleted, but {} pods of node {node} use addresses of the block. The node assigns no new addresses from the block. The block is removed when the last of these pods ends. To find these pods, run: kubectl get ipassignments --field-selector spec.blockName={name}",
            block.held.range, block.held.pool, block.residents
        );
        self.0.events.on_node(&event::BLOCK_IN_USE, &sentence);
    }

    fn reopen(&self, block: &str) {
        let (checkpoint, block) = (self.0.checkpoint.clone(), block.to_owned());
        tokio::spawn(async move {
            // If the checkpoint can't be saved, the block stays retired, and the next pass calls `reopen` again.
            if let Ok(true) = checkpoint.promote(&block, BlockEvent::Reopen).await {
                tracing::info!(block, "the block is in service again: the node may allocate addresses from the block");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use bobbin_ipam::BlockRange;
    use serde_json::json;

    use super::*;
    use crate::cluster::freshness::Proof;
    use crate::state::ClaimedBlock;

    fn pool(spec: &serde_json::Value) -> AddressPool {
        serde_json::from_value(json!({
            "apiVersion": "bobbin.dev/v1beta1", "kind": "AddressPool", "metadata": {"name": "default"}, "spec": spec,
        }))
        .unwrap()
    }

    fn block() -> BlockView {
        let held = ClaimedBlock {
            name: "default-1".into(),
            uid: "u".into(),
            resource_version: "1".into(),
            pool: "default".into(),
            index: 1,
            range: BlockRange::parse(Some("10.64.0.32/27"), None).unwrap(),
            free_since: None,
            deleting: false,
        };
        BlockView { held, state: BlockState::Serving, residents: 1, proof: Proof::None, was_used: true }
    }

    fn inputs<'a>(pool: Option<&'a AddressPool>, node: &'a NodeInfo) -> RetireInputs<'a> {
        RetireInputs { uninstalling: false, node_gone: false, pools_known: true, pool, node: Some(node) }
    }

    #[test]
    fn each_reason_retires_a_block_and_nothing_else_does() {
        let node = NodeInfo::default();
        let open = pool(&json!({"subnets": [{"ipv4": "10.64.0.0/16"}]}));
        let reason_of = |block: &BlockView, inputs: RetireInputs<'_>| reason(block, &inputs);
        assert_eq!(reason_of(&block(), inputs(Some(&open), &node)), None);
        let uninstalling = RetireInputs { uninstalling: true, ..inputs(Some(&open), &node) };
        assert_eq!(reason_of(&block(), uninstalling), Some(RetireReason::Uninstalling));
        let gone = RetireInputs { node_gone: true, ..inputs(Some(&open), &node) };
        assert_eq!(reason_of(&block(), gone), Some(RetireReason::NodeGone));
        let mut deleted = block();
        deleted.held.deleting = true;
        assert_eq!(reason_of(&deleted, inputs(Some(&open), &node)), Some(RetireReason::BlockDeleted));
        assert_eq!(reason_of(&block(), inputs(None, &node)), Some(RetireReason::PoolGone));
        let draining = pool(&json!({"subnets": [{"ipv4": "10.64.0.0/16"}], "draining": true}));
        assert_eq!(reason_of(&block(), inputs(Some(&draining), &node)), Some(RetireReason::PoolClosing));
        let moved = pool(&json!({"subnets": [{"ipv4": "10.65.0.0/16"}]}));
        assert_eq!(reason_of(&block(), inputs(Some(&moved), &node)), Some(RetireReason::SubnetGone));
        let others = pool(&json!({
            "subnets": [{"ipv4": "10.64.0.0/16"}], "nodeSelector": {"matchLabels": {"zone": "b"}},
        }));
        assert_eq!(reason_of(&block(), inputs(Some(&others), &node)), Some(RetireReason::NotAdmitted));
    }

    #[test]
    fn an_unknown_pool_or_node_retires_nothing() {
        let node = NodeInfo::default();
        let unknown = RetireInputs { pools_known: false, ..inputs(None, &node) };
        assert_eq!(reason(&block(), &unknown), None);
        let others = pool(&json!({
            "subnets": [{"ipv4": "10.64.0.0/16"}], "nodeSelector": {"matchLabels": {"zone": "b"}},
        }));
        let nodeless = RetireInputs { node: None, ..inputs(Some(&others), &node) };
        assert_eq!(reason(&block(), &nodeless), None);
    }
}
