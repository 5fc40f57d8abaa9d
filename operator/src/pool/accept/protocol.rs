//! The acceptance protocol of subnet entries: decides which entries of a pool the operator may carve. Pure.
//!
//! The operator first writes an entry as `Pending`, then surveys all pools, blocks, assignments and nodes, and then accepts or
//! removes the entry. The last write tests the pool's resourceVersion from the survey. Two operators never both accept overlapping
//! entries, because each operator surveys after its own write, and because the API server refuses stale writes.

use bobbin_crds::AddressPool;
use bobbin_crds::pool::{Acceptance, AcceptedSubnet, Subnet};
use bobbin_ipam::overlap::{self, AcceptanceDecision, Overlap, PoolSubnet, SubnetConflict};
use bobbin_ipam::{BlockRange, Numbering, SubnetPair};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use bobbin_ipam::pool_shape::{
    PoolShape, ShapeError, accepted_entries, block_size_bits, entry, first_index, is_accepted, is_of, subnet_pair,
};

/// The operator's decision on each subnet entry of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AcceptanceResult {
    /// The entries that the pool's status should list.
    pub(crate) listed: Vec<AcceptedSubnet>,
    /// For each refused entry of the spec, the overlap that is the reason. The status should not list these entries.
    pub(crate) rejected: Vec<Overlap>,
    /// Whether an entry stays pending until the operator has decided on an overlapping entry of another pool.
    pub(crate) undecided: bool,
    /// The pool's `status.nextIndex`.
    pub(crate) next_index: Option<i64>,
}

impl AcceptanceResult {
    /// The result that changes nothing. It contains the entries that are in the pool's status now.
    pub(crate) fn unchanged(pool: &AddressPool) -> Self {
        Self {
            listed: accepted_entries(pool.status.as_ref()).to_vec(),
            next_index: pool.status.as_ref().and_then(|status| status.next_index),
            ..Self::default()
        }
    }
}

/// Whether the status lists an accepted entry without the numbers of its blocks. Older versions of the
/// operator did not write these numbers.
pub(crate) fn is_unnumbered(pool: &AddressPool) -> bool {
    accepted_entries(pool.status.as_ref())
        .iter()
        .any(|listed| listed.state == Acceptance::Accepted && listed.first_index.is_none())
}

/// Adds the missing block numbers to accepted entries. An entry with blocks gets the numbers of these blocks. An entry
/// without blocks gets its numbers from the order of `spec.subnets`, because older versions of the operator numbered the
/// blocks in this order.
///
/// # Errors
/// Fails if the numbers of two entries would overlap. In that case the pool stays unnumbered, and the operator
/// carves no blocks of the pool.
pub(crate) fn number(pool: &AddressPool, own_blocks: &[(u64, BlockRange)]) -> Result<AcceptanceResult, ShapeError> {
    let in_order = PoolShape::in_order(pool)?;
    let existing = |entry: &Subnet, position: u64| {
        let numbering = Numbering::new(block_size_bits(pool), own_blocks, 0);
        subnet_pair(entry).ok().and_then(|subnet| numbering.existing(&subnet).ok().flatten()).unwrap_or(position)
    };
    let number_by = |first: &dyn Fn(&Subnet, u64) -> u64| {
        let mut result = AcceptanceResult::unchanged(pool);
        for (position, entry) in pool.spec.subnets.iter().enumerate() {
            let first = first(entry, in_order.span(position).start);
            for listed in result.listed.iter_mut().filter(|listed| is_accepted(listed, entry)) {
                listed.first_index = listed.first_index.or(i64::try_from(first).ok());
            }
        }
        let next = numbering(pool, &result.listed, &[]).next().max(in_order.block_count());
        result.next_index = result.next_index.max(i64::try_from(next).ok());
        result
    };
    let by_blocks = number_by(&existing);
    if PoolShape::with_listed(pool, &by_blocks.listed).is_ok() {
        return Ok(by_blocks);
    }
    // Blocks that an administrator created may have contradictory numbers. Then only the order of `spec.subnets`
    // decides.
    let by_position = number_by(&|_, position| position);
    PoolShape::with_listed(pool, &by_position.listed).map(|_| by_position)
}

/// The block indices of the listed entries.
fn numbering<'a>(pool: &AddressPool, listed: &[AcceptedSubnet], own_blocks: &'a [(u64, BlockRange)]) -> Numbering<'a> {
    let next = pool.status.as_ref().and_then(|status| status.next_index);
    let next = next.and_then(|next| u64::try_from(next).ok()).unwrap_or(0);
    let mut numbering = Numbering::new(block_size_bits(pool), own_blocks, next);
    for listed in listed {
        let subnet = SubnetPair::parse(listed.ipv4.as_deref(), listed.ipv6.as_deref());
        if let (Ok(subnet), Some(first)) = (subnet, first_index(listed)) {
            numbering.take(&subnet, first);
        }
    }
    let is_open = |entry: &&Subnet| !listed.iter().any(|listed| is_of(listed, entry) && listed.first_index.is_some());
    for subnet in pool.spec.subnets.iter().filter(is_open).filter_map(|entry| subnet_pair(entry).ok()) {
        numbering.hold(&subnet);
    }
    numbering
}

/// Gives block numbers to a subnet. Refuses the subnet if it conflicts with a block of an earlier pool with the same name.
fn give(numbering: &mut Numbering<'_>, pool: &AddressPool, subnet: SubnetPair) -> Result<u64, Overlap> {
    numbering.give(&subnet).map_err(|misfit| {
        let name = pool.metadata.name.as_deref().unwrap_or_default();
        let conflict = SubnetConflict::leftover(format!("AddressBlock {name}-{}", misfit.index), misfit.range);
        Overlap::Conflict { ours: subnet, conflict }
    })
}

/// Whether an entry of the pool's spec is not accepted yet, or the status lists a pending entry that the spec no longer has.
pub(crate) fn is_open(pool: &AddressPool) -> bool {
    let listed = accepted_entries(pool.status.as_ref());
    let accepted = |entry: &Subnet| listed.iter().any(|listed| is_accepted(listed, entry));
    is_pending(pool) || !pool.spec.subnets.iter().all(accepted)
}

/// Whether the pool's status lists a pending entry.
pub(crate) fn is_pending(pool: &AddressPool) -> bool {
    accepted_entries(pool.status.as_ref()).iter().any(|listed| listed.state == Acceptance::Pending)
}

/// First step of the protocol: decides from the cache which new entries to write as pending.
///
/// The operator does not write an entry that it would reject. Otherwise two pools could wait forever for each other's
/// pending entries.
pub(crate) fn propose(
    pool: &AddressPool,
    all: &[PoolSubnet],
    conflicts: &[SubnetConflict],
    own_blocks: &[(u64, BlockRange)],
    now: &MicroTime,
) -> AcceptanceResult {
    let old = accepted_entries(pool.status.as_ref());
    let mut result = AcceptanceResult { listed: Vec::new(), ..AcceptanceResult::unchanged(pool) };
    let mut numbering = numbering(pool, old, own_blocks);
    for wanted in &pool.spec.subnets {
        if let Some(listed) = old.iter().find(|listed| is_of(listed, wanted)) {
            result.undecided |= listed.state == Acceptance::Pending;
            result.listed.push(listed.clone());
            continue;
        }
        let Ok(subnet) = subnet_pair(wanted) else { continue };
        let uid = pool.metadata.uid.as_deref().unwrap_or_default();
        let free = overlap::may_begin(uid, subnet, all, conflicts);
        match free.and_then(|()| give(&mut numbering, pool, subnet)) {
            Err(overlap) => result.rejected.push(overlap),
            Ok(_) => result.listed.push(AcceptedSubnet {
                ipv4: wanted.ipv4.clone(),
                ipv6: wanted.ipv6.clone(),
                state: Acceptance::Pending,
                since: now.clone(),
                first_index: None,
            }),
        }
    }
    keep_unspecified(pool, &mut result);
    result
}

/// Second step of the protocol: decides which pending entries are accepted. `pool` must not be newer than the survey.
///
/// This step drops a pending entry that the spec no longer has, because the API server refuses a status that accepts
/// such an entry.
pub(crate) fn confirm(
    pool: &AddressPool,
    all: &[PoolSubnet],
    conflicts: &[SubnetConflict],
    own_blocks: &[(u64, BlockRange)],
) -> AcceptanceResult {
    let old = accepted_entries(pool.status.as_ref());
    let mut result = AcceptanceResult { listed: Vec::new(), ..AcceptanceResult::unchanged(pool) };
    let mut numbering = numbering(pool, old, own_blocks);
    for listed in old {
        if listed.state == Acceptance::Accepted {
            result.listed.push(listed.clone());
            continue;
        }
        let Some(pending) = entry(pool, listed).filter(|_| is_wanted(pool, listed)) else { continue };
        match overlap::decide(&pending, all, conflicts) {
            AcceptanceDecision::Accept => match give(&mut numbering, pool, pending.subnet) {
                Ok(first) => {
                    let first_index = i64::try_from(first).ok();
                    result.listed.push(AcceptedSubnet { state: Acceptance::Accepted, first_index, ..listed.clone() });
                }
                Err(overlap) => result.rejected.push(overlap),
            },
            AcceptanceDecision::Wait(_) => {
                result.undecided = true;
                result.listed.push(listed.clone());
            }
            AcceptanceDecision::Withdraw(overlap) => result.rejected.push(overlap),
        }
    }
    if result.listed.iter().any(|listed| listed.state == Acceptance::Accepted) {
        result.next_index = i64::try_from(numbering.next()).ok();
    }
    result
}

/// Whether the pool's spec contains this entry of the status.
fn is_wanted(pool: &AddressPool, listed: &AcceptedSubnet) -> bool {
    pool.spec.subnets.iter().any(|wanted| is_of(listed, wanted))
}

/// Keeps accepted entries that the status lists but the spec no longer contains. Blocks of such an entry may exist, so no
/// other pool may have its addresses.
fn keep_unspecified(pool: &AddressPool, result: &mut AcceptanceResult) {
    for listed in accepted_entries(pool.status.as_ref()) {
        if listed.state == Acceptance::Accepted && !is_wanted(pool, listed) {
            result.listed.push(listed.clone());
        }
    }
}

#[cfg(test)]
mod tests;
