//! Reads a batch of suspect assignments from the API server, and then the blocks, Nodes and pods of these assignments.
//!
//! The operator reads blocks, Nodes and pods after the assignments. If a node claimed a block before it created an
//! assignment, the operator therefore sees the claim.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use bobbin_api_client::{Clients, Lenient, ReadError, is_object_name, read};
use bobbin_crds::AddressBlock;
use bobbin_ipam::void_assignment::{BlockEvidence, PodEvidence};
use futures::StreamExt;
use kube::Api;

use super::evidence::{PartialPod, facts, of_block, of_pod};
use crate::cache::SuspectAssignment;
use crate::cache::objects::PartialAssignment;
use crate::live_reads::{READ_TIMEOUT, node_is_gone};

/// The maximum number of reads in flight at the same time.
const MAX_CONCURRENT_READS: usize = 16;

/// An assignment, with the evidence about its block, its Node and its pod.
pub(super) struct Reads {
    pub(super) suspect: SuspectAssignment,
    pub(super) assignment: PartialAssignment,
    pub(super) block: BlockEvidence,
    pub(super) node_is_gone: bool,
    pub(super) pod: PodEvidence,
}

/// The result of the reads about one batch.
#[derive(Default)]
pub(super) struct Batch {
    /// The assignments for which every read succeeded.
    pub(super) read: Vec<Reads>,
    /// The names of the assignments for which a read failed.
    pub(super) failed: Vec<String>,
}

/// Reads everything that the decision about these assignments needs. Leaves out assignments that are gone or can't be decoded.
pub(super) async fn read_all(clients: &Clients, suspects: Vec<SuspectAssignment>) -> Batch {
    let assignments: Api<Lenient<PartialAssignment>> = Api::all(clients.requests.clone());
    let mut batch = Batch::default();
    let mut found = Vec::new();
    let reads = suspects.into_iter().map(|suspect| {
        let assignments = assignments.clone();
        async move {
            let answer = read(READ_TIMEOUT, assignments.get(&suspect.name)).await;
            (suspect, answer)
        }
    });
    for (suspect, answer) in concurrently(reads).await {
        match answer {
            Ok(Lenient::Readable(assignment)) => found.push((suspect, assignment)),
            Ok(Lenient::Unreadable(_)) | Err(ReadError::NotFound) => {}
            Err(_) => batch.failed.push(suspect.name),
        }
    }
    let specs = || found.iter().map(|(_, assignment)| &assignment.spec);
    let blocks = read_each(specs().map(|spec| spec.block_name.clone()), |name| block(clients, name)).await;
    let nodes = read_each(specs().map(|spec| spec.node_name.clone()), |name| async move {
        // No Node has an invalid name. Do not read such a name, because it could lead to another object.
        if is_object_name(&name) { node_is_gone(clients, &name).await } else { Ok(true) }
    })
    .await;
    let pods = read_each(found.iter().filter_map(|(_, assignment)| pod_key(assignment)), |key| pod(clients, key)).await;
    for (suspect, assignment) in found {
        let pod = match pod_key(&assignment) {
            None => Some(PodEvidence::NotNamed),
            Some(key) => pods.get(&key).map(|pod| of_pod(&assignment, pod.as_ref())),
        };
        let block = blocks.get(&assignment.spec.block_name).cloned();
        let node_is_gone = nodes.get(&assignment.spec.node_name).copied();
        match (block, node_is_gone, pod) {
            (Some(block), Some(node_is_gone), Some(pod)) => {
                batch.read.push(Reads { suspect, assignment, block, node_is_gone, pod });
            }
            _ => batch.failed.push(suspect.name),
        }
    }
    batch
}

/// The namespace and the name of an assignment's pod. `None` if the assignment names no pod.
fn pod_key(assignment: &PartialAssignment) -> Option<(String, String)> {
    facts(assignment).pod().map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
}

async fn block(clients: &Clients, name: String) -> Result<BlockEvidence, ReadError> {
    if !is_object_name(&name) {
        return Ok(BlockEvidence::Absent);
    }
    let blocks: Api<Lenient<AddressBlock>> = Api::all(clients.requests.clone());
    match read(READ_TIMEOUT, blocks.get(&name)).await {
        Ok(block) => Ok(of_block(&block)),
        Err(ReadError::NotFound) => Ok(BlockEvidence::Absent),
        Err(error) => Err(error),
    }
}

async fn pod(clients: &Clients, (namespace, name): (String, String)) -> Result<Option<Lenient<PartialPod>>, ReadError> {
    if !is_object_name(&namespace) || !is_object_name(&name) {
        return Ok(None);
    }
    let pods: Api<Lenient<PartialPod>> = Api::namespaced(clients.requests.clone(), &namespace);
    match read(READ_TIMEOUT, pods.get(&name)).await {
        Ok(pod) => Ok(Some(pod)),
        Err(ReadError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes one read for each different key. The result has no entry for a key whose read failed.
async fn read_each<K, V, F>(keys: impl Iterator<Item = K>, read: impl Fn(K) -> F) -> HashMap<K, V>
where
    K: Clone + Eq + Hash,
    F: Future<Output = Result<V, ReadError>>,
{
    let keys: HashSet<K> = keys.collect();
    let reads = keys.into_iter().map(|key| {
        let answer = read(key.clone());
        async move { Some((key, answer.await.ok()?)) }
    });
    concurrently(reads).await.into_iter().flatten().collect()
}

async fn concurrently<F: Future>(reads: impl Iterator<Item = F>) -> Vec<F::Output> {
    futures::stream::iter(reads).buffer_unordered(MAX_CONCURRENT_READS).collect().await
}
