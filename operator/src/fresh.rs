//! Looks at the API server itself, not at what the watches have shown: every list here is a quorum read. Never writes.

use std::collections::HashSet;
use std::time::Duration;

use bobbin_addressing::overlap::{Entry, Stray};
use bobbin_addressing::{BlockRange, SubnetPair};
use bobbin_apiserver::{Clients, ReadError, read};
use bobbin_crds::pool::Acceptance;
use bobbin_crds::{AddressBlock, AddressPool};
use kube::api::ListParams;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::acceptance;
use crate::facts::{assignment_range, block_index};
use crate::layout::{PoolShape, accepted_entries};
use crate::slim::{SlimAssignment, SlimNode};

/// How long one read may take.
pub(crate) const READ: Duration = Duration::from_secs(10);
/// How many objects one page of a list has.
const PAGE: u32 = 500;

/// All that could stand in the way of a pool's pending entries.
#[derive(Debug)]
pub(crate) struct Look {
    /// The pool as this look saw it.
    pub(crate) pool: AddressPool,
    pub(crate) entries: Vec<Entry>,
    pub(crate) strays: Vec<Stray>,
}

/// Looks at all pools, blocks, assignments and nodes. `None`: the pool is gone.
pub(crate) async fn look(clients: &Clients, name: &str) -> Result<Option<Look>, ReadError> {
    let pools: Api<AddressPool> = Api::all(clients.requests.clone());
    // A list without resourceVersion is a quorum read: it sees every write that was answered before.
    let pools = read(READ, pools.list(&ListParams::default())).await?.items;
    let entries = acceptance::entries(&pools);
    let Some(pool) = pools.into_iter().find(|pool| pool.metadata.name.as_deref() == Some(name)) else {
        return Ok(None);
    };
    let shape = PoolShape::read(&pool).ok();
    let pending: Vec<SubnetPair> = accepted_entries(pool.status.as_ref())
        .iter()
        .filter(|entry| entry.state == Acceptance::Pending)
        .filter_map(|entry| SubnetPair::parse(entry.ipv4.as_deref(), entry.ipv6.as_deref()).ok())
        .collect();
    let in_the_way = |range: &BlockRange| pending.iter().any(|subnet| range.overlaps_subnet(subnet));
    let mut strays = Vec::new();
    let mut ours: HashSet<String> = HashSet::new();
    each(clients, "", |block: AddressBlock| {
        let Ok(range) = BlockRange::parse(block.spec.ipv4.as_deref(), block.spec.ipv6.as_deref()) else { return };
        let block_name = block.metadata.name.unwrap_or_default();
        if !in_the_way(&range) {
            return;
        }
        let index = u64::try_from(block.spec.index).unwrap_or(u64::MAX);
        if block.spec.pool_name == name && shape.as_ref().and_then(|shape| shape.layout.block(index)) == Some(range) {
            ours.insert(block_name);
        } else {
            strays.push(Stray::left(format!("AddressBlock {block_name}"), range));
        }
    })
    .await?;
    each(clients, "", |assignment: SlimAssignment| {
        let Some(range) = assignment_range(&assignment) else { return };
        let spec = &assignment.spec;
        let of_ours = block_index(name, &spec.block_name).is_some() && ours.contains(&spec.block_name);
        if in_the_way(&range) && !of_ours {
            let address = assignment.metadata.name.unwrap_or_default();
            strays.push(Stray::left(format!("IPAssignment {address} of node {}", spec.node_name), range));
        }
    })
    .await?;
    each(clients, "", |node: SlimNode| strays.extend(node.strays().filter(|stray| in_the_way(&stray.range)))).await?;
    Ok(Some(Look { pool, entries, strays }))
}

/// Reads all objects that `fields` selects (empty: all), page by page.
pub(crate) async fn each<K>(clients: &Clients, fields: &str, mut see: impl FnMut(K)) -> Result<(), ReadError>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
    K::DynamicType: Default,
{
    let objects: Api<K> = Api::all(clients.requests.clone());
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
