//! Surveys the cluster: lists all pools, blocks, assignments, nodes and Service ranges from the API server. The survey
//! decides which pending subnets the operator accepts.

use std::collections::HashMap;

use bobbin_api_client::{Clients, Lenient, PartialNode, ReadError};
use bobbin_crds::pool::Acceptance;
use bobbin_crds::{AddressBlock, AddressPool};
use bobbin_ipam::overlap::{PoolSubnet, SubnetConflict};
use bobbin_ipam::pool_shape::{PoolShape, accepted_entries, block_size_bits, entries};
use bobbin_ipam::{BlockRange, SubnetPair};

use crate::cache::objects::{PartialAssignment, PartialServiceCIDR, node_conflicts, service_conflicts};
use crate::cache::{UnreadableObject, assignment_range, block_index, block_key};
use crate::live_reads::for_each;

/// The results of a survey about one pool and about all objects that may conflict with the pool.
#[derive(Debug)]
pub(super) struct Survey {
    /// The pool as this survey read it, with the resourceVersion for the next write.
    pub(super) pool: AddressPool,
    /// The subnet entries in the statuses of all pools.
    pub(super) entries: Vec<PoolSubnet>,
    /// All objects that have, or may have, addresses of this pool's pending subnets. This pool's own blocks are left out. Other
    /// readable pools are also left out, because the field `entries` has their subnets.
    pub(super) conflicts: Vec<SubnetConflict>,
    /// The blocks of this pool, each with its index: readable blocks, and missing blocks that are known from assignments.
    pub(super) own_blocks: Vec<(u64, BlockRange)>,
}

/// Lists the readable blocks of a pool from the API server, each with its index.
pub(super) async fn own_blocks(clients: &Clients, name: &str) -> Result<Vec<(u64, BlockRange)>, ReadError> {
    let mut blocks = Vec::new();
    for_each(clients, &format!("spec.poolName={name}"), |block: Lenient<AddressBlock>| {
        blocks.extend(block.readable().and_then(indexed_range));
    })
    .await?;
    Ok(blocks)
}

/// The index and the range of a block. `None` if the range can't be parsed.
fn indexed_range(block: &AddressBlock) -> Option<(u64, BlockRange)> {
    let range = BlockRange::parse(block.spec.ipv4.as_deref(), block.spec.ipv6.as_deref()).ok()?;
    // The API server refuses negative indices. If a block has one anyway, it counts as the largest index. No subnet can
    // have a block with this index, so the operator refuses each subnet that contains the block.
    Some((u64::try_from(block.spec.index).unwrap_or(u64::MAX), range))
}

/// Lists all objects from the API server. Returns `None` if the pool no longer exists or can't be decoded.
pub(super) async fn run(clients: &Clients, name: &str) -> Result<Option<Survey>, ReadError> {
    let (mut pools, mut unreadable) = (Vec::new(), Vec::new());
    for_each(clients, "", |pool: Lenient<AddressPool>| match pool {
        Lenient::Readable(pool) => pools.push(pool),
        Lenient::Unreadable(pool) => unreadable.push(UnreadableObject::pool(pool.name())),
    })
    .await?;
    let entries = entries(&pools);
    let find = |name: &str| pools.iter().find(|pool| pool.metadata.name.as_deref() == Some(name));
    let Some(pool) = find(name).cloned() else {
        return Ok(None);
    };
    let pending: Vec<SubnetPair> = accepted_entries(pool.status.as_ref())
        .iter()
        .filter(|entry| entry.state == Acceptance::Pending)
        .filter_map(|entry| SubnetPair::parse(entry.ipv4.as_deref(), entry.ipv6.as_deref()).ok())
        .collect();
    let overlaps = |range: &BlockRange| pending.iter().any(|subnet| range.overlaps_subnet(subnet));
    let mut conflicts = Vec::new();
    let (mut own_blocks, mut own_ranges) = (Vec::new(), HashMap::new());
    for_each(clients, "", |block: Lenient<AddressBlock>| {
        let block_name = block.name().to_owned();
        let Some(block) = block.readable() else {
            let (pool, index) = block_key(&block_name).unzip();
            let shape = pool.and_then(find).and_then(|pool| PoolShape::read(pool).ok());
            unreadable.push(UnreadableObject::block(&block_name, index, shape.as_ref().map(|shape| &shape.layout)));
            return;
        };
        let Some((index, range)) = indexed_range(block) else { return };
        if block.spec.pool_name == name {
            own_blocks.push((index, range));
            own_ranges.insert(block_name, range);
        } else if overlaps(&range) {
            conflicts.push(SubnetConflict::leftover(format!("AddressBlock {block_name}"), range));
        }
    })
    .await?;
    for_each(clients, "", |assignment: Lenient<PartialAssignment>| {
        let address = assignment.name();
        let Some(assignment) = assignment.readable() else {
            unreadable.push(UnreadableObject::assignment(address));
            return;
        };
        let Some(range) = assignment_range(assignment) else { return };
        let spec = &assignment.spec;
        let index = block_index(name, &spec.block_name);
        let named = own_ranges.get(&spec.block_name).filter(|_| index.is_some());
        if named.is_none()
            && let Some(index) = index
        {
            // The block is missing. For example, an administrator restored an etcd snapshot from before the operator carved
            // the block. No other subnet may get the index of the missing block.
            let block = range.pair(0).map(|pair| BlockRange::around(pair, block_size_bits(&pool)));
            own_blocks.extend(block.map(|block| (index, block)));
        }
        if overlaps(&range) && !named.is_some_and(|block| block.contains(&range)) {
            conflicts
                .push(SubnetConflict::leftover(format!("IPAssignment {address} of node {}", spec.node_name), range));
        }
    })
    .await?;
    for_each(clients, "", |node: Lenient<PartialNode>| {
        let of_node = node.readable().into_iter().flat_map(node_conflicts);
        conflicts.extend(of_node.filter(|conflict| overlaps(&conflict.range)));
    })
    .await?;
    for_each(clients, "", |range: Lenient<PartialServiceCIDR>| match range {
        Lenient::Readable(range) => {
            conflicts.extend(service_conflicts(&range).into_iter().filter(|conflict| overlaps(&conflict.range)));
        }
        Lenient::Unreadable(range) => unreadable.push(UnreadableObject::service_range(range.name())),
    })
    .await?;
    conflicts.extend(unreadable.iter().flat_map(|object| object.conflicts(&pending)));
    Ok(Some(Survey { pool, entries, conflicts, own_blocks }))
}
