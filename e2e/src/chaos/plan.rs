//! Plans a chaos run: the kind of each fault, its node, its begin and its end. The module is pure: the same seed always
//! gives the same plan.

use std::time::Duration;

use super::requests::{Program, Requests};

/// The largest number of faults that are active at once.
const MAX_ACTIVE: usize = 3;

/// A kind of fault that the run causes from outside of Bobbin's programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// SIGKILL for the agent of a node.
    AgentKilled,
    /// The agent of a node gets SIGSTOP, and continues when the fault ends.
    AgentFrozen,
    /// SIGKILL for every operator.
    OperatorsKilled,
    /// The leading operator gets SIGSTOP for longer than its lease lasts, and continues when the fault ends.
    LeaderFrozen,
    /// SIGKILL for the API server, which starts again when the fault ends.
    ApiServerDown,
    /// The API server accepts connections but does not answer.
    ApiServerFrozen,
    /// The node's network cable is unplugged.
    Partition,
    /// The node loses its power, and boots when the fault ends.
    PowerCut,
    /// SIGKILL for the kubelet of a node.
    KubeletKilled,
    /// SIGKILL for the containerd of a node.
    ContainerdKilled,
    /// The Node object is deleted while the node's pods run. The kubelet gets SIGKILL, so that its next
    /// start registers the Node again.
    NodeDeleted,
    /// Another program deletes the routes in the pod table of a node.
    PodRoutesDeleted,
    /// Another program deletes the routes in the export table of a node.
    ExportedRoutesDeleted,
    /// Another program deletes Bobbin's routing rules of a node.
    RulesDeleted,
    /// Another program deletes the CNI configuration of a node.
    ConfigurationDeleted,
    /// Requests of a program arrive late.
    RequestsDelayed,
    /// The API server applies writes of a program, but the program does not receive the answers.
    AnswersLost,
    /// Writes of a program reach the API server twice.
    WritesRepeated,
    /// The API server answers writes of a program with status 409.
    WritesConflict,
    /// The API server answers requests of a program with status 429 and `Retry-After`.
    RequestsThrottled,
    /// The API server answers requests of a program with status 500.
    RequestsFail,
    /// The API server answers requests of a program with status 503.
    RequestsUnavailable,
    /// The connections of a program's requests are reset.
    RequestsReset,
    /// Open watches of a program stay open but deliver no events. When the fault ends, these watches are reset.
    WatchesFrozen,
    /// A watch of a program misses one event.
    EventDropped,
    /// The connections of all requests and watches of a program are reset.
    ClientCutOff,
}

impl FaultKind {
    /// All kinds.
    pub const ALL: [Self; 26] = [
        Self::AgentKilled,
        Self::AgentFrozen,
        Self::OperatorsKilled,
        Self::LeaderFrozen,
        Self::ApiServerDown,
        Self::ApiServerFrozen,
        Self::Partition,
        Self::PowerCut,
        Self::KubeletKilled,
        Self::ContainerdKilled,
        Self::NodeDeleted,
        Self::PodRoutesDeleted,
        Self::ExportedRoutesDeleted,
        Self::RulesDeleted,
        Self::ConfigurationDeleted,
        Self::RequestsDelayed,
        Self::AnswersLost,
        Self::WritesRepeated,
        Self::WritesConflict,
        Self::RequestsThrottled,
        Self::RequestsFail,
        Self::RequestsUnavailable,
        Self::RequestsReset,
        Self::WatchesFrozen,
        Self::EventDropped,
        Self::ClientCutOff,
    ];

    /// The shortest and the longest duration of the fault, in seconds. A fault with the duration zero ends at once.
    fn seconds(self) -> (u64, u64) {
        match self {
            Self::AgentFrozen | Self::Partition | Self::ApiServerDown | Self::ApiServerFrozen => (2, 14),
            Self::LeaderFrozen => (16, 24),
            Self::PowerCut => (1, 6),
            _ if self.concerns_requests() => (3, 15),
            _ => (0, 0),
        }
    }

    /// Whether the API proxy causes the fault. Such a fault affects requests or watches of one program.
    pub fn concerns_requests(self) -> bool {
        self >= Self::RequestsDelayed
    }

    /// Whether the fault affects the operators or the API server, and not one node.
    pub fn is_central(self) -> bool {
        matches!(self, Self::OperatorsKilled | Self::LeaderFrozen | Self::ApiServerDown | Self::ApiServerFrozen)
    }
}

/// One fault of the plan. Times count from the start of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFault {
    /// The kind of the fault.
    pub kind: FaultKind,
    /// The index of the node that the fault affects.
    pub node: usize,
    /// The requests that the fault affects, if the API proxy causes the fault.
    pub requests: Option<Requests>,
    /// When the fault begins.
    pub begin: Duration,
    /// When the fault ends.
    pub end: Duration,
}

impl PlannedFault {
    /// Whether both faults affect the same place: the control plane, one node, or the requests of one program.
    pub fn same_place(&self, other: &Self) -> bool {
        match (&self.requests, &other.requests) {
            (Some(requests), Some(others)) => {
                requests.program == others.program && (requests.program == Program::Operator || self.node == other.node)
            }
            (None, None) => match (self.kind.is_central(), other.kind.is_central()) {
                (true, true) => true,
                (false, false) => self.node == other.node,
                _ => false,
            },
            _ => false,
        }
    }

    /// Whether both faults would be active in the same place at the same time.
    fn collides(&self, other: &Self) -> bool {
        self.same_place(other) && self.begin <= other.end && other.begin <= self.end
    }
}

/// Plans a run of this length. Every kind of fault happens once before any kind happens again.
pub fn plan(seed: u64, length: Duration, nodes: usize) -> Vec<PlannedFault> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut plan: Vec<PlannedFault> = Vec::new();
    let mut kinds: Vec<FaultKind> = Vec::new();
    let mut now = Duration::from_secs(2);
    while now < length {
        if kinds.is_empty() {
            kinds = FaultKind::ALL.to_vec();
            random.shuffle(&mut kinds);
        }
        let may_begin = plan.iter().filter(|fault| fault.end >= now).count() < MAX_ACTIVE;
        if let Some(fault) = may_begin.then(|| kinds.pop()).flatten() {
            let (shortest, longest) = fault.seconds();
            let planned = PlannedFault {
                kind: fault,
                node: random.usize(..nodes),
                requests: fault.concerns_requests().then(|| Requests::choose(fault, &mut random)),
                begin: now,
                end: (now + Duration::from_secs(random.u64(shortest..=longest))).min(length),
            };
            if plan.iter().any(|other| planned.collides(other)) {
                // Put this kind of fault at the end of the queue. When the plan takes it from there, it chooses another
                // node or other requests.
                kinds.insert(0, fault);
            } else {
                plan.push(planned);
            }
        }
        now += Duration::from_millis(random.u64(500..3000));
    }
    plan
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LENGTH: Duration = Duration::from_mins(10);

    #[test]
    fn one_seed_gives_one_plan() {
        assert_eq!(plan(7, LENGTH, 3), plan(7, LENGTH, 3));
        assert_ne!(plan(7, LENGTH, 3), plan(8, LENGTH, 3));
    }

    #[test]
    fn a_long_run_has_every_kind_on_every_node_and_ends_all_faults() {
        for seed in 0..50 {
            let plan = plan(seed, LENGTH, 3);
            let kinds: BTreeSet<FaultKind> = plan.iter().map(|fault| fault.kind).collect();
            let nodes: BTreeSet<usize> = plan.iter().map(|fault| fault.node).collect();
            assert_eq!((kinds.len(), nodes.len()), (FaultKind::ALL.len(), 3), "seed {seed}");
            assert!(plan.iter().all(|fault| fault.begin <= fault.end && fault.end <= LENGTH), "seed {seed}");
        }
    }

    #[test]
    fn faults_of_one_place_do_not_overlap_and_at_most_three_are_active() {
        for seed in 0..50 {
            let plan = plan(seed, LENGTH, 3);
            for (index, fault) in plan.iter().enumerate() {
                assert!(!plan[..index].iter().any(|other| fault.collides(other)), "seed {seed}: {fault:?}");
                let active = plan[..index].iter().filter(|other| other.end >= fault.begin).count();
                assert!(active < MAX_ACTIVE, "seed {seed}: {fault:?}");
            }
        }
    }
}
