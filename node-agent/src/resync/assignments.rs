//! Compares the node's IPAssignments with the node's attachments. The agent creates missing assignments again, and deletes assignments of
//! an earlier boot. The agent deletes an orphaned assignment only when two reads at different times prove that the assignment's pod is
//! gone.

mod decision;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bobbin_api_client::ReadError;
use bobbin_datapath::boot_time;
use bobbin_ipam::{Breaker, IpPair};
use bobbin_messages::event::agent as event;

use super::{PassHistory, Resync};
use crate::assignments::list_own_assignments;
use crate::metrics::ResyncRepair;
use crate::resync::pod_absence::Candidate;
use crate::state::CoolingAddress;
pub(super) use decision::AssignmentIdentity;
use decision::{Mismatch, compare};

impl Resync {
    /// Lists the node's assignments and repairs the mismatches. If there are orphaned assignments, returns the time until the next
    /// comparison, because the agent must read the pods of these assignments again.
    pub(super) async fn compare_assignments(
        &self,
        history: &mut PassHistory,
        blocks_known: bool,
    ) -> Result<Option<Duration>, ReadError> {
        // Note the attachments before reading the list, because a newer attachment may have an assignment that the list does not show.
        let before: HashMap<_, _> = self
            .node_state
            .attachments()
            .into_iter()
            .map(|attachment| (attachment.key, attachment.created_at))
            .collect();
        let assignments = list_own_assignments(&self.clients, &self.cluster).await?;
        // The API server answered, so send the writes that have been waiting since an outage.
        self.assignment_writer.probe_now();
        let attachments = self.node_state.attachments();
        let mut orphans = Vec::new();
        let conflicts: HashSet<IpPair> =
            self.node_state.conflicts().into_iter().map(|conflict| conflict.pair).collect();
        for mismatch in compare(&assignments, &attachments, &self.own_ranges(), &self.boot_id) {
            match mismatch {
                Mismatch::EarlierBoot(assignment) => {
                    tracing::info!(assignment = assignment.name, key = %assignment.key, "deleting an IPAssignment of an earlier boot");
                    // Clients may still try to reach the deleted pod, so the assignment's address must cool down.
                    let cooling = CoolingAddress { pair: assignment.pair(), since: boot_time() };
                    if let Err(error) = self.checkpoint.keep_cooling(&cooling) {
                        tracing::error!(%error, "the agent could not save a cool-down in the checkpoint. If the agent restarts, it may allocate the address before the cool-down ends");
                    }
                    self.node_state.cool(&[cooling]);
                    self.metrics.resync_repaired(ResyncRepair::AssignmentOfEarlierBoot);
                    drop(self.assignment_writer.delete(
                        &assignment.name,
                        &assignment.key,
                        Some(assignment.uid.clone()),
                    ));
                }
                Mismatch::Orphaned(assignment) if self.assignment_writer.has_deleted(&assignment.uid) => {
                    tracing::info!(assignment = assignment.name, key = %assignment.key, "a restore of etcd brought back an IPAssignment that the agent had deleted; the agent deletes it again");
                    let uid = Some(assignment.uid.clone());
                    self.metrics.resync_repaired(ResyncRepair::AssignmentOrphaned);
                    drop(self.assignment_writer.delete(&assignment.name, &assignment.key, uid));
                }
                Mismatch::Orphaned(assignment) if !self.assignment_writer.busy(&assignment.name) => {
                    self.exclude_in_own_block(assignment);
                    let pod = assignment.pod.clone();
                    // The API server never has a pod with the UID of a static pod, so the absence of such a pod proves nothing.
                    let seen = !pod.uid.is_empty() && !pod.is_static();
                    orphans.push(Candidate { key: AssignmentIdentity::of(assignment), pod, seen });
                }
                Mismatch::Orphaned(_) => {}
                // `recheck_conflicts` creates this missing assignment.
                Mismatch::Missing(attachment) if conflicts.contains(&attachment.pair) => {}
                Mismatch::Missing(attachment) => {
                    let old = before.get(&attachment.key) == Some(&attachment.created_at);
                    if old && !self.assignment_writer.busy_with(attachment.pair) {
                        tracing::info!(key = %attachment.key, pair = %attachment.pair, "an attachment has no IPAssignment; the agent creates the IPAssignment again");
                        self.metrics.resync_repaired(ResyncRepair::AssignmentMissing);
                        self.assignment_writer.recreate(&attachment);
                    }
                }
                // Before the first comparison of blocks, the agent may lack some of this node's blocks, and the assignment may be valid.
                Mismatch::Void { .. } if !blocks_known => {}
                Mismatch::Void { name, block, is_owner } => self.report_void(&name, &block, is_owner),
            }
        }
        self.delete_orphans(history, &orphans, assignments.len()).await;
        Ok((!orphans.is_empty()).then(|| self.times.pod_absence_interval()))
    }

    /// Deletes orphaned assignments whose pods are gone. Deletes none if the breaker trips because there are too many of them.
    async fn delete_orphans(
        &self,
        history: &mut PassHistory,
        orphans: &[Candidate<AssignmentIdentity>],
        population: usize,
    ) {
        let gone = history.orphans.check(&self.clients.requests, orphans, boot_time()).await;
        if let Some(breaker) = Breaker::of(gone.len(), population) {
            let sentence = format!(
                "{} of {} IPAssignments of node {} have neither an attachment nor a pod. These are too many to delete at once, so the agent deleted none. Check whether the agent's run directory lost its checkpoint. Then delete the IPAssignments whose pods no longer exist. To list all IPAssignments of the node, run: kubectl get ipassignments --field-selector spec.nodeName={2}",
                breaker.would_delete,
                breaker.population,
                self.cluster.node_name()
            );
            self.metrics.breaker_trips.inc();
            tracing::error!("{sentence}");
            return self.events.on_node(&event::ORPHANED_ASSIGNMENT, &sentence);
        }
        for orphan in gone {
            // An ADD may have created the attachment since the list was read. Then keep its assignment.
            if self.node_state.attachment(&orphan.key).is_none() {
                tracing::info!(assignment = orphan.name, key = %orphan.key, "deleting an orphaned IPAssignment, because its pod is gone");
                self.metrics.resync_repaired(ResyncRepair::AssignmentOrphaned);
                drop(self.assignment_writer.delete(&orphan.name, &orphan.key, Some(orphan.uid)));
            }
        }
    }

    fn report_void(&self, name: &str, block: &str, is_owner: bool) {
        let sentence = void_sentence(self.cluster.node_name(), name, block, is_owner);
        tracing::warn!(assignment = name, block, "{sentence}");
        self.events.on_node(&event::VOID_ASSIGNMENT, &sentence);
    }
}

/// The message about a void assignment. Its commands contain the assignment's name, because the name of an IPv6-only assignment differs
/// from the address.
fn void_sentence(node: &str, name: &str, block: &str, is_owner: bool) -> String {
    let why = if is_owner {
        format!("block {block} does not contain the IPAssignment's addresses")
    } else {
        format!("node {node} does not own block {block}")
    };
    format!(
        "IPAssignment {name} of node {node} is void, because {why}. To see the IPAssignment's addresses and the name of its pod, run: kubectl get ipassignment {name} -o yaml. If the IPAssignment names a pod, delete the pod: the operator then deletes the IPAssignment. Otherwise run: kubectl delete ipassignment {name}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_about_a_void_assignment_names_the_cause_and_a_remedy_that_works() {
        let name = "fd00-0000-0000-0000-0000-0000-0000-0001";
        let text = void_sentence("n1", name, "p-0", true);
        assert!(text.contains("is void, because block p-0 does not contain the IPAssignment's addresses"), "{text}");
        assert!(text.ends_with(&format!("kubectl delete ipassignment {name}")), "{text}");
        let text = void_sentence("n1", "10.0.0.1", "p-0", false);
        assert!(
            text.contains(
                "is void, because node n1 does not own block p-0. To see the IPAssignment's addresses and the name of its pod"
            ),
            "{text}"
        );
    }
}
