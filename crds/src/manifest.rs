//! The CRD manifests, which are generated from the Rust types.

pub mod reference;
#[cfg(test)]
mod tests;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{AddressBlock, AddressPool, IPAssignment};

/// Why a manifest could not be generated. The cause is a mistake in the Rust types, which the tests find.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The CRD can't be converted to JSON values.
    #[error("a CRD can't be converted to JSON: {0}; check the CRD's type in crds/src")]
    Tree(#[from] serde_json::Error),
    /// The CRD can't be written as YAML.
    #[error("a CRD can't be written as YAML: {0}; check the CRD's type in crds/src")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

/// The CRDs of Bobbin's three kinds.
pub fn all() -> Result<Vec<CustomResourceDefinition>, ManifestError> {
    [AddressPool::crd(), AddressBlock::crd(), IPAssignment::crd()].into_iter().map(finish).collect()
}

/// Adds two properties that the Rust types can't express. First, the schema forbids the value `null` in all fields.
/// Second, an annotation makes Helm keep the CRD and its objects when a user uninstalls the chart.
fn finish(definition: CustomResourceDefinition) -> Result<CustomResourceDefinition, ManifestError> {
    let mut tree = serde_json::to_value(definition)?;
    if let Some(schemas) = tree.pointer_mut("/spec/versions") {
        forbid_null(schemas);
    }
    let mut definition: CustomResourceDefinition = serde_json::from_value(tree)?;
    definition.metadata.annotations.get_or_insert_default().insert("helm.sh/resource-policy".into(), "keep".into());
    Ok(definition)
}

/// Removes `nullable` from the schema. The library schemars adds `nullable` for each `Option`.
fn forbid_null(tree: &mut Value) {
    match tree {
        Value::Object(fields) => {
            fields.retain(|name, value| name != "nullable" || !value.is_boolean());
            fields.values_mut().for_each(forbid_null);
        }
        Value::Array(items) => items.iter_mut().for_each(forbid_null),
        _ => {}
    }
}

/// Returns a CRD as YAML.
pub fn yaml(definition: &CustomResourceDefinition) -> Result<String, ManifestError> {
    Ok(serde_saphyr::to_string(&serde_json::to_value(definition)?)?)
}

/// Returns the chart's file for a CRD: the file name, and the CRD as a Helm template. The template produces nothing if
/// the chart value `crds.install` is false.
pub fn template(definition: &CustomResourceDefinition) -> Result<(String, String), ManifestError> {
    let text = yaml(definition)?.replace("{{", "{{ \"{{\" }}");
    let name = format!("{}.yaml", definition.spec.names.plural);
    Ok((
        name,
        format!(
            "# Generated from crds/src by `cargo run -p bobbin-crds --bin crdgen`; change the types, not this file.\n{{{{- if .Values.crds.install }}}}\n{text}{{{{- end }}}}\n"
        ),
    ))
}
