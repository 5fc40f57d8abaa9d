//! Prepares a test: a consistent node with two pods, on which neither agent nor operator is running.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bobbin_crds::IPAssignment;
use bobbin_e2e::invariants::{self, Kind, Watched};
use bobbin_e2e::single_node::{Attachment, Sandbox, SingleNode, WAIT_TIMEOUT};
use kube::Api;
use kube::api::DeleteParams;

/// How long a node may take until no invariant is broken.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The names of the two pods.
const PODS: [&str; 2] = ["ada", "bob"];

/// A consistent node with the pods `default/ada` and `default/bob`, for tests that plant faults.
pub struct Stage<'a> {
    pub node: &'a mut SingleNode,
    pub ada: Sandbox,
    pub bob: Sandbox,
}

impl<'a> Stage<'a> {
    /// Calls ADD for both pods, waits until the node is consistent, and stops agent and operator.
    pub async fn set(node: &'a mut SingleNode) -> Result<Self> {
        let ada = node.kube_pod("default", PODS[0], None).await?;
        let bob = node.kube_pod("default", PODS[1], None).await?;
        node.add(&ada)?;
        node.add(&bob)?;
        node.await_assignments(&[&ada.container_id, &bob.container_id], WAIT_TIMEOUT).await?;
        invariants::await_none(node, SETTLE_TIMEOUT)
            .await
            .context("the checker found a fault before the test planted one")?;
        node.kill_agent();
        node.stop_operator();
        Ok(Self { node, ada, bob })
    }

    /// Starts agent and operator, waits until they have made the node consistent again, and deletes the pods.
    pub async fn strike(mut self) -> Result<()> {
        self.start().await?;
        invariants::await_none(self.node, SETTLE_TIMEOUT)
            .await
            .context("agent and operator did not repair the planted fault")?;
        self.delete_pods().await
    }

    pub async fn start(&mut self) -> Result<()> {
        self.node.start_operator()?;
        self.node.start_agent().await
    }

    /// Deletes the pods, and waits until the node is consistent.
    pub async fn delete_pods(self) -> Result<()> {
        let Self { node, ada, bob } = self;
        for pod in [&ada, &bob] {
            node.del(pod)?;
        }
        for name in PODS {
            node.delete_kube_pod("default", name).await?;
        }
        invariants::await_none(node, SETTLE_TIMEOUT)
            .await
            .context("the node was not consistent after the pods had been deleted")
    }

    /// Checks that the invariant checker has a finding of this kind, and that the finding contains all these words.
    pub async fn sees(&self, kind: Kind, words: &[&str]) -> Result<()> {
        sees(self.node, kind, words).await
    }

    /// Checks that the invariant checker finds nothing. Before this call, the test must undo the planted fault.
    pub async fn is_clean(&self) -> Result<()> {
        let findings = invariants::compare(&invariants::collect(self.node).await);
        if !findings.is_empty() {
            bail!("the test undid the fault, but the checker still finds:\n{}", invariants::lines(&findings));
        }
        Ok(())
    }

    /// Starts the agent, waits until it has repaired the kernel, and stops the agent again.
    pub async fn repair(&mut self) -> Result<()> {
        self.node.start_agent().await?;
        invariants::await_none(self.node, SETTLE_TIMEOUT).await.context("the agent did not repair the kernel")?;
        self.node.kill_agent();
        Ok(())
    }

    /// The assignment of a pod.
    pub async fn assignment(&self, pod: &Sandbox) -> Result<IPAssignment> {
        let all = self.node.assignments().await?;
        all.into_iter().find(|one| one.spec.container_id == pod.container_id).context("the pod has no assignment")
    }

    pub fn assignments(&self) -> Api<IPAssignment> {
        Api::all(self.node.client.clone())
    }

    /// Deletes an assignment that the test created.
    pub async fn delete_assignment(&self, name: &str) -> Result<()> {
        self.assignments().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// The host link of a pod.
    pub fn link(&self, pod: &Sandbox) -> Result<Attachment> {
        let alias = format!("bobbin:{}/eth0", pod.container_id);
        self.node.attachments()?.remove(&alias).context("the pod has no host link")
    }
}

/// Checks that the invariant checker has a finding of this kind, and that the finding contains all these words.
pub async fn sees(watched: &impl Watched, kind: Kind, words: &[&str]) -> Result<()> {
    let findings = invariants::compare(&invariants::collect(watched).await);
    if !findings.iter().any(|one| one.kind == kind && words.iter().all(|word| one.text.contains(word))) {
        bail!(
            "the checker has no {kind:?} finding that contains {words:?}; its findings are:\n{}",
            invariants::lines(&findings)
        );
    }
    Ok(())
}
