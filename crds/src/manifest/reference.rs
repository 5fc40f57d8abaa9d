//! Writes the reference page of the custom resources as Markdown, from the schemas of the CRDs.

use std::fmt::Write;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use super::ManifestError;

const HEAD: &str = "\
# Custom resources

<!-- Generated from crds/src by `cargo run -p bobbin-crds --bin crdgen`; change the types, not this file. -->

Users write only the spec of pools. The agents and the operator write everything else.
`kubectl explain addresspools.spec` shows the same descriptions in a cluster.
";

/// Returns the page with the fields and rules of all CRDs.
pub fn page(definitions: &[CustomResourceDefinition]) -> Result<String, ManifestError> {
    let mut page = HEAD.to_owned();
    for definition in definitions {
        let tree = serde_json::to_value(definition)?;
        let schema = &tree["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let names = &definition.spec.names;
        let (group, version) =
            (&definition.spec.group, tree["spec"]["versions"][0]["name"].as_str().unwrap_or_default());
        let short: Vec<String> = names.short_names.iter().flatten().map(|name| format!("`{name}`")).collect();
        let _ = write!(
            page,
            "\n## {}\n\n{}\n\n- apiVersion: `{group}/{version}`\n- scope: {}\n- name for kubectl: `{}`{}{}\n",
            names.kind,
            line(&schema["description"]),
            definition.spec.scope,
            names.plural,
            if short.is_empty() { "" } else { ", short: " },
            short.join(", ")
        );
        for part in ["spec", "status"] {
            let fields = &schema["properties"][part];
            if fields.is_object() {
                let _ = write!(page, "\n### {} {part}\n\n| field | type | description |\n|---|---|---|\n", names.kind);
                rows(&mut page, fields, part);
            }
        }
    }
    Ok(page)
}

/// Adds one row for each field below `path`, in the order of the names. An object's fields follow the object.
/// The fields of a condition are left out, because they are the same in all objects of Kubernetes.
fn rows(page: &mut String, object: &Value, path: &str) {
    let required: Vec<&str> = object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in object["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let mut about = line(&field["description"]);
        if !field["default"].is_null() {
            let _ = write!(about, " Default: `{}`.", field["default"]);
        }
        if required.contains(&name.as_str()) {
            about.push_str(" Required.");
        }
        let _ = writeln!(page, "| `{path}` | {} | {} |", type_of(field), about.trim());
        let items = &field["items"];
        if field["properties"].is_object() {
            rows(page, field, &path);
        } else if items["properties"].is_object() && name != "conditions" {
            rows(page, items, &format!("{path}[]"));
        }
    }
}

fn type_of(field: &Value) -> String {
    let name = |schema: &Value| schema["type"].as_str().unwrap_or("any").to_owned();
    match field["type"].as_str() {
        Some("array") => format!("list of {}", name(&field["items"])),
        Some("object") if field["additionalProperties"].is_object() => {
            format!("map of {}", name(&field["additionalProperties"]))
        }
        _ => name(field),
    }
}

/// A description as one line that a table cell can contain.
fn line(description: &Value) -> String {
    let words: Vec<&str> = description.as_str().unwrap_or_default().split_whitespace().collect();
    words.join(" ").replace('|', "\\|").replace('<', "\\<")
}
