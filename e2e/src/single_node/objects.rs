//! The API objects of the single node: custom resource definitions, Node, pools, pods, assignments and blocks.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use bobbin_crds::{AddressBlock, AddressPool, IPAssignment, POOL_ANNOTATION};
use k8s_openapi::api::core::v1::{Namespace as KubeNamespace, Node, Pod as KubePod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{NODE, NODE_IPV4, NODE_IPV6, Sandbox, SingleNode, WAIT_TIMEOUT};
use crate::control_plane::install_crds;
use crate::wait::{Poll, check, wait_until};

impl SingleNode {
    pub(super) async fn install_crds(&self) -> Result<()> {
        install_crds(&self.client).await?;
        self.make_namespace("bobbin-system", None).await?;
        wait_until("the namespace default exists", WAIT_TIMEOUT, || async {
            let namespaces: Api<KubeNamespace> = Api::all(self.client.clone());
            Ok(check(namespaces.get_opt("default").await?.is_some(), || "the namespace does not exist".to_owned()))
        })
        .await
    }

    /// Creates the Node object with the node's addresses.
    pub async fn make_node(&self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node =
            serde_json::from_value(json!({"metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}}}))?;
        nodes.create(&PostParams::default(), &node).await?;
        let status = json!({"status": {"addresses": [
            {"type": "InternalIP", "address": NODE_IPV4}, {"type": "InternalIP", "address": NODE_IPV6},
        ]}});
        nodes.patch_status(NODE, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }

    /// Creates or changes a pool, and waits until the pool is ready.
    pub async fn apply_pool(&self, name: &str, spec: Value) -> Result<()> {
        self.apply_pool_only(name, spec).await?;
        let pools: Api<AddressPool> = Api::all(self.client.clone());
        wait_until(&format!("the pool {name} is ready"), WAIT_TIMEOUT, || async {
            let pool = pools.get(name).await?;
            let current = pool.metadata.generation;
            let status = pool.status.unwrap_or_default();
            let ready = status.observed_generation == current
                && status.conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True");
            Ok(check(ready, || format!("{:?}", status.conditions)))
        })
        .await
        .with_context(|| {
            let log = std::fs::read_to_string(self.path("operator.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            format!("the end of the operator's log:\n{}", lines[lines.len().saturating_sub(15)..].join("\n"))
        })
    }

    /// Waits until a pool has free blocks.
    pub async fn await_free_blocks(&self, pool: &str) -> Result<()> {
        let pools: Api<AddressPool> = Api::all(self.client.clone());
        wait_until(&format!("the pool {pool} has free blocks"), WAIT_TIMEOUT, || async {
            let status = pools.get(pool).await?.status.unwrap_or_default();
            Ok(check(status.free_window.is_some(), || format!("{status:?}")))
        })
        .await
    }

    /// Creates or changes a pool without waiting until it is ready.
    pub async fn apply_pool_only(&self, name: &str, spec: Value) -> Result<()> {
        let pools: Api<AddressPool> = Api::all(self.client.clone());
        let pool = json!({"apiVersion": "bobbin.dev/v1beta1", "kind": "AddressPool", "metadata": {"name": name}, "spec": spec});
        pools.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(pool)).await?;
        Ok(())
    }

    /// Creates a namespace. If `pool` is given, an annotation on the namespace selects the pool.
    pub async fn make_namespace(&self, name: &str, pool: Option<&str>) -> Result<()> {
        self.make_annotated_namespace(name, &pool_annotation(pool)).await
    }

    /// Creates a namespace with annotations.
    pub async fn make_annotated_namespace(&self, name: &str, annotations: &BTreeMap<&str, &str>) -> Result<()> {
        let namespaces: Api<KubeNamespace> = Api::all(self.client.clone());
        let namespace = serde_json::from_value(json!({"metadata": {"name": name, "annotations": annotations}}))?;
        namespaces.create(&PostParams::default(), &namespace).await?;
        Ok(())
    }

    /// Creates a Pod object that is bound to this node, and returns a sandbox for the pod. If `pool` is given, an
    /// annotation on the pod selects the pool.
    pub async fn kube_pod(&self, namespace: &str, name: &str, pool: Option<&str>) -> Result<Sandbox> {
        self.annotated_pod(namespace, name, &pool_annotation(pool)).await
    }

    /// Like [`Self::kube_pod`], but with these annotations on the pod.
    pub async fn annotated_pod(
        &self,
        namespace: &str,
        name: &str,
        annotations: &BTreeMap<&str, &str>,
    ) -> Result<Sandbox> {
        let pods: Api<KubePod> = Api::namespaced(self.client.clone(), namespace);
        let object = serde_json::from_value(json!({
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": "none"}], "tolerations": [{"operator": "Exists"}]},
        }))?;
        let made = pods.create(&PostParams::default(), &object).await?;
        let mut pod = self.sandbox()?;
        pod.is_of(namespace, name, made.metadata.uid.as_deref().context("the pod has no UID")?);
        Ok(pod)
    }

    /// The UID of a Pod object.
    pub async fn kube_pod_uid(&self, namespace: &str, name: &str) -> Result<String> {
        let pods: Api<KubePod> = Api::namespaced(self.client.clone(), namespace);
        pods.get(name).await?.metadata.uid.context("the pod has no UID")
    }

    /// Deletes a Pod object without a grace period.
    pub async fn delete_kube_pod(&self, namespace: &str, name: &str) -> Result<()> {
        let pods: Api<KubePod> = Api::namespaced(self.client.clone(), namespace);
        pods.delete(name, &DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }

    /// All assignments in the API.
    pub async fn assignments(&self) -> Result<Vec<IPAssignment>> {
        Ok(Api::<IPAssignment>::all(self.client.clone()).list(&ListParams::default()).await?.items)
    }

    /// All blocks in the API.
    pub async fn blocks(&self) -> Result<Vec<AddressBlock>> {
        Ok(Api::<AddressBlock>::all(self.client.clone()).list(&ListParams::default()).await?.items)
    }

    /// The blocks of a pool that this node owns.
    pub async fn own_blocks(&self, pool: &str) -> Result<Vec<AddressBlock>> {
        let own = |block: &AddressBlock| block.spec.pool_name == pool && block.spec.node_name.as_deref() == Some(NODE);
        Ok(self.blocks().await?.into_iter().filter(own).collect())
    }

    /// The messages of all events with this reason, of any type and about any object.
    pub async fn warnings(&self, reason: &str) -> Result<Vec<String>> {
        let events: Api<Event> = Api::all(self.client.clone());
        let fields = ListParams::default().fields(&format!("reason={reason}"));
        Ok(events.list(&fields).await?.items.into_iter().filter_map(|event| event.note).collect())
    }

    /// The messages of all Warning events about a pod.
    pub async fn pod_warnings(&self, namespace: &str, name: &str) -> Result<Vec<String>> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let about = |event: &Event| {
            let pod = event.regarding.as_ref();
            event.type_.as_deref() == Some("Warning") && pod.is_some_and(|pod| pod.name.as_deref() == Some(name))
        };
        let all = events.list(&ListParams::default()).await?.items;
        Ok(all.into_iter().filter(about).filter_map(|event| event.note).collect())
    }

    /// Waits until exactly the attachments of these containers have assignments in the API.
    pub async fn await_assignments(&self, container_ids: &[&str], timeout: Duration) -> Result<()> {
        let mut wanted: Vec<&str> = container_ids.to_vec();
        wanted.sort_unstable();
        wait_until("exactly the expected attachments have assignments", timeout, || async {
            let assignments = self.assignments().await?;
            let mut seen: Vec<&str> = assignments.iter().map(|one| one.spec.container_id.as_str()).collect();
            seen.sort_unstable();
            if seen == wanted {
                return Ok(Poll::Ready(()));
            }
            let missing: Vec<_> = wanted.iter().filter(|id| !seen.contains(id)).map(|id| short(id)).collect();
            let extra: Vec<_> = seen.iter().filter(|id| !wanted.contains(id)).map(|id| short(id)).collect();
            Ok(Poll::Pending(format!(
                "there are {} assignments for {} attachments; missing: {missing:?}; unexpected: {extra:?}",
                seen.len(),
                wanted.len()
            )))
        })
        .await
        .with_context(|| format!("the end of the agent's log:\n{}", self.agent_log_tail()))
    }
}

fn pool_annotation(pool: Option<&str>) -> BTreeMap<&str, &str> {
    pool.map(|pool| (POOL_ANNOTATION, pool)).into_iter().collect()
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
