//! Tests that the conditions of a pool agree with each other, for each state that a pool can be in.

use bobbin_crds::AddressPoolStatus;
use bobbin_crds::pool::{MAX_NODE_ADDRESSES, Subnet};
use bobbin_ipam::overlap::{Overlap, SubnetConflict};
use bobbin_ipam::pool_shape::PoolShape;
use bobbin_ipam::{BlockRange, SubnetPair};
use bobbin_messages::condition::refusal;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use k8s_openapi::jiff::Timestamp;

use super::super::tests::{block, pool, says};
use super::super::{Inputs, compute};
use super::*;
use crate::cache::{NodeAddress, PoolView, SelectedNodes, Sighting};
use crate::pool::accept::AcceptanceResult;

/// A pool of 64 addresses in 4 blocks. Node n1 uses one address of the first block.
struct Scene {
    pool: bobbin_crds::AddressPool,
    view: PoolView,
    acceptance: AcceptanceResult,
}

impl Scene {
    fn new() -> Self {
        let pool = pool("10.0.0.0/26", 4, &[]);
        let selected = SelectedNodes { with_block: 1, ..SelectedNodes::default() };
        let blocks = vec![block(0, "10.0.0.0/28", Some("n1"), 1), block(1, "10.0.0.16/28", None, 0)];
        let view = PoolView { blocks, used: 1, nodes: 1, selected, ..PoolView::default() };
        Self { acceptance: AcceptanceResult::unchanged(&pool), pool, view }
    }

    fn draining(mut self) -> Self {
        self.pool.spec.draining = true;
        self
    }

    fn deleting(mut self) -> Self {
        self.pool.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        self
    }

    /// The operator refuses the only subnet, so the pool has no block.
    fn refused(mut self) -> Self {
        let ours = SubnetPair::parse(Some("10.0.0.0/26"), None).expect("it is a subnet");
        let rejected = vec![Overlap::Pool { ours, pool: "other".to_owned(), subnet: ours, deleting: false }];
        self.acceptance = AcceptanceResult { rejected, ..AcceptanceResult::default() };
        (self.view.blocks, self.view.used) = (Vec::new(), 0);
        self
    }

    /// An administrator appended a subnet that the operator refuses.
    fn partly_refused(mut self) -> Self {
        self.pool.spec.subnets.push(Subnet { ipv4: Some("10.1.0.0/26".into()), ipv6: None });
        let ours = SubnetPair::parse(Some("10.1.0.0/26"), None).expect("it is a subnet");
        self.acceptance.rejected =
            vec![Overlap::Pool { ours, pool: "other".to_owned(), subnet: ours, deleting: false }];
        self
    }

    /// The operator has not decided on the only subnet.
    fn undecided(mut self) -> Self {
        self.acceptance = AcceptanceResult::default();
        (self.view.blocks, self.view.used) = (Vec::new(), 0);
        self
    }

    /// The spec can't be parsed, although the status lists an accepted subnet.
    fn invalid(mut self) -> Self {
        self.pool.spec.reserved = vec!["nonsense".to_owned()];
        self
    }

    /// Each address of the pool is in use.
    fn full(mut self) -> Self {
        let range = |index: u64| format!("10.0.0.{}/28", index * 16);
        self.view.blocks = (0..4).map(|index| block(index, &range(index), Some("n1"), 16)).collect();
        self.view.used = 64;
        self
    }

    /// The first block stays claimed, but no address of the pool is in use.
    fn unused(mut self) -> Self {
        self.view.used = 0;
        self.view.blocks[0].assigned = 0;
        self
    }

    fn selecting(mut self, label: &str, selected: SelectedNodes, nodes: usize) -> Self {
        let labels = [(label.to_owned(), "yes".to_owned())].into();
        self.pool.spec.node_selector = Some(LabelSelector { match_labels: Some(labels), match_expressions: None });
        (self.view.selected, self.view.nodes) = (selected, nodes);
        self
    }

    /// Too many addresses of Nodes lie in the pool.
    fn in_node_network(mut self) -> Self {
        let node = |_| NodeAddress {
            address: "10.0.0.9".parse().expect("it is an address"),
            sighting: Sighting::Reported("n1".into()),
            assigned: false,
        };
        self.view.node_addresses = (0..=MAX_NODE_ADDRESSES).map(node).collect();
        self
    }

    fn status(&self) -> AddressPoolStatus {
        let shape = PoolShape::with_listed(&self.pool, &self.acceptance.listed);
        let users = [("n1".into(), self.view.used)];
        let now = Time(Timestamp::UNIX_EPOCH);
        compute(&Inputs {
            pool: &self.pool,
            shape: shape.as_ref(),
            view: &self.view,
            acceptance: &self.acceptance,
            users: &users,
            now,
        })
    }
}

fn message(status: &AddressPoolStatus, type_: &str) -> String {
    find(&status.conditions, type_).map(|condition| condition.message.clone()).unwrap_or_default()
}

/// The state, the scene, and then `Ready`, `Accepted`, `BlocksExhausted`, `Exhausted`, `AddressConflict`, `Misconfigured`
/// and `Terminating`, each with its status and reason.
type Row = (&'static str, Scene, [&'static str; 7]);

const ACCEPTED_ALL: &str = "True SubnetsAccepted";
const NO_CONFLICT: &str = "False NoConflict";
const AS_EXPECTED: &str = "False AsExpected";
const FREE: &str = "False FreeBlocks";
const DELETED_UNKNOWN: &str = "Unknown Terminating";

#[rustfmt::skip]
fn table() -> Vec<Row> {
    let none = SelectedNodes::default();
    let out = SelectedNodes { out_of_service: 1, ..none };
    let conflict = "True NodeAddress";
    vec![
        ("ready", Scene::new(), [ACCEPTED_ALL, ACCEPTED_ALL, FREE, FREE, NO_CONFLICT, AS_EXPECTED, ""]),
        ("full", Scene::new().full(), [ACCEPTED_ALL, ACCEPTED_ALL, "True NoFreeBlock", "True NoFreeAddress", NO_CONFLICT, AS_EXPECTED, ""]),
        ("partly refused", Scene::new().partly_refused(), ["True Overlaps", "False PoolOverlap", FREE, FREE, NO_CONFLICT, AS_EXPECTED, ""]),
        ("refused", Scene::new().refused(), ["False Overlaps", "False PoolOverlap", "Unknown NothingAccepted", "Unknown NothingAccepted", NO_CONFLICT, AS_EXPECTED, ""]),
        ("undecided", Scene::new().undecided(), ["False Pending", "Unknown Pending", "Unknown NothingAccepted", "Unknown NothingAccepted", NO_CONFLICT, AS_EXPECTED, ""]),
        ("invalid", Scene::new().invalid(), ["False Invalid", "False Invalid", "Unknown Invalid", "Unknown Invalid", NO_CONFLICT, "Unknown Invalid", ""]),
        ("in the nodes' network", Scene::new().in_node_network(), ["False NodeAddress", ACCEPTED_ALL, "Unknown NodeAddress", "Unknown NodeAddress", conflict, AS_EXPECTED, ""]),
        ("no node admitted", Scene::new().selecting("gpu", none, 3), ["True NoNodeAdmitted", ACCEPTED_ALL, FREE, FREE, NO_CONFLICT, AS_EXPECTED, ""]),
        ("all nodes out of service", Scene::new().selecting("gpu", out, 3), ["True NoNodeAdmitted", ACCEPTED_ALL, FREE, FREE, NO_CONFLICT, AS_EXPECTED, ""]),
        ("no Node exists", Scene::new().selecting("gpu", none, 0), [ACCEPTED_ALL, ACCEPTED_ALL, FREE, FREE, NO_CONFLICT, AS_EXPECTED, ""]),
        ("refused, no node admitted", Scene::new().refused().selecting("gpu", none, 3), ["False Overlaps", "False PoolOverlap", "Unknown NothingAccepted", "Unknown NothingAccepted", NO_CONFLICT, AS_EXPECTED, ""]),
        ("draining", Scene::new().draining(), ["False Draining", ACCEPTED_ALL, "Unknown Draining", "Unknown Draining", NO_CONFLICT, AS_EXPECTED, ""]),
        ("draining and full", Scene::new().full().draining(), ["False Draining", ACCEPTED_ALL, "Unknown Draining", "Unknown Draining", NO_CONFLICT, AS_EXPECTED, ""]),
        ("draining and refused", Scene::new().refused().draining(), ["False Draining", "False PoolOverlap", "Unknown NothingAccepted", "Unknown NothingAccepted", NO_CONFLICT, AS_EXPECTED, ""]),
        ("draining and invalid", Scene::new().invalid().draining(), ["False Invalid", "False Invalid", "Unknown Invalid", "Unknown Invalid", NO_CONFLICT, "Unknown Invalid", ""]),
        ("draining, no node admitted", Scene::new().draining().selecting("gpu", none, 3), ["False Draining", ACCEPTED_ALL, "Unknown Draining", "Unknown Draining", NO_CONFLICT, AS_EXPECTED, ""]),
        ("deleting", Scene::new().deleting(), ["False Terminating", ACCEPTED_ALL, DELETED_UNKNOWN, DELETED_UNKNOWN, NO_CONFLICT, DELETED_UNKNOWN, "True InUse"]),
        ("deleting and full", Scene::new().full().deleting(), ["False Terminating", ACCEPTED_ALL, DELETED_UNKNOWN, DELETED_UNKNOWN, NO_CONFLICT, DELETED_UNKNOWN, "True InUse"]),
        ("deleting and unused", Scene::new().unused().deleting(), ["False Terminating", ACCEPTED_ALL, DELETED_UNKNOWN, DELETED_UNKNOWN, NO_CONFLICT, DELETED_UNKNOWN, "True BlocksClaimed"]),
        ("deleting and draining", Scene::new().draining().deleting(), ["False Terminating", ACCEPTED_ALL, DELETED_UNKNOWN, DELETED_UNKNOWN, NO_CONFLICT, DELETED_UNKNOWN, "True InUse"]),
        ("deleting and undecided", Scene::new().undecided().deleting(), ["False Terminating", DELETED_UNKNOWN, DELETED_UNKNOWN, DELETED_UNKNOWN, NO_CONFLICT, DELETED_UNKNOWN, "True Empty"]),
        ("deleting and invalid", Scene::new().invalid().deleting(), ["False Terminating", "False Invalid", DELETED_UNKNOWN, DELETED_UNKNOWN, NO_CONFLICT, DELETED_UNKNOWN, "True InUse"]),
    ]
}

#[test]
fn all_conditions_agree_in_each_state_of_a_pool() {
    for (name, scene, expected) in table() {
        let status = scene.status();
        let kinds = [READY, ACCEPTED, BLOCKS_EXHAUSTED, EXHAUSTED, ADDRESS_CONFLICT, MISCONFIGURED, TERMINATING];
        let found = kinds.map(|type_| says(&status, type_));
        assert_eq!(found, expected.map(ToOwned::to_owned), "a pool in the state {name:?}");
        if found[0].starts_with("True") {
            continue;
        }
        // No node can claim a block of this pool, so no message may offer addresses or ask for another subnet.
        for condition in &status.conditions {
            for words in ["append a subnet", "has free blocks", "free addresses", "can claim blocks"] {
                let (type_, message) = (&condition.type_, &condition.message);
                assert!(!message.contains(words), "a pool in the state {name:?} has {type_}: {message}");
            }
        }
    }
}

#[test]
fn a_pool_that_admits_no_node_says_why() {
    let none = SelectedNodes::default();
    let scene = Scene::new().selecting("gpu", none, 3);
    let text = message(&scene.status(), READY);
    assert!(text.contains("\"gpu=yes\" selects no Node of the cluster. Correct the selector"), "{text}");
    let more = Scene::new().selecting("gpu", none, 4);
    assert_eq!(message(&more.status(), READY), text, "a new Node must not change the message");
    let out = Scene::new().selecting("gpu", SelectedNodes { out_of_service: 1, ..none }, 3);
    let text = message(&out.status(), READY);
    assert!(text.contains("is out of service"), "{text}");
    let mut invalid = Scene::new().selecting("gpu", none, 3);
    let requirement = k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement {
        key: "zone".to_owned(),
        operator: "In".to_owned(),
        values: None,
    };
    if let Some(selector) = &mut invalid.pool.spec.node_selector {
        selector.match_expressions = Some(vec![requirement]);
    }
    let text = message(&invalid.status(), READY);
    assert!(text.contains("has no values: give at least one"), "{text}");
}

#[test]
fn a_remedy_fits_the_state_of_the_pool() {
    let unused = message(&Scene::new().unused().deleting().status(), TERMINATING);
    assert!(unused.contains("the nodes release these blocks. If a node keeps its block"), "{unused}");
    let refused = message(&Scene::new().refused().draining().status(), READY);
    assert!(refused.contains("correct the subnets as the condition Accepted says"), "{refused}");
    let range = BlockRange::parse(Some("10.0.0.0/28"), None).expect("it is a range");
    let what = "ServiceCIDR s".to_owned();
    let conflict = SubnetConflict { what, range, refusal: &refusal::SERVICE_RANGE, why: "" };
    let mut service = Scene::new();
    service.view.service_ranges = vec![conflict];
    assert!(message(&service.status(), ADDRESS_CONFLICT).contains("drain the pool, or delete"));
    let draining = message(&service.draining().status(), ADDRESS_CONFLICT);
    assert!(draining.contains("delete the pods that use the pool, or delete"), "{draining}");
}
