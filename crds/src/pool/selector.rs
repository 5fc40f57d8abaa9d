//! The schema of a label selector. The schema limits all sizes, because the API server allows CEL rules only on values
//! of limited size.

use schemars::{Schema, SchemaGenerator, json_schema};

/// The schema of `metav1.LabelSelector`, limited to 64 labels, 64 requirements and 64 values per requirement.
pub(crate) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": {
                "description": "Labels that must be present with these values.",
                "type": "object",
                "maxProperties": 64,
                "additionalProperties": {"type": "string", "maxLength": 63},
            },
            "matchExpressions": {
                "description": "Requirements that must all hold.",
                "type": "array",
                "maxItems": 64,
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {"description": "The label.", "type": "string", "minLength": 1, "maxLength": 317},
                        "operator": {
                            "description": "In or NotIn with values; Exists or DoesNotExist without values.",
                            "type": "string",
                            "maxLength": 12,
                        },
                        "values": {
                            "description": "The values of In and NotIn.",
                            "type": "array",
                            "maxItems": 64,
                            "items": {"type": "string", "maxLength": 63},
                        },
                    },
                },
            },
        },
    })
}
