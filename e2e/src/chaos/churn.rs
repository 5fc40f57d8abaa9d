//! Creates and deletes pods of several pools during a chaos run: single bare pods, bursts of bare pods, a Deployment, a
//! StatefulSet and Jobs.

use std::time::Duration;

use anyhow::Result;
use bobbin_crds::{AddressPool, POOL_ANNOTATION};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Pool, Workload, pod_template};

/// The namespace of the pods. A pod without a pool annotation gets its address from the pool with the same name.
pub const NAMESPACE: &str = "chaos";
/// The time limit of one API call. If a call fails, for example because the API server is down, the current step ends and
/// the run continues with the next step.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// The largest number of bare pods that exist at once.
const MAX_BARE_PODS: usize = 12;
/// The number of bare pods that a burst creates.
const BURST: usize = 6;
/// The longest time between two changes, in milliseconds.
const MAX_PAUSE_MS: u64 = 1200;

/// The pools of the pods. `chaos-small` has fewer addresses than the run has pods, so some pods must wait for an
/// address.
pub fn pools() -> [AddressPool; 3] {
    [
        Pool::named(NAMESPACE).subnet("10.120.0.0/22", "fd00:120::/118").bits(3).cooldown(2).build(),
        Pool::named("chaos-small").subnet("10.121.0.0/28", "fd00:121::/124").bits(1).cooldown(1).build(),
        Pool::named("chaos-wide").subnet("10.122.0.0/24", "fd00:122::/120").bits(5).cooldown(5).build(),
    ]
}

/// Creates the namespace, a Deployment and a StatefulSet. The run later changes the Deployment and the StatefulSet.
pub async fn prepare(cluster: &Cluster) -> Result<()> {
    cluster.make_namespace(NAMESPACE, &[]).await?;
    cluster.deploy(NAMESPACE, "web", 3).await?;
    let labels = json!({"app": "db"});
    let mut template = pod_template(&labels, None);
    template["metadata"]["annotations"] = json!({POOL_ANNOTATION: "chaos-wide"});
    cluster
        .apply(json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"namespace": NAMESPACE, "name": "db"},
            "spec": {
                "replicas": 3, "serviceName": "db", "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": labels}, "template": template,
            },
        }))
        .await
}

/// Creates and deletes pods until the caller drops the future. An API call may fail at any time, because the run also
/// breaks the API server.
pub async fn run(client: kube::Client, seed: u64) {
    let mut churn = Churn { client, random: fastrand::Rng::with_seed(seed), created: 0 };
    loop {
        // Ignore a step that fails or gets no answer. In that case, the run only makes fewer changes.
        let _ = tokio::time::timeout(CALL_TIMEOUT * 4, churn.step()).await;
        tokio::time::sleep(Duration::from_millis(churn.random.u64(50..MAX_PAUSE_MS))).await;
    }
}

struct Churn {
    client: kube::Client,
    random: fastrand::Rng,
    created: usize,
}

impl Churn {
    async fn step(&mut self) -> Result<()> {
        match self.random.u8(..10) {
            0..=2 => self.create_bare(1).await,
            3..=5 => self.delete_bare().await,
            6 => self.scale_web().await,
            7 => self.delete_member().await,
            8 => self.start_job().await,
            _ => self.create_bare(BURST).await,
        }
    }

    fn pods(&self) -> Api<v1::Pod> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    async fn bare(&self) -> Result<Vec<String>> {
        let listed = call(self.pods().list(&ListParams::default().labels("!app,!job-name"))).await?;
        Ok(listed.items.into_iter().filter_map(|pod| pod.metadata.name).collect())
    }

    async fn create_bare(&mut self, count: usize) -> Result<()> {
        let free = MAX_BARE_PODS.saturating_sub(self.bare().await?.len());
        for _ in 0..count.min(free) {
            self.created += 1;
            let mut workload = Workload::pod(NAMESPACE, &format!("bare-{}", self.created));
            if let Some(pool) = self.random.choice(["", "chaos-small", "chaos-wide"]).filter(|pool| !pool.is_empty()) {
                workload = workload.annotated(POOL_ANNOTATION, pool);
            }
            let mut manifest = workload.manifest();
            manifest["metadata"]["labels"] = json!({});
            call(self.pods().create(&PostParams::default(), &serde_json::from_value(manifest)?)).await?;
        }
        Ok(())
    }

    async fn delete_bare(&mut self) -> Result<()> {
        let names = self.bare().await?;
        let Some(name) = self.random.choice(&names) else { return Ok(()) };
        call(self.pods().delete(name, &DeleteParams::default())).await.map(drop)
    }

    async fn scale_web(&mut self) -> Result<()> {
        let replicas = self.random.u32(0..7);
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), NAMESPACE);
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        call(api.patch("web", &PatchParams::default(), &patch)).await.map(drop)
    }

    /// Deletes a pod of the StatefulSet. The StatefulSet creates a new pod with the same name.
    async fn delete_member(&mut self) -> Result<()> {
        let name = format!("db-{}", self.random.u8(0..3));
        call(self.pods().delete(&name, &DeleteParams::default())).await.map(drop)
    }

    async fn start_job(&mut self) -> Result<()> {
        self.created += 1;
        let mut template = pod_template(&json!({}), None);
        let container: &mut Value = &mut template["spec"]["containers"][0];
        container["command"] = json!(["/bin/sleep", "1"]);
        container["readinessProbe"] = Value::Null;
        template["spec"]["restartPolicy"] = json!("Never");
        let job: Job = serde_json::from_value(json!({
            "metadata": {"name": format!("job-{}", self.created)},
            "spec": {"parallelism": 2, "completions": 2, "ttlSecondsAfterFinished": 1, "template": template},
        }))?;
        let api: Api<Job> = Api::namespaced(self.client.clone(), NAMESPACE);
        call(api.create(&PostParams::default(), &job)).await.map(drop)
    }
}

async fn call<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T> {
    Ok(tokio::time::timeout(CALL_TIMEOUT, call).await??)
}
