//! Tests the check that `helm uninstall` runs first. The tests run the check with the command, the service account and
//! the rights that the chart gives it.

use std::ffi::OsString;

use anyhow::{Context, Result, ensure};
use bobbin_crds::{AddressPool, IPAssignment};
use bobbin_e2e::chart::token;
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{check, wait_until};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::fixture::{NAMESPACE, PolicyFixture, TEST_TIMEOUT, refused};

pub fn tests(suite: &Suite<PolicyFixture>) -> Vec<Trial> {
    vec![
        suite.test(
            "an uninstall is refused while pods have addresses, and an event on its Job says what to do",
            refuses,
        ),
        suite.test("the check before an uninstall only lists assignments and pools, and creates events", rights),
    ]
}

/// The arguments of the chart's Job. The test passes a kubeconfig, because no pod mounts the files of the service
/// account.
async fn command(fixture: &PolicyFixture) -> Result<Vec<OsString>> {
    let job = Api::<Job>::namespaced(fixture.admin(), NAMESPACE).get("bobbin-uninstall-check").await?;
    let pod = job.spec.and_then(|spec| spec.template.spec).context("the Job has no pod template")?;
    ensure!(pod.host_network == Some(true), "the check must run in the network of the host, not in Bobbin's");
    let tolerates = |pod: &k8s_openapi::api::core::v1::PodSpec| {
        pod.tolerations.iter().flatten().any(|one| one.key.is_none() && one.operator.as_deref() == Some("Exists"))
    };
    ensure!(tolerates(&pod), "the check must tolerate every taint: {:?}", pod.tolerations);
    let account = pod.service_account_name.context("the Job has no service account")?;
    let kubeconfig =
        fixture.control_plane.kubeconfig_for(&token(&fixture.admin(), NAMESPACE, &account, None).await?)?;
    let container = pod.containers.into_iter().next().context("the pod has no container")?;
    let words = container.command.into_iter().flatten().chain(container.args.into_iter().flatten());
    let own = [format!("--kubeconfig={}", kubeconfig.display()), format!("--namespace={NAMESPACE}")];
    let words: Vec<OsString> = words.chain(own).map(OsString::from).collect();
    ensure!(words[0] == "/bobbin-all" && words[1] == "uninstall-check", "{words:?}");
    Ok(words[1..].to_vec())
}

async fn refuses(fixture: &mut PolicyFixture) -> Result<()> {
    let command = command(fixture).await?;
    let assignments: Api<IPAssignment> = Api::all(fixture.admin());
    assignments.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    let mut assignment = fixture.assignment("n1");
    (assignment.spec.pod_namespace, assignment.spec.pod_name) = (Some("shop".to_owned()), Some("cart-0".to_owned()));
    assignments.create(&PostParams::default(), &assignment).await?;
    let refused = bobbin_operator::uninstall_check::run(command.clone()).await;
    let sentence = refused.err().context("the check succeeded although a pod has an address")?.to_string();
    for words in [
        "1 addresses are assigned to pods: shop/cart-0 on node n1",
        "--set agent.mode=remove --set agent.maxUnavailable=100%",
        "helm uninstall bobbin -n somewhere --no-hooks",
    ] {
        ensure!(sentence.contains(words), "{sentence}");
    }
    wait_until("the Job has an event with the reason UninstallRefused", TEST_TIMEOUT, || async {
        let events = Api::<Event>::namespaced(fixture.admin(), NAMESPACE).list(&ListParams::default()).await?.items;
        let of_job = |event: &Event| {
            event.reason.as_deref() == Some("UninstallRefused")
                && event.regarding.as_ref().is_some_and(|about| {
                    about.kind.as_deref() == Some("Job") && about.name.as_deref() == Some("bobbin-uninstall-check")
                })
        };
        Ok(check(events.iter().any(of_job), || format!("{} events", events.len())))
    })
    .await?;
    assignments.delete(&assignment.name_any(), &DeleteParams::default()).await?;
    let pools: Api<AddressPool> = Api::all(fixture.admin());
    let pool = json!({
        "apiVersion": "bobbin.dev/v1beta1", "kind": "AddressPool",
        "metadata": {"name": "cools", "finalizers": ["bobbin.dev/in-use"]}, "spec": {"subnets": [{"ipv4": "10.91.0.0/16"}]},
    });
    pools.create(&PostParams::default(), &serde_json::from_value(pool)?).await?;
    pools.delete("cools", &DeleteParams::default()).await?;
    let refused = bobbin_operator::uninstall_check::run(command.clone()).await;
    let sentence = refused.err().context("the check succeeded although a pool is being deleted")?.to_string();
    ensure!(sentence.contains("kubectl wait --for=delete addresspool/cools. To uninstall anyway"), "{sentence}");
    let done = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    pools.patch("cools", &PatchParams::default(), &done).await?;
    bobbin_operator::uninstall_check::run(command).await
}

async fn rights(fixture: &mut PolicyFixture) -> Result<()> {
    let token = token(&fixture.admin(), NAMESPACE, "bobbin-uninstall-check", None).await?;
    let client = fixture.control_plane.client_for(&token).await?;
    Api::<IPAssignment>::all(client.clone()).list(&ListParams::default()).await?;
    refused(Api::<Pod>::all(client.clone()).list(&ListParams::default()).await, 403, "cannot list resource \"pods\"")?;
    let assignment = fixture.assignment("n1");
    let answer = Api::<IPAssignment>::all(client).create(&PostParams::default(), &assignment).await;
    refused(answer, 403, "cannot create resource \"ipassignments\"")
}
