//! Applies, reads and deletes API objects of any kind, and waits until an object reaches a state.

mod allocations;
mod events;
pub(super) mod pools;
pub(super) mod workload;

use std::time::Duration;

use anyhow::{Context, Result};
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PropagationPolicy,
};
use kube::core::GroupVersion;
use serde::Serialize;
use serde_json::{Value, json};

use super::Cluster;
use crate::wait::{Poll, wait_until};

impl Cluster {
    /// Applies one API object like `kubectl apply`.
    pub async fn apply(&self, object: impl Serialize) -> Result<()> {
        let object = serde_json::to_value(object)?;
        let name = name_of(&object)?;
        let parameters = PatchParams::apply("bobbin-e2e").force();
        self.api_of(&object)?
            .patch(&name, &parameters, &Patch::Apply(&object))
            .await
            .with_context(|| format!("the API server refused {} {name}", object["kind"]))?;
        Ok(())
    }

    /// Applies an object that the schema or a policy must refuse, and returns the API server's message.
    pub async fn refusal_of(&self, object: impl Serialize) -> Result<String> {
        match self.apply(object).await {
            Ok(()) => anyhow::bail!("the API server accepted an object that it must refuse"),
            Err(error) => Ok(format!("{error:#}")),
        }
    }

    /// Deletes one API object without waiting. An object that does not exist counts as deleted.
    pub async fn delete(&self, object: impl Serialize) -> Result<()> {
        let object = serde_json::to_value(object)?;
        self.delete_with(&object, &DeleteParams::default()).await
    }

    /// Deletes one API object in the foreground: Kubernetes first deletes the objects that the deleted object owns.
    pub async fn delete_in_foreground(&self, object: impl Serialize) -> Result<()> {
        let object = serde_json::to_value(object)?;
        let parameters =
            DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
        self.delete_with(&object, &parameters).await
    }

    async fn delete_with(&self, object: &Value, parameters: &DeleteParams) -> Result<()> {
        match self.api_of(object)?.delete(&name_of(object)?, parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until an API object is gone.
    pub async fn await_gone(&self, object: impl Serialize, within: Duration) -> Result<()> {
        let object = serde_json::to_value(object)?;
        let (api, name) = (self.api_of(&object)?, name_of(&object)?);
        let (api, name) = (&api, &name);
        wait_until(&format!("{} {name} is gone", object["kind"]), within, || async move {
            Ok(match api.get_opt(name).await? {
                None => Poll::Ready(()),
                Some(left) => Poll::Pending(format!(
                    "the object still exists with the status {} and the finalizers {:?}",
                    left.data["status"], left.metadata.finalizers
                )),
            })
        })
        .await
    }

    /// Waits until `passes` accepts the object, and returns the object. `what` describes the awaited state in the
    /// error.
    pub async fn await_object(
        &self,
        object: impl Serialize,
        what: &str,
        within: Duration,
        passes: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let object = serde_json::to_value(object)?;
        let (api, name) = (self.api_of(&object)?, name_of(&object)?);
        let (api, name, passes) = (&api, &name, &passes);
        wait_until(&format!("{} {name}: {what}", object["kind"]), within, || async move {
            let Some(seen) = api.get_opt(name).await? else {
                return Ok(Poll::Pending("the object does not exist".to_owned()));
            };
            let seen = serde_json::to_value(seen)?;
            Ok(if passes(&seen) {
                Poll::Ready(seen)
            } else {
                Poll::Pending(json!({"spec": seen["spec"], "status": seen["status"]}).to_string())
            })
        })
        .await
    }

    /// Waits until a condition (`Ready`, `Exhausted`, …) of an object has the wanted status.
    pub async fn await_condition(
        &self,
        object: impl Serialize,
        condition: &str,
        status: &str,
        within: Duration,
    ) -> Result<Value> {
        let what = format!("condition {condition} is {status}");
        self.await_object(object, &what, within, |seen| condition_of(seen, condition)["status"] == status).await
    }

    /// Creates a namespace with annotations.
    pub async fn make_namespace(&self, name: &str, annotations: &[(&str, &str)]) -> Result<()> {
        let annotations: serde_json::Map<String, Value> =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        self.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"name": name}, "annotations": annotations}}))
            .await
    }

    /// The API for an object's kind and namespace.
    pub fn api_of(&self, object: &Value) -> Result<Api<DynamicObject>> {
        let version = object["apiVersion"].as_str().context("the object has no apiVersion")?;
        let kind = object["kind"].as_str().context("the object has no kind")?;
        let group = version.parse::<GroupVersion>()?;
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(&group.group, &group.version, kind));
        Ok(match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(self.client(), namespace, &resource),
            None => Api::all_with(self.client(), &resource),
        })
    }
}

/// The condition with this type in an object's status, or null if the status has no such condition.
pub fn condition_of<'a>(object: &'a Value, condition: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    conditions.iter().find(|seen| seen["type"] == condition).unwrap_or(&Value::Null)
}

fn name_of(object: &Value) -> Result<String> {
    Ok(object["metadata"]["name"].as_str().context("the object has no name")?.to_owned())
}
