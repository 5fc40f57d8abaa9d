//! `who`: which pod has an address, or why no pod has it.

use std::net::IpAddr;

use anyhow::Result;
use bobbin_api_client::{Lenient, PartialNode};
use bobbin_crds::{AddressBlock, AddressPool, IPAssignment, name};
use bobbin_ipam::PoolShape;
use bobbin_ipam::pool_shape::subnet_pair;
use ipnet::IpNet;
use jiff::Timestamp;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;

use crate::Answer;
use crate::api::objects;
use crate::api::reserved::why_reserved;
use crate::print::age::age;
use crate::print::output::{Output, Report};

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
    /// A pod has the address.
    Assigned {
        namespace: Option<String>,
        pod: Option<String>,
        container_id: String,
        node: String,
        /// Whether the Node object exists. The operator releases the addresses of a deleted node after the grace period.
        node_exists: bool,
        since: Timestamp,
    },
    /// The pool never assigns the address.
    Reserved { why: String },
    /// No pod has the address. The node of its block may assign it.
    Claimed { node: String },
    /// No pod and no node has the address.
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
    let blocks: Api<Lenient<AddressBlock>> = Api::all(client.clone());
    let assignments: Api<Lenient<IPAssignment>> = Api::all(client.clone());
    let in_block = objects::list(&assignments, &format!("spec.blockName={block}")).await?;
    let state = match in_block.into_iter().find(|one| has(one, address)) {
        Some(assignment) => {
            let spec = assignment.spec;
            State::Assigned {
                namespace: spec.pod_namespace,
                pod: spec.pod_name,
                container_id: spec.container_id,
                node_exists: nodes.iter().any(|node| node.name_any() == spec.node_name),
                node: spec.node_name,
                since: spec.created_at.0,
            }
        }
        None => unassigned(pool, index, address, objects::get(&blocks, &block).await?.as_ref()),
    };
    Ok(Owner { address, pool: Some(pool.name_any()), block: Some(block), state })
}

/// Where an address lies.
enum Place<'a> {
    /// In the block with this index of a pool.
    Block(&'a AddressPool, u64),
    /// In a subnet of a pool's spec that the operator has not accepted.
    NotAccepted(&'a AddressPool, String),
    InNoPool,
}

fn place(pools: &[AddressPool], address: IpAddr) -> Place<'_> {
    let block = pools.iter().find_map(|pool| Some((pool, PoolShape::read(pool).ok()?.layout.index_of(address)?)));
    if let Some((pool, index)) = block {
        return Place::Block(pool, index);
    }
    let subnet = pools.iter().find_map(|pool| {
        let mut subnets = pool.spec.subnets.iter().filter_map(|entry| subnet_pair(entry).ok());
        let contains = |net: IpNet| net.contains(&address);
        let found = subnets.find(|pair| {
            pair.ipv4.map(Into::into).is_some_and(contains) || pair.ipv6.map(Into::into).is_some_and(contains)
        });
        Some((pool, found?.to_string()))
    });
    subnet.map_or(Place::InNoPool, |(pool, subnet)| Place::NotAccepted(pool, subnet))
}

/// Whether the assignment has the address.
fn has(assignment: &IPAssignment, address: IpAddr) -> bool {
    let texts = [&assignment.spec.ipv4, &assignment.spec.ipv6];
    texts.into_iter().flatten().any(|text| text.parse() == Ok(address))
}

/// The state of an address in a block of the pool that no assignment has.
fn unassigned(pool: &AddressPool, index: u64, address: IpAddr, block: Option<&AddressBlock>) -> State {
    let range = PoolShape::read(pool).ok().and_then(|shape| shape.layout.block(index));
    // An address pair is reserved if one of its addresses is reserved.
    let pair = range.and_then(|range| range.pair(range.offset_of(address)?));
    if let Some(why) = pair.and_then(|pair| why_reserved(pool, &pair)) {
        return State::Reserved { why };
    }
    let spec = block.map(|block| &block.spec);
    if let Some(node) = spec.and_then(|spec| spec.node_name.clone()) {
        return State::Claimed { node };
    }
    let since = spec.and_then(|spec| spec.free_since.as_ref()).map(|since| since.0);
    since.map_or(State::NeverAssigned, |since| {
        let cools_until = since.saturating_add(pool.spec.cooldown()).unwrap_or(since);
        State::Free { since, cools_until }
    })
}

impl Report for Owner {
    fn text(&self, wide: bool) -> String {
        let now = Timestamp::now();
        let address = self.address;
        let place = match (&self.pool, &self.block) {
            (Some(pool), Some(block)) => format!(" (pool {pool}, block {block})"),
            (Some(pool), None) => format!(" (pool {pool})"),
            _ => String::new(),
        };
        let sentence = match &self.state {
            State::Assigned { namespace, pod, container_id, node, node_exists, since } => {
                let who = match (namespace, pod) {
                    (Some(namespace), Some(pod)) => format!("pod {namespace}/{pod}"),
                    _ => format!("container {container_id}"),
                };
                let container = if wide { format!(", container {container_id}") } else { String::new() };
                let gone = if *node_exists {
                    ""
                } else {
                    ". The Node does not exist; the operator releases the address after the grace period"
                };
                format!("{who} on node {node} has had it since {since:.0} ({}){container}{gone}", age(*since, now))
            }
            State::Reserved { why } => format!("reserved: {why}"),
            State::Claimed { node } => {
                format!("no pod has it; node {node} owns its block and may assign it, unless it still cools down")
            }
            State::Free { since, cools_until } => {
                let cools =
                    if *cools_until > now { format!("; it cools down until {cools_until:.0}") } else { String::new() };
                format!("no pod has it; its block has been free since {since:.0} ({}){cools}", age(*since, now))
            }
            State::NeverAssigned => "never assigned: no node has claimed its block".to_owned(),
            State::NotAccepted { subnet } => format!(
                "not assigned: the operator has not accepted the subnet {subnet}; the reason: kubectl describe addresspool {}",
                self.pool.as_deref().unwrap_or_default()
            ),
            State::NodeAddress { node } => format!("it is an address of Node {node}, so Bobbin does not assign it"),
            State::InNoPool => "in no pool, so Bobbin never assigns it".to_owned(),
        };
        format!("{address}{place}: {sentence}")
    }
}

#[cfg(test)]
mod tests;
