//! Reads that ask the API server instead of the watch cache. Each read is a quorum read with a deadline.

use std::time::Duration;

use bobbin_api_client::{Clients, Lenient, PartialNode, ReadError, for_each_listed, read, selected_by};
use kube::api::ListParams;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::cache::objects::PartialAssignment;

/// The deadline of one read.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Lists the objects that match the field selector `fields` (empty: all objects), page by page.
pub(crate) async fn for_each<K>(clients: &Clients, fields: &str, visit: impl FnMut(Lenient<K>)) -> Result<(), ReadError>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
    K::DynamicType: Default,
{
    let objects: Api<Lenient<K>> = Api::all(clients.requests.clone());
    for_each_listed(&objects, selected_by(fields), READ_TIMEOUT, visit).await
}

/// Whether no assignment names the block, according to the API server.
pub(crate) async fn has_no_assignments(clients: &Clients, block: &str) -> Result<bool, ReadError> {
    let assignments: Api<Lenient<PartialAssignment>> = Api::all(clients.requests.clone());
    let params = ListParams::default().fields(&format!("spec.blockName={block}")).limit(1);
    Ok(read(READ_TIMEOUT, assignments.list(&params)).await?.items.is_empty())
}

/// Whether no Node with this name exists, according to the API server.
pub(crate) async fn node_is_gone(clients: &Clients, node: &str) -> Result<bool, ReadError> {
    let nodes: Api<Lenient<PartialNode>> = Api::all(clients.requests.clone());
    match read(READ_TIMEOUT, nodes.get(node)).await {
        Ok(_) => Ok(false),
        Err(ReadError::NotFound) => Ok(true),
        Err(error) => Err(error),
    }
}
