//! Decides by reads from the API server whether the operator may recreate a deleted block and claim it for the node that
//! its assignments name. Writes nothing.

use bobbin_api_client::{Lenient, PartialNode, ReadError, read};
use bobbin_crds::{AddressBlock, FINALIZER};
use kube::Api;

use crate::cache::objects::PartialAssignment;
use crate::context::Context;
use crate::live_reads::{READ_TIMEOUT, for_each};

/// The block to create, claimed for `node`. `None` if the Node is deleted or out of service, or if an assignment of the block
/// names another node.
///
/// This function does not check whether the block exists. If the block exists, the API server refuses to create it.
pub(super) async fn claimed(
    context: &Context,
    mut block: AddressBlock,
    node: &str,
) -> Result<Option<AddressBlock>, ReadError> {
    if !context.cache.with(|index| index.has_node(node)) {
        return Ok(None);
    }
    let name = block.metadata.name.clone().unwrap_or_default();
    let (mut own, mut others) = (0_usize, 0_usize);
    let fields = format!("spec.blockName={name}");
    for_each(&context.clients, &fields, |assignment: Lenient<PartialAssignment>| {
        let is_own = assignment.readable().is_some_and(|assignment| assignment.spec.node_name == node);
        if is_own { own += 1 } else { others += 1 }
    })
    .await?;
    if own == 0 || others > 0 {
        return Ok(None);
    }
    let nodes: Api<Lenient<PartialNode>> = Api::all(context.clients.requests.clone());
    let found = match read(READ_TIMEOUT, nodes.get(node)).await {
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
        assignments = own,
        "a block was deleted although pods on a node have its addresses; the operator recreates the block and claims it for that node"
    );
    Ok(Some(block))
}
