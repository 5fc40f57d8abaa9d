//! The API server with the chart applied, and two nodes with the agents' pods. The clients use tokens that Kubernetes
//! itself issued.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bobbin_crds::{AddressBlock, AddressBlockSpec, FINALIZER, IPAssignment, IPAssignmentSpec};
use bobbin_e2e::chart::{self, token};
use bobbin_e2e::control_plane::{ControlPlane, ControlPlaneOptions};
use bobbin_e2e::suite::{Fixture, Suite};
use clap::Parser;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long one test may take.
pub const TEST_TIMEOUT: Duration = Duration::from_mins(3);
/// The namespace of the chart. It has an unusual name, because the policies must work in any namespace.
pub const NAMESPACE: &str = "somewhere";

/// The API server, and the clients with which the tests call it.
pub struct PolicyFixture {
    admin: Client,
    agent: Client,
    agent_of_n2: Client,
    agent_of_no_pod: Client,
    operator: Client,
    next: AtomicI64,
    operator_kubeconfig: PathBuf,
    pub control_plane: ControlPlane,
}

impl Fixture for PolicyFixture {}

/// Creates the suite whose tests share one API server with the chart applied.
pub fn suite() -> Result<Suite<PolicyFixture>> {
    Ok(Suite::new(PolicyFixture::start)?.with_timeout(TEST_TIMEOUT))
}

impl PolicyFixture {
    /// Starts the control plane, applies the chart, and creates nodes, pods and tokens. Waits until the API server
    /// enforces the policies.
    pub async fn start() -> Result<Self> {
        let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await?;
        let admin = control_plane.client().await?;
        chart::apply(&control_plane, NAMESPACE).await?;
        for node in ["n1", "n2"] {
            create(&Api::all(admin.clone()), json!({"metadata": {"name": node}}), "Node").await.map(|_: Node| ())?;
        }
        let agent = agent_of(&control_plane, &admin, "n1").await?;
        let agent_of_n2 = agent_of(&control_plane, &admin, "n2").await?;
        let agent_of_no_pod = control_plane.client_for(&token(&admin, NAMESPACE, "bobbin-agent", None).await?).await?;
        let operator_token = token(&admin, NAMESPACE, "bobbin-operator", None).await?;
        let operator = control_plane.client_for(&operator_token).await?;
        let operator_kubeconfig = control_plane.kubeconfig_for(&operator_token)?;
        let next = AtomicI64::new(0);
        let fixture =
            Self { admin, agent, agent_of_n2, agent_of_no_pod, operator, next, operator_kubeconfig, control_plane };
        fixture.await_policies().await?;
        Ok(fixture)
    }

    /// The administrator's client.
    pub fn admin(&self) -> Client {
        self.admin.clone()
    }

    /// The client of the agent on n1. Its token is bound to the agent's pod.
    pub fn agent(&self) -> Client {
        self.agent.clone()
    }

    /// The client of the agent on n2. Its token is bound to the agent's pod.
    pub fn agent_of_n2(&self) -> Client {
        self.agent_of_n2.clone()
    }

    /// A client with a token of the agents' service account. The token is bound to no pod.
    pub fn agent_of_no_pod(&self) -> Client {
        self.agent_of_no_pod.clone()
    }

    /// The operator's client.
    pub fn operator(&self) -> Client {
        self.operator.clone()
    }

    /// Starts an operator with the token of its service account. Dropping the returned guard stops the operator.
    pub fn start_operator(&self, flags: &[&str]) -> Result<DropGuard> {
        let kubeconfig = format!("--kubeconfig={}", self.operator_kubeconfig.display());
        let namespace = format!("--namespace={NAMESPACE}");
        let words = ["bobbin-operator", &kubeconfig, &namespace, "--status-interval=500ms"];
        let args = bobbin_operator::Args::try_parse_from(words.iter().chain(flags))?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            if let Err(error) = bobbin_operator::operate(args, stopped).await {
                tracing::error!("the operator ended with an error: {error:#}");
            }
        });
        Ok(stop.drop_guard())
    }

    /// Creates a block. The block is claimed by `node`, or free if `node` is `None`.
    pub async fn block(&self, node: Option<&str>) -> Result<AddressBlock> {
        let index = self.next();
        let spec = AddressBlockSpec {
            pool_name: "default".to_owned(),
            index,
            ipv4: Some(format!("10.64.{}.{}/27", index / 8, index % 8 * 32)),
            ..AddressBlockSpec::default()
        };
        let mut block = AddressBlock::new(&format!("default-{index}"), spec);
        if let Some(node) = node {
            claim(&mut block, node);
        }
        Ok(Api::all(self.admin()).create(&PostParams::default(), &block).await?)
    }

    /// Builds an assignment of a new address for a node. Does not send it to the API server.
    pub fn assignment(&self, node: &str) -> IPAssignment {
        let address = format!("10.65.0.{}", self.next());
        let spec = IPAssignmentSpec {
            pool_name: "default".to_owned(),
            block_name: "default-9".to_owned(),
            node_name: node.to_owned(),
            ipv4: Some(address.clone()),
            ipv6: None,
            container_id: "c0ffee".to_owned(),
            if_name: "eth0".to_owned(),
            pod_namespace: None,
            pod_name: None,
            pod_uid: None,
            created_at: MicroTime(Timestamp::UNIX_EPOCH),
            boot_id: "11111111-2222-3333-4444-555555555555".to_owned(),
        };
        IPAssignment::new(&address, spec)
    }

    fn next(&self) -> i64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits until the API server refuses claims and assignments for another node. The attempts are dry runs, so they
    /// change nothing.
    async fn await_policies(&self) -> Result<()> {
        let mut block = self.block(None).await?;
        claim(&mut block, "n2");
        let assignment = self.assignment("n2");
        let try_only = PostParams { dry_run: true, ..PostParams::default() };
        let deadline = Instant::now() + TEST_TIMEOUT;
        loop {
            let claimed =
                write_block(&self.agent(), &block, &PatchParams { dry_run: true, ..PatchParams::default() }).await;
            let assigned = Api::<IPAssignment>::all(self.agent()).create(&try_only, &assignment).await;
            let in_force = |refused: Result<(), String>| refused.is_err_and(|words| words.contains("may not"));
            let claimed = claimed.map(drop).map_err(|error| error.to_string());
            let assigned = assigned.map(drop).map_err(|error| error.to_string());
            if in_force(claimed.clone()) && in_force(assigned.clone()) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the API server does not enforce the policies yet; it answered the claim with {claimed:?} and the assignment with {assigned:?}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Writes the spec, finalizers, owners, labels and annotations of a block. Uses a patch, because agents and the
/// operator may not replace a block.
pub async fn write_block(client: &Client, block: &AddressBlock, params: &PatchParams) -> kube::Result<AddressBlock> {
    let metadata = &block.metadata;
    let operations = json!([
        {"op": "test", "path": "/metadata/resourceVersion", "value": metadata.resource_version},
        {"op": "add", "path": "/metadata/finalizers", "value": metadata.finalizers.clone().unwrap_or_default()},
        {"op": "add", "path": "/metadata/ownerReferences", "value": metadata.owner_references.clone().unwrap_or_default()},
        {"op": "add", "path": "/metadata/labels", "value": metadata.labels.clone().unwrap_or_default()},
        {"op": "add", "path": "/metadata/annotations", "value": metadata.annotations.clone().unwrap_or_default()},
        {"op": "add", "path": "/spec", "value": block.spec},
    ]);
    let patch: Patch<()> = Patch::Json(serde_json::from_value(operations).map_err(kube::Error::SerdeError)?);
    Api::all(client.clone()).patch(&block.name_any(), params, &patch).await
}

/// Changes a block as an agent does when it claims the block.
pub fn claim(block: &mut AddressBlock, node: &str) {
    block.spec.node_name = Some(node.to_owned());
    block.spec.node_uid = Some("0f1e2d3c-0000-4000-8000-000000000001".to_owned());
    block.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
}

/// Changes a block as an agent does when it releases the block. Keeps the finalizer, which only the operator removes.
pub fn release(block: &mut AddressBlock) {
    block.spec.node_name = None;
    block.spec.node_uid = None;
    block.spec.free_since = Some(MicroTime(Timestamp::UNIX_EPOCH));
}

/// Checks that the answer is a refusal with this code and these words.
pub fn refused<T>(answer: kube::Result<T>, code: u16, words: &str) -> Result<()> {
    match answer {
        Ok(_) => bail!("the API server accepted the request"),
        Err(kube::Error::Api(status)) => {
            ensure!(
                status.code == code,
                "the API server refused the request with {} instead of {code}: {}",
                status.code,
                status.message
            );
            ensure!(
                status.message.contains(words),
                "the refusal must contain the words\n  {words}\nbut it says\n  {}",
                status.message
            );
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

async fn create<K>(api: &Api<K>, object: serde_json::Value, kind: &str) -> Result<K>
where
    K: kube::Resource + serde::Serialize + serde::de::DeserializeOwned + Clone + std::fmt::Debug,
{
    let object: K = serde_json::from_value(object)?;
    api.create(&PostParams::default(), &object)
        .await
        .with_context(|| format!("the API server did not admit the {kind}"))
}

/// Creates the agent's pod on a node. Returns a client with a token that is bound to this pod.
async fn agent_of(control_plane: &ControlPlane, admin: &Client, node: &str) -> Result<Client> {
    let pod = json!({
        "metadata": {"name": format!("bobbin-agent-{node}")},
        "spec": {"serviceAccountName": "bobbin-agent", "nodeName": node, "hostNetwork": true, "containers": [{"name": "agent", "image": "none"}]},
    });
    let pod: Pod = create(&Api::namespaced(admin.clone(), NAMESPACE), pod, "Pod").await?;
    control_plane.client_for(&token(admin, NAMESPACE, "bobbin-agent", Some(&pod)).await?).await
}
