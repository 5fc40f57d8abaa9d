//! The calls to the API server about blocks, one function per call.

use std::collections::BTreeMap;
use std::time::Duration;

use bobbin_api_client::{Clients, Lenient, Outcome, ReadError, Refusal};
use bobbin_crds::{AddressBlock, FINALIZER};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::read::BlockInfo;
use crate::cluster::NodeInfo;
use crate::state::BlockView;

/// How long one API call about blocks may take.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest number of free blocks in one page of a LIST response.
const FREE_BLOCKS_PAGE_SIZE: u32 = 500;

/// The result of a LIST request for this node's blocks.
pub(crate) struct OwnBlocks {
    /// The blocks by name.
    pub blocks: BTreeMap<String, BlockInfo>,
    /// The resourceVersion of the LIST response.
    pub resource_version: String,
}

/// One page of the free blocks of a pool.
pub(crate) struct FreeBlocksPage {
    pub blocks: Vec<BlockInfo>,
    /// The token of the next page. `None` on the last page.
    pub next: Option<String>,
}

/// Calls the API server about the blocks of one node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct BlockApi {
    api: Api<Lenient<AddressBlock>>,
}

impl BlockApi {
    pub(crate) fn new(clients: &Clients) -> BlockApi {
        BlockApi { api: Api::all(clients.requests.clone()) }
    }

    /// Reads one block with a consistent read.
    pub(crate) async fn get(&self, name: &str) -> Result<BlockInfo, ReadError> {
        bobbin_api_client::read(CALL_TIMEOUT, self.api.get(name)).await.map(|block| BlockInfo::of(&block))
    }

    /// Lists the blocks whose `spec.nodeName` is this node, with a consistent read.
    pub(crate) async fn list_own(&self, node_name: &str) -> Result<OwnBlocks, ReadError> {
        let own = ListParams::default().fields(&format!("spec.nodeName={node_name}"));
        let list = bobbin_api_client::read(CALL_TIMEOUT, self.api.list(&own)).await?;
        let resource_version = list.metadata.resource_version.clone().unwrap_or_default();
        let blocks = list
            .items
            .into_iter()
            .map(|block| BlockInfo::of(&block))
            .map(|block| (block.name.clone(), block))
            .collect();
        Ok(OwnBlocks { blocks, resource_version })
    }

    /// Lists up to 500 free blocks of a pool. `after` is the token of the page to list. Without a token, the method lists the first page.
    pub(crate) async fn list_free(&self, pool: &str, after: Option<&str>) -> Result<FreeBlocksPage, ReadError> {
        let mut free =
            ListParams::default().fields(&format!("spec.poolName={pool},spec.nodeName=")).limit(FREE_BLOCKS_PAGE_SIZE);
        free.continue_token = after.map(str::to_owned);
        let list = bobbin_api_client::read(CALL_TIMEOUT, self.api.list(&free)).await?;
        let next = list.metadata.continue_.clone().filter(|token| !token.is_empty());
        Ok(FreeBlocksPage { blocks: list.items.into_iter().map(|block| BlockInfo::of(&block)).collect(), next })
    }

    /// Claims a block without reading it first. The API server runs the tests of the JSON patch on the current version of the block.
    pub(crate) async fn claim_unread(&self, name: &str, node: &NodeInfo) -> Outcome<BlockInfo> {
        self.patch(name, unread_claim_patch(node)).await
    }

    /// Claims a block that the agent has read. If the block already names this node, the claim updates the Node's UID and addresses in the
    /// block.
    pub(crate) async fn claim(&self, read: &BlockInfo, node: &NodeInfo) -> Outcome<BlockInfo> {
        self.patch(&read.name, claim_as_read_patch(read, node)).await
    }

    /// Releases a block if no other program has changed it since the agent last read it. If `used` is true, the node has used the block's
    /// addresses, so their cool-down starts now.
    pub(crate) async fn release(&self, block: &BlockView, used: bool) -> Outcome<()> {
        let mut spec = json!({"nodeName": null, "nodeUID": null, "nodeIPv4": null, "nodeIPv6": null});
        if used {
            spec["freeSince"] = json!(MicroTime(Timestamp::now()));
        }
        // The API server answers with a conflict if the block's resourceVersion or UID differs from the value in this merge patch.
        let patch = json!({
            "metadata": {"uid": block.held.uid, "resourceVersion": block.held.resource_version},
            "spec": spec,
        });
        let patch = Patch::Merge(patch);
        let params = PatchParams::default();
        match bobbin_api_client::write(CALL_TIMEOUT, self.api.patch(&block.held.name, &params, &patch)).await {
            Outcome::Done(_) => Outcome::Done(()),
            Outcome::Refused(refusal) => Outcome::Refused(refusal),
            Outcome::Unknown(why) => Outcome::Unknown(why),
        }
    }

    async fn patch(&self, name: &str, patch: Value) -> Outcome<BlockInfo> {
        let patch: Patch<()> = match serde_json::from_value(patch) {
            Ok(patch) => Patch::Json(patch),
            Err(error) => return Outcome::Refused(Refusal::Other(0, error.to_string())),
        };
        match bobbin_api_client::write(CALL_TIMEOUT, self.api.patch(name, &PatchParams::default(), &patch)).await {
            Outcome::Done(block) => Outcome::Done(BlockInfo::of(&block)),
            Outcome::Refused(refusal) => Outcome::Refused(refusal),
            Outcome::Unknown(why) => Outcome::Unknown(why),
        }
    }
}

/// Builds the patch that claims an unread block. The patch fails if the block has a node or a finalizer, or is being deleted. In a JSON
/// patch, a test for null also succeeds if the field is missing. If another write changes the block during the patch, the API server
/// repeats the tests.
fn unread_claim_patch(node: &NodeInfo) -> Value {
    let mut patch = vec![
        json!({"op": "test", "path": "/spec/nodeName", "value": null}),
        json!({"op": "test", "path": "/metadata/finalizers", "value": null}),
        json!({"op": "test", "path": "/metadata/deletionTimestamp", "value": null}),
        json!({"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]}),
        json!({"op": "add", "path": "/spec/nodeName", "value": node.name}),
        json!({"op": "add", "path": "/spec/nodeUID", "value": node.uid}),
    ];
    for (field, address) in node.addresses() {
        if let Some(address) = address {
            patch.push(json!({"op": "add", "path": format!("/spec/{field}"), "value": address}));
        }
    }
    Value::Array(patch)
}

/// Builds the patch that claims a block as the agent has read it. The patch writes this Node's name, UID and addresses into the block. The
/// patch fails if the block has changed since the read.
fn claim_as_read_patch(read: &BlockInfo, node: &NodeInfo) -> Value {
    let mut patch = vec![json!({"op": "test", "path": "/metadata/resourceVersion", "value": read.resource_version})];
    match (read.finalizer, read.has_finalizers) {
        (true, _) => {}
        (false, true) => patch.push(json!({"op": "add", "path": "/metadata/finalizers/-", "value": FINALIZER})),
        (false, false) => patch.push(json!({"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]})),
    }
    patch.push(json!({"op": "add", "path": "/spec/nodeName", "value": node.name}));
    patch.push(json!({"op": "add", "path": "/spec/nodeUID", "value": node.uid}));
    let written = [&read.node_ipv4, &read.node_ipv6];
    for ((field, address), written) in node.addresses().into_iter().zip(written) {
        let pointer = format!("/spec/{field}");
        match (address, written) {
            (Some(address), _) => patch.push(json!({"op": "add", "path": pointer, "value": address})),
            (None, Some(_)) => patch.push(json!({"op": "remove", "path": pointer})),
            (None, None) => {}
        }
    }
    Value::Array(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeInfo {
        NodeInfo { name: "n1".into(), uid: "u1".into(), ipv4: "192.0.2.1".parse().ok(), ..NodeInfo::default() }
    }

    fn paths(patch: &Value, op: &str) -> Vec<String> {
        let ops = patch.as_array().into_iter().flatten().filter(|one| one["op"] == op);
        ops.filter_map(|one| one["path"].as_str().map(str::to_owned)).collect()
    }

    #[test]
    fn an_unread_claim_is_refused_for_a_block_that_is_claimed_finalized_or_being_deleted() {
        let tests = paths(&unread_claim_patch(&node()), "test");
        assert_eq!(tests, ["/spec/nodeName", "/metadata/finalizers", "/metadata/deletionTimestamp"]);
    }

    #[test]
    fn a_claim_on_a_block_as_read_tests_its_version_keeps_foreign_finalizers_and_corrects_addresses() {
        let read = BlockInfo {
            has_finalizers: true,
            node_ipv4: Some("192.0.2.9".into()),
            node_ipv6: Some("2001:db8::9".into()),
            ..BlockInfo::default()
        };
        let patch = claim_as_read_patch(&read, &node());
        assert_eq!(paths(&patch, "test"), ["/metadata/resourceVersion"]);
        assert_eq!(paths(&patch, "remove"), ["/spec/nodeIPv6"]);
        assert!(paths(&patch, "add").contains(&"/metadata/finalizers/-".to_owned()));
        let own = BlockInfo { finalizer: true, has_finalizers: true, ..BlockInfo::default() };
        assert!(!paths(&claim_as_read_patch(&own, &node()), "add").iter().any(|path| path.contains("finalizers")));
    }
}
