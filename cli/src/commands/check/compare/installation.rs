//! Problems of the CNI plugin and the CNI configuration on a node, and nodes from which Bobbin is being removed.

use bobbin_agent_status::{AgentMode, InstallationProblem};
use bobbin_messages::event::agent as event;

use crate::commands::check::finding::{Finding, Kind, Severity};
use crate::commands::check::observation::Observation;

pub(super) fn compare(observed: &Observation) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (node, status) in observed.statuses() {
        let problems = status.installation.iter().flat_map(|installation| &installation.problems);
        findings.extend(problems.map(|problem| of_problem(node, problem)));
        findings.extend((status.mode == AgentMode::Remove).then(|| being_removed(node)));
    }
    findings
}

fn of_problem(node: &str, problem: &InstallationProblem) -> Finding {
    let (severity, kind, bobbin, you) = advice(node, &problem.reason);
    Finding {
        severity,
        kind,
        object: format!("Node {node}"),
        what: problem.what.clone(),
        since: problem.since,
        bobbin: bobbin.to_owned(),
        you,
        // The text may change between the observations, for example the error of a write. The reason stays the same.
        identity: problem.reason.clone(),
    }
}

/// How bad a problem with this reason is, its kind, what the agent does about it, and what a person must do.
fn advice(node: &str, reason: &str) -> (Severity, Kind, &'static str, String) {
    if reason == event::CNI_CONFIG_SHADOWED.reason {
        let you = format!(
            "on the node, remove the other network plugin and its file, and delete the pods that have addresses of that plugin. Or remove Bobbin from the node: kubectl label node {node} bobbin.dev/agent=remove"
        );
        let bobbin = "nothing, because an agent never changes files of other programs. The agent checks the files after each change, and at least every 30 s";
        return (Severity::Error, Kind::CNIConfigShadowed, bobbin, you);
    }
    if reason == event::INSTALL_FAILED.reason {
        let you =
            format!("follow the advice of the message; if the problem stays, read the log of the agent on node {node}");
        return (Severity::Error, Kind::InstallFailed, "the agent tries again at least every 30 s", you);
    }
    let you =
        format!("follow the advice of the message; if the problem stays, read the log of the agent on node {node}");
    if [event::CHAINED_PLUGIN_UNKNOWN.reason, event::CNI_VERSION_LOWERED.reason].contains(&reason) {
        let bobbin = "the agent checks the plugins after each change of their files, and at least every 30 s";
        return (Severity::Warning, Kind::ChainedPluginProblem, bobbin, you);
    }
    // The agent is newer than this command.
    (Severity::Warning, Kind::InstallationProblem, "unknown, because the agent is newer than this command", you)
}

fn being_removed(node: &str) -> Finding {
    Finding {
        severity: Severity::Info,
        kind: Kind::BobbinBeingRemoved,
        object: format!("Node {node}"),
        what: "the agent is in mode remove, so new pods of the node get no address from Bobbin".to_owned(),
        since: None,
        bobbin: "without --force, the agent waits until no pod of the node has an address of Bobbin. Then it removes what it installed, and releases the node's blocks"
            .to_owned(),
        you: format!(
            "nothing, if you want to remove Bobbin. To use Bobbin again, undo what started the removal: set the chart value agent.mode=run, or remove the label: kubectl label node {node} bobbin.dev/agent-"
        ),
        identity: String::new(),
    }
}
