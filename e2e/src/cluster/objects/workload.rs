//! Pods, Deployments and Services on the cluster. Every pod answers on port 8080 with its name.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::cluster::pod::{PORT, Pod};
use crate::wait::{Poll, check, wait_until};
use xtask::image::TOOLS;

/// The name of the container in every test pod.
pub const CONTAINER: &str = "main";
/// How long a pod may take to become Ready, even on a busy machine.
const READY_TIMEOUT: Duration = Duration::from_secs(90);

/// The fields of a pod that a test creates.
#[derive(Clone, Debug)]
pub struct Workload {
    namespace: String,
    name: String,
    node: Option<String>,
    annotations: serde_json::Map<String, Value>,
    privileged: bool,
    host_network: bool,
    host_port: Option<u16>,
}

impl Workload {
    /// A test pod with this namespace and name.
    pub fn pod(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            node: None,
            annotations: serde_json::Map::new(),
            privileged: false,
            host_network: false,
            host_port: None,
        }
    }

    /// Restricts the pod to one node with a node selector. Unlike with `nodeName`, the scheduler still binds the pod.
    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }

    /// Adds an annotation to the pod.
    #[must_use]
    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), json!(value));
        self
    }

    /// Requests a host port on the pod's node.
    #[must_use]
    pub fn with_host_port(mut self, port: u16) -> Self {
        self.host_port = Some(port);
        self
    }

    /// Grants the pod every capability, so that the pod can send packets with a source address that is not its own.
    #[must_use]
    pub fn privileged(mut self) -> Self {
        self.privileged = true;
        self
    }

    /// The pod's manifest in the API.
    pub fn manifest(&self) -> Value {
        let mut template = template(&json!({"name": self.name}), self.node.as_deref());
        template["spec"]["hostNetwork"] = json!(self.host_network);
        template["spec"]["containers"][0]["securityContext"] = json!({"privileged": self.privileged});
        if let Some(port) = self.host_port {
            template["spec"]["containers"][0]["ports"][0]["hostPort"] = json!(port);
        }
        template["apiVersion"] = json!("v1");
        template["kind"] = json!("Pod");
        template["metadata"]["name"] = json!(self.name);
        template["metadata"]["namespace"] = json!(self.namespace);
        template["metadata"]["annotations"] = json!(self.annotations);
        template
    }
}

/// The template of a pod that answers requests with its name.
pub fn template(labels: &Value, node: Option<&str>) -> Value {
    let mut template = json!({
        "metadata": {"labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false, "enableServiceLinks": false,
            // Tolerate all NoExecute taints. If a test stops a node, the node's pods then stay until the test deletes them.
            "tolerations": [{"operator": "Exists", "effect": "NoExecute"}],
            "containers": [{
                "name": CONTAINER, "image": TOOLS, "imagePullPolicy": "Never",
                "command": ["/agnhost", "netexec", format!("--http-port={PORT}"), format!("--udp-port={PORT}")],
                "ports": [{"containerPort": PORT}],
                "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
            }],
        },
    });
    if let Some(node) = node {
        template["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    }
    template
}

impl Cluster {
    /// Creates a pod and waits until it is Ready.
    pub async fn create_ready_pod(&self, workload: Workload) -> Result<Pod> {
        self.create_pod(&workload).await?;
        self.await_ready_pod(&workload.namespace, &workload.name).await
    }

    /// Creates a pod without waiting until it is Ready. Retries after a refusal, because a new namespace has no
    /// ServiceAccount at first.
    pub async fn create_pod(&self, workload: &Workload) -> Result<()> {
        let manifest = &workload.manifest();
        wait_until(&format!("the API server accepts pod {}", workload.name), Duration::from_secs(20), || async move {
            self.apply(manifest).await.map(Poll::Ready)
        })
        .await
    }

    /// Waits until a pod is Ready.
    pub async fn await_ready_pod(&self, namespace: &str, name: &str) -> Result<Pod> {
        let pods = self.await_ready_pods(namespace, &format!("metadata.name={name}"), "", 1, READY_TIMEOUT).await?;
        pods.into_iter().next().context("the wait for one pod returned no pod")
    }

    /// Deletes a pod and waits until it is gone.
    pub async fn delete_pod(&self, namespace: &str, name: &str) -> Result<()> {
        match Api::<v1::Pod>::namespaced(self.client(), namespace).delete(name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error.into()),
        }
        self.await_no_pods(namespace, &format!("metadata.name={name}"), READY_TIMEOUT).await
    }

    /// Deletes all workloads and pods of a namespace and waits until they are gone.
    pub async fn delete_all_pods(&self, namespace: &str) -> Result<()> {
        self.run_program(
            "kubectl",
            &["-n", namespace, "delete", "deployment,statefulset,daemonset,pod", "--all", "--wait=false"],
        )?;
        self.await_no_pods(namespace, "", READY_TIMEOUT).await
    }

    /// Applies a Deployment with this many pods, and a dual-stack Service for these pods. The scheduler spreads the pods
    /// evenly over the nodes.
    pub async fn deploy(&self, namespace: &str, name: &str, replicas: usize) -> Result<()> {
        let labels = json!({"app": name});
        let mut template = template(&labels, None);
        template["spec"]["topologySpreadConstraints"] = json!([{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": labels},
        }]);
        self.apply(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": namespace, "name": name},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
        }))
        .await?;
        self.apply(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name},
            "spec": {
                "selector": labels, "ports": [{"port": 80, "targetPort": PORT}],
                "ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4", "IPv6"],
            },
        }))
        .await
    }

    /// Waits until `count` pods that match the field and label selectors are Ready. Returns these pods, ordered by
    /// name.
    pub async fn await_ready_pods(
        &self,
        namespace: &str,
        fields: &str,
        labels: &str,
        count: usize,
        within: Duration,
    ) -> Result<Vec<Pod>> {
        let api: Api<v1::Pod> = Api::namespaced(self.client(), namespace);
        let selection = ListParams::default().fields(fields).labels(labels);
        let (api, selection) = (&api, &selection);
        let ready = wait_until(
            &format!("{count} pods in the namespace {namespace} ({fields}{labels}) are Ready"),
            within,
            || async move {
                let pods = api.list(selection).await?.items;
                let ready =
                    pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod)).count();
                if ready < count {
                    let waiting = pods.iter().find(|pod| !is_ready(pod));
                    let why = match waiting {
                        Some(pod) => format!(
                            "the last Warning event about the pod {} is {:?}",
                            pod.name_any(),
                            self.warnings_about(namespace, &pod.name_any()).await?.last()
                        ),
                        None => String::new(),
                    };
                    return Ok(Poll::Pending(format!("{ready} pods are Ready; {why}")));
                }
                Ok(Poll::Ready(pods))
            },
        )
        .await?;
        let mut pods: Vec<v1::Pod> =
            ready.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod)).collect();
        pods.sort_by_key(ResourceExt::name_any);
        pods.iter().map(|pod| Pod::find(self, pod)).collect()
    }

    /// Waits until no pod matches a field selector.
    pub async fn await_no_pods(&self, namespace: &str, fields: &str, within: Duration) -> Result<()> {
        self.await_none(namespace, ListParams::default().fields(fields), within).await
    }

    /// Waits until no pod matches a label selector.
    pub async fn await_no_pods_labelled(&self, namespace: &str, labels: &str, within: Duration) -> Result<()> {
        self.await_none(namespace, ListParams::default().labels(labels), within).await
    }

    async fn await_none(&self, namespace: &str, selection: ListParams, within: Duration) -> Result<()> {
        let api: Api<v1::Pod> = Api::namespaced(self.client(), namespace);
        let (api, selection) = (&api, &selection);
        wait_until(&format!("no selected pod is left in the namespace {namespace}"), within, || async move {
            let left: Vec<String> = api.list(selection).await?.items.iter().map(ResourceExt::name_any).collect();
            Ok(check(left.is_empty(), || left.join(", ")))
        })
        .await
    }
}

fn is_ready(pod: &v1::Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
