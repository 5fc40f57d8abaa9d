//! Tests two nodes against a small model of the API server. In a test run, answers are lost, watch events come in any order, and agents
//! restart. Test runs also recreate nodes, edit blocks and restore snapshots.
//!
//! The tests check three rules. Two running pods never have the same address. A block with an address in use is never released. A node
//! allocates only from an exported block that it owns at the API server.

mod administrator;
mod checks;
mod node_operations;
mod restart;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::args::timing::Times;
use crate::cluster::freshness::{FreshnessTracker, Proof};
use steps::{Step, step, step_or_fault};

const BLOCKS: usize = 3;
const NODES: usize = 2;

/// A block in the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stored {
    /// The block's owner: the number of the node, and the UID of its Node.
    owner: Option<(usize, u32)>,
    finalizer: bool,
    deleted: bool,
}

/// The owner in an IPAssignment: the numbers of the node and the container.
type AssignmentOwner = (usize, usize);

#[derive(Clone, Debug, Default)]
struct Api {
    blocks: BTreeMap<usize, Stored>,
    assignments: BTreeMap<IpPair, AssignmentOwner>,
}

/// A node: its agent's state, its checkpoint, and its pods.
struct Node {
    agent: NodeState,
    checkpoint: Vec<CheckpointedBlock>,
    uid: u32,
    /// The addresses of the running pods, by the number of the container.
    pods: BTreeMap<usize, IpPair>,
    /// The containers whose assignments the API server has neither confirmed nor refused yet.
    unanswered: BTreeSet<usize>,
    /// The addresses that the node reported as duplicates, because their assignments name attachments of another node.
    reported: BTreeSet<IpPair>,
}

struct World {
    api: Api,
    snapshot: Option<Api>,
    nodes: Vec<Node>,
    containers: usize,
    faults: bool,
}

/// The owner of a block in the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    NoSuchBlock,
    Free,
    Node((usize, u32)),
}

impl World {
    fn new(faults: bool) -> World {
        let node = |uid| Node {
            agent: NodeState::new(),
            checkpoint: Vec::new(),
            uid,
            pods: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            reported: BTreeSet::new(),
        };
        let blocks = (0..BLOCKS).map(|block| (block, Stored::default())).collect();
        let nodes = (0..NODES).map(|number| node(u32::try_from(number).unwrap() * 100)).collect();
        World { api: Api { blocks, ..Api::default() }, snapshot: None, nodes, containers: 0, faults }
    }

    fn held(block: usize) -> ClaimedBlock {
        ClaimedBlock {
            name: name(block),
            uid: format!("u{block}"),
            resource_version: "1".into(),
            pool: "p".into(),
            index: i64::try_from(block).unwrap(),
            range: range(block),
            free_since: None,
            deleting: false,
        }
    }

    fn owner(&self, block: usize) -> Owner {
        match self.api.blocks.get(&block).filter(|stored| !stored.deleted) {
            None => Owner::NoSuchBlock,
            Some(stored) => stored.owner.map_or(Owner::Free, Owner::Node),
        }
    }

    fn owns(&self, node: usize, block: usize) -> bool {
        self.owner(block) == Owner::Node((node, self.nodes[node].uid))
    }

    fn add_block(&mut self, node: usize, block: usize, proof: Proof) {
        let held = World::held(block);
        let reserved = Reserved::default();
        let new =
            NewBlock { held, cooling_since: None, reserved, proof, now: at(0), not_before: at(0), was_used: false };
        self.nodes[node].agent.add_block(new);
    }

    fn save(&mut self, node: usize, promotions: &[(String, BlockEvent)]) {
        self.nodes[node].checkpoint = self.nodes[node].agent.checkpoint_with(promotions);
    }

    fn promote(&mut self, node: usize, block: usize, event: BlockEvent) {
        self.save(node, &[(name(block), event)]);
        self.nodes[node].agent.on(&name(block), event);
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::RemoveFinalizer(block) => self.remove_finalizer(block),
            Step::Claim { node, block, answer_lost } => self.claim(node, block, answer_lost),
            Step::ReadBackClaim { node } => self.read_back_claims(node),
            Step::Serve { node } => self.serve(node),
            Step::Doubt { node, block } => {
                self.nodes[node].agent.on(&name(block), BlockEvent::Doubt);
            }
            Step::ResolveDoubt { node } => self.resolve_doubts(node),
            Step::Add { node } => self.add(node),
            Step::AnswerAssignments { node } => self.answer_assignments(node),
            Step::Del { node, nth } => self.del(node, nth),
            Step::Release { node, block } => {
                self.nodes[node].agent.begin_release(&name(block));
            }
            Step::ContinueRelease { node, answer_lost } => self.continue_releases(node, answer_lost),
            Step::CancelRelease { node } => {
                let names: Vec<String> = (0..BLOCKS).map(name).collect();
                self.nodes[node].agent.cancel_release(&names, at(0), at(0));
            }
            Step::Restart { node, trusted } => self.restart(node, trusted),
            Step::RecreateNode { node } => {
                self.nodes[node].uid += 1;
                self.nodes[node].agent.doubt_all();
            }
            Step::DeleteNode { node } => self.delete_node(node),
            Step::ClearOwner(block) => {
                if let Some(stored) = self.api.blocks.get_mut(&block) {
                    stored.owner = None;
                }
            }
            Step::DeleteBlock(block) => {
                if let Some(stored) = self.api.blocks.get_mut(&block) {
                    *stored = Stored { deleted: true, ..Stored::default() };
                }
            }
            Step::CarveAgain => self.carve_again(),
            Step::Snapshot => self.snapshot = Some(self.api.clone()),
            Step::RestoreSnapshot => {
                // After the restore, every agent notices a resourceVersion that is lower than an earlier one, and doubts its blocks.
                if let Some(snapshot) = self.snapshot.clone() {
                    self.api = snapshot;
                    (0..NODES).for_each(|node| self.create_missing_assignments(node));
                    self.nodes.iter().for_each(|node| node.agent.doubt_all());
                }
            }
        }
    }

    /// Creates the missing assignments of the node's pods. After an outage or a restored snapshot, each node does this before any block is
    /// claimed.
    fn create_missing_assignments(&mut self, node: usize) {
        for (container, pair) in self.nodes[node].pods.clone() {
            self.api.assignments.entry(pair).or_insert((node, container));
        }
    }
}

/// The proof of a block whose claim was just confirmed.
fn proven() -> Proof {
    FreshnessTracker::new(Times::new(1.0, Duration::from_mins(5)), None).begin_read(at(0)).proof()
}

fn at(seconds: u64) -> BootTime {
    BootTime(Duration::from_secs(seconds))
}

fn name(block: usize) -> String {
    format!("p-{block}")
}

fn range(block: usize) -> BlockRange {
    BlockRange::parse(Some(&format!("10.0.0.{}/31", block * 2)), None).unwrap()
}

fn key(container: usize) -> AttachmentKey {
    AttachmentKey::new(format!("c{container}"), "eth0")
}

fn attachment(container: usize, pair: IpPair) -> Attachment {
    Attachment {
        key: key(container),
        pair,
        block: String::new(),
        pool: "p".into(),
        pod: PodRef::default(),
        created_at: jiff::Timestamp::UNIX_EPOCH,
        boot_id: "boot".into(),
        assignment_uid: None,
        phase: AttachmentPhase::Live,
        netns: None,
        network: None,
        pod_seen: false,
        links: None,
    }
}

fn block_of(pair: IpPair) -> usize {
    (0..BLOCKS).find(|block| pair.addresses().all(|ip| range(*block).offset_of(ip).is_some())).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_address_is_used_twice_despite_lost_answers_and_restarts(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut world = World::new(false);
        for step in &steps {
            world.apply(step);
            world.check_no_duplicate();
            world.check_checkpoint();
        }
    }

    #[test]
    fn each_duplicate_that_an_administrator_causes_is_reported(
        steps in prop::collection::vec(step_or_fault(), 1..150),
    ) {
        let mut world = World::new(true);
        for step in &steps {
            world.apply(step);
        }
        world.settle();
        world.check_duplicates_are_reported();
    }
}
