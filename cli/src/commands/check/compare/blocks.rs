//! Blocks whose node and API object disagree, and blocks that are doubted, lost or not exported.

use std::collections::BTreeSet;
use std::time::Duration;

use bobbin_agent_status::{AgentStatus, BlockPhase, BlockStatus};
use bobbin_crds::AddressBlock;

use crate::commands::check::finding::{Finding, Kind, Severity};
use crate::commands::check::observation::Observation;
use crate::print::count::counted;

/// The longest time that a claimed block normally needs to enter service, including the quiet time after an API outage.
const EXPORT_TIME: Duration = Duration::from_secs(30);

pub(super) fn compare(observed: &Observation) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (node, status) in observed.statuses() {
        // For a deleted node, the finding `DeletedNode` also covers the node's doubted blocks, and the blocks that its
        // agent does not know.
        let is_deleted = !observed.nodes.contains(node) && observed.owns_something(node);
        let shown = status.blocks.iter().filter(|block| !is_deleted || block.state != BlockPhase::Doubted);
        findings.extend(shown.filter_map(|block| of_view(observed, node, status, block)));
        if is_deleted {
            continue;
        }
        let known: BTreeSet<&str> = status.blocks.iter().map(|block| block.name.as_str()).collect();
        let owned = observed.blocks.iter().filter(|(_, block)| block.spec.node_name.as_deref() == Some(node));
        findings.extend(owned.filter(|(name, _)| !known.contains(name.as_str())).map(|(name, _)| unknown(node, name)));
    }
    findings
}

fn of_view(observed: &Observation, node: &str, status: &AgentStatus, block: &BlockStatus) -> Option<Finding> {
    let object = observed.blocks.get(&block.name);
    let owner = object.and_then(|object| object.spec.node_name.as_deref());
    // The owner of an undecodable block is unknown, so the check does not report that another node owns the block.
    let undecodable = object.is_none() && observed.is_undecodable::<AddressBlock>(&block.name);
    match block.state {
        BlockPhase::Lost => Some(lost(node, block, owner)),
        BlockPhase::Doubted => Some(doubted(node, block)),
        BlockPhase::Exporting | BlockPhase::Serving | BlockPhase::Retiring if owner != Some(node) && !undecodable => {
            Some(foreign(node, block, object.is_some(), owner))
        }
        BlockPhase::Serving | BlockPhase::Retiring if !block.exported => Some(not_exported(node, block)),
        BlockPhase::Exporting if has_waited(status, block) => Some(not_exported(node, block)),
        _ => None,
    }
}

/// Whether the block has waited longer than `EXPORT_TIME`. If a time is unknown, returns true: the check then reports
/// the block if the block still waits in the second observation.
fn has_waited(status: &AgentStatus, block: &BlockStatus) -> bool {
    match (status.time, block.since) {
        (Some(now), Some(since)) => now.duration_since(since).unsigned_abs() > EXPORT_TIME,
        _ => true,
    }
}

fn finding(severity: Severity, kind: Kind, node: &str, block: &str) -> Finding {
    Finding {
        severity,
        kind,
        object: format!("AddressBlock {block}"),
        what: String::new(),
        since: None,
        bobbin: String::new(),
        you: String::new(),
        identity: node.to_owned(),
    }
}

fn owned_by(exists: bool, owner: Option<&str>) -> String {
    match owner {
        Some(owner) => format!("node {owner} owns the block according to the API server"),
        None if exists => "no node owns the block according to the API server".to_owned(),
        None => "the block does not exist according to the API server".to_owned(),
    }
}

fn foreign(node: &str, block: &BlockStatus, exists: bool, owner: Option<&str>) -> Finding {
    Finding {
        what: format!("node {node} has the block in the state {}, but {}", block.state.name(), owned_by(exists, owner)),
        since: block.since,
        bobbin: "the agent reads the node's blocks at the next resync, and then assigns no address of the block"
            .to_owned(),
        you: format!("if this stays, see the log of the agent on node {node}"),
        ..finding(Severity::Error, Kind::BlockOfAnotherNode, node, &block.name)
    }
}

fn lost(node: &str, block: &BlockStatus, owner: Option<&str>) -> Finding {
    let owner = owner.map(|owner| format!(" to node {owner}")).unwrap_or_default();
    Finding {
        what: format!(
            "node {node} has lost the block{owner}, but pods of node {node} still use {} of the block",
            counted(block.assigned, "address")
        ),
        since: block.since,
        bobbin: "the agent assigns no address of the block, and forgets the block when the last of these pods ends"
            .to_owned(),
        you: format!(
            "delete these pods, because another node may assign their addresses; to list these pods, run: kubectl bobbin node {node}"
        ),
        ..finding(Severity::Error, Kind::BlockLost, node, &block.name)
    }
}

fn doubted(node: &str, block: &BlockStatus) -> Finding {
    Finding {
        what: format!("node {node} does not know whether it still owns the block, so the node assigns no address of the block"),
        since: block.since,
        bobbin: "the agent reads the block until the API server answers, and then uses the block again or gives up the block"
            .to_owned(),
        you: format!("if this stays, find out why the reads fail: kubectl bobbin node {node}"),
        ..finding(Severity::Warning, Kind::BlockDoubted, node, &block.name)
    }
}

fn not_exported(node: &str, block: &BlockStatus) -> Finding {
    Finding {
        what: format!("node {node} has not exported the block's route, so the block serves no pods yet"),
        since: block.since,
        bobbin: "the agent repeats the write of the route, and releases the block if all writes fail for 60 s and no pod uses the block"
            .to_owned(),
        you: format!("see the event ExportFailed on the Node: kubectl describe node {node}"),
        ..finding(Severity::Warning, Kind::BlockNotExported, node, &block.name)
    }
}

fn unknown(node: &str, block: &str) -> Finding {
    Finding {
        what: format!("node {node} owns the block, but the node's agent does not know the block"),
        bobbin: "the agent adds the block at its next resync".to_owned(),
        you: format!("if this stays, see the log of the agent on node {node}"),
        ..finding(Severity::Warning, Kind::BlockUnknownToNode, node, block)
    }
}
