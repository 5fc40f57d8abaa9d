//! The agent's metrics without labels: name, unit and meaning.

use bobbin_observability::metrics::Definition;

/// The stages of an ADD.
pub(super) const STAGES: [Definition; 3] = [
    Definition::new(
        "address_wait_seconds",
        "seconds",
        "Time in which an ADD allocated an address or gave up, including its wait for a free address, all attempts together",
    ),
    Definition::new(
        "wiring_duration_seconds",
        "seconds",
        "Time in which an ADD wired its pod, all attempts together. The first ADD of an address family also sets up the node",
    ),
    Definition::new(
        "confirmation_wait_seconds",
        "seconds",
        "Time that an ADD waited for the confirmation of its assignment, not counting the wiring, all attempts together",
    ),
];
/// The counters without labels.
pub(super) const COUNTERS: [Definition; 7] = [
    Definition::new(
        "early_reuses",
        "addresses",
        "Addresses assigned before their cool-down ended, because the pool had no other free address",
    ),
    Definition::new(
        "unproven_adds",
        "calls",
        "ADDs that waited for the confirmation of their assignment, because the API server had not recently confirmed the node's block",
    ),
    Definition::new(
        "duplicate_addresses",
        "addresses",
        "Addresses that this node allocated although another attachment's assignment names them",
    ),
    Definition::new(
        "gc_attachments_removed",
        "attachments",
        "Attachments that GC removed because the runtime did not list them",
    ),
    Definition::new(
        "stale_attachments_removed",
        "attachments",
        "Attachments removed because their pod or network namespace was gone and the runtime had not called DEL",
    ),
    Definition::new(
        "breaker_trips",
        "passes",
        "Stale checks, GC calls and resyncs that removed nothing because they would have removed too much",
    ),
    Definition::new(
        "installation_repairs",
        "files",
        "Files of the CNI plugin and the CNI configuration that another program removed or changed and the agent restored",
    ),
];
/// The gauges without labels.
pub(super) const GAUGES: [Definition; 7] = [
    Definition::new(
        "stale_check_timestamp_seconds",
        "seconds since 1970",
        "When the last check for stale attachments ended. 0 means that there was no check yet",
    ),
    Definition::new(
        "broken_attachments",
        "attachments",
        "Attachments that have lost their interface, so that their pods have no network",
    ),
    Definition::new("attachments", "attachments", "Attachments on the node"),
    Definition::new(
        "excluded_addresses",
        "addresses",
        "Addresses that this node does not allocate, because each has the assignment of another attachment",
    ),
    Definition::new("waiting_adds", "calls", "ADDs that wait for an address now"),
    Definition::new("pending_assignments", "assignments", "Assignments that wait to be created or deleted"),
    Definition::new(
        "unconfirmed_assignments",
        "assignments",
        "Attachments whose assignment the API server has not confirmed",
    ),
];
