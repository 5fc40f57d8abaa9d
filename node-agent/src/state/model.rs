//! The block states of two nodes against a small model of the API server: claims with lost answers, watch events in any order, restarts at
//! any point, nodes that are re-created or reclaimed, blocks edited or deleted by hand, snapshots restored.
//!
//! The oracle knows the rules and nothing of the code: two living attachments never have one address; an address in use is never given
//! back; a node assigns only from a block that the API server says is its own, and only when it is exported.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::args::timing::Times;
use crate::cluster::freshness::{FreshnessTracker, Proof};

const BLOCKS: usize = 3;
const NODES: usize = 2;

/// A block at the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stored {
    /// Node and the UID of its Node.
    owner: Option<(usize, u32)>,
    finalizer: bool,
    deleted: bool,
}

/// A record: node and container.
type Record = (usize, usize);

#[derive(Clone, Debug, Default)]
struct Api {
    blocks: BTreeMap<usize, Stored>,
    records: BTreeMap<IpPair, Record>,
}

/// A node: what its agent keeps in memory and in the checkpoint, and what runs on it.
struct Node {
    agent: NodeState,
    checkpoint: Vec<SavedBlock>,
    uid: u32,
    /// Pods that run: container and address.
    pods: BTreeMap<usize, IpPair>,
    /// Attachments whose record was not answered yet.
    unanswered: BTreeSet<usize>,
    /// Addresses of which it told that another attachment has a record.
    told: BTreeSet<IpPair>,
}

#[derive(Clone, Debug)]
enum Step {
    /// The operator takes the finalizer off a free block without records.
    TidyFinalizer(usize),
    Claim {
        node: usize,
        block: usize,
        answer_lost: bool,
    },
    ReadBackClaim {
        node: usize,
    },
    Serve {
        node: usize,
    },
    /// A watch event, new or old, says that the block left.
    Doubt {
        node: usize,
        block: usize,
    },
    ResolveDoubt {
        node: usize,
    },
    Add {
        node: usize,
    },
    AnswerRecords {
        node: usize,
    },
    Del {
        node: usize,
        nth: usize,
    },
    Release {
        node: usize,
        block: usize,
    },
    ContinueRelease {
        node: usize,
        answer_lost: bool,
    },
    CancelRelease {
        node: usize,
    },
    Restart {
        node: usize,
        trusted: bool,
    },
    /// The Node is deleted and made again; what runs on it goes on.
    RecreateNode {
        node: usize,
    },
    /// The machine is off and its Node deleted; the operator frees what it had.
    Reclaim {
        node: usize,
    },
    /// Somebody frees a claimed block by hand.
    FreeByHand(usize),
    /// Somebody deletes a block by hand, past its finalizer.
    DeleteByHand(usize),
    /// The pool is deleted and made again: blocks without records are carved anew.
    CarveAnew,
    Snapshot,
    RestoreSnapshot,
}

/// What happens with nobody's hand in it.
fn step() -> impl Strategy<Value = Step> {
    let (node, block) = (0..NODES, 0..BLOCKS);
    prop_oneof![
        2 => block.clone().prop_map(Step::TidyFinalizer),
        6 => (node.clone(), block.clone(), prop::bool::weighted(0.3)).prop_map(|(node, block, answer_lost)| Step::Claim { node, block, answer_lost }),
        3 => node.clone().prop_map(|node| Step::ReadBackClaim { node }),
        6 => node.clone().prop_map(|node| Step::Serve { node }),
        2 => (node.clone(), block.clone()).prop_map(|(node, block)| Step::Doubt { node, block }),
        5 => node.clone().prop_map(|node| Step::ResolveDoubt { node }),
        8 => node.clone().prop_map(|node| Step::Add { node }),
        4 => node.clone().prop_map(|node| Step::AnswerRecords { node }),
        4 => (node.clone(), 0_usize..8).prop_map(|(node, nth)| Step::Del { node, nth }),
        4 => (node.clone(), block.clone()).prop_map(|(node, block)| Step::Release { node, block }),
        8 => (node.clone(), prop::bool::weighted(0.3)).prop_map(|(node, answer_lost)| Step::ContinueRelease { node, answer_lost }),
        2 => node.clone().prop_map(|node| Step::CancelRelease { node }),
        2 => (node.clone(), any::<bool>()).prop_map(|(node, trusted)| Step::Restart { node, trusted }),
        1 => node.clone().prop_map(|node| Step::RecreateNode { node }),
        1 => node.prop_map(|node| Step::Reclaim { node }),
    ]
}

/// The same, and what administrators do.
fn step_or_fault() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => step(),
        1 => prop_oneof![
            (0..BLOCKS).prop_map(Step::FreeByHand),
            (0..BLOCKS).prop_map(Step::DeleteByHand),
            Just(Step::CarveAnew),
            Just(Step::Snapshot),
            Just(Step::RestoreSnapshot),
        ],
    ]
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
        phase: Phase::Live,
        netns: None,
        network: None,
        pod_seen: false,
        links: None,
    }
}

fn block_of(pair: IpPair) -> usize {
    (0..BLOCKS).find(|block| pair.addresses().all(|ip| range(*block).offset_of(ip).is_some())).unwrap()
}

struct World {
    api: Api,
    snapshot: Option<Api>,
    nodes: Vec<Node>,
    containers: usize,
    faults: bool,
}

/// Whose a block is by the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    NoSuchBlock,
    Nobody,
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
            told: BTreeSet::new(),
        };
        let blocks = (0..BLOCKS).map(|block| (block, Stored::default())).collect();
        let nodes = (0..NODES).map(|number| node(u32::try_from(number).unwrap() * 100)).collect();
        World { api: Api { blocks, ..Api::default() }, snapshot: None, nodes, containers: 0, faults }
    }

    fn held(block: usize) -> HeldBlock {
        HeldBlock {
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
            Some(stored) => stored.owner.map_or(Owner::Nobody, Owner::Node),
        }
    }

    fn is_ours(&self, node: usize, block: usize) -> bool {
        self.owner(block) == Owner::Node((node, self.nodes[node].uid))
    }

    fn arrive(&mut self, node: usize, block: usize, proof: Proof) {
        let held = World::held(block);
        let reserved = Reserved::default();
        let arrival =
            Arrival { held, cooling_since: None, reserved, proof, now: at(0), not_before: at(0), was_used: false };
        self.nodes[node].agent.arrive(arrival);
    }

    fn save(&mut self, node: usize, promotions: &[(String, BlockEvent)]) {
        self.nodes[node].checkpoint = self.nodes[node].agent.saved_with(promotions);
    }

    fn promote(&mut self, node: usize, block: usize, event: BlockEvent) {
        self.save(node, &[(name(block), event)]);
        self.nodes[node].agent.on(&name(block), event);
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::TidyFinalizer(block) => self.tidy_finalizer(block),
            Step::Claim { node, block, answer_lost } => self.claim(node, block, answer_lost),
            Step::ReadBackClaim { node } => self.read_back_claims(node),
            Step::Serve { node } => self.serve(node),
            Step::Doubt { node, block } => {
                self.nodes[node].agent.on(&name(block), BlockEvent::Doubt);
            }
            Step::ResolveDoubt { node } => self.resolve_doubts(node),
            Step::Add { node } => self.add(node),
            Step::AnswerRecords { node } => self.answer_records(node),
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
            Step::Reclaim { node } => self.reclaim(node),
            Step::FreeByHand(block) => {
                if let Some(stored) = self.api.blocks.get_mut(&block) {
                    stored.owner = None;
                }
            }
            Step::DeleteByHand(block) => {
                if let Some(stored) = self.api.blocks.get_mut(&block) {
                    *stored = Stored { deleted: true, ..Stored::default() };
                }
            }
            Step::CarveAnew => self.carve_anew(),
            Step::Snapshot => self.snapshot = Some(self.api.clone()),
            Step::RestoreSnapshot => {
                // Every agent notices: an answer went back in time.
                if let Some(snapshot) = self.snapshot.clone() {
                    self.api = snapshot;
                    (0..NODES).for_each(|node| self.write_residents_again(node));
                    self.nodes.iter().for_each(|node| node.agent.doubt_all());
                }
            }
        }
    }

    /// After an outage or a step back in time residents are recorded before any block is claimed.
    fn write_residents_again(&mut self, node: usize) {
        for (container, pair) in self.nodes[node].pods.clone() {
            self.api.records.entry(pair).or_insert((node, container));
        }
    }

    fn tidy_finalizer(&mut self, block: usize) {
        let recorded = self.api.records.keys().any(|pair| block_of(*pair) == block);
        if let Some(stored) = self.api.blocks.get_mut(&block).filter(|stored| stored.owner.is_none() && !recorded) {
            stored.finalizer = false;
        }
    }

    fn claim(&mut self, node: usize, block: usize, answer_lost: bool) {
        if !self.nodes[node].agent.begin_claim(&name(block), "p") {
            return;
        }
        let uid = self.nodes[node].uid;
        let free = self.owner(block) == Owner::Nobody;
        let had_finalizer = self.api.blocks.get(&block).is_some_and(|stored| stored.finalizer);
        if free && let Some(stored) = self.api.blocks.get_mut(&block) {
            *stored = Stored { owner: Some((node, uid)), finalizer: true, deleted: false };
        }
        if !answer_lost {
            if free {
                self.arrive(node, block, if had_finalizer { Proof::AssignmentsUnseen } else { proven() });
            } else {
                self.nodes[node].agent.on(&name(block), BlockEvent::ClaimFailed);
            }
        }
    }

    fn read_back_claims(&mut self, node: usize) {
        for block in 0..BLOCKS {
            if matches!(self.nodes[node].agent.block_state(&name(block)), Some(BlockState::Claiming { .. })) {
                if self.is_ours(node, block) {
                    self.arrive(node, block, Proof::AssignmentsUnseen);
                } else {
                    self.nodes[node].agent.on(&name(block), BlockEvent::ClaimFailed);
                }
            }
        }
    }

    fn serve(&mut self, node: usize) {
        for block in 0..BLOCKS {
            if let Some(BlockState::Exporting { .. }) = self.nodes[node].agent.block_state(&name(block)) {
                self.promote(node, block, BlockEvent::ExportedBlocks);
            }
        }
    }

    fn resolve_doubts(&mut self, node: usize) {
        for block in 0..BLOCKS {
            let Some(BlockState::Doubted { doubts, .. }) = self.nodes[node].agent.block_state(&name(block)) else {
                continue;
            };
            let uid = self.nodes[node].uid;
            match self.owner(block) {
                Owner::Node((owner, _)) if owner == node => {
                    self.api.blocks.get_mut(&block).unwrap().owner = Some((node, uid));
                    self.promote(node, block, BlockEvent::FoundOurs { now: at(0), doubts });
                }
                Owner::Node(_) => drop(self.nodes[node].agent.found_others(&name(block))),
                Owner::Nobody => {
                    if !self.nodes[node].agent.found_vacant(&name(block)) {
                        self.write_residents_again(node);
                        *self.api.blocks.get_mut(&block).unwrap() =
                            Stored { owner: Some((node, uid)), finalizer: true, deleted: false };
                        self.promote(node, block, BlockEvent::FoundOurs { now: at(0), doubts });
                    }
                }
                Owner::NoSuchBlock => {
                    self.nodes[node].agent.found_vacant(&name(block));
                }
            }
        }
    }

    fn add(&mut self, node: usize) {
        // An address that another attachment has a record of is passed over when the ADD waits for the answer.
        for _ in 0..4 {
            let container = self.containers;
            self.containers += 1;
            let (key, pod) = (key(container), PodRef::default());
            let request = Request {
                key: &key,
                pod: &pod,
                pod_seen: false,
                network: None,
                pool: "p",
                cooldown: Duration::ZERO,
                boot_id: "boot",
                netns: None,
                at: jiff::Timestamp::UNIX_EPOCH,
            };
            let Ok(Taken { attachment, permit }) = self.nodes[node].agent.assign(&request, at(1)) else { return };
            let (pair, block) = (attachment.pair, block_of(attachment.pair));
            assert!(self.nodes[node].agent.exported().contains(&range(block)), "assigned before it was exported");
            if !self.faults {
                assert!(self.is_ours(node, block) || self.was_recreated(node, block), "n{node} assigned from {block}");
            }
            let foreign = self.api.records.get(&pair).filter(|(owner, _)| *owner != node).copied();
            if permit.proof != proven() && foreign.is_some() {
                self.nodes[node].agent.release(&key, at(1));
                let by = "another node".to_owned();
                self.nodes[node].agent.pass_over(ConflictingAssignment { pair, name: name(block), by });
                continue;
            }
            self.nodes[node].agent.update(&key, |attachment| attachment.phase = Phase::Live);
            self.nodes[node].pods.insert(container, pair);
            self.nodes[node].unanswered.insert(container);
            return;
        }
    }

    /// A Node that was just made again still has what its earlier self had.
    fn was_recreated(&self, node: usize, block: usize) -> bool {
        matches!(self.owner(block), Owner::Node((owner, _)) if owner == node)
    }

    fn answer_records(&mut self, node: usize) {
        for container in std::mem::take(&mut self.nodes[node].unanswered) {
            let Some(pair) = self.nodes[node].pods.get(&container).copied() else { continue };
            let (owner, _) = *self.api.records.entry(pair).or_insert((node, container));
            if owner != node {
                self.nodes[node].told.insert(pair);
            }
            let others = matches!(self.owner(block_of(pair)), Owner::Node((block_owner, _)) if block_owner == owner);
            if owner != node && others {
                // Found late: the other node has the block, so this attachment ends.
                self.nodes[node].pods.remove(&container);
                self.nodes[node].agent.release(&key(container), at(2));
            }
        }
    }

    fn del(&mut self, node: usize, nth: usize) {
        let containers: Vec<usize> = self.nodes[node].pods.keys().copied().collect();
        if containers.is_empty() {
            return;
        }
        let container = containers[nth % containers.len()];
        let pair = self.nodes[node].pods.remove(&container).unwrap();
        self.nodes[node].unanswered.remove(&container);
        if self.api.records.get(&pair) == Some(&(node, container)) {
            self.api.records.remove(&pair);
        }
        assert!(self.nodes[node].agent.release(&key(container), at(2)).is_some());
    }

    fn send_release(&mut self, node: usize, block: usize) {
        assert!(!self.nodes[node].pods.values().any(|pair| block_of(*pair) == block), "an address in use was set free");
        if self.was_recreated(node, block) {
            self.api.blocks.get_mut(&block).unwrap().owner = None;
        }
    }

    /// One step of each release.
    fn continue_releases(&mut self, node: usize, answer_lost: bool) {
        for block in 0..BLOCKS {
            let name = name(block);
            let Some(BlockState::Releasing { stage, .. }) = self.nodes[node].agent.block_state(&name) else {
                continue;
            };
            match stage {
                Release::DeletingRecords => {
                    self.nodes[node].agent.on(&name, BlockEvent::RecordsGone);
                }
                Release::WithdrawingRoute => {
                    assert!(!self.nodes[node].agent.exported().contains(&range(block)), "given back while exported");
                    self.save(node, &[]);
                    self.nodes[node].agent.on(&name, BlockEvent::ReleaseSent);
                    self.save(node, &[]);
                    self.send_release(node, block);
                    if !answer_lost {
                        self.nodes[node].agent.on(&name, BlockEvent::Released);
                    }
                }
                // What is still ours is sent again.
                Release::Sent => {
                    self.send_release(node, block);
                    self.nodes[node].agent.on(&name, BlockEvent::Released);
                }
            }
        }
    }

    fn restart(&mut self, node: usize, trusted: bool) {
        // The ledger changed since: what lets fewer addresses go out is written next, and may not have been.
        let fresh = NodeState::new();
        for saved in self.nodes[node].checkpoint.clone() {
            let proof = saved.proof();
            let SavedBlock { block, state, .. } = saved;
            if let Some(state) = state.restored(trusted) {
                let reserved = Reserved::default();
                let arrival = Arrival {
                    held: block,
                    cooling_since: None,
                    reserved,
                    proof,
                    now: at(0),
                    not_before: at(0),
                    was_used: false,
                };
                fresh.restore_block(arrival, state);
            }
        }
        for (container, pair) in &self.nodes[node].pods {
            fresh.restore(attachment(*container, *pair));
        }
        self.nodes[node].agent = fresh;
        // The first read of own blocks, before anything is assigned.
        let known: Vec<String> = self.nodes[node].agent.blocks().into_iter().map(|block| block.held.name).collect();
        for block in 0..BLOCKS {
            let ours = self.was_recreated(node, block);
            if known.contains(&name(block)) && !self.is_ours(node, block) {
                self.nodes[node].agent.on(&name(block), BlockEvent::Doubt);
            } else if ours && !known.contains(&name(block)) {
                self.api.blocks.get_mut(&block).unwrap().owner = Some((node, self.nodes[node].uid));
                self.arrive(node, block, Proof::AssignmentsUnseen);
            }
        }
        self.save(node, &[]);
    }

    fn reclaim(&mut self, node: usize) {
        // The machine is off: nothing of it lives, and its agent comes back with a new boot.
        let uid = self.nodes[node].uid + 1;
        self.api.records.retain(|_, (owner, _)| *owner != node);
        for stored in
            self.api.blocks.values_mut().filter(|stored| matches!(stored.owner, Some((owner, _)) if owner == node))
        {
            *stored = Stored::default();
        }
        self.nodes[node] = Node {
            agent: NodeState::new(),
            checkpoint: Vec::new(),
            uid,
            pods: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            told: BTreeSet::new(),
        };
    }

    fn carve_anew(&mut self) {
        for block in 0..BLOCKS {
            let missing = self.api.blocks[&block].deleted;
            let recorded: BTreeSet<usize> = self
                .api
                .records
                .iter()
                .filter(|(pair, _)| block_of(**pair) == block)
                .map(|(_, (node, _))| *node)
                .collect();
            // With records of one living node the block is carved for that node, with records of several not at all.
            let owner = recorded.iter().next().map(|node| (*node, self.nodes[*node].uid));
            if missing && recorded.len() < 2 {
                let finalizer = owner.is_some();
                *self.api.blocks.get_mut(&block).unwrap() = Stored { owner, finalizer, deleted: false };
            }
        }
    }

    /// Everything that is under way ends, as it does when nothing new happens.
    fn settle(&mut self) {
        for _ in 0..3 {
            for node in 0..NODES {
                self.write_residents_again(node);
                self.read_back_claims(node);
                self.nodes[node].agent.doubt_all();
                self.resolve_doubts(node);
                self.serve(node);
                let pods = self.nodes[node].pods.keys().copied().collect();
                self.nodes[node].unanswered = pods;
                self.answer_records(node);
            }
        }
    }

    fn check_no_duplicate(&self) {
        let mut seen = BTreeMap::new();
        for (number, node) in self.nodes.iter().enumerate() {
            for (container, pair) in &node.pods {
                if let Some(other) = seen.insert(*pair, (number, *container)) {
                    panic!("{pair} is in use twice: by {other:?} and by n{number}, container {container}");
                }
            }
        }
    }

    /// A duplicate that an edit by hand made is told at a node: the block of one of the two is lost there, or its record was refused.
    fn check_duplicates_are_reported(&self) {
        let mut holders: BTreeMap<IpPair, Vec<usize>> = BTreeMap::new();
        for (number, node) in self.nodes.iter().enumerate() {
            node.pods.values().for_each(|pair| holders.entry(*pair).or_default().push(number));
        }
        for (pair, nodes) in holders.into_iter().filter(|(_, nodes)| nodes.len() > 1) {
            let block = name(block_of(pair));
            let lost = |node: &usize| self.nodes[*node].agent.block_state(&block) == Some(BlockState::Lost);
            let told = |node: &usize| lost(node) || self.nodes[*node].told.contains(&pair);
            assert!(nodes.iter().any(told), "{pair} is in use on the nodes {nodes:?}, and no node reports it");
        }
    }

    fn check_checkpoint(&self) {
        for (number, node) in self.nodes.iter().enumerate() {
            for saved in node.checkpoint.iter().filter(|saved| saved.state == BlockState::Serving) {
                let block = (0..BLOCKS).find(|block| name(*block) == saved.block.name).unwrap();
                assert!(
                    self.was_recreated(number, block),
                    "the checkpoint of n{number} trusts a block of another node"
                );
            }
        }
    }
}

/// The proof of a block whose claim the API server has just confirmed.
fn proven() -> Proof {
    FreshnessTracker::new(Times::new(1.0, Duration::from_mins(5)), None).begin_read(at(0)).proof()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_address_is_ever_in_use_twice_whatever_is_lost_repeated_or_restarted(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut world = World::new(false);
        for step in &steps {
            world.take(step);
            world.check_no_duplicate();
            world.check_checkpoint();
        }
    }

    #[test]
    fn after_edits_by_hand_and_restored_snapshots_no_duplicate_stays_unreported(
        steps in prop::collection::vec(step_or_fault(), 1..150),
    ) {
        let mut world = World::new(true);
        for step in &steps {
            world.take(step);
        }
        world.settle();
        world.check_duplicates_are_reported();
    }
}
