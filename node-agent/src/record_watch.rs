//! The watch of this node's own records: one that somebody deletes by hand while its attachment lives is written again at once.

use bobbin_api_client::{Clients, Lenient};
use bobbin_crds::IPAssignment;
use bobbin_observability::Heartbeat;
use futures::StreamExt;
use kube::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config, Event};
use std::collections::HashSet;
use std::sync::Arc;

use crate::ledger::{Attachment, Ledger};
use crate::record::{Recorder, record_name};
use crate::watch::ClusterView;

/// Watches for ever. It only hastens what the resync does.
pub async fn run(clients: Clients, view: ClusterView, ledger: Arc<Ledger>, recorder: Recorder, beat: Heartbeat) {
    let api: Api<Lenient<PartialObjectMeta<IPAssignment>>> = Api::all(clients.watches.clone());
    let own = Config::default().fields(&format!("spec.nodeName={}", view.node_name()));
    let mut events = bobbin_api_client::watch(api, own);
    let mut listed = HashSet::new();
    while let Some(event) = beat.while_idle(events.next()).await {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(record) => {
                listed.insert(record.name().to_owned());
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut listed);
                write_again(&ledger, &recorder, |name| !listed.contains(name));
            }
            Event::Delete(record) => {
                view.unreadable().gone(&record);
                write_again(&ledger, &recorder, |name| name == record.name());
            }
            Event::Apply(_) => {}
        }
    }
}

/// Writes the records again that are missing, but no record that is just being written or deleted.
fn write_again(ledger: &Ledger, recorder: &Recorder, is_missing: impl Fn(&str) -> bool) {
    for attachment in ledger.attachments().iter().filter(|attachment| was_recorded(attachment)) {
        if record_name(attachment.pair).is_some_and(|name| is_missing(&name)) && !recorder.busy_with(attachment.pair) {
            tracing::warn!(key = %attachment.key, pair = %attachment.pair, "the record of a living attachment was deleted; it is written again");
            recorder.create_again(attachment);
        }
    }
}

/// Whether the API server once confirmed the record of an attachment that should have one.
fn was_recorded(attachment: &Attachment) -> bool {
    attachment.needs_record() && attachment.assignment_uid.is_some()
}
