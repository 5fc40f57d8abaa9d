//! The operator's ConfigMaps, in its own namespace.

use std::collections::BTreeMap;

use bobbin_api_client::{Lenient, Outcome, write};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::Deserialize;
use serde_json::json;

use crate::context::WRITE_TIMEOUT;

/// The field manager of the operator.
const FIELD_MANAGER: &str = "bobbin-operator";

/// A ConfigMap with only the fields that the operator reads.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "ConfigMap")]
pub(crate) struct PartialConfigMap {
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) data: Option<BTreeMap<String, String>>,
}

pub(crate) type ConfigMaps = Api<Lenient<PartialConfigMap>>;

/// The ConfigMaps of the operator's namespace.
pub(crate) fn config_maps(client: &Client, namespace: &str) -> ConfigMaps {
    Api::namespaced(client.clone(), namespace)
}

/// Creates a ConfigMap without entries. Changes nothing if the ConfigMap exists.
///
/// The request is an apply patch, because RBAC can restrict a patch to one name, but not an ordinary create request.
/// The patch contains no entries: if it added entries, the next apply patch without these entries would remove them.
pub(crate) async fn create_empty(api: &ConfigMaps, name: &str) -> Outcome<Lenient<PartialConfigMap>> {
    let empty = Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}));
    write(WRITE_TIMEOUT, api.patch(name, &PatchParams::apply(FIELD_MANAGER), &empty)).await
}
