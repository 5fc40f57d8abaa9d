//! Prints the view of a node as text for people.

use bobbin_agent_status::{AgentStatus, AttachmentState, AttachmentStatus, BlockPhase};
use jiff::Timestamp;

use super::NodeView;
use super::summary::summary;
use crate::print::age::age;
use crate::print::output::{Report, escaped, or_dash, table, verdict};

/// How many errors and repairs the table shows. The other formats show all of them.
const MAX_SHOWN: usize = 5;

impl Report for NodeView {
    fn text(&self, wide: bool) -> String {
        let status = &self.status;
        let now = status.time.unwrap_or_else(Timestamp::now);
        let mut parts = vec![summary(self, now)];
        if !status.blocks.is_empty() {
            parts.push(blocks(status, wide, now));
        }
        if !status.attachments.is_empty() {
            parts.push(attachments(&status.attachments, wide, now));
        }
        parts.extend(errors(status, wide, now));
        parts.join("\n\n")
    }
}

pub(super) fn ago(time: Option<Timestamp>, now: Timestamp) -> String {
    time.map_or_else(|| "never".to_owned(), |time| format!("{} ago", age(time, now)))
}

fn blocks(status: &AgentStatus, wide: bool, now: Timestamp) -> String {
    let mut header = vec!["block", "pool", "state", "proven", "exported", "assigned", "cooling", "free"];
    if wide {
        header.extend(["ipv4", "ipv6", "since"]);
    }
    let mut rows = table(header);
    let yes_no = |yes| if yes { "yes" } else { "no" };
    for block in &status.blocks {
        let good = !matches!(block.state, BlockPhase::Doubted | BlockPhase::Lost);
        let mut cells = vec![
            escaped(&block.name).into(),
            escaped(&block.pool).into(),
            verdict(block.state.name(), good),
            yes_no(block.proven).into(),
            yes_no(block.exported).into(),
            block.assigned.into(),
            block.cooling.into(),
            block.free.into(),
        ];
        if wide {
            let since = block.since.map(|since| age(since, now));
            cells.extend([known(block.ipv4.as_ref()), known(block.ipv6.as_ref()), or_dash(since)].map(Into::into));
        }
        rows.add_row(cells);
    }
    rows.trim_fmt()
}

fn attachments(attachments: &[AttachmentStatus], wide: bool, now: Timestamp) -> String {
    let mut header = vec!["pod", "addresses", "block", "state", "age"];
    if wide {
        header.extend(["container", "interface", "pod uid", "broken since"]);
    }
    let mut rows = table(header);
    for one in attachments {
        let addresses: Vec<&str> = one.addresses().collect();
        let mut cells = vec![
            pod(&one.pod_namespace, &one.pod_name).into(),
            escaped(&addresses.join(", ")).into(),
            escaped(&one.block).into(),
            verdict(one.state, one.state != AttachmentState::Broken),
            or_dash(one.created_at.map(|since| age(since, now))).into(),
        ];
        if wide {
            let broken = or_dash(one.broken_since.map(|since| ago(Some(since), now)));
            let uid = known(Some(&one.pod_uid).filter(|uid| !uid.is_empty()));
            let [container, interface] = [&one.container_id, &one.interface].map(|text| escaped(text));
            cells.extend([container, interface, uid, broken].map(Into::into));
        }
        rows.add_row(cells);
    }
    rows.trim_fmt()
}

fn errors(status: &AgentStatus, wide: bool, now: Timestamp) -> Option<String> {
    let most = if wide { usize::MAX } else { MAX_SHOWN };
    let mut rows = table(["failed", "call", "pod", "error"]);
    for error in status.errors.iter().skip(status.errors.len().saturating_sub(most)) {
        let name = pod(&error.pod_namespace, &error.pod_name);
        rows.add_row([ago(error.time, now), escaped(&error.verb), name, escaped(&error.error)]);
    }
    (!status.errors.is_empty()).then(|| rows.trim_fmt())
}

fn pod(namespace: &str, name: &str) -> String {
    if name.is_empty() { "-".to_owned() } else { escaped(&format!("{namespace}/{name}")) }
}

pub(super) fn known(text: Option<&String>) -> String {
    or_dash(text.map(|text| escaped(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_shows_broken_attachments_failing_watches_and_the_last_errors() {
        let error = |number: u64| serde_json::json!({"verb": "ADD", "podName": "web", "podNamespace": "shop", "error": format!("error\u{1b} {number}")});
        let status = serde_json::json!({
            "node": "n1", "version": "9", "time": "2026-01-01T00:01:00Z",
            "attachments": [{"podNamespace": "shop", "podName": "web", "ipv4": "10.0.0.1", "state": "broken", "createdAt": "2026-01-01T00:00:00Z"}],
            "blocks": [{"name": "p-0", "pool": "p", "state": "doubted", "assigned": 3}],
            "errors": (0..7).map(error).collect::<Vec<_>>(),
            "api": {"watches": [{"name": "watch of pools", "synced": true, "failingSince": "2026-01-01T00:00:30Z"}]},
            "network": {"notRepaired": ["rule 5"]}
        });
        let view = NodeView { pod: None, status: serde_json::from_value(status).expect("a document") };
        let text = view.text(false);
        for part in [
            "broken",
            "1m",
            "doubted",
            "watch of pools has been failing for 30s",
            "not repaired: rule 5",
            "error\\u{1b} 6",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("\\u{1b} 1") && view.text(true).contains("\\u{1b} 1"), "{text}");
    }
}
