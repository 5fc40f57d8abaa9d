//! The API server with the chart applied, two nodes, and the agent's pod on n1. The clients use tokens that Kubernetes
//! itself issued.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bobbin_crds::{AddressBlock, AddressBlockSpec, FINALIZER, IPAssignment, IPAssignmentSpec};
use bobbin_e2e::control_plane::{ControlPlane, ControlPlaneOptions};
use bobbin_e2e::suite::{Fixture, Suite};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, ResourceExt};
use serde_json::json;
use xtask::programs::Programs;

/// How long one test may take.
pub const TEST_TIMEOUT: Duration = Duration::from_mins(1);
/// The namespace of the chart. It is unusual, because the policies must follow the release's namespace.
pub const NAMESPACE: &str = "somewhere";

/// The API server and its clients.
pub struct PolicyFixture {
    admin: Client,
    agent: Client,
    agent_of_no_pod: Client,
    operator: Client,
    next: AtomicI64,
    pub control_plane: ControlPlane,
}

impl Fixture for PolicyFixture {}

/// The suite of the tests that share one API server with the chart applied.
pub fn suite() -> Result<Suite<PolicyFixture>> {
    Ok(Suite::new(PolicyFixture::start)?.with_timeout(TEST_TIMEOUT))
}

impl PolicyFixture {
    /// Starts the control plane, applies the chart, creates nodes, a pod and tokens, and waits until the policies are
    /// enforced.
    async fn start() -> Result<Self> {
        let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await?;
        let admin = control_plane.client().await?;
        create(&Api::all(admin.clone()), json!({"metadata": {"name": NAMESPACE}}), "Namespace")
            .await
            .map(|_: Namespace| ())?;
        apply_chart(&control_plane)?;
        let kinds: Api<CustomResourceDefinition> = Api::all(admin.clone());
        for kind in ["addresspools.bobbin.dev", "addressblocks.bobbin.dev", "ipassignments.bobbin.dev"] {
            let established = await_condition(kinds.clone(), kind, conditions::is_crd_established());
            tokio::time::timeout(TEST_TIMEOUT, established)
                .await
                .with_context(|| format!("{kind} is not established"))??;
        }
        for node in ["n1", "n2"] {
            create(&Api::all(admin.clone()), json!({"metadata": {"name": node}}), "Node").await.map(|_: Node| ())?;
        }
        let pod: Pod = create(
            &Api::namespaced(admin.clone(), NAMESPACE),
            json!({
                "metadata": {"name": "bobbin-agent-n1"},
                "spec": {"serviceAccountName": "bobbin-agent", "nodeName": "n1", "containers": [{"name": "agent", "image": "none"}]},
            }),
            "Pod",
        )
        .await?;
        let agent = control_plane.client_for(&token(&admin, "bobbin-agent", Some(&pod)).await?).await?;
        let agent_of_no_pod = control_plane.client_for(&token(&admin, "bobbin-agent", None).await?).await?;
        let operator = control_plane.client_for(&token(&admin, "bobbin-operator", None).await?).await?;
        let next = AtomicI64::new(0);
        let fixture = Self { admin, agent, agent_of_no_pod, operator, next, control_plane };
        fixture.await_policies().await?;
        Ok(fixture)
    }

    /// The administrator's client.
    pub fn admin(&self) -> Client {
        self.admin.clone()
    }

    /// The client of the agent on n1, with the token of its pod.
    pub fn agent(&self) -> Client {
        self.agent.clone()
    }

    /// A client with a token of the agents' service account that is bound to no pod.
    pub fn agent_of_no_pod(&self) -> Client {
        self.agent_of_no_pod.clone()
    }

    /// The operator's client.
    pub fn operator(&self) -> Client {
        self.operator.clone()
    }

    /// Creates a block, free or claimed by a node.
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

    /// Builds an assignment of a new address for a node, without sending it.
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

    /// Waits until claims and assignments for another node are refused. The attempts are dry runs, so they
    /// change nothing.
    async fn await_policies(&self) -> Result<()> {
        let mut block = self.block(None).await?;
        claim(&mut block, "n2");
        let assignment = self.assignment("n2");
        let try_only = PostParams { dry_run: true, ..PostParams::default() };
        let deadline = Instant::now() + TEST_TIMEOUT;
        loop {
            let claimed = Api::<AddressBlock>::all(self.agent()).replace(&block.name_any(), &try_only, &block).await;
            let assigned = Api::<IPAssignment>::all(self.agent()).create(&try_only, &assignment).await;
            let in_force = |refused: Result<(), String>| refused.is_err_and(|words| words.contains("may not"));
            let claimed = claimed.map(drop).map_err(|error| error.to_string());
            let assigned = assigned.map(drop).map_err(|error| error.to_string());
            if in_force(claimed.clone()) && in_force(assigned.clone()) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the policies are not enforced yet: {claimed:?} {assigned:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Changes a block as an agent does to claim it.
pub fn claim(block: &mut AddressBlock, node: &str) {
    block.spec.node_name = Some(node.to_owned());
    block.spec.node_uid = Some("0f1e2d3c-0000-4000-8000-000000000001".to_owned());
    block.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
}

/// Changes a block as an agent does to release it. The operator removes the finalizer.
pub fn release(block: &mut AddressBlock) {
    block.spec.node_name = None;
    block.spec.node_uid = None;
    block.spec.free_since = Some(MicroTime(Timestamp::UNIX_EPOCH));
}

/// Fails unless the answer is a refusal with this code and these words.
pub fn refused<T>(answer: kube::Result<T>, code: u16, words: &str) -> Result<()> {
    match answer {
        Ok(_) => bail!("the API server accepted the request"),
        Err(kube::Error::Api(status)) => {
            ensure!(
                status.code == code,
                "the request is refused with {} instead of {code}: {}",
                status.code,
                status.message
            );
            ensure!(
                status.message.contains(words),
                "the refusal lacks the words\n  {words}\nbut with\n  {}",
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
    api.create(&PostParams::default(), &object).await.with_context(|| format!("the {kind} is not admitted"))
}

/// A token that the API server issues. It is bound to a pod, like those that kubelet mounts.
pub async fn token(admin: &Client, account: &str, pod: Option<&Pod>) -> Result<String> {
    let bound = pod.map(|pod| BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
    });
    let spec = TokenRequestSpec { audiences: Vec::new(), bound_object_ref: bound, expiration_seconds: Some(3600) };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let api: Api<ServiceAccount> = Api::namespaced(admin.clone(), NAMESPACE);
    let answer = api.create_token_request(account, &PostParams::default(), &request).await?;
    Ok(answer.status.context("a token request was answered without a token")?.token)
}

/// Prepares `helm template` of the chart.
pub fn chart_template() -> Result<Command> {
    let mut helm = Command::new(Programs::find()?.path("helm")?);
    helm.args(["template", "bobbin"]).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/bobbin"));
    helm.args(["--namespace", NAMESPACE, "--kube-version", "1.34.0"]).stdin(Stdio::null());
    Ok(helm)
}

/// Runs `helm template | kubectl apply`: the API server must accept every object of the chart.
fn apply_chart(control_plane: &ControlPlane) -> Result<()> {
    let programs = Programs::find()?;
    let rendered = control_plane.directory().join("chart.yaml");
    let helm = chart_template()?.output()?;
    ensure!(helm.status.success(), "helm template failed: {}", String::from_utf8_lossy(&helm.stderr));
    std::fs::write(&rendered, &helm.stdout)?;
    let kubectl = Command::new(programs.path("kubectl")?)
        .arg("--kubeconfig")
        .arg(control_plane.admin_kubeconfig()?)
        .args(["apply", "--server-side", "-f"])
        .arg(&rendered)
        .stdin(Stdio::null())
        .output()?;
    let words = String::from_utf8_lossy(&kubectl.stderr);
    ensure!(kubectl.status.success(), "the chart is not admitted: {words}");
    ensure!(!words.contains("Warning"), "the chart is admitted with a warning: {words}");
    Ok(())
}
