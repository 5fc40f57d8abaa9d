//! Whether an assignment is void, what its pod says about it, and what happens next. Pure.
//!
//! The operator decides by the same rules, so the commands announce what it will do. The operator reads the objects later
//! than the commands. If an object has changed by then, the operator may decide differently.

use std::net::IpAddr;

use bobbin_api_client::is_object_name;
use bobbin_api_client::pod::MIRROR;
use bobbin_crds::{AddressBlock, IPAssignment};
use bobbin_ipam::void_assignment::{
    AssignmentFacts, BlockEvidence, NodeFacts, PodAbsence, PodEvidence, PodFacts, Verdict, VoidReason, verdict,
    why_void,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::objects::Read;

/// The valid addresses of the assignment.
pub(crate) fn addresses_of(assignment: &IPAssignment) -> Vec<IpAddr> {
    facts(assignment).addresses().collect()
}

/// The fields of an assignment that [`verdict`] needs.
pub(crate) fn facts(assignment: &IPAssignment) -> AssignmentFacts<'_> {
    let spec = &assignment.spec;
    AssignmentFacts {
        node: &spec.node_name,
        ipv4: spec.ipv4.as_deref(),
        ipv6: spec.ipv6.as_deref(),
        pod_namespace: spec.pod_namespace.as_deref(),
        pod_name: spec.pod_name.as_deref(),
        pod_uid: spec.pod_uid.as_deref(),
        created: assignment.metadata.creation_timestamp.as_ref().map(|time| time.0),
    }
}

/// An assignment, and what the API server says about the objects that it names.
#[derive(Debug)]
pub(crate) struct Case<'a> {
    assignment: &'a IPAssignment,
    block: BlockEvidence,
    pod: Read<&'a Pod>,
    node_exists: bool,
}

/// What happens with a void assignment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outlook {
    pub(crate) verdict: Verdict,
    /// What the operator does.
    pub(crate) operator: String,
    /// What a person should do, if anything.
    pub(crate) you: Option<String>,
}

impl<'a> Case<'a> {
    pub(crate) fn new(
        assignment: &'a IPAssignment,
        block: Read<&AddressBlock>,
        pod: Read<&'a Pod>,
        node_exists: bool,
    ) -> Case<'a> {
        let block = match block {
            Read::Unknown => BlockEvidence::Unreadable,
            Read::Absent => BlockEvidence::Absent,
            Read::Present(block) => BlockEvidence::from(block),
        };
        Case { assignment, block, pod, node_exists }
    }

    /// Why the assignment is void; `None` if it is valid, or if the block is unknown.
    pub(crate) fn why_void(&self) -> Option<String> {
        let spec = &self.assignment.spec;
        let (block, node) = (&spec.block_name, &spec.node_name);
        Some(match why_void(&facts(self.assignment), &self.block)? {
            VoidReason::BlockAbsent => format!("its block {block} does not exist"),
            VoidReason::OtherOwner(Some(owner)) => format!("node {owner} owns its block {block}, and not node {node}"),
            VoidReason::OtherOwner(None) => format!("no node owns its block {block}"),
            VoidReason::Outside(address) => format!("its address {address} is not in its block {block}"),
        })
    }

    /// What the pod says about the assignment; `None` if the pod is unknown.
    pub(crate) fn pod_evidence(&self) -> Option<PodEvidence> {
        let facts = facts(self.assignment);
        match self.pod {
            _ if facts.pod().is_none() => Some(PodEvidence::NotNamed),
            Read::Unknown => None,
            Read::Absent => Some(PodEvidence::of(&facts, None)),
            Read::Present(pod) => Some(PodEvidence::of(&facts, Some(&pod_facts(pod)))),
        }
    }

    /// Why the pod is gone; `None` if the pod is not gone, or unknown.
    pub(crate) fn why_gone(&self) -> Option<String> {
        let Some(PodEvidence::Gone(absence)) = self.pod_evidence() else { return None };
        let pod = pod_of(self.assignment);
        Some(match absence {
            PodAbsence::Absent => format!("{pod} does not exist"),
            PodAbsence::OtherPod => format!("{pod} is another pod of the same name"),
            PodAbsence::OtherNode => format!("{pod} is on node {}", self.node_of_pod()),
            PodAbsence::HostNetwork => format!("{pod} uses the network of its node"),
        })
    }

    /// What happens with the assignment; `None` if it is not void.
    pub(crate) fn outlook(&self) -> Option<Outlook> {
        let pod = self.pod_evidence();
        let verdict = self.verdict(pod.unwrap_or(PodEvidence::Unreadable));
        let when = when(verdict);
        let (operator, you) = match verdict {
            Verdict::NotVoid => return None,
            Verdict::Forged => (
                format!(
                    "the operator deletes the IPAssignment {when}, because the IPAssignment is forged: its block never had its address"
                ),
                None,
            ),
            Verdict::VoidPodGone => (format!("the operator deletes the IPAssignment {when}"), None),
            Verdict::VoidNodeGone if !is_object_name(&self.assignment.spec.node_name) => (
                "the operator keeps the IPAssignment, because no Node can have the name of its node".to_owned(),
                Some(format!(
                    "if no pod uses the address, run: kubectl delete ipassignment {}",
                    self.assignment.name_any()
                )),
            ),
            Verdict::VoidNodeGone => (
                format!(
                    "the operator deletes the IPAssignment {when}, because Node {} does not exist",
                    self.assignment.spec.node_name
                ),
                None,
            ),
            Verdict::VoidInUse => self.in_use(pod),
        };
        Some(Outlook { verdict, operator, you })
    }

    /// What the operator does, and what a person should do, about a void assignment whose address may be in use.
    fn in_use(&self, pod: Option<PodEvidence>) -> (String, Option<String>) {
        let (name, spec) = (self.assignment.name_any(), &self.assignment.spec);
        let node = &spec.node_name;
        match pod {
            None => {
                let operator = match self.verdict(PodEvidence::Gone(PodAbsence::Absent)) {
                    Verdict::Forged => "the operator deletes the IPAssignment at once, if the pod is gone or reports only other addresses".to_owned(),
                    verdict => format!("the operator deletes the IPAssignment {}, but only if the pod is gone", when(verdict)),
                };
                let find = format!(
                    "this command did not read the pod, so find out whether the pod runs: kubectl get pod {} -n {}",
                    spec.pod_name.as_deref().unwrap_or_default(),
                    spec.pod_namespace.as_deref().unwrap_or_default()
                );
                (
                    operator,
                    Some(format!("{find}. If it runs, delete the pod, so that its replacement gets another address")),
                )
            }
            Some(PodEvidence::NotNamed) => {
                let why = if spec.pod_name.is_none() { "names no pod" } else { "has no UID of its pod" };
                (
                    format!(
                        "the operator deletes the IPAssignment only if it denies node {node}, because the IPAssignment {why}"
                    ),
                    Some(format!("if no pod on node {node} has the address, run: kubectl delete ipassignment {name}")),
                )
            }
            Some(PodEvidence::NoMirrorPod) => (
                format!(
                    "the operator keeps the IPAssignment, because {} is static and can run without its mirror pod",
                    pod_of(self.assignment)
                ),
                Some(format!("if the pod does not run on node {node}, run: kubectl delete ipassignment {name}")),
            ),
            Some(PodEvidence::OtherAddresses) => (
                "the operator deletes the IPAssignment when the pod is gone".to_owned(),
                Some(format!(
                    "if no other interface of the pod has the address, run: kubectl delete ipassignment {name}"
                )),
            ),
            Some(_) => (
                "the operator deletes the IPAssignment when the pod is gone".to_owned(),
                Some("delete the pod, so that its replacement gets another address".to_owned()),
            ),
        }
    }

    fn verdict(&self, pod: PodEvidence) -> Verdict {
        // The commands do not read which nodes the operator denies, so assume that it does not deny this node. On a denied node, the
        // operator also deletes void assignments that identify no pod, and void assignments of static pods without a mirror pod.
        let node = NodeFacts { is_denied: false, is_gone: !self.node_exists };
        verdict(&facts(self.assignment), &self.block, pod, node)
    }

    fn node_of_pod(&self) -> &str {
        let Read::Present(pod) = self.pod else { return "" };
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
    }
}

/// When the operator deletes an assignment with this verdict.
fn when(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Forged => "at once",
        Verdict::VoidPodGone => "after two checks, 15 minutes apart",
        Verdict::VoidNodeGone => {
            "after the grace period (operator.nodeGracePeriod) and any reclaim hold (operator.reclaimHold)"
        }
        Verdict::NotVoid | Verdict::VoidInUse => "later",
    }
}

/// The pod of an assignment for messages, such as `pod shop/web`.
pub(crate) fn pod_of(assignment: &IPAssignment) -> String {
    let spec = &assignment.spec;
    let text = |value: &'_ Option<String>| value.clone().unwrap_or_default();
    format!("pod {}/{}", text(&spec.pod_namespace), text(&spec.pod_name))
}

fn pod_facts(pod: &Pod) -> PodFacts<'_> {
    let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
    // The operator does not ask whether the pod has a sandbox, so neither do the commands.
    let listed = status.and_then(|status| status.pod_ips.as_ref()).into_iter().flatten();
    PodFacts {
        uid: pod.metadata.uid.as_deref(),
        is_mirror: pod.annotations().contains_key(MIRROR),
        node: spec.and_then(|spec| spec.node_name.as_deref()),
        uses_host_network: spec.is_some_and(|spec| spec.host_network == Some(true)),
        addresses: listed.filter_map(|one| one.ip.parse().ok()).collect(),
    }
}
