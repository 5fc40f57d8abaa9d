//! Own records and living attachments, compared: a missing record is written again, one of an earlier boot goes, one that nobody here has
//! goes only when two reads apart in time prove that its pod is gone.

mod judge;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bobbin_api_client::ReadError;
use bobbin_datapath::boot_time;
use bobbin_ipam::{Breaker, IpPair};

use super::{Memory, Resync};
use crate::ledger::CoolingAddress;
use crate::pod_gone::Candidate;
use crate::record::own_records;
pub(super) use judge::SeenRecord;
use judge::{Finding, judge};

impl Resync {
    /// Lists own records and does what follows. Returns when to look again if something has to be looked at twice.
    pub(super) async fn compare_records(
        &self,
        memory: &mut Memory,
        blocks_known: bool,
    ) -> Result<Option<Duration>, ReadError> {
        // An attachment that began after the list is not missing its record: the record is on its way.
        let before: HashMap<_, _> =
            self.ledger.attachments().into_iter().map(|attachment| (attachment.key, attachment.created_at)).collect();
        let records = own_records(&self.clients, &self.view).await?;
        let living = self.ledger.attachments();
        let mut suspects = Vec::new();
        let passed_over: HashSet<IpPair> = self.ledger.passed_over().into_iter().map(|passed| passed.pair).collect();
        for finding in judge(&records, &living, &self.own_ranges(), &self.boot_id) {
            match finding {
                Finding::OtherBoot(record) => {
                    tracing::info!(record = record.name, key = %record.key, "deleting a record of an earlier boot");
                    // Others may still connect to the pod that had it.
                    let cooling = CoolingAddress { pair: record.pair(), since: boot_time() };
                    if let Err(error) = self.journal.keep_cooling(&cooling) {
                        tracing::error!(%error, "after a restart of the agent an address of an earlier boot does not cool");
                    }
                    self.ledger.rest(&[cooling]);
                    drop(self.recorder.delete(&record.name, &record.key, Some(record.uid.clone())));
                }
                Finding::NobodyLives(record) if !self.recorder.busy(&record.name) => {
                    self.pass_over_in_own_block(record);
                    let pod = record.pod.clone();
                    // The API server never has a pod of a static pod's UID, so its absence proves nothing.
                    let seen = !pod.uid.is_empty() && !pod.is_static();
                    suspects.push(Candidate { key: SeenRecord::of(record), pod, seen });
                }
                Finding::NobodyLives(_) => {}
                // Its record is tried again when the one in its place is looked at.
                Finding::Unrecorded(attachment) if passed_over.contains(&attachment.pair) => {}
                Finding::Unrecorded(attachment) => {
                    let old = before.get(&attachment.key) == Some(&attachment.created_at);
                    if old && !self.recorder.busy_with(attachment.pair) {
                        tracing::info!(key = %attachment.key, pair = %attachment.pair, "an attachment has no record; it is written again");
                        self.recorder.create_again(&attachment);
                    }
                }
                // Which blocks are ours is known only once they were compared.
                Finding::Void { .. } if !blocks_known => {}
                Finding::Void { name, block } => self.tell_void(&name, &block),
            }
        }
        self.free_unheld(memory, &suspects, records.len()).await;
        Ok((!suspects.is_empty()).then(|| self.times.pod_gone_apart()))
    }

    /// Deletes records without an attachment whose pods are gone, unless they are suspiciously many.
    async fn free_unheld(&self, memory: &mut Memory, suspects: &[Candidate<SeenRecord>], records: usize) {
        let gone = memory.pods_gone.look(&self.clients.requests, suspects, boot_time()).await;
        if let Some(breaker) = Breaker::of(gone.len(), records) {
            let sentence = format!(
                "{} of {} records of node {} have neither an attachment nor a pod: that is too many to delete at once; see whether the agent's state under its run directory was lost, and delete the records that are wrong: kubectl get ipassignments --field-selector spec.nodeName={2}",
                breaker.would_delete,
                breaker.population,
                self.view.node_name()
            );
            tracing::error!("{sentence}");
            return self.events.node_warning("RecordsWithoutAttachment", &sentence);
        }
        for seen in gone {
            // The last look: an ADD may have taken the address meanwhile.
            if self.ledger.attachment(&seen.key).is_none() {
                tracing::info!(record = seen.name, key = %seen.key, "deleting a record without an attachment: its pod is gone");
                drop(self.recorder.delete(&seen.name, &seen.key, Some(seen.uid)));
            }
        }
    }

    fn tell_void(&self, name: &str, block: &str) {
        let sentence = format!(
            "record {name} says that its address is of block {block}, which is not node {}'s: the record is void, and the operator deletes it once its pod is gone",
            self.view.node_name()
        );
        tracing::warn!(record = name, block, "{sentence}");
        self.events.node_warning("VoidRecord", &sentence);
    }
}
