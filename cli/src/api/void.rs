//! Whether an assignment is void. Pure.

use std::net::IpAddr;

use bobbin_crds::{AddressBlock, IPAssignment};
use bobbin_ipam::BlockRange;

/// The valid addresses of the assignment.
pub(crate) fn addresses_of(assignment: &IPAssignment) -> Vec<IpAddr> {
    let spec = &assignment.spec;
    [&spec.ipv4, &spec.ipv6].into_iter().flatten().filter_map(|text| text.parse().ok()).collect()
}

/// Why the assignment is void; `None` if it is not. `block` is the block that the assignment names, if it exists.
pub(crate) fn why_void(assignment: &IPAssignment, block: Option<&AddressBlock>) -> Option<String> {
    let spec = &assignment.spec;
    let Some(block) = block else { return Some(format!("its block {} does not exist", spec.block_name)) };
    if block.spec.node_name.as_deref() != Some(&spec.node_name) {
        let owner = block.spec.node_name.as_deref();
        let owner = owner.map_or_else(|| "no node".to_owned(), |owner| format!("node {owner}"));
        return Some(format!("{owner} owns its block {}, and not node {}", spec.block_name, spec.node_name));
    }
    let outside = outside(assignment, block)?;
    Some(format!("its address {outside} is not in its block {}", spec.block_name))
}

/// The first address of the assignment that its block does not have.
pub(crate) fn outside(assignment: &IPAssignment, block: &AddressBlock) -> Option<IpAddr> {
    let range = BlockRange::parse(block.spec.ipv4.as_deref(), block.spec.ipv6.as_deref()).ok()?;
    addresses_of(assignment).into_iter().find(|one| range.offset_of(*one).is_none())
}
