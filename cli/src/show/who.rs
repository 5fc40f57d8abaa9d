//! `who`: which pod has an address, or why no pod has it.

mod mismatch;
mod place;
mod pods;
mod text;

use std::net::IpAddr;

use anyhow::Result;
use bobbin_api_client::{Lenient, PartialNode};
use bobbin_crds::{AddressBlock, AddressPool, IPAssignment, name};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;

use crate::Answer;
use crate::api::objects::{self, Read};
use crate::api::selection::is_of;
use crate::api::void::addresses_of;
use crate::print::output::Output;
use crate::show::node::exists;
use crate::show::since::since;
use mismatch::{Mismatch, Reason, mismatch};
use place::{Place, place, unassigned};

/// Prints which pod has the address.
pub(crate) async fn run(client: &Client, address: IpAddr, output: Output) -> Result<Answer> {
    let owner = find(client, address).await?;
    output.print(&owner)?;
    Ok(if matches!(owner.state, State::InNoPool | State::NodeAddress { .. }) { Answer::No } else { Answer::Yes })
}

/// An address, and who has it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Owner {
    address: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block: Option<String>,
    #[serde(flatten)]
    state: State,
}

#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case", rename_all_fields = "camelCase")]
enum State {
    /// An assignment gives the address to a pod.
    Assigned(Assigned),
    /// A pod reports the address, but no assignment records it.
    Unrecorded { namespace: String, pod: String, node: String },
    /// The pool never assigns the address.
    Reserved { why: String },
    /// No pod has the address. A node has claimed its block, and may assign the address.
    Claimed { node: String },
    /// No pod has the address. Its block is free, but had an owner before, so the address may still cool down.
    Free { since: Timestamp, cools_until: Timestamp },
    /// No node has ever claimed the block of the address.
    NeverAssigned,
    /// The operator has not accepted the subnet of the address.
    NotAccepted { subnet: String },
    /// A Node has the address, and no pool assigns it.
    NodeAddress { node: String },
    /// No pool has a subnet with the address.
    InNoPool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Assigned {
    /// The name of the assignment.
    #[serde(skip)]
    name: String,
    namespace: Option<String>,
    pod: Option<String>,
    container_id: String,
    node: String,
    /// Whether the Node object exists. The operator releases the addresses of a deleted node after the grace period.
    node_exists: bool,
    since: Timestamp,
    /// Why the assignment may be wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    mismatch: Option<Mismatch>,
}

async fn find(client: &Client, address: IpAddr) -> Result<Owner> {
    let pools = objects::list(&Api::<Lenient<AddressPool>>::all(client.clone()), "").await?;
    let nodes: Vec<PartialNode> = objects::list(&Api::<Lenient<PartialNode>>::all(client.clone()), "").await?;
    let of_node = || nodes.iter().find(|node| node.addresses().contains(&address)).map(ResourceExt::name_any);
    let (pool, index) = match place(&pools, address) {
        Place::Block(pool, index) => (pool, index),
        Place::NotAccepted(pool, subnet) => {
            let state = of_node().map_or(State::NotAccepted { subnet }, |node| State::NodeAddress { node });
            return Ok(Owner { address, pool: Some(pool.name_any()), block: None, state });
        }
        Place::InNoPool => {
            let state = of_node().map_or(State::InNoPool, |node| State::NodeAddress { node });
            return Ok(Owner { address, pool: None, block: None, state });
        }
    };
    let block = name::block(&pool.name_any(), index);
    let state = if let Some(assignment) = assignment_of(client, address).await? {
        // The list leaves out Nodes that can't be decoded.
        let node = &assignment.spec.node_name;
        let node_exists = nodes.iter().any(|one| one.name_any() == *node) || exists(client, node).await;
        State::Assigned(assigned(client, assignment, node_exists).await)
    } else {
        let block = objects::get(&Api::<Lenient<AddressBlock>>::all(client.clone()), &block).await?;
        let node = block.as_ref().and_then(|block| block.spec.node_name.as_deref());
        let pod = pods::reporting(client, address, node).await;
        pod.map_or_else(|| unassigned(pool, index, address, block.as_ref()), unrecorded)
    };
    Ok(Owner { address, pool: Some(pool.name_any()), block: Some(block), state })
}

/// The assignment of the address, even if the assignment names a wrong block.
async fn assignment_of(client: &Client, address: IpAddr) -> Result<Option<IPAssignment>> {
    let assignments: Api<Lenient<IPAssignment>> = Api::all(client.clone());
    let fields = match address {
        IpAddr::V4(address) => format!("metadata.name={address}"),
        IpAddr::V6(address) => format!("spec.ipv6={address}"),
    };
    let listed = objects::list(&assignments, &fields).await?;
    Ok(listed.into_iter().find(|one| addresses_of(one).contains(&address)))
}

async fn assigned(client: &Client, assignment: IPAssignment, node_exists: bool) -> Assigned {
    let blocks: Api<Lenient<AddressBlock>> = Api::all(client.clone());
    let block = Read::of(objects::get(&blocks, &assignment.spec.block_name).await);
    let pod = pods::of(client, &assignment).await;
    // The operator releases the assignments of a deleted node after the grace period, even if their pods exist. So for
    // a deleted node, ignore the reasons that are about the pod.
    let mismatch =
        mismatch(&assignment, &block, &pod, node_exists).filter(|one| node_exists || one.reason == Reason::Void);
    let own = match &pod {
        Read::Present(pod) if is_of(pod, assignment.spec.pod_uid.as_deref()) => Some(pod),
        _ => None,
    };
    let (since, name, spec) = (since(&assignment, own), assignment.name_any(), assignment.spec);
    Assigned {
        name,
        namespace: spec.pod_namespace,
        pod: spec.pod_name,
        container_id: spec.container_id,
        node: spec.node_name,
        node_exists,
        since,
        mismatch,
    }
}

fn unrecorded(pod: Pod) -> State {
    State::Unrecorded {
        namespace: pod.namespace().unwrap_or_default(),
        pod: pod.name_any(),
        node: pod.spec.and_then(|spec| spec.node_name).unwrap_or_default(),
    }
}
