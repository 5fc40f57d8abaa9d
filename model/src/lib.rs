//! A model of the protocol between agents, operators and the API server, for the model checker `stateright`.
//!
//! The cluster has two nodes, two blocks of one address each, and two attachments. `BlockState`, `Proof` and `DeletionGuard` are the
//! product's own code. The model's steps call the API server, write the checkpoint and change the kernel in the same order as the product's
//! tasks. After each step, any part of the cluster may take the next step.
//!
//! The bounds of the model are the assumptions of the protocol:
//!
//! - When the grace period of a deleted Node is over, the Node's machine is off or runs no pod. If the machine is on, its agent is stopped
//!   or knows that the Node was deleted.
//! - After a restore, every running node catches up before the first quiet time ends. A node has caught up when it has contacted the API
//!   server, compared assignments and blocks, read doubted blocks, and sent queued assignments. Until the first quiet time ends, no machine
//!   boots or loses power, and no node is cut off.
//! - A restore ends every write in flight. The boot of a machine ends every write that the machine sent before. After a restore, no
//!   write gets a resourceVersion that the API server used before the restore.
//! - If the API server no longer has a pod, the kubelet ends the pod's container between two observations of the pod.
//!
//! The model leaves out:
//!
//! - Time: cool-downs, breakers, and which of several waits ends first. In the model, an ADD may take an address of any serving
//!   block, and an agent may claim any free block.
//! - Pools: selection, draining, deletion, carving, subnets. So no block retires, and no block object is deleted.
//! - Edits by administrators, admission policies, `--mode=remove`, and the taint `out-of-service`.
//! - Several addresses in one block, two address families, and every part of the kernel except table 119.
//! - Late or lost deletions of assignments, and the order of writes in the agent's queue.
//! - The time between a LIST response and the decision that uses it. Both are one step, except where the documentation of a step says
//!   otherwise.
//! - Some states of the checkpoint. At a crash, the checkpoint has either the latest list of blocks, or the latest list whose write a step
//!   waited for.
//! - Watches that receive no events. In the model, a proven block stays proven until an invalidation.

mod action;
mod agent;
mod api;
mod fault;
mod operator;
mod permute;
mod pod;
mod properties;
mod world;

use stateright::{Model, Property};

use action::{Action, AgentStep, Answer, Fault, OperatorStep, PodStep};
use world::{ADDRESSES, BLOCKS, NODES, OPERATORS, PODS, Plan};
pub use world::{Budget, World};

/// The protocol, or a wrong variant of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// The protocol as Bobbin implements it.
    Bobbin,
    /// If the confirmation of an assignment does not arrive in time, the ADD answers even if the node has not listed the block's
    /// assignments.
    AnswerUnlisted,
    /// A restart of the agent ends the quiet time.
    ForgetQuietTime,
    /// An agent sends the write that releases a block before it withdraws the block's route.
    ReleaseBeforeWithdrawing,
    /// An agent releases a block before it deletes its node's assignments in the block.
    ReleaseBeforeDeleting,
    /// One observation is enough to free an attachment.
    FreeOnOneLook,
    /// An ADD that takes an address of an unproven block does not wait for the confirmation of its assignment.
    AnswerUnproven,
    /// An agent trusts its saved blocks after a long absence.
    TrustAfterLongAbsence,
    /// After a restore, claimed blocks enter service at once.
    NoQuietTime,
    /// An assignment that can't be decoded counts as absent.
    UnreadableIsAbsent,
}

impl Variant {
    fn waits_for_list(self) -> bool {
        self != Variant::AnswerUnlisted
    }

    fn keeps_quiet_time(self) -> bool {
        self != Variant::ForgetQuietTime
    }
}

/// Where the model begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// No node has a block.
    Empty,
    /// A pod is running on node 0, but a restored snapshot shows the pod's block as free. No node has noticed the restore yet.
    Restored,
}

/// The protocol in a cluster with a limited number of faults.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// The protocol, or a wrong variant of it.
    pub variant: Variant,
    /// How many faults may happen.
    pub budget: Budget,
    /// Where the model begins.
    pub start: Start,
    /// Whether states that differ only in the numbering of nodes and blocks count as one state. If they count as one state, a node or block
    /// may have a different number in each step of a path.
    pub symmetric: bool,
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![match self.start {
            Start::Empty => World::new(self.budget),
            Start::Restored => restored(self.budget),
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.broken.is_some() {
            return;
        }
        for node in 0..NODES {
            agent_steps(world, node, actions);
            faults(world, node, actions);
        }
        for pod in 0..PODS {
            pod_steps(world, pod, actions);
        }
        let busy = world.operators.iter().filter(|plan| **plan != Plan::Idle).count();
        for operator in 0..OPERATORS {
            let mut push = |step| actions.push(Action::Operator(operator, step));
            if busy < usize::from(world.budget.operators) {
                (0..NODES).for_each(|node| push(OperatorStep::PlanReclaim { node }));
                (0..BLOCKS).for_each(|block| push(OperatorStep::PlanFinalizer { block }));
            }
            push(OperatorStep::DeleteAssignments);
            push(OperatorStep::ReleaseBlocks);
            push(OperatorStep::RemoveFinalizer);
        }
        actions.extend([Fault::Snapshot, Fault::Restore].map(Action::Fault));
        actions.extend((0..ADDRESSES).map(|address| Action::Fault(Fault::Unreadable { address })));
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = *world;
        let changed = match action {
            Action::Agent(node, step) => next.agent_step(self.variant, node, step),
            Action::Pod(pod, step) => next.pod_step(self.variant, pod, step),
            Action::Operator(operator, step) => next.operator_step(operator, step),
            Action::Fault(fault) => next.fault(self.variant, fault),
        };
        if !changed {
            return None;
        }
        next.normalize();
        Some(if self.symmetric { next.representative() } else { next })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

fn agent_steps(world: &World, node: usize, actions: &mut Vec<Action>) {
    if !world.nodes[node].agent {
        return;
    }
    let answers = answers(world);
    let mut push = |step| actions.push(Action::Agent(node, step));
    for block in 0..BLOCKS {
        for answer in answers {
            push(AgentStep::Claim { block, answer: *answer });
            push(AgentStep::SendRelease { block, answer: *answer });
        }
        push(AgentStep::ReadBackClaim { block });
        push(AgentStep::Export { block });
        push(AgentStep::Doubt { block });
        push(AgentStep::ReadDoubted { block });
        push(AgentStep::BeginRelease { block });
        push(AgentStep::ListOwnAssignments { block });
        push(AgentStep::Withdraw { block });
        push(AgentStep::CancelRelease { block });
        push(AgentStep::ListAssignments { block });
    }
    push(AgentStep::ApplyRead);
    push(AgentStep::CompareAssignments);
    push(AgentStep::CompareBlocks);
    push(AgentStep::SeeNode);
    push(AgentStep::NoticeRestore);
    push(AgentStep::QuietTimeEnds);
    push(AgentStep::Look);
    (0..ADDRESSES).for_each(|address| push(AgentStep::EndExclusion { address }));
}

fn pod_steps(world: &World, pod: usize, actions: &mut Vec<Action>) {
    let mut push = |step| actions.push(Action::Pod(pod, step));
    for node in 0..NODES {
        (0..BLOCKS).for_each(|block| push(PodStep::Take { node, block }));
    }
    for answer in answers(world) {
        push(PodStep::CreateAssignment { answer: *answer });
    }
    push(PodStep::AnswerAdd);
    push(PodStep::Del);
    push(PodStep::Die);
    push(PodStep::DeleteAssignment);
}

fn faults(world: &World, node: usize, actions: &mut Vec<Action>) {
    let mut push = |fault| actions.push(Action::Fault(fault));
    if world.budget.crashes > 0 {
        push(Fault::Crash { node, written: false });
        push(Fault::Crash { node, written: true });
        (0..BLOCKS).for_each(|block| push(Fault::CrashInExport { node, block }));
        push(Fault::CrashInRead { node });
        push(Fault::PowerOff { node });
    }
    push(Fault::Start { node });
    push(Fault::Boot { node });
    push(Fault::Partition { node });
    push(Fault::Heal { node });
    push(Fault::DeleteNode { node });
    push(Fault::Register { node });
    push(Fault::LateWrite { node });
}

/// Returns the values of [`Answer`] that are possible for a write.
fn answers(world: &World) -> &'static [Answer] {
    let all = &[Answer::Arrives, Answer::Lost, Answer::NotApplied, Answer::Late];
    if world.budget.lost > 0 { all } else { &all[..1] }
}

/// Builds the state in which the model begins with [`Start::Restored`].
fn restored(budget: Budget) -> World {
    let mut world = World::new(Budget { restores: 1, ..budget });
    world.snapshot = Some(world.api);
    let (node, block, pod, answer) = (0, 0, 0, Answer::Arrives);
    world.agent_step(Variant::Bobbin, node, AgentStep::Claim { block, answer });
    world.agent_step(Variant::Bobbin, node, AgentStep::Export { block });
    world.pod_step(Variant::Bobbin, pod, PodStep::Take { node, block });
    world.pod_step(Variant::Bobbin, pod, PodStep::CreateAssignment { answer });
    world.pod_step(Variant::Bobbin, pod, PodStep::AnswerAdd);
    world.fault(Variant::Bobbin, Fault::Restore);
    world.budget = Budget { restores: 0, ..budget };
    world.normalize();
    world
}
