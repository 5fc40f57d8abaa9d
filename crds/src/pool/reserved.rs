//! The schema of a pool's reserved addresses. Each entry has its own rule, so that an error names the entry.

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
