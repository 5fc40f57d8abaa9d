//! Every half minute: void records, and forgetting what the facts need no more. One task.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bobbin_api_client::{Lenient, ReadError, read};
use bobbin_crds::AddressBlock;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::core::PartialObjectMeta;

use crate::facts::Loose;
use crate::fresh::READ;
use crate::reclaim::{delete_assignment, is_gone};
use crate::run::Shared;
use crate::slim::SlimAssignment;
use crate::void_record::Suspects;

/// How often.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// At most this many records are looked at closely in one turn.
const MAX_CHECKS: usize = 20;

/// Runs for ever.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut suspects = Suspects::default();
    loop {
        tokio::time::sleep(bobbin_api_client::backoff::jittered(SWEEP_INTERVAL)).await;
        if !shared.ages.synced() {
            continue;
        }
        let loose = shared.board.facts(|facts| {
            facts.tidy();
            facts.loose()
        });
        let old = suspects.look(loose, Instant::now());
        shared.metrics.void_records.set(i64::try_from(old).unwrap_or(i64::MAX));
        if !shared.leads() {
            continue;
        }
        for record in suspects.due(MAX_CHECKS, Instant::now()) {
            if let Err(why) = look_closely(&shared, &mut suspects, &record).await {
                tracing::debug!(record = record.name, %why, "a void record stays: it could not be looked at");
            }
        }
    }
}

/// Reads record, block, Node and pod live, and deletes the record only if it is void and its pod was gone by an earlier
/// look too: until then its agent, which can see the container, has the say.
async fn look_closely(shared: &Shared, suspects: &mut Suspects, suspect: &Loose) -> Result<(), ReadError> {
    let records: Api<Lenient<SlimAssignment>> = Api::all(shared.clients.requests.clone());
    let record = match read(READ, records.get(&suspect.name)).await {
        Err(ReadError::NotFound) => return Ok(()),
        record => record?,
    };
    // What can't be read can't be called void: the record, its block, its pool.
    let Lenient::Readable(record) = record else { return Ok(()) };
    if shared.board.facts(|facts| facts.is_unreadable(&record.spec.pool_name)) {
        return Ok(());
    }
    let blocks: Api<Lenient<AddressBlock>> = Api::all(shared.clients.requests.clone());
    let owner = match read(READ, blocks.get(&record.spec.block_name)).await {
        Err(ReadError::NotFound) => None,
        block => {
            let Lenient::Readable(block) = block? else { return Ok(()) };
            block.spec.node_name.filter(|node| !node.is_empty())
        }
    };
    if owner.as_deref() == Some(&record.spec.node_name) {
        return Ok(());
    }
    let node = &record.spec.node_name;
    let owner = owner.as_deref().unwrap_or("nobody");
    // What a deleted node owned has a wait of its own, in `reclaim`.
    if is_gone(shared, node).await? {
        return Ok(());
    }
    if !pod_is_gone(shared, &record).await? {
        suspects.pod_lives(suspect);
        tracing::warn!(
            address = suspect.name,
            node,
            block = record.spec.block_name,
            owner,
            pod = pod_of(&record),
            "the record of a running pod names node {node}, which does not have the block; delete the pod, so that it gets another address"
        );
        return Ok(());
    }
    let Some(uid) = record.metadata.uid else { return Ok(()) };
    if !suspects.pod_is_gone(suspect, &uid, Instant::now()) {
        tracing::info!(
            address = suspect.name,
            node,
            block = record.spec.block_name,
            owner,
            "a void record of a deleted pod: it is deleted if a second check in 15 minutes agrees"
        );
        return Ok(());
    }
    if delete_assignment(&records, suspect.name.clone(), uid).await {
        tracing::warn!(
            address = suspect.name,
            node,
            block = record.spec.block_name,
            owner,
            "a void record was removed"
        );
    }
    Ok(())
}

/// The pod that a record names.
fn pod_of(record: &SlimAssignment) -> String {
    let or_none = |name: &Option<String>| name.clone().unwrap_or_else(|| "(none)".to_owned());
    format!("{}/{}", or_none(&record.spec.pod_namespace), or_none(&record.spec.pod_name))
}

/// Whether the pod of a record is gone. A record without a pod has no such evidence.
async fn pod_is_gone(shared: &Shared, record: &SlimAssignment) -> Result<bool, ReadError> {
    let spec = &record.spec;
    let (Some(namespace), Some(name), Some(uid)) = (&spec.pod_namespace, &spec.pod_name, &spec.pod_uid) else {
        return Ok(false);
    };
    let pods: Api<Lenient<PartialObjectMeta<Pod>>> = Api::namespaced(shared.clients.requests.clone(), namespace);
    match read(READ, pods.get(name)).await {
        Err(ReadError::NotFound) => Ok(true),
        Ok(Lenient::Unreadable(_)) => Ok(false),
        // A mirror pod's UID is not the one the runtime knows.
        Ok(Lenient::Readable(pod)) => Ok(pod.metadata.uid.as_ref() != Some(uid)
            && !pod.metadata.annotations.is_some_and(|all| all.contains_key("kubernetes.io/config.mirror"))),
        Err(error) => Err(error),
    }
}
