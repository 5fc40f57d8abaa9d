//! The schema of a pool's reserved addresses: each entry is checked, and named, on its own.

use schemars::{Schema, SchemaGenerator, json_schema};

use super::{MAX_RESERVED, rules};

/// A list of addresses and CIDRs.
pub(crate) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": MAX_RESERVED,
        "items": {"type": "string", "maxLength": 43, "x-kubernetes-validations": [rules::reserved()]},
    })
}
