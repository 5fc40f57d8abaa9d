//! A block that is gone while records say that its addresses are in use: whether it may be made again for their node. Only reads.

use bobbin_api_client::{Lenient, PartialNode, ReadError, read};
use bobbin_crds::{AddressBlock, FINALIZER};
use kube::Api;

use crate::fresh::{READ, each};
use crate::run::Shared;
use crate::slim::SlimAssignment;

/// The block, claimed for the node, if by the API server's own word that node lives and all records of the block are its own.
///
/// Creating it fails if the block is there after all, so that need not be asked.
pub(super) async fn claimed(
    shared: &Shared,
    mut block: AddressBlock,
    node: &str,
) -> Result<Option<AddressBlock>, ReadError> {
    if !shared.board.facts(|facts| facts.has_node(node)) {
        return Ok(None);
    }
    let name = block.metadata.name.clone().unwrap_or_default();
    let (mut own, mut others) = (0_usize, 0_usize);
    each(&shared.clients, &format!("spec.blockName={name}"), |record: Lenient<SlimAssignment>| {
        let is_own = record.readable().is_some_and(|record| record.spec.node_name == node);
        if is_own { own += 1 } else { others += 1 }
    })
    .await?;
    if own == 0 || others > 0 {
        return Ok(None);
    }
    let nodes: Api<Lenient<PartialNode>> = Api::all(shared.clients.requests.clone());
    let found = match read(READ, nodes.get(node)).await {
        Err(ReadError::NotFound) => return Ok(None),
        found => found?,
    };
    let Lenient::Readable(found) = found else { return Ok(None) };
    let Some(uid) = found.metadata.uid.clone() else { return Ok(None) };
    if found.out_of_service() || found.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let spec = &mut block.spec;
    spec.node_name = Some(node.to_owned());
    spec.node_uid = Some(uid);
    spec.node_ipv4 = found.internal_ipv4().map(|address| address.to_string());
    spec.node_ipv6 = found.internal_ipv6().map(|address| address.to_string());
    block.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    tracing::warn!(
        block = name,
        node,
        records = own,
        "a block was gone while records of a living node name it: it is made again, claimed for that node"
    );
    Ok(Some(block))
}
