//! Checks that accepted subnets are disjoint, and that the block indices of one pool are disjoint. Checks that the counts in a
//! pool's status add up and match the API objects.

use super::{cidrs, overlap};
use crate::invariants::finding::{Findings, Kind};
use crate::invariants::snapshot::{AcceptedSubnet, ApiObjects, Pool, Snapshot};

pub(super) fn check(snapshot: &Snapshot, findings: &mut Findings) {
    let Some(api) = &snapshot.api else { return };
    let accepted: Vec<(&Pool, &AcceptedSubnet)> =
        api.pools.iter().flat_map(|pool| pool.accepted.iter().map(move |subnet| (pool, subnet))).collect();
    for (number, (pool, subnet)) in accepted.iter().enumerate() {
        for (other_pool, other) in accepted.iter().skip(number + 1) {
            let mut pairs = subnet.ranges.iter().flat_map(|a| other.ranges.iter().map(move |b| (a, b)));
            if pairs.any(|(a, b)| overlap(a, b)) {
                let text = format!(
                    "accepted subnet {} of pool {} overlaps accepted subnet {} of pool {}",
                    cidrs(&subnet.ranges),
                    pool.name,
                    cidrs(&other.ranges),
                    other_pool.name
                );
                findings.add(Kind::OverlappingSubnets, text);
            }
        }
    }
    for pool in &api.pools {
        indices(pool, findings);
        if pool.status_is_current {
            counts(pool, api, findings);
        }
    }
}

/// The range of a subnet's block indices: the first index, and the first index after the range. `None` if the status
/// contains no first index.
fn span(pool: &Pool, subnet: &AcceptedSubnet) -> Option<(u64, u64)> {
    let first = subnet.first_index?;
    let range = subnet.ranges.first()?;
    let host_bits = u32::from(range.max_prefix_len() - range.prefix_len());
    let count = 1_u64.checked_shl(host_bits.saturating_sub(pool.block_size_bits)).unwrap_or(u64::MAX);
    Some((first, first.saturating_add(count)))
}

fn indices(pool: &Pool, findings: &mut Findings) {
    for (number, subnet) in pool.accepted.iter().enumerate() {
        for other in pool.accepted.iter().skip(number + 1) {
            if let (Some(a), Some(b)) = (span(pool, subnet), span(pool, other))
                && a.0 < b.1
                && b.0 < a.1
            {
                let text = format!(
                    "subnets {} and {} of pool {} share block indices from {} on",
                    cidrs(&subnet.ranges),
                    cidrs(&other.ranges),
                    pool.name,
                    a.0.max(b.0)
                );
                findings.add(Kind::OverlappingIndices, text);
            }
        }
    }
}

fn counts(pool: &Pool, api: &ApiObjects, findings: &mut Findings) {
    let name = &pool.name;
    let mut wrong = |text: String| findings.add(Kind::WrongPoolCounts, format!("the status of pool {name} {text}"));
    let block_of = |name: &str| api.blocks.iter().find(|block| block.name == *name);
    // The status of a pool counts only assignments whose block belongs to the pool and contains their addresses.
    let used = api.assignments.iter().filter(|one| {
        one.pool == *name
            && block_of(&one.block).is_some_and(|block| {
                block.pool == *name && one.addresses.iter().all(|address| block.contains(*address))
            })
    });
    let used = i64::try_from(used.count()).unwrap_or(i64::MAX);
    let claimed = api.blocks.iter().filter(|block| block.pool == *name && block.node.is_some());
    let claimed = i64::try_from(claimed.count()).unwrap_or(i64::MAX);
    if pool.used != used {
        wrong(format!("counts {} used addresses, although {used} assignments exist", pool.used));
    }
    if pool.claimed_blocks != claimed {
        wrong(format!("counts {} claimed blocks, but {claimed} of its blocks are claimed", pool.claimed_blocks));
    }
    for (family, counts) in &pool.counts {
        let super::super::snapshot::AddressCounts { total, reserved, assigned, cooling, free } = *counts;
        let sum = free.saturating_add(assigned).saturating_add(cooling).saturating_add(reserved);
        if sum != total {
            wrong(format!(
                "does not add up for {family}: total {total}, but free {free}, assigned {assigned}, cooling {cooling} and reserved {reserved} make {sum}"
            ));
        }
        if assigned != pool.used || free != pool.free {
            wrong(format!(
                "has {assigned} assigned and {free} free {family} addresses, but its fields `used` and `free` say {} and {}",
                pool.used, pool.free
            ));
        }
        let size = total_of(pool, *family == "IPv6");
        if i64::try_from(size).is_ok_and(|size| size < MAX_COUNT && size != total) {
            wrong(format!("has {total} {family} addresses in total, but its accepted subnets have {size}"));
        }
    }
}

/// The largest count in the API, 2^53 − 1. A larger count appears as this value.
const MAX_COUNT: i64 = (1 << 53) - 1;

fn total_of(pool: &Pool, ipv6: bool) -> u128 {
    let ranges = pool.accepted.iter().flat_map(|subnet| &subnet.ranges);
    let sizes = ranges.filter(|range| range.addr().is_ipv6() == ipv6).map(|range| {
        let host_bits = u32::from(range.max_prefix_len() - range.prefix_len());
        1_u128.checked_shl(host_bits).unwrap_or(u128::MAX)
    });
    sizes.fold(0, u128::saturating_add)
}
