//! Restarts and crashes of the agent and of the chart's BIRD do not interrupt the traffic between a host outside and pods.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::cluster::NAMESPACE;
use bobbin_e2e::cluster::pod::FAMILIES;
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{check, wait_until};
use k8s_openapi::api::core::v1;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fixture::{CHART_NODES, LEARN_TIMEOUT, Routing};
use crate::requests::Requests;

/// How long the replacement of a program may take on a busy machine.
const RESTART_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a request waits for its answer before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(2);

pub fn tests(suite: &Suite<Routing>) -> Vec<Trial> {
    vec![suite.test(
        "restarts and crashes of the agent and of BIRD on all nodes cost no request from outside to a pod",
        no_request_is_lost,
    )]
}

async fn no_request_is_lost(routing: &mut Routing) -> Result<()> {
    routing.with_chart().await?;
    let pods = routing.pod_on_each_node("steady").await?;
    routing.router.await_blocks(&routing.cluster, &FAMILIES, LEARN_TIMEOUT).await?;
    for (component, program) in [("agent", "bobbin-all"), ("bird", "bird")] {
        for crash in [false, true] {
            routing.router.await_settled(&CHART_NODES, LEARN_TIMEOUT).await?;
            let mut streams = Vec::new();
            for pod in &pods {
                for family in FAMILIES {
                    let to = pod.address(family)?;
                    streams.push((to, Requests::start(&routing.outside, to, PATIENCE)?));
                }
            }
            if crash {
                routing.crash(component, program).await?;
            } else {
                routing.replace(component).await?;
            }
            routing.router.await_blocks(&routing.cluster, &FAMILIES, LEARN_TIMEOUT).await?;
            let fault = if crash { "crash" } else { "restart" };
            for (to, stream) in streams {
                nothing_lost(to, stream, &format!("the {fault} of {component}"))?;
            }
        }
    }
    Ok(())
}

fn nothing_lost(to: IpAddr, stream: Requests, fault: &str) -> Result<()> {
    let outcome = stream.end()?;
    ensure!(
        outcome.lost.is_empty() && outcome.answered > 10,
        "during {fault}, pod {to} answered {} requests, and requests were lost at {:?}",
        outcome.answered,
        outcome.lost
    );
    Ok(())
}

/// A Ready pod of a DaemonSet: UID, node, and how often its container was restarted.
type Seen = (String, String, i32);

impl Routing {
    async fn ready_pods(&self, component: &str) -> Result<Vec<Seen>> {
        let labels = ListParams::default().labels(&format!("app.kubernetes.io/component={component}"));
        let pods = Api::<v1::Pod>::namespaced(self.cluster.client(), NAMESPACE).list(&labels).await?.items;
        let ready = pods.into_iter().filter_map(|pod| {
            let uid = pod.uid()?;
            let container = pod.status?.container_statuses?.into_iter().next()?;
            let node = pod.spec?.node_name?;
            (container.ready && pod.metadata.deletion_timestamp.is_none()).then_some((
                uid,
                node,
                container.restart_count,
            ))
        });
        Ok(ready.collect())
    }

    /// Deletes the pods of a component like `kubectl rollout restart`, and waits for the new pods.
    async fn replace(&self, component: &str) -> Result<()> {
        let old = self.ready_pods(component).await?;
        let labels = format!("app.kubernetes.io/component={component}");
        self.cluster.kubectl(["-n", NAMESPACE, "delete", "pods", "-l", &labels, "--wait=false"])?;
        self.await_new(component, &old, |old, new| old.0 != new.0).await
    }

    /// Kills a program in all pods of a component, and waits until kubelet has started it again.
    async fn crash(&self, component: &str, program: &str) -> Result<()> {
        let old = self.ready_pods(component).await?;
        for (uid, node, _) in &old {
            let processes = self.cluster.node(node)?.processes_of_pod(uid);
            let is_program = |pid: &&i32| {
                std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == program)
            };
            let pid = processes.iter().find(is_program).with_context(|| format!("{node} runs no {program}"))?;
            kill(Pid::from_raw(*pid), Signal::SIGKILL)?;
        }
        self.await_new(component, &old, |old, new| old.0 == new.0 && new.2 > old.2).await
    }

    async fn await_new(&self, component: &str, old: &[Seen], is_new: impl Fn(&Seen, &Seen) -> bool) -> Result<()> {
        ensure!(old.len() == 2, "{component} must be ready on two nodes, but is on {old:?}");
        let is_new = &is_new;
        wait_until(&format!("{component} is ready again on each node"), RESTART_TIMEOUT, || async move {
            let seen = self.ready_pods(component).await?;
            let again = |old: &Seen| seen.iter().any(|new| new.1 == old.1 && is_new(old, new));
            Ok(check(old.iter().all(again), || format!("the pods were {old:?} and are {seen:?}")))
        })
        .await
    }
}
