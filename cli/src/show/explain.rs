//! `explain`: the pool and the address of a pod, or why the pod has none.

mod events;
mod node_problems;
mod text;

use std::net::IpAddr;

use anyhow::{Context, Result};
use bobbin_api_client::Lenient;
use bobbin_crds::{AddressPool, IPAssignment};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;

use crate::Answer;
use crate::api::objects;
use crate::api::pods::{FIRST_INTERFACE, addresses as reported, has_ended};
use crate::api::pool_subnets::PoolSubnets;
use crate::api::selection::{is_of, rule, select};
use crate::api::void::addresses_of;
use crate::print::output::Output;
use crate::show::since::since;
use events::{PodNotice, events};
use node_problems::node_problems;

/// The pod that the user asks about.
pub(crate) struct PodQuery<'a> {
    pub(crate) namespace: &'a str,
    /// Whether the user named the namespace.
    pub(crate) namespace_is_given: bool,
    pub(crate) name: &'a str,
}

/// Explains the address of a pod. Returns `Answer::No` if the pod should have an address and has none.
pub(crate) async fn run(
    client: &Client,
    bobbin_namespace: &str,
    query: &PodQuery<'_>,
    output: Output,
) -> Result<Answer> {
    let PodQuery { namespace, namespace_is_given, name } = *query;
    let pods: Api<Lenient<Pod>> = Api::namespaced(client.clone(), namespace);
    let pod = objects::get(&pods, name).await?.with_context(|| missing(namespace, namespace_is_given, name))?;
    let mut explanation = explain(client, namespace, &pod).await?;
    if let Some(node) = explanation.node.as_ref().filter(|_| explanation.waits()) {
        explanation.node_problems = node_problems(client, bobbin_namespace, node).await;
    }
    output.print(&explanation)?;
    Ok(if explanation.waits() { Answer::No } else { Answer::Yes })
}

fn missing(namespace: &str, namespace_is_given: bool, name: &str) -> String {
    let remedy = if namespace_is_given {
        format!("list the pods with: kubectl -n {namespace} get pods")
    } else {
        "if it is in another namespace, add -n NAMESPACE; list all pods with: kubectl get pods -A".to_owned()
    };
    format!("Pod {namespace}/{name} does not exist; {remedy}")
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// Whether the pod should have an address from Bobbin now.
    needs_address: bool,
    /// Why the pod needs no address.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_need_because: Option<&'static str>,
    /// The pool that a new pod like this one would use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<Selected>,
    /// The pod's addresses according to the IPAssignments in the API server.
    addresses: Vec<Attachment>,
    /// The addresses in the pod's status that lie in a pool, if the pod needs an address and has no IPAssignment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reported_addresses: Vec<IpAddr>,
    /// The addresses in the pod's status that lie in no pool, if the pod needs an address and has no IPAssignment. Another network
    /// plugin assigned these addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    foreign_addresses: Vec<IpAddr>,
    /// What is wrong with the node of a pod that has no address, as far as the user may read it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    node_problems: Vec<String>,
    /// Events of the pod, the newest last.
    events: Vec<PodNotice>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Selected {
    name: String,
    /// Why the pod selects this pool.
    rule: &'static str,
    /// Why the pod gets no address from the pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Attachment {
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv4: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv6: Option<String>,
    interface: String,
    pool: String,
    block: String,
    node: String,
    since: Timestamp,
    /// Whether the pod reports addresses, but none that is in the IPAssignment. If true, the IPAssignment may be wrong.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    not_reported: bool,
}

impl Explanation {
    /// Whether the pod has no address.
    fn has_none(&self) -> bool {
        self.addresses.is_empty() && self.reported_addresses.is_empty()
    }

    /// Whether the pod should have an address and has none.
    fn waits(&self) -> bool {
        self.needs_address && self.has_none()
    }
}

async fn explain(client: &Client, namespace: &str, pod: &Pod) -> Result<Explanation> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let no_need = no_need(pod);
    let addresses = addresses(client, namespace, pod).await?;
    let pool = match no_need {
        Some(_) => None,
        None => Some(selected(client, namespace, pod).await?),
    };
    let events = if no_need.is_none() { events(client, namespace, pod).await? } else { Vec::new() };
    let name = format!("{namespace}/{}", pod.name_any());
    let unrecorded = if no_need.is_none() && addresses.is_empty() { unrecorded(pod) } else { Vec::new() };
    let pools: Vec<AddressPool> = if unrecorded.is_empty() {
        Vec::new()
    } else {
        objects::list(&Api::<Lenient<AddressPool>>::all(client.clone()), "").await?
    };
    let subnets = PoolSubnets::of(&pools);
    let is_of_pool = |address: &IpAddr| subnets.as_ref().is_none_or(|subnets| subnets.contain(*address));
    let (reported_addresses, foreign_addresses) = unrecorded.into_iter().partition(is_of_pool);
    Ok(Explanation {
        name,
        node,
        needs_address: no_need.is_none(),
        no_need_because: no_need,
        pool,
        reported_addresses,
        foreign_addresses,
        addresses,
        node_problems: Vec::new(),
        events,
    })
}

/// Why the pod needs no address from Bobbin now.
fn no_need(pod: &Pod) -> Option<&'static str> {
    let spec = pod.spec.as_ref()?;
    if spec.host_network == Some(true) {
        Some("it uses the network of its node (hostNetwork)")
    } else if has_ended(pod) {
        Some("it has ended")
    } else if spec.node_name.is_none() {
        Some("it is not scheduled to a node yet")
    } else {
        None
    }
}

/// The addresses that a pod without an IPAssignment reports. Empty if the pod is being deleted, because the agent may already have
/// released these addresses.
fn unrecorded(pod: &Pod) -> Vec<IpAddr> {
    if pod.metadata.deletion_timestamp.is_some() { Vec::new() } else { reported(pod) }
}

async fn selected(client: &Client, namespace: &str, pod: &Pod) -> Result<Selected> {
    Ok(match select(client, namespace, pod).await? {
        Ok(selection) => Selected { name: selection.pool, rule: rule(selection.source), refused: None },
        Err(error) => {
            let refused = Some(error.to_string());
            Selected { name: error.selection.pool, rule: rule(error.selection.source), refused }
        }
    })
}

async fn addresses(client: &Client, namespace: &str, pod: &Pod) -> Result<Vec<Attachment>> {
    let assignments: Api<Lenient<IPAssignment>> = Api::all(client.clone());
    let name = pod.name_any();
    let mut found = Vec::new();
    for assignment in objects::list(&assignments, &format!("spec.podNamespace={namespace}")).await? {
        let since = since(&assignment, Some(pod));
        let spec = &assignment.spec;
        if spec.pod_name.as_deref() != Some(&name) || !is_of(pod, spec.pod_uid.as_deref()) {
            continue;
        }
        let assigned = addresses_of(&assignment);
        let reported = reported(pod);
        let not_reported = assignment.spec.if_name == FIRST_INTERFACE
            && !reported.is_empty()
            && !reported.iter().any(|address| assigned.contains(address));
        let spec = assignment.spec;
        found.push(Attachment {
            ipv4: spec.ipv4,
            ipv6: spec.ipv6,
            interface: spec.if_name,
            pool: spec.pool_name,
            block: spec.block_name,
            node: spec.node_name,
            since,
            not_reported,
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
