//! What the chart gives to the users of a cluster: `helm test`, and rights on pools, blocks and assignments.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::cluster::{Cluster, NAMESPACE};
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{check, wait_until};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::fixture::{VALUES, default_pool};

/// How long the controller manager may take to aggregate a role.
const AGGREGATION_TIMEOUT: Duration = Duration::from_secs(30);
/// The labels of the pods of `helm test`.
const TEST_PODS: &str = "app.kubernetes.io/component=test";

pub fn tests(suite: &Suite<Cluster>) -> Vec<Trial> {
    vec![
        suite.test("helm test fails while IPv6 between nodes is broken, and succeeds when it works", helm_test),
        suite
            .test("the roles view and edit of Kubernetes let users read pools, and write them only on request", rights),
    ]
}

async fn helm_test(cluster: &mut Cluster) -> Result<()> {
    for node in cluster.nodes() {
        node.exec(["nft", "add table ip6 broken"])?;
        node.exec(["nft", "add chain ip6 broken forward { type filter hook forward priority -200 ; }"])?;
        node.exec(["nft", "add rule ip6 broken forward tcp dport 8080 reject with tcp reset"])?;
    }
    let error = run(cluster).err().context("helm test succeeded although IPv6 is broken")?;
    let log = cluster.kubectl(["-n", NAMESPACE, "logs", "bobbin-test"])?;
    ensure!(
        log.contains("reaches 10.64.") && log.contains("does not reach fd00:64:"),
        "the log of the client must say that only the IPv6 path is broken: {log}; Helm said: {error:#}"
    );
    for node in cluster.nodes() {
        node.exec(["nft", "delete table ip6 broken"])?;
    }
    ensure!(!log.contains("Both pods"), "the test pods must run on different nodes: {log}");

    run(cluster)?;
    cluster.await_no_pods_labelled(NAMESPACE, TEST_PODS, Duration::from_secs(30)).await?;
    let left = cluster.kubectl(["-n", NAMESPACE, "get", "deployment,service", "-l", TEST_PODS, "-o", "name"])?;
    ensure!(left.is_empty(), "helm test left these objects behind: {left}");
    cluster.await_invariants(Duration::from_secs(10)).await
}

fn run(cluster: &Cluster) -> Result<String> {
    cluster.helm(["test", "bobbin", "--namespace", NAMESPACE, "--timeout", "100s"])
}

async fn rights(cluster: &mut Cluster) -> Result<()> {
    for role in ["view", "edit"] {
        cluster
            .apply(json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                "metadata": {"name": format!("user-{role}")},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": format!("user-{role}")}],
            }))
            .await?;
    }
    for user in ["user-view", "user-edit"] {
        for resource in ["addresspools", "addressblocks", "ipassignments"] {
            await_right(cluster, user, "list", resource, true).await?;
        }
        for resource in ["addresspools", "addressblocks", "ipassignments"] {
            await_right(cluster, user, "create", resource, false).await?;
        }
    }
    let mut values = VALUES.to_vec();
    values.extend(["rbac.aggregateEdit=true", "crds.install=false"]);
    cluster.install(&values).await?;
    // An upgrade that leaves the CRDs out of the chart must not delete them, because all pools would go with them.
    cluster.await_condition(default_pool(), "Ready", "True", Duration::from_secs(10)).await?;
    await_right(cluster, "user-edit", "patch", "addresspools", true).await?;
    for (user, resource) in
        [("user-view", "addresspools"), ("user-edit", "addressblocks"), ("user-edit", "ipassignments")]
    {
        await_right(cluster, user, "patch", resource, false).await?;
    }
    cluster.install(&VALUES).await?;
    await_right(cluster, "user-edit", "patch", "addresspools", false).await
}

/// Waits until a user has a right, or lacks this right if `expected` is false.
async fn await_right(cluster: &Cluster, user: &str, verb: &str, resource: &str, expected: bool) -> Result<()> {
    let attributes = ResourceAttributes {
        group: Some("bobbin.dev".to_owned()),
        resource: Some(resource.to_owned()),
        verb: Some(verb.to_owned()),
        ..ResourceAttributes::default()
    };
    let spec = SubjectAccessReviewSpec {
        resource_attributes: Some(attributes),
        user: Some(user.to_owned()),
        ..SubjectAccessReviewSpec::default()
    };
    let review = &SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let api: &Api<SubjectAccessReview> = &Api::all(cluster.client());
    let what = format!("the right of {user} to {verb} {resource} is {expected}");
    wait_until(&what, AGGREGATION_TIMEOUT, || async move {
        let answer = api.create(&PostParams::default(), review).await?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        Ok(check(allowed == expected, || format!("the API server says {allowed}")))
    })
    .await
}
