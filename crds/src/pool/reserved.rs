//! The schema of a pool's field `reserved`. Each entry has its own rule, so that an error message names the entry.

use schemars::{Schema, SchemaGenerator, json_schema};

use super::{MAX_RESERVED, rules};

/// The schema of a list of addresses and CIDRs.
pub(crate) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": MAX_RESERVED,
        "items": {"type": "string", "maxLength": 43, "x-kubernetes-validations": [rules::reserved()]},
    })
}
