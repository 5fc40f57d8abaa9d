//! Checks the form of the CRD manifests. e2e/tests/schema.rs tests their validation rules against a real kube-apiserver.

use std::path::Path;

use serde_json::Value;

use super::{all, template, yaml};

#[test]
fn the_manifests_in_the_chart_match_the_types() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/bobbin/templates/crds");
    for definition in all().unwrap() {
        let (name, text) = template(&definition).unwrap();
        let there = std::fs::read_to_string(directory.join(&name)).unwrap_or_default();
        assert!(there == text, "{name} in the chart is stale: run `cargo run -p bobbin-crds --bin crdgen`");
    }
}

#[test]
fn the_yaml_contains_the_whole_definition() {
    for definition in all().unwrap() {
        let read: Value = serde_saphyr::from_str(&yaml(&definition).unwrap()).unwrap();
        assert_eq!(read, serde_json::to_value(&definition).unwrap());
    }
}

#[test]
fn every_string_and_list_of_a_spec_is_bounded_and_nothing_is_nullable_or_unsigned() {
    for definition in all().unwrap() {
        let tree = serde_json::to_value(&definition).unwrap();
        let schema = tree.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap();
        look(schema.pointer("/properties/spec").unwrap(), &definition.spec.names.kind, true);
        look(schema, &definition.spec.names.kind, false);
    }
}

fn look(schema: &Value, path: &str, bounded: bool) {
    assert!(schema.get("nullable").is_none(), "{path} is nullable");
    let format = schema["format"].as_str().unwrap_or_default();
    assert!(!format.starts_with("uint"), "{path} is unsigned, a format that API servers warn of");
    if bounded {
        let bound = match schema["type"].as_str().unwrap_or_default() {
            "string" if format == "date-time" => None,
            "string" => Some("maxLength"),
            "array" => Some("maxItems"),
            _ => None,
        };
        assert!(bound.is_none_or(|bound| schema.get(bound).is_some()), "{path} has no {bound:?}");
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        assert!(field["description"].is_string() || name == "metadata", "{path}.{name} has no description");
        look(field, &format!("{path}.{name}"), bounded);
    }
    for inner in ["items", "additionalProperties"].iter().filter_map(|inner| schema.get(inner)) {
        look(inner, &format!("{path}[]"), bounded);
    }
}

#[test]
fn the_reference_page_has_each_field_with_its_type_and_default() {
    let page = super::reference::page(&all().unwrap()).unwrap();
    for row in [
        "| `spec.blockSizeBits` | integer | The size of the blocks",
        "| `spec.subnets[].ipv4` | string | An IPv4 CIDR",
        "| `status.conditions` | list of object | The conditions `Ready`",
    ] {
        assert!(page.contains(row), "{row} is missing in {page}");
    }
    assert!(page.contains("Default: `130`.") && page.contains("\n## IPAssignment\n"), "{page}");
}
