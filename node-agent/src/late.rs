//! Verdicts of the API server that came after their ADD had answered. Called by run with what the recorder tells; frees nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::agent::{Agent, Found};
use crate::ledger::Phase;
use crate::record::{LateVerdict, Verdict};

/// How long the ADD of a late verdict may take to end. Without the UID a DEL reads the record first, no more.
const TURN: Duration = Duration::from_secs(1);

/// Takes in late verdicts, for ever.
pub async fn run(agent: Arc<Agent>, mut verdicts: mpsc::UnboundedReceiver<LateVerdict>) {
    while let Some(LateVerdict { key, pair, verdict }) = verdicts.recv().await {
        match verdict {
            Verdict::Recorded { uid } => {
                // The ADD may be writing down what it knows at this moment.
                let Some(_turn) = agent.turns.take(&key, TURN).await else { continue };
                // `None`: it ended meanwhile, and the recorder deletes what it has just created.
                let same = agent
                    .ledger
                    .attachment(&key)
                    .is_some_and(|attachment| attachment.pair == pair && attachment.phase != Phase::Deleting);
                if same {
                    agent.update(&key, |attachment| attachment.assignment_uid = Some(uid));
                }
            }
            // The pod keeps running; the address is not used again here.
            Verdict::Taken { by, own_node: true } => {
                tracing::warn!(%pair, %key, by, "a record that this node left behind stands in an attachment's place; the relist replaces it");
            }
            Verdict::Taken { by, own_node: false } => agent.report_duplicate(pair, &key, &by, Found::Late),
            Verdict::Refused(why) => {
                let sentence = format!(
                    "the API server refuses the record of address {pair}, which attachment {key} holds on node {}: {why}; the pod keeps it",
                    agent.args.node_name
                );
                tracing::error!("{sentence}");
                agent.events.node_warning("RecordRefused", &sentence);
            }
        }
    }
}
