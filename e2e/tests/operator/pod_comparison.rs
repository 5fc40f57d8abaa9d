//! The operator compares assignments with pods. It exports how many addresses have an assignment but no pod (held but
//! not used). It also exports how many have a pod but no assignment (used but not held).

use anyhow::{Context, Result};
use bobbin_e2e::ports::free_port;
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{Poll, check, wait_until};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fixture::{OperatorFixture, RECONCILE_TIMEOUT, metrics_page};

/// The name of the test's namespace, pool and node.
const NAME: &str = "compared";
const BLOCK: &str = "compared-0";
/// The UID of the static pod, in the form that kubelet gives to UIDs of static pods.
const STATIC_UID: &str = "0123456789abcdef0123456789abcdef";

pub fn tests(suite: &Suite<OperatorFixture>) -> Vec<Trial> {
    vec![suite.test("addresses that are held but not used, or used but not held, are counted and kept", differences)]
}

async fn differences(fixture: &mut OperatorFixture) -> Result<()> {
    let test = Test { fixture };
    let node_uid = fixture.node(NAME).await?;
    fixture.pool(NAME, json!({"subnets": [{"ipv4": "10.77.0.0/24", "ipv6": "fd77::/120"}]})).await?;
    fixture.until_ready(NAME).await?;
    fixture.claim(BLOCK, NAME, &node_uid).await?;
    test.namespace().await?;
    test.plant_agreement().await?;
    let port = free_port()?;
    let metrics = format!("--metrics-address=127.0.0.1:{port}");
    let stop = CancellationToken::new();
    let _stop_at_end = stop.clone().drop_guard();
    let flags = ["--no-leader-election", "--pod-comparison-interval=1s", &metrics];
    fixture.operator("comparing", &flags, stop)?;
    // The operator exports its first numbers after two comparisons. The objects existed before the operator started, so
    // even the first numbers must be correct.
    test.first_figures(port, ["0", "0", "0", "0"]).await?;

    // Delete one pod and end another, but keep their assignments.
    test.pods().delete("deleted", &DeleteParams::default().grace_period(0)).await?;
    test.status("ended", json!({"phase": "Failed"})).await?;
    test.until_figures(port, ["2", "1", "0", "0"]).await?;
    // Delete the assignment of a running pod, and give another pod an address that differs from its assignment.
    fixture.forget("10.77.0.1").await?;
    test.status("moved", json!({"podIPs": [{"ip": "10.77.0.99"}], "podIP": "10.77.0.99"})).await?;
    test.until_figures(port, ["3", "1", "2", "1"]).await?;
    for kept in ["10.77.0.2", "10.77.0.3", "10.77.0.4"] {
        fixture.assignments().get(kept).await.with_context(|| format!("the assignment of {kept} is gone"))?;
    }

    for held in ["10.77.0.2", "10.77.0.3", "10.77.0.4"] {
        fixture.forget(held).await?;
    }
    test.until_figures(port, ["0", "0", "2", "1"]).await?;
    test.assign("running", "10.77.0.1", Some("fd77::1")).await?;
    test.assign("moved", "10.77.0.99", None).await?;
    test.until_figures(port, ["0", "0", "0", "0"]).await
}

struct Test<'a> {
    fixture: &'a OperatorFixture,
}

impl Test<'_> {
    /// Creates pods in all states, and the assignments that belong to them.
    async fn plant_agreement(&self) -> Result<()> {
        let running = |ips: &[&str]| {
            let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
            json!({"phase": "Running", "podIP": ips[0]["ip"], "podIPs": ips})
        };
        let with_addresses: [(&str, Value, &str, Option<&str>); 6] = [
            ("running", json!({}), "10.77.0.1", Some("fd77::1")),
            ("deleted", json!({}), "10.77.0.2", Some("fd77::2")),
            ("ended", json!({}), "10.77.0.3", None),
            ("moved", json!({}), "10.77.0.4", None),
            ("terminating", json!({}), "10.77.0.5", Some("fd77::5")),
            ("mirror", json!({"annotations": mirror()}), "10.77.0.6", None),
        ];
        for (name, metadata, ipv4, ipv6) in with_addresses {
            self.pod(name, metadata, json!({})).await?;
            self.assign(name, ipv4, ipv6).await?;
            let ips: Vec<&str> = [Some(ipv4), ipv6].into_iter().flatten().collect();
            self.status(name, running(&ips)).await?;
        }
        // Delete this pod gracefully. It stays terminating, because no kubelet is running.
        self.pods().delete("terminating", &DeleteParams::default().grace_period(600)).await?;
        self.pod("starting", json!({}), json!({})).await?;
        self.assign("starting", "10.77.0.7", None).await?;
        // The next two assignments need no pod object. A static pod may have no mirror pod, and some container runtimes
        // do not name the pod.
        self.assign_to(Some(("static-without-mirror", STATIC_UID)), "10.77.0.8", None).await?;
        self.assign_to(None, "10.77.0.9", None).await?;
        // The following pods use no address of the pool, so they need no assignment.
        self.pod("host-network", json!({}), json!({"hostNetwork": true})).await?;
        self.status("host-network", running(&["10.77.0.200"])).await?;
        self.pod("completed", json!({}), json!({})).await?;
        self.status(
            "completed",
            json!({"phase": "Succeeded", "podIP": "10.77.0.201", "podIPs": [{"ip": "10.77.0.201"}]}),
        )
        .await?;
        self.pod("elsewhere", json!({}), json!({})).await?;
        self.status("elsewhere", running(&["192.0.2.9"])).await
    }

    /// Waits until the operator exports numbers for the first time. Fails if they differ from `expected`.
    async fn first_figures(&self, port: u16, expected: [&str; 4]) -> Result<()> {
        let first = wait_until("the operator exports the numbers of addresses", RECONCILE_TIMEOUT, || async {
            let figures = figures(port).await.unwrap_or_default();
            Ok(if figures.is_empty() {
                Poll::Pending("the metrics have no such numbers".to_owned())
            } else {
                Poll::Ready(figures)
            })
        })
        .await?;
        anyhow::ensure!(first == expected, "the first numbers must be {expected:?}, but are {first:?}");
        Ok(())
    }

    async fn until_figures(&self, port: u16, expected: [&str; 4]) -> Result<()> {
        wait_until(&format!("the numbers of addresses are {expected:?}"), RECONCILE_TIMEOUT, || async {
            let figures = figures(port).await?;
            Ok(check(figures == expected, || format!("{figures:?}")))
        })
        .await
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.fixture.client(), NAME)
    }

    async fn namespace(&self) -> Result<()> {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAME}});
        let params = PostParams::default();
        Api::<Namespace>::all(self.fixture.client()).create(&params, &serde_json::from_value(namespace)?).await?;
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        let accounts: Api<ServiceAccount> = Api::namespaced(self.fixture.client(), NAME);
        accounts.create(&params, &serde_json::from_value(account)?).await?;
        Ok(())
    }

    async fn pod(&self, name: &str, mut metadata: Value, mut spec: Value) -> Result<()> {
        metadata["name"] = json!(name);
        spec["nodeName"] = json!(NAME);
        spec["containers"] = json!([{"name": "main", "image": "none"}]);
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
        let created = self.pods().create(&PostParams::default(), &serde_json::from_value(pod)?).await;
        created.map(drop).with_context(|| format!("pod {name}"))
    }

    async fn status(&self, name: &str, status: Value) -> Result<()> {
        let patch = Patch::Merge(json!({"status": status}));
        let written = self.pods().patch_status(name, &PatchParams::default(), &patch).await;
        written.map(drop).with_context(|| format!("the API server refused the status of pod {name}"))
    }

    /// Creates the assignment of an existing pod.
    async fn assign(&self, pod: &str, ipv4: &str, ipv6: Option<&str>) -> Result<()> {
        let metadata = self.pods().get(pod).await?.metadata;
        let hash = metadata.annotations.and_then(|all| all.get("kubernetes.io/config.hash").cloned());
        let uid = hash.or(metadata.uid).context("the pod has no UID")?;
        self.assign_to(Some((pod, &uid)), ipv4, ipv6).await
    }

    async fn assign_to(&self, pod: Option<(&str, &str)>, ipv4: &str, ipv6: Option<&str>) -> Result<()> {
        let mut assignment = json!({
            "apiVersion": "bobbin.dev/v1beta1", "kind": "IPAssignment", "metadata": {"name": ipv4},
            "spec": {
                "poolName": NAME, "blockName": BLOCK, "nodeName": NAME, "ipv4": ipv4,
                "containerID": format!("container-{}", ipv4.replace('.', "-")), "ifName": "eth0",
                "createdAt": "2026-01-01T00:00:00.000000Z", "bootID": "boot",
            },
        });
        let spec = &mut assignment["spec"];
        if let Some(ipv6) = ipv6 {
            spec["ipv6"] = json!(ipv6);
        }
        if let Some((name, uid)) = pod {
            (spec["podNamespace"], spec["podName"], spec["podUID"]) = (json!(NAME), json!(name), json!(uid));
        }
        let created =
            self.fixture.assignments().create(&PostParams::default(), &serde_json::from_value(assignment)?).await;
        created.map(drop).with_context(|| format!("assignment {ipv4}"))
    }
}

/// The annotations of a mirror pod.
fn mirror() -> Value {
    json!({
        "kubernetes.io/config.mirror": STATIC_UID, "kubernetes.io/config.hash": STATIC_UID,
        "kubernetes.io/config.source": "file",
    })
}

/// The pool's numbers of addresses in the metrics: first those held but not used, for IPv4 and IPv6, then those used
/// but not held. Empty if the operator exports none.
async fn figures(port: u16) -> Result<Vec<String>> {
    let page = metrics_page(port).await?;
    let value = |figure: &str, family: &str| {
        let name = format!("bobbin_operator_{figure}_addresses{{pool=\"{NAME}\",family=\"{family}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&name)).map(str::to_owned)
    };
    let figures = ["held_not_used", "used_not_held"];
    Ok(figures.iter().flat_map(|figure| [value(figure, "ipv4"), value(figure, "ipv6")]).flatten().collect())
}
