//! A control plane with two operators, and functions that create and change objects. They write pools and nodes like an
//! administrator, and blocks and assignments like an agent.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bobbin_crds::pool::Acceptance;
use bobbin_crds::{AddressBlock, AddressPool, AddressPoolStatus, FINALIZER, IPAssignment};
use bobbin_e2e::chart;
use bobbin_e2e::control_plane::{ControlPlane, ControlPlaneOptions};
use bobbin_e2e::suite::{Fixture, Suite};
use bobbin_e2e::wait::{Poll, check, wait_until};
use bobbin_messages::condition;
use clap::Parser;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use xtask::artifacts::Artifacts;

/// The namespace in which the chart is installed.
pub const NAMESPACE: &str = "bobbin-system";
/// How long one test may take.
const TEST_TIMEOUT: Duration = Duration::from_mins(5);
/// How long an operator may take for work that it does at once. The machine may be busy.
pub const RECONCILE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a deleted node keeps its blocks in these tests.
pub const NODE_GRACE_PERIOD: Duration = Duration::from_secs(6);

/// A control plane with the chart applied, and its operators. The operators have the rights that the chart gives them.
/// Dropping the fixture ends the operators.
pub struct OperatorFixture {
    pub control_plane: ControlPlane,
    client: kube::Client,
    kubeconfig: std::path::PathBuf,
    stop: CancellationToken,
}

impl Fixture for OperatorFixture {}

impl Drop for OperatorFixture {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Creates the suite whose tests share two operators.
pub fn suite() -> Result<Suite<OperatorFixture>> {
    Ok(Suite::new(OperatorFixture::start)?.with_timeout(TEST_TIMEOUT))
}

impl OperatorFixture {
    /// Starts the control plane and two operators.
    async fn start() -> Result<Self> {
        let fixture = Self::without_operators().await?;
        for number in 1..=2 {
            fixture.operator(&format!("operator-{number}"), &["--no-leader-election"], fixture.stop.clone())?;
        }
        Ok(fixture)
    }

    /// Starts a control plane without an operator.
    pub async fn without_operators() -> Result<Self> {
        let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await?;
        let client = control_plane.client().await?;
        chart::apply(&control_plane, NAMESPACE).await?;
        allow_manual_edits(&client).await?;
        let token = chart::token(&client, NAMESPACE, "bobbin-operator", None).await?;
        let kubeconfig = control_plane.kubeconfig_for(&token)?;
        Ok(Self { control_plane, client, kubeconfig, stop: CancellationToken::new() })
    }

    /// Starts another operator. Cancelling `stop` ends the operator. If `BOBBIN_ARTIFACTS` names a directory, starts
    /// the program from that directory. Otherwise, runs the operator in the test's process.
    pub fn operator(&self, identity: &str, flags: &[&str], stop: CancellationToken) -> Result<()> {
        if std::env::var_os("BOBBIN_ARTIFACTS").is_some_and(|value| !value.is_empty()) {
            let words = words(&self.kubeconfig, identity, flags);
            let mut program = tokio::process::Command::new(Artifacts::find()?.all());
            program.arg0("bobbin-operator").args(&words[1..]).kill_on_drop(true);
            let mut program = program.spawn()?;
            tokio::spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    _ = program.wait() => {}
                }
            });
            return Ok(());
        }
        let args = arguments(&self.kubeconfig, identity, flags)?;
        tokio::spawn(async move {
            if let Err(error) = bobbin_operator::operate(args, stop).await {
                tracing::error!("an operator ended with an error: {error:#}");
            }
        });
        Ok(())
    }

    /// Ends operators when this fixture is dropped.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    pub fn pools(&self) -> Api<AddressPool> {
        Api::all(self.client())
    }

    pub fn blocks(&self) -> Api<AddressBlock> {
        Api::all(self.client())
    }

    pub fn assignments(&self) -> Api<IPAssignment> {
        Api::all(self.client())
    }

    pub async fn pool(&self, name: &str, spec: Value) -> Result<AddressPool> {
        let pool = json!({"apiVersion": "bobbin.dev/v1beta1", "kind": "AddressPool", "metadata": {"name": name}, "spec": spec});
        self.pools()
            .create(&PostParams::default(), &serde_json::from_value(pool)?)
            .await
            .with_context(|| format!("pool {name}"))
    }

    /// Changes fields of a pool's spec.
    pub async fn change(&self, name: &str, spec: Value) -> Result<()> {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.pools().patch(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Waits until a pool's status describes its latest spec and satisfies `is`.
    pub async fn until_status(
        &self,
        name: &str,
        what: &str,
        within: Duration,
        is: impl Fn(&AddressPoolStatus) -> bool,
    ) -> Result<AddressPoolStatus> {
        wait_until(&format!("pool {name} {what}"), within, || async {
            let pool = self.pools().get(name).await?;
            let status = pool.status.unwrap_or_default();
            let new = status.observed_generation == pool.metadata.generation;
            Ok(if new && is(&status) { Poll::Ready(status) } else { Poll::Pending(serde_json::to_string(&status)?) })
        })
        .await
    }

    /// Waits until a pool is ready and has free blocks.
    pub async fn until_ready(&self, name: &str) -> Result<AddressPoolStatus> {
        self.until_status(name, "is ready", RECONCILE_TIMEOUT, |status| {
            says(status, condition::READY) == "True" && status.free_window.is_some()
        })
        .await
    }

    /// All blocks of a pool, ordered by index.
    pub async fn blocks_of(&self, pool: &str) -> Result<Vec<AddressBlock>> {
        let params = ListParams::default().fields(&format!("spec.poolName={pool}"));
        let mut blocks = self.blocks().list(&params).await?.items;
        blocks.sort_by_key(|block| block.spec.index);
        Ok(blocks)
    }

    /// Claims a block as an agent does.
    pub async fn claim(&self, block: &str, node: &str, node_uid: &str) -> Result<AddressBlock> {
        wait_until(&format!("node {node} has claimed block {block}"), RECONCILE_TIMEOUT, || async {
            let mut claimed = self.blocks().get(block).await?;
            claimed.spec.node_name = Some(node.to_owned());
            claimed.spec.node_uid = Some(node_uid.to_owned());
            claimed.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
            Ok(Poll::Ready(self.blocks().replace(block, &PostParams::default(), &claimed).await?))
        })
        .await
    }

    pub async fn patch_block(&self, block: &str, patch: &Value) -> Result<()> {
        self.blocks()
            .patch(block, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .map(drop)
            .context(block.to_owned())
    }

    /// Releases a block as an agent does.
    pub async fn release(&self, block: &str) -> Result<()> {
        wait_until(&format!("block {block} is released"), RECONCILE_TIMEOUT, || async {
            let mut free = self.blocks().get(block).await?;
            (free.spec.node_name, free.spec.node_uid) = (None, None);
            free.spec.free_since = Some(serde_json::from_value(json!("2026-01-01T00:00:00.000000Z"))?);
            self.blocks().replace(block, &PostParams::default(), &free).await?;
            Ok(Poll::Ready(()))
        })
        .await
    }

    /// Creates an assignment of an IPv4 address, as an agent does.
    pub async fn create_assignment(&self, address: &str, block: &str, node: &str) -> Result<()> {
        let pool = block.rsplit_once('-').context("the name of the block has no dash")?.0;
        let assignment = json!({
            "apiVersion": "bobbin.dev/v1beta1", "kind": "IPAssignment", "metadata": {"name": address},
            "spec": {
                "poolName": pool, "blockName": block, "nodeName": node, "ipv4": address,
                "containerID": format!("container-{}", address.replace('.', "-")), "ifName": "eth0",
                "createdAt": "2026-01-01T00:00:00.000000Z", "bootID": "boot",
            },
        });
        self.assignments()
            .create(&PostParams::default(), &serde_json::from_value(assignment)?)
            .await
            .with_context(|| address.to_owned())?;
        Ok(())
    }

    /// Deletes the assignment of an address.
    pub async fn forget(&self, address: &str) -> Result<()> {
        self.assignments().delete(address, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Creates a node and returns its UID.
    pub async fn node(&self, name: &str) -> Result<String> {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        let nodes: Api<Node> = Api::all(self.client());
        let node = nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
        node.metadata.uid.context("the Node has no UID")
    }

    /// Cordons and deletes a node, as a scale-down does. The operator releases the blocks of cordoned nodes without a
    /// confirmation, even if the tests delete many nodes.
    pub async fn delete_node(&self, name: &str) -> Result<()> {
        let cordoned = Patch::Merge(json!({"spec": {"unschedulable": true}}));
        Api::<Node>::all(self.client()).patch(name, &PatchParams::default(), &cordoned).await?;
        self.delete_node_unannounced(name).await
    }

    /// Deletes a node without cordoning it.
    pub async fn delete_node_unannounced(&self, name: &str) -> Result<()> {
        Api::<Node>::all(self.client()).delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Adds the out-of-service taint, which says that the node's machine is off.
    pub async fn taint_out_of_service(&self, name: &str) -> Result<()> {
        let taint = json!({"spec": {"taints": [{"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}]}});
        Api::<Node>::all(self.client()).patch(name, &PatchParams::default(), &Patch::Merge(taint)).await?;
        Ok(())
    }

    /// The name of the node that owns a block. Empty if the block has no owner.
    pub async fn owner(&self, block: &str) -> Result<String> {
        Ok(self.blocks().get(block).await?.spec.node_name.unwrap_or_default())
    }

    /// Waits until a block is free and has no finalizer.
    pub async fn until_free(&self, block: &str, within: Duration) -> Result<AddressBlock> {
        wait_until(&format!("block {block} is free and has no finalizer"), within, || async {
            let seen = self.blocks().get(block).await?;
            let free = seen.spec.node_name.is_none() && seen.metadata.finalizers.iter().flatten().next().is_none();
            Ok(if free { Poll::Ready(seen) } else { Poll::Pending(serde_json::to_string(&seen.spec)?) })
        })
        .await
    }

    pub async fn until_gone(&self, pool: &str) -> Result<()> {
        wait_until(&format!("pool {pool} is gone"), RECONCILE_TIMEOUT, || async {
            let seen = self.pools().get_opt(pool).await?;
            Ok(check(seen.is_none(), || serde_json::to_string(&seen).unwrap_or_default()))
        })
        .await
    }
}

/// The parsed arguments of an operator in a test.
pub fn arguments(kubeconfig: &std::path::Path, identity: &str, flags: &[&str]) -> Result<bobbin_operator::Args> {
    bobbin_operator::Args::try_parse_from(words(kubeconfig, identity, flags)).map_err(|error| anyhow!("{error}"))
}

/// The command line of an operator in a test. A flag in `flags` replaces the default flag of the same name.
fn words(kubeconfig: &std::path::Path, identity: &str, flags: &[&str]) -> Vec<String> {
    let mut words = vec!["bobbin-operator".to_owned()];
    words.push(format!("--kubeconfig={}", kubeconfig.display()));
    words.push(format!("--identity={identity}"));
    if !flags.iter().any(|flag| flag.starts_with("--node-grace-period=")) {
        words.push(format!("--node-grace-period={}s", NODE_GRACE_PERIOD.as_secs()));
    }
    words.push("--status-interval=1s".to_owned());
    words.extend(flags.iter().map(|&flag| flag.to_owned()));
    words
}

/// The status of a condition. Empty if the condition does not exist.
pub fn says<'a>(status: &'a AddressPoolStatus, type_: &str) -> &'a str {
    status.conditions.iter().find(|condition| condition.type_ == type_).map_or("", |condition| &condition.status)
}

/// The reason and the message of a condition.
pub fn why(status: &AddressPoolStatus, type_: &str) -> String {
    let condition = status.conditions.iter().find(|condition| condition.type_ == type_);
    condition.map_or_else(String::new, |condition| format!("{}: {}", condition.reason, condition.message))
}

/// The number of accepted subnets in a pool's status.
pub fn accepted(status: &AddressPoolStatus) -> usize {
    status.accepted_subnets.iter().filter(|entry| entry.state == Acceptance::Accepted).count()
}

/// The metrics page that an operator serves.
pub async fn metrics_page(port: u16) -> Result<String> {
    http_page(port, "/metrics").await
}

/// The response of an operator's HTTP server, including the status line and the headers.
pub async fn http_page(port: u16, path: &str) -> Result<String> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    Ok(page)
}

/// Removes the bindings of the admission policies that refuse edits and deletions by an administrator. These tests act
/// as agents, but use the administrator's client.
async fn allow_manual_edits(admin: &kube::Client) -> Result<()> {
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(admin.clone());
    for name in ["bobbin-block-owners", "bobbin-block-deletions", "bobbin-pool-deletions"] {
        bindings.delete(name, &DeleteParams::default()).await?;
    }
    Ok(())
}
