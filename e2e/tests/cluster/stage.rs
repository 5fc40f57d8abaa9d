//! The one cluster that the tests share, and its tidying.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use bobbin_crds::AddressPool;
use bobbin_e2e::cluster::{Cluster, Options};
use bobbin_e2e::pools::Pool;
use k8s_openapi::api::core::v1;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use libtest_mimic::{Failed, Trial};
use tokio::runtime::Runtime;

/// How long one test may take.
const TEST: Duration = Duration::from_mins(4);
/// Seconds that a deleted node's blocks wait.
pub const NODE_GONE: u64 = 8;
/// Seconds that an empty block waits.
pub const BLOCK_IDLE: u64 = 5;
/// The chart's values on the stage: graces are short.
pub const VALUES: [&str; 4] =
    ["agent.blockIdle=5s", "operator.nodeGracePeriod=8s", "agent.staleCheckInterval=4s", "operator.statusInterval=1s"];
/// Namespaces that are not a test's.
const ESTABLISHED: [&str; 5] = ["default", "kube-system", "kube-public", "kube-node-lease", "bobbin-system"];

/// The stage. Cheap to clone.
#[derive(Clone)]
pub struct Stage {
    runtime: Arc<Runtime>,
    cluster: Arc<Mutex<Option<Cluster>>>,
}

impl Stage {
    /// An empty stage.
    pub fn build() -> Result<Self> {
        Ok(Self { runtime: Arc::new(Runtime::new()?), cluster: Arc::default() })
    }

    /// A test; its name is the sentence that it shows.
    pub fn test(&self, sentence: &str, run: impl AsyncFnOnce(&mut Cluster) -> Result<()> + Send + 'static) -> Trial {
        let stage = self.clone();
        Trial::test(sentence, move || stage.play(run).map_err(|error| Failed::from(format!("{error:#}"))))
    }

    fn play(&self, run: impl AsyncFnOnce(&mut Cluster) -> Result<()>) -> Result<()> {
        // A test that panicked has left the cluster as any that failed.
        let mut place = self.cluster.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.runtime.block_on(async {
            if place.is_none() {
                *place = Some(start().await.context("the stage could not be set up")?);
            }
            let cluster = place.as_mut().context("the stage is empty")?;
            let result = match tokio::time::timeout(TEST, run(cluster)).await.context("the test took too long") {
                Ok(Ok(())) => tokio::time::timeout(TEST, tidy(cluster))
                    .await
                    .context("tidying up took too long")
                    .and_then(|result| result)
                    .context("the test passed, but what it left could not be tidied up"),
                Ok(Err(error)) | Err(error) => Err(error),
            };
            if result.is_err() {
                eprintln!("{}", cluster.account());
            }
            result
        });
        if result.is_err() {
            if std::env::var_os("BOBBIN_STOP").is_some() {
                eprintln!("{result:?}");
                eprintln!(
                    "BOBBIN_STOP: {:?}",
                    place.as_ref().map(|cluster| cluster.control_plane().admin_kubeconfig())
                );
                loop {
                    std::thread::park();
                }
            }
            // Nobody knows what is left: the next test gets a new cluster.
            let _guard = self.runtime.enter();
            *place = None;
        }
        result
    }

    /// Takes the cluster down.
    pub fn clear(&self) {
        let _guard = self.runtime.enter();
        *self.cluster.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The pool of everybody.
pub fn default_pool() -> AddressPool {
    Pool::named("default").subnet("10.64.0.0/20", "fd00:64::/116").build()
}

async fn start() -> Result<Cluster> {
    let cluster = Cluster::start(Options::default()).await?;
    cluster.install(&VALUES).await?;
    cluster.apply(default_pool()).await?;
    cluster.await_condition(default_pool(), "Ready", "True", Duration::from_secs(30)).await?;
    Ok(cluster)
}

/// What an earlier test deleted may have ended since it was listed.
fn gone_is_fine<T>(answer: kube::Result<T>) -> Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

/// Everything is on, no test's pod, namespace or pool is left.
async fn tidy(cluster: &mut Cluster) -> Result<()> {
    cluster.control_plane_mut().start_apiserver().await?;
    cluster.controllers_must_be_running()?;
    let names: Vec<String> = cluster.nodes().map(|node| node.name().to_owned()).collect();
    for name in names {
        let node = cluster.node_mut(&name)?;
        if node.is_on() {
            node.plug()?;
        } else {
            node.boot()?;
        }
    }
    let namespaces: Api<v1::Namespace> = Api::all(cluster.client());
    for namespace in namespaces.list(&ListParams::default()).await?.items.iter().map(ResourceExt::name_any) {
        if !ESTABLISHED.contains(&namespace.as_str()) {
            cluster.delete_all_pods(&namespace).await?;
            gone_is_fine(namespaces.delete(&namespace, &DeleteParams::default()).await)?;
        }
    }
    let pools: Api<AddressPool> = Api::all(cluster.client());
    for pool in pools.list(&ListParams::default()).await?.items.iter().filter(|pool| pool.name_any() != "default") {
        gone_is_fine(pools.delete(&pool.name_any(), &DeleteParams::default()).await)?;
        cluster.await_gone(pool, Duration::from_mins(1)).await?;
    }
    cluster.await_nodes_ready().await
}
