//! Causes the planned faults on a cluster, and ends them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1;
use kube::api::Api;
use tokio::time::timeout;

use super::plan::{FaultKind, PlannedFault};
use super::requests::Requests;
use crate::api_proxy::{Fault, FaultGuard, Selector};
use crate::cluster::{Cluster, NAMESPACE};

/// Regular expressions with which `pkill` finds the agent and the operator by their command lines.
const AGENT: &str = "^/?bobbin-all agent";
const OPERATOR: &str = "^/?bobbin-all operator";
/// The time limit of an API call that begins a fault. Another fault may have frozen the API server. Without this limit,
/// the run would hang and never resume the API server.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// An active fault, and the values that are needed to end it.
#[derive(Debug)]
pub struct ActiveFault {
    planned: PlannedFault,
    /// The name of the node that the fault affects. Faults of the API server and of all operators do not use it.
    node: String,
    /// The earliest time at which the fault ends. If the fault began late, this time is later than planned.
    end: Instant,
    /// The fault in the API proxy, if the proxy causes the fault.
    requests: Option<ActiveRequests>,
}

/// An active fault of the API proxy.
#[derive(Debug)]
struct ActiveRequests {
    selector: Selector,
    /// The number of requests and watch events that the proxy had seen when the fault began.
    since: usize,
    /// Ends the fault when it is dropped.
    guard: FaultGuard,
}

/// Begins a fault. Returns `None` if the fault is not possible now, for example because the program is not running.
pub async fn begin(cluster: &mut Cluster, planned: &PlannedFault) -> Result<Option<ActiveFault>> {
    let names: Vec<String> = cluster.nodes().map(|node| node.name().to_owned()).collect();
    let mut node = names.get(planned.node).context("the plan names a node that the cluster does not have")?.clone();
    let length = planned.end.saturating_sub(planned.begin);
    if let Some(requests) = &planned.requests {
        let requests = Some(inject(cluster, requests, &node)?);
        return Ok(Some(ActiveFault { planned: planned.clone(), node, end: Instant::now() + length, requests }));
    }
    let happened = match planned.kind {
        FaultKind::AgentKilled => signal(cluster, &node, "KILL", AGENT)?,
        FaultKind::AgentFrozen => signal(cluster, &node, "STOP", AGENT)?,
        FaultKind::OperatorsKilled => {
            let mut any = false;
            for node in &names {
                any |= signal(cluster, node, "KILL", OPERATOR)?;
            }
            any
        }
        FaultKind::LeaderFrozen => match timeout(CALL_TIMEOUT, leader(cluster)).await {
            Ok(Ok(leader)) => {
                node = leader;
                signal(cluster, &node, "STOP", OPERATOR)?
            }
            _ => false,
        },
        FaultKind::ApiServerDown => {
            cluster.control_plane_mut().stop_apiserver();
            true
        }
        FaultKind::ApiServerFrozen => {
            cluster.control_plane().freeze_apiserver()?;
            true
        }
        FaultKind::Partition => {
            cluster.node(&node)?.unplug()?;
            true
        }
        FaultKind::PowerCut => {
            cluster.node_mut(&node)?.power_cut();
            true
        }
        FaultKind::KubeletKilled => signal(cluster, &node, "KILL", "^kubelet ")?,
        FaultKind::ContainerdKilled => signal(cluster, &node, "KILL", "^containerd ")?,
        FaultKind::NodeDeleted => {
            let deleted = timeout(CALL_TIMEOUT, cluster.delete_node_object(&node)).await.is_ok_and(|it| it.is_ok());
            // A kubelet registers its Node only at its start. Kill the kubelet, so that the machine starts it again and
            // the kubelet registers the Node again.
            deleted && signal(cluster, &node, "KILL", "^kubelet ")?
        }
        FaultKind::PodRoutesDeleted => each_family(cluster, &node, &["route", "flush", "table", "116"]),
        FaultKind::ExportedRoutesDeleted => each_family(cluster, &node, &["route", "flush", "table", "119"]),
        FaultKind::RulesDeleted => each_family(cluster, &node, &["rule", "del", "priority", "2000"]),
        FaultKind::ConfigurationDeleted => {
            cluster.node(&node)?.exec(["sh", "-c", "rm -f /etc/cni/net.d/*bobbin*"]).is_ok()
        }
        kind => bail!("the plan has no requests for the fault {kind:?}"),
    };
    let end = Instant::now() + length;
    Ok(happened.then(|| ActiveFault { planned: planned.clone(), node, end, requests: None }))
}

/// Begins a fault of the API proxy.
fn inject(cluster: &Cluster, requests: &Requests, node: &str) -> Result<ActiveRequests> {
    let (proxy, selector) = (cluster.api()?, requests.selector(node));
    let since = proxy.mark();
    Ok(ActiveRequests { guard: proxy.inject(selector.clone(), requests.fault), selector, since })
}

impl ActiveRequests {
    /// Whether the fault affected a request or a watch. Always true for faults that break open watches, because the
    /// proxy recorded the requests of these watches before the fault.
    fn has_hit(&self, cluster: &Cluster, fault: Fault) -> Result<bool> {
        Ok(match fault {
            Fault::FreezeThenReset | Fault::Reset => true,
            Fault::DropEvents => self.guard.has_hit(),
            _ => !cluster.api()?.observed(self.since, &self.selector).is_empty(),
        })
    }
}

impl ActiveFault {
    /// Whether the fault has lasted as long as planned.
    pub fn is_due(&self) -> bool {
        self.end <= Instant::now()
    }

    /// Whether the planned fault `other` would disturb the same programs as this fault.
    pub fn excludes(&self, other: &PlannedFault) -> bool {
        self.planned.same_place(other)
    }

    /// Ends the fault. Returns whether the fault affected anything.
    ///
    /// # Errors
    /// Fails if a program of the test cluster does not start again.
    pub async fn finish(self, cluster: &mut Cluster) -> Result<bool> {
        if let (Some(active), Some(requests)) = (&self.requests, &self.planned.requests) {
            return active.has_hit(cluster, requests.fault);
        }
        self.undo(cluster).await?;
        Ok(true)
    }

    async fn undo(&self, cluster: &mut Cluster) -> Result<()> {
        match self.planned.kind {
            FaultKind::AgentFrozen => signal(cluster, &self.node, "CONT", AGENT).map(drop),
            FaultKind::LeaderFrozen => signal(cluster, &self.node, "CONT", OPERATOR).map(drop),
            FaultKind::ApiServerDown => cluster.control_plane_mut().start_apiserver().await,
            FaultKind::ApiServerFrozen => cluster.control_plane().resume_apiserver(),
            FaultKind::Partition => cluster.node(&self.node)?.plug(),
            FaultKind::PowerCut => cluster.node_mut(&self.node)?.boot(),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Display for ActiveFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(requests) = &self.planned.requests {
            write!(f, "{:?} ({:?}) for {}", self.planned.kind, requests.fault, requests.describe(&self.node))
        } else if self.planned.kind.is_central() {
            write!(f, "{:?}", self.planned.kind)
        } else {
            write!(f, "{:?} on {}", self.planned.kind, self.node)
        }
    }
}

/// Sends a signal to the processes on a node that have a matching command line. Returns false if the node has no power
/// or no process matches.
fn signal(cluster: &Cluster, node: &str, signal: &str, command_line: &str) -> Result<bool> {
    let node = cluster.node(node)?;
    Ok(node.is_on() && node.exec(["pkill", &format!("-{signal}"), "-f", command_line]).is_ok())
}

/// Runs `ip` for IPv4 and for IPv6. Returns true if at least one of the two commands succeeded.
fn each_family(cluster: &Cluster, node: &str, words: &[&str]) -> bool {
    let Ok(node) = cluster.node(node) else { return false };
    let run = |family: &str| node.exec(["ip", family].into_iter().chain(words.iter().copied())).is_ok();
    run("-4") | run("-6")
}

/// The node on which the leading operator runs.
async fn leader(cluster: &Cluster) -> Result<String> {
    let leases: Api<Lease> = Api::namespaced(cluster.client(), NAMESPACE);
    let lease = leases.get("bobbin-operator").await?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity).context("the operator's lease has no holder")?;
    let pods: Api<v1::Pod> = Api::namespaced(cluster.client(), NAMESPACE);
    let pods = pods.list(&kube::api::ListParams::default()).await?.items;
    let leads = |pod: &&v1::Pod| pod.metadata.name.as_deref().is_some_and(|name| holder.starts_with(name));
    let pod = pods.iter().find(leads).context("the holder of the operator's lease is not an existing pod")?;
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("the leader's pod has no node")
}
