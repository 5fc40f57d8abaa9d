//! Compares the assignments in the API with the running pods, to find duplicates and leaks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use bobbin_crds::{AddressBlock, IPAssignment};
use k8s_openapi::api::core::v1;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use super::Cluster;
use crate::wait::{Poll, check, wait_until};

/// The contradictions between assignments and pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllocationAudit {
    /// Addresses that two running pods have, or that two assignments have.
    pub duplicates: Vec<String>,
    /// Assignments of pods that no longer run.
    pub leaks: Vec<String>,
    /// Running pods without an assignment of their address.
    pub without_assignment: Vec<String>,
}

impl Cluster {
    /// All assignments in the API.
    pub async fn assignments(&self) -> Result<Vec<IPAssignment>> {
        Ok(Api::<IPAssignment>::all(self.client()).list(&ListParams::default()).await?.items)
    }

    /// The assignments of the pods of a namespace.
    pub async fn assignments_of(&self, namespace: &str) -> Result<Vec<IPAssignment>> {
        let selector = ListParams::default().fields(&format!("spec.podNamespace={namespace}"));
        Ok(Api::<IPAssignment>::all(self.client()).list(&selector).await?.items)
    }

    /// The blocks of a pool.
    pub async fn blocks_of_pool(&self, pool: &str) -> Result<Vec<AddressBlock>> {
        let selector = ListParams::default().fields(&format!("spec.poolName={pool}"));
        Ok(Api::<AddressBlock>::all(self.client()).list(&selector).await?.items)
    }

    /// The blocks that a node has claimed.
    pub async fn blocks_of_node(&self, node: &str) -> Result<Vec<AddressBlock>> {
        let selector = ListParams::default().fields(&format!("spec.nodeName={node}"));
        Ok(Api::<AddressBlock>::all(self.client()).list(&selector).await?.items)
    }

    /// Compares the assignments with the pods.
    pub async fn allocation_audit(&self) -> Result<AllocationAudit> {
        let pods = Api::<v1::Pod>::all(self.client()).list(&ListParams::default()).await?.items;
        let assignments = self.assignments().await?;
        Ok(compare(&pods, &assignments))
    }

    /// Waits until every running pod has its assignment, and no other assignment is left. Fails at once if an address
    /// is used twice.
    pub async fn await_no_leak_and_no_duplicate(&self, within: Duration) -> Result<()> {
        let settled = wait_until("assignments and pods agree", within, || async move {
            let allocation_audit = self.allocation_audit().await?;
            if !allocation_audit.duplicates.is_empty() {
                return Ok(Poll::Ready(allocation_audit));
            }
            Ok(if allocation_audit == AllocationAudit::default() {
                Poll::Ready(allocation_audit)
            } else {
                Poll::Pending(format!("{allocation_audit:?}"))
            })
        })
        .await?;
        anyhow::ensure!(
            settled.duplicates.is_empty(),
            "two pods or assignments have the same address: {:?}",
            settled.duplicates
        );
        Ok(())
    }

    /// Waits until `passes` accepts the list of a pool's claimed blocks.
    pub async fn await_blocks(
        &self,
        pool: &str,
        what: &str,
        within: Duration,
        passes: impl Fn(&[AddressBlock]) -> bool,
    ) -> Result<()> {
        let passes = &passes;
        wait_until(&format!("pool {pool}: {what}"), within, || async move {
            let blocks = self.blocks_of_pool(pool).await?;
            let claimed: Vec<AddressBlock> =
                blocks.into_iter().filter(|block| block.spec.node_name.is_some()).collect();
            Ok(check(passes(&claimed), || {
                let seen = claimed.iter().map(|block| (block.name_any(), block.spec.node_name.clone()));
                format!("claimed: {:?}", seen.collect::<Vec<_>>())
            }))
        })
        .await
    }
}

fn compare(pods: &[v1::Pod], assignments: &[IPAssignment]) -> AllocationAudit {
    let mut allocation_audit = AllocationAudit::default();
    let mut held: BTreeMap<&str, &str> = BTreeMap::new();
    let mut running = BTreeSet::new();
    let own_network = |pod: &&v1::Pod| pod.spec.as_ref().is_none_or(|spec| spec.host_network != Some(true));
    for pod in pods.iter().filter(own_network) {
        let status = pod.status.as_ref();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if status
            .and_then(|status| status.phase.as_deref())
            .is_some_and(|phase| phase == "Succeeded" || phase == "Failed")
        {
            continue;
        }
        running.insert(uid);
        for ip in status.and_then(|status| status.pod_ips.as_deref()).unwrap_or_default() {
            if let Some(other) = held.insert(&ip.ip, uid) {
                allocation_audit.duplicates.push(format!("{} of pods {other} and {uid}", ip.ip));
            }
            let assigned = assignments.iter().any(|assignment| {
                let spec = &assignment.spec;
                spec.pod_uid.as_deref() == Some(uid)
                    && (spec.ipv4.as_deref() == Some(&ip.ip) || spec.ipv6.as_deref() == Some(&ip.ip))
            });
            if !assigned {
                allocation_audit.without_assignment.push(format!("{} of {}", ip.ip, pod.name_any()));
            }
        }
    }
    let mut names: BTreeMap<&str, String> = BTreeMap::new();
    for assignment in assignments {
        for address in [&assignment.spec.ipv4, &assignment.spec.ipv6].into_iter().flatten() {
            if let Some(other) = names.insert(address, assignment.name_any()) {
                allocation_audit
                    .duplicates
                    .push(format!("{address} in the assignments {other} and {}", assignment.name_any()));
            }
        }
        if !assignment.spec.pod_uid.as_deref().is_some_and(|uid| running.contains(uid)) {
            allocation_audit.leaks.push(format!("{} of {:?}", assignment.name_any(), assignment.spec.pod_name));
        }
    }
    allocation_audit
}
