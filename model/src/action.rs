//! The steps of the model.

/// Whether a write is applied, and whether its answer arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The write is applied, and its answer arrives.
    Arrives,
    /// The write is applied, and its answer is lost.
    Lost,
    /// The write is not applied, and no answer arrives.
    NotApplied,
    /// No answer arrives, and the write may be applied later.
    Late,
}

/// A step of one node's agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentStep {
    Claim {
        block: usize,
        answer: Answer,
    },
    /// Reads the block of a claim whose outcome is unknown.
    ReadBackClaim {
        block: usize,
    },
    /// Writes the route and brings the block into service.
    Export {
        block: usize,
    },
    /// A watch event or a LIST response shows that the node may no longer own the block.
    Doubt {
        block: usize,
    },
    /// Reads a doubted block.
    ReadDoubted {
        block: usize,
    },
    /// Processes the answer to the read of a doubted block.
    ApplyRead,
    BeginRelease {
        block: usize,
    },
    /// Lists the node's assignments in a block that the node is releasing.
    ListOwnAssignments {
        block: usize,
    },
    Withdraw {
        block: usize,
    },
    SendRelease {
        block: usize,
        answer: Answer,
    },
    CancelRelease {
        block: usize,
    },
    /// The resync compares the node's attachments with the assignments at the API server.
    CompareAssignments,
    /// The resync compares the agent's blocks with the blocks at the API server.
    CompareBlocks,
    /// The resync lists the assignments of a block in which other nodes may have assignments.
    ListAssignments {
        block: usize,
    },
    /// The agent ends the exclusion of an address whose assignment no longer exists.
    EndExclusion {
        address: usize,
    },
    /// The watch shows that the agent's Node was deleted or has another UID.
    SeeNode,
    /// The agent has its first contact with the API server after a restore.
    NoticeRestore,
    QuietTimeEnds,
    /// Looks for attachments whose pods no longer exist.
    Look,
}

/// A step of an attachment, or a write of its assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodStep {
    /// ADD takes an address of the block.
    Take {
        node: usize,
        block: usize,
    },
    CreateAssignment {
        answer: Answer,
    },
    /// ADD answers, or undoes its work.
    AnswerAdd,
    /// The container has ended, and the agent processes the DEL.
    Del,
    /// The container ends, but its DEL has not arrived yet.
    Die,
    DeleteAssignment,
}

/// A step of the environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The agent is killed. `written` says whether the checkpoint has the latest state of the blocks.
    Crash {
        node: usize,
        written: bool,
    },
    /// The agent is killed after it saved a transition in the checkpoint, but before it applied the transition.
    CrashInExport {
        node: usize,
        block: usize,
    },
    CrashInRead {
        node: usize,
    },
    Start {
        node: usize,
    },
    /// The machine loses power. The agent ends, and the run directory with the checkpoint is lost.
    PowerOff {
        node: usize,
    },
    Boot {
        node: usize,
    },
    Partition {
        node: usize,
    },
    Heal {
        node: usize,
    },
    DeleteNode {
        node: usize,
    },
    /// The kubelet creates the Node again.
    Register {
        node: usize,
    },
    /// A write reaches the API server after the agent stopped waiting for the answer.
    LateWrite {
        node: usize,
    },
    Snapshot,
    Restore,
    /// Another program makes an assignment unreadable.
    Unreadable {
        address: usize,
    },
}

/// A step of one operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorStep {
    /// Checks that a Node was deleted, and lists the node's blocks and assignments.
    PlanReclaim {
        node: usize,
    },
    DeleteAssignments,
    ReleaseBlocks,
    /// Lists the assignments of a free block.
    PlanFinalizer {
        block: usize,
    },
    RemoveFinalizer,
}

/// A step of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Agent(usize, AgentStep),
    Pod(usize, PodStep),
    Operator(usize, OperatorStep),
    Fault(Fault),
}
