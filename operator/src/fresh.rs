//! Looks at the API server itself, not at what the watches have shown: every list here is a quorum read. Never writes.

use std::collections::HashSet;
use std::time::Duration;

use bobbin_api_client::{Clients, Lenient, PartialNode, ReadError, read};
use bobbin_crds::pool::Acceptance;
use bobbin_crds::{AddressBlock, AddressPool};
use bobbin_ipam::overlap::{PoolSubnet, SubnetConflict};
use bobbin_ipam::{BlockRange, SubnetPair};
use kube::api::ListParams;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::acceptance;
use crate::facts::{InTheWay, assignment_range, block_index, block_key};
use crate::layout::{PoolShape, accepted_entries};
use crate::slim::{SlimAssignment, node_conflicts};

/// How long one read may take.
pub(crate) const READ: Duration = Duration::from_secs(10);
/// How many objects one page of a list has.
const PAGE: u32 = 500;

/// All that could stand in the way of a pool's pending entries.
#[derive(Debug)]
pub(crate) struct Look {
    /// The pool as this look saw it.
    pub(crate) pool: AddressPool,
    pub(crate) entries: Vec<PoolSubnet>,
    pub(crate) conflicts: Vec<SubnetConflict>,
}

/// Looks at all pools, blocks, assignments and nodes. `None`: the pool is gone, or can't be read any more.
pub(crate) async fn look(clients: &Clients, name: &str) -> Result<Option<Look>, ReadError> {
    let (mut pools, mut unreadable) = (Vec::new(), Vec::new());
    each(clients, "", |pool: Lenient<AddressPool>| match pool {
        Lenient::Readable(pool) => pools.push(pool),
        Lenient::Unreadable(pool) => unreadable.push(InTheWay::pool(pool.name())),
    })
    .await?;
    let entries = acceptance::entries(&pools);
    let Some(pool) = pools.iter().find(|pool| pool.metadata.name.as_deref() == Some(name)).cloned() else {
        return Ok(None);
    };
    let shape = PoolShape::read(&pool).ok();
    let pending: Vec<SubnetPair> = accepted_entries(pool.status.as_ref())
        .iter()
        .filter(|entry| entry.state == Acceptance::Pending)
        .filter_map(|entry| SubnetPair::parse(entry.ipv4.as_deref(), entry.ipv6.as_deref()).ok())
        .collect();
    let in_the_way = |range: &BlockRange| pending.iter().any(|subnet| range.overlaps_subnet(subnet));
    let mut conflicts = Vec::new();
    let mut ours: HashSet<String> = HashSet::new();
    each(clients, "", |block: Lenient<AddressBlock>| {
        let block_name = block.name().to_owned();
        let key = block_key(&block_name);
        let Some(block) = block.readable() else {
            let pool = key.and_then(|(name, _)| pools.iter().find(|pool| pool.metadata.name.as_deref() == Some(name)));
            let layout = pool.and_then(|pool| PoolShape::read(pool).ok()).map(|shape| shape.layout);
            unreadable.push(InTheWay::block(&block_name, key.map(|(_, index)| index), layout.as_ref()));
            return;
        };
        let Ok(range) = BlockRange::parse(block.spec.ipv4.as_deref(), block.spec.ipv6.as_deref()) else { return };
        if !in_the_way(&range) {
            return;
        }
        let index = u64::try_from(block.spec.index).unwrap_or(u64::MAX);
        if block.spec.pool_name == name && shape.as_ref().and_then(|shape| shape.layout.block(index)) == Some(range) {
            ours.insert(block_name);
        } else {
            conflicts.push(SubnetConflict::leftover(format!("AddressBlock {block_name}"), range));
        }
    })
    .await?;
    each(clients, "", |assignment: Lenient<SlimAssignment>| {
        let address = assignment.name();
        let Some(assignment) = assignment.readable() else {
            unreadable.push(InTheWay::assignment(address));
            return;
        };
        let Some(range) = assignment_range(assignment) else { return };
        let spec = &assignment.spec;
        let of_ours = block_index(name, &spec.block_name).is_some() && ours.contains(&spec.block_name);
        if in_the_way(&range) && !of_ours {
            conflicts
                .push(SubnetConflict::leftover(format!("IPAssignment {address} of node {}", spec.node_name), range));
        }
    })
    .await?;
    each(clients, "", |node: Lenient<PartialNode>| {
        let of_node = node.readable().into_iter().flat_map(node_conflicts);
        conflicts.extend(of_node.filter(|conflict| in_the_way(&conflict.range)));
    })
    .await?;
    conflicts.extend(unreadable.iter().flat_map(|object| object.conflicts(&pending)));
    Ok(Some(Look { pool, entries, conflicts }))
}

/// Reads all objects that `fields` selects (empty: all), page by page.
pub(crate) async fn each<K>(clients: &Clients, fields: &str, mut see: impl FnMut(Lenient<K>)) -> Result<(), ReadError>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
    K::DynamicType: Default,
{
    let objects: Api<Lenient<K>> = Api::all(clients.requests.clone());
    let mut params = ListParams::default().limit(PAGE);
    if !fields.is_empty() {
        params = params.fields(fields);
    }
    loop {
        let page = read(READ, objects.list(&params)).await?;
        page.items.into_iter().for_each(&mut see);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(()),
        }
    }
}

/// Whether no record names a block, by a quorum read.
pub(crate) async fn is_unrecorded(clients: &Clients, block: &str) -> Result<bool, ReadError> {
    let records: Api<Lenient<SlimAssignment>> = Api::all(clients.requests.clone());
    let params = ListParams::default().fields(&format!("spec.blockName={block}")).limit(1);
    Ok(read(READ, records.list(&params)).await?.items.is_empty())
}
