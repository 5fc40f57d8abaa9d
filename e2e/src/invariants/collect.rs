//! Takes a snapshot by reading API objects, kernels, checkpoints and namespaces. This module contains no rules.

mod api;
mod checkpoint;
mod kernel;
mod sandboxes;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::snapshot::{Machine, Snapshot};
use crate::network::Namespace;

/// How long the API server may take to answer all LIST requests of a snapshot.
const API_TIMEOUT: Duration = Duration::from_secs(10);

/// A cluster that the checker can examine.
pub trait Watched {
    /// A client with the administrator's permissions.
    fn client(&self) -> kube::Client;

    /// The machines that have power. `pods` lists the node and the UID of each pod.
    fn machines(&self, pods: &[(String, String)]) -> Vec<MachineSource>;
}

/// The places where the checker finds the state of a machine.
#[derive(Clone, Debug)]
pub struct MachineSource {
    /// The machine's name, which is also the name of its Node.
    pub name: String,
    /// The machine's network namespace.
    pub namespace: Namespace,
    /// The agent's run directory.
    pub run_dir: PathBuf,
    /// The directory in which the container runtime mounts the pods' network namespaces.
    pub netns_dir: PathBuf,
    /// The UID and the process IDs of each pod on the machine. With these process IDs, the checker finds namespaces
    /// that are not mounted.
    pub processes: Vec<(String, Vec<i32>)>,
}

/// Takes one snapshot of the whole cluster. For each source that can't be read, the snapshot contains a sentence that
/// says why.
pub async fn collect(watched: &impl Watched) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let api = tokio::time::timeout(API_TIMEOUT, api::read(&watched.client())).await;
    match api
        .unwrap_or_else(|_| Err(anyhow::anyhow!("the API server did not answer within {} s", API_TIMEOUT.as_secs())))
    {
        Ok(api) => snapshot.api = Some(api),
        Err(error) => snapshot.unread.push(format!("the API server's objects can't be read: {error:#}")),
    }
    let pods = snapshot.api.iter().flat_map(|api| &api.pods);
    let pods: Vec<(String, String)> = pods.filter_map(|pod| Some((pod.node.clone()?, pod.id.uid.clone()))).collect();
    let reads = watched.machines(&pods).into_iter().map(|source| {
        let name = source.name.clone();
        (name, tokio::task::spawn_blocking(move || machine(&source)))
    });
    for (name, read) in reads.collect::<Vec<_>>() {
        match read.await.context("the thread that reads the machine panicked").and_then(|machine| machine) {
            Ok(machine) => snapshot.machines.push(machine),
            Err(error) => snapshot.unread.push(format!("machine {name} can't be read: {error:#}")),
        }
    }
    snapshot
}

fn machine(source: &MachineSource) -> Result<Machine> {
    Ok(Machine {
        name: source.name.clone(),
        kernel: kernel::read(&source.namespace)?,
        checkpoint: checkpoint::read(&source.run_dir)?,
        sandboxes: sandboxes::read(source)?,
    })
}
