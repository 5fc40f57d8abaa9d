//! The schemas of the lists of reserved addresses. The rule for `spec.reserved` applies to each single entry, so that
//! an error message names the invalid entry.

use schemars::{Schema, SchemaGenerator, json_schema};

use super::{MAX_NODE_ADDRESSES, MAX_RESERVED, rules};

/// The schema of a list of addresses and CIDRs.
pub(crate) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": MAX_RESERVED,
        "items": {"type": "string", "maxLength": 43, "x-kubernetes-validations": [rules::reserved()]},
    })
}

/// The schema of `status.nodeAddresses`.
pub(crate) fn node_addresses(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": MAX_NODE_ADDRESSES,
        "items": {"type": "string", "maxLength": 39},
    })
}
