//! Prints the first lines of a node's view: the agent, its mode, its contact with the API server, and the state of its work.

use bobbin_agent_status::{AgentMode, ApiStatus, InstallationStatus, NetworkStatus, ResyncStatus, WatchStatus};
use jiff::Timestamp;

use super::NodeView;
use super::text::{ago, known};
use crate::print::age::age;
use crate::print::count::counted;
use crate::print::output::escaped;

/// The indent of the lines that continue a line with a label.
const INDENT: &str = "          ";

pub(super) fn summary(view: &NodeView, now: Timestamp) -> String {
    let status = &view.status;
    let pod = view.pod.as_ref().map(|pod| format!(" in Pod {pod}")).unwrap_or_default();
    let mut lines = vec![
        format!("Node:     {} (UID {})", escaped(&status.node), known(status.node_uid.as_ref())),
        format!("Agent:    version {}{pod}", escaped(&status.version)),
        format!("Mode:     {}", mode(status.mode)),
        format!("API:      {}", api(&status.api, now)),
        format!("Resync:   {}", resync(&status.resync, now)),
    ];
    lines.extend(install(status.installation.as_ref(), now));
    lines.extend(network(&status.network, now));
    lines.join("\n")
}

fn mode(mode: AgentMode) -> &'static str {
    match mode {
        AgentMode::Run => "run",
        AgentMode::Remove => "remove: the agent removes Bobbin from the node",
        AgentMode::Unknown => "unknown, because the agent has another version than this command",
    }
}

fn api(api: &ApiStatus, now: Timestamp) -> String {
    let health = if api.healthy { "healthy" } else { "not healthy" };
    let mut parts = vec![format!("{health}, last contact {}", ago(api.last_contact, now))];
    parts.push(counted(api.pending_writes, "pending write"));
    parts.extend(api.watches.iter().filter_map(|watch| problem(watch, now)));
    parts.join(", ")
}

/// What is wrong with a watch.
fn problem(watch: &WatchStatus, now: Timestamp) -> Option<String> {
    let name = escaped(&watch.name);
    match watch.failing_since {
        Some(since) => Some(format!("the {name} has been failing for {}", age(since, now))),
        None => (!watch.synced).then(|| format!("the {name} has not listed its objects yet")),
    }
}

fn resync(resync: &ResyncStatus, now: Timestamp) -> String {
    let succeeded = ago(resync.succeeded, now);
    match &resync.failure {
        None => format!("succeeded {succeeded}"),
        Some(failure) => {
            format!("failed {}, last succeeded {succeeded}: {}", ago(failure.time, now), escaped(&failure.what))
        }
    }
}

fn install(status: Option<&InstallationStatus>, now: Timestamp) -> Vec<String> {
    let Some(status) = status else { return vec!["Install:  the agent has not checked its CNI files".to_owned()] };
    let problems = match status.problems.len() {
        0 => "in order".to_owned(),
        number => counted(number, "problem"),
    };
    let restored = match status.restored {
        0 => String::new(),
        number => format!(", {}", counted(number, "restored file")),
    };
    let last = status.last_restored.as_ref();
    let last = last.map(|last| format!(", the last one {}: {}", ago(last.time, now), escaped(&last.what)));
    let mut lines = vec![format!("Install:  {problems}{restored}{}", last.unwrap_or_default())];
    lines.extend(status.problems.iter().map(|problem| {
        let since = problem.since.map(|since| format!(" for {}", age(since, now))).unwrap_or_default();
        format!("{INDENT}{}{since}: {}", escaped(&problem.reason), escaped(&problem.what))
    }));
    lines
}

fn network(status: &NetworkStatus, now: Timestamp) -> Vec<String> {
    let last = status.last_repairs.last();
    let last = last.map(|last| format!(", the last one {}: {}", ago(last.time, now), escaped(&last.what)));
    let mut lines = vec![format!("Network:  {}{}", counted(status.repaired, "repair"), last.unwrap_or_default())];
    lines.extend(status.not_repaired.iter().map(|what| format!("{INDENT}not repaired: {}", escaped(what))));
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn lines(status: Value) -> String {
        let view = NodeView { pod: None, status: serde_json::from_value(status).expect("a document") };
        summary(&view, "2026-01-01T00:10:00Z".parse().expect("a time"))
    }

    #[test]
    fn the_installation_is_in_order_or_has_problems_and_restored_files() {
        assert!(lines(json!({})).contains("\nInstall:  the agent has not checked its CNI files\n"));
        assert!(lines(json!({"installation": {}})).contains("\nInstall:  in order\n"));
        let restored =
            json!({"restored": 1, "lastRestored": {"time": "2026-01-01T00:05:00Z", "what": "/bin/bobbin\u{1b}"}});
        let text = lines(json!({"installation": restored}));
        assert!(
            text.contains("Install:  in order, 1 restored file, the last one 5m ago: /bin/bobbin\\u{1b}\n"),
            "{text}"
        );
        let problem =
            json!({"reason": "CNIConfigShadowed", "since": "2026-01-01T00:07:00Z", "what": "05-a sorts first\n"});
        let text = lines(json!({"installation": {"problems": [problem]}}));
        let expected = "Install:  1 problem\n          CNIConfigShadowed for 3m: 05-a sorts first\\n\n";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn the_mode_is_named_and_the_mode_of_an_agent_of_another_version_is_unknown() {
        assert!(lines(json!({"mode": "run"})).contains("\nMode:     run\n"));
        assert!(lines(json!({})).contains("\nMode:     unknown"));
        assert!(lines(json!({"mode": "remove"})).contains("\nMode:     remove: the agent removes"));
        assert!(lines(json!({"mode": "sleep"})).contains("\nMode:     unknown"));
    }

    #[test]
    fn one_pending_write_and_one_repair_are_in_the_singular() {
        let text = lines(json!({"api": {"pendingWrites": 1}, "network": {"repaired": 1}}));
        assert!(text.contains(", 1 pending write\n") && text.ends_with("1 repair"), "{text}");
    }
}
