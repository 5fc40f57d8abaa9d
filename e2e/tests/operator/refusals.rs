//! Tests writes that the API server refuses. A refused write of one block does not stop the pool. If a pool fails for
//! long, the operator becomes unready.

use std::time::Duration;

use anyhow::{Result, ensure};
use bobbin_crds::{AddressBlock, AddressBlockSpec, FINALIZER};
use bobbin_e2e::ports::free_port;
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{check, wait_until};
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use libtest_mimic::Trial;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::fixture::{OperatorFixture, RECONCILE_TIMEOUT, http_page, metrics_page};

/// How long the operator may take until it repeats a refused write.
const RETRY_TIMEOUT: Duration = Duration::from_secs(70);
/// How long the operator may take until its readiness shows a failing pool.
const READINESS_TIMEOUT: Duration = Duration::from_mins(1);

pub fn tests(suite: &Suite<OperatorFixture>) -> Vec<Trial> {
    vec![
        suite.test("a refused write to one block does not stop its pool", one_block),
        suite.test("a refused creation of one block does not stop its pool", creation),
        suite.test("a pool whose passes fail for long makes the operator unready", unready),
        suite.test("a condition of another program stays in the status of a pool", foreign_condition),
    ]
}

/// Lets the API server refuse requests with this operation and resource if the expression `denied` is true. Then
/// repeats the dry run `probe` until the API server refuses it.
async fn deny<T>(
    fixture: &OperatorFixture,
    name: &str,
    [operation, resource]: [&str; 2],
    denied: &str,
    probe: impl AsyncFn() -> kube::Result<T>,
) -> Result<()> {
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(fixture.client());
    let policy = json!({
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": ["bobbin.dev"], "apiVersions": ["*"], "operations": [operation], "resources": [resource],
            }]},
            "validations": [{"expression": format!("!({denied})"), "message": "denied by the test"}],
        },
    });
    policies.create(&PostParams::default(), &serde_json::from_value(policy)?).await?;
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(fixture.client());
    let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}});
    bindings.create(&PostParams::default(), &serde_json::from_value(binding)?).await?;
    wait_until("the API server enforces the policy", RECONCILE_TIMEOUT, || async {
        let answer = probe().await.map(drop);
        let refused = answer.as_ref().is_err_and(|error| error.to_string().contains("denied by the test"));
        Ok(check(refused, || format!("{answer:?}")))
    })
    .await
}

fn dry_run() -> PatchParams {
    PatchParams { dry_run: true, ..PatchParams::default() }
}

async fn allow(fixture: &OperatorFixture, name: &str) -> Result<()> {
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(fixture.client());
    bindings.delete(name, &DeleteParams::default()).await?;
    Ok(())
}

async fn one_block(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.pool("refused", json!({"subnets": [{"ipv4": "10.17.0.0/16"}]})).await?;
    fixture.until_ready("refused").await?;
    for block in ["refused-1", "refused-2"] {
        fixture.claim(block, "a-node", "a-uid").await?;
    }
    let denied = "object.metadata.name == 'refused-1' && !has(object.metadata.finalizers)";
    let without = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let blocks = fixture.blocks();
    let probe = async || blocks.patch("refused-1", &dry_run(), &without).await;
    deny(fixture, "refused-1", ["UPDATE", "addressblocks"], denied, probe).await?;
    fixture.release("refused-1").await?;
    fixture.release("refused-2").await?;
    fixture.until_free("refused-2", RECONCILE_TIMEOUT).await?;
    let known = fixture.blocks_of("refused").await?;
    let last = known.iter().map(|block| block.spec.index).max();
    let free = known
        .iter()
        .filter(|block| block.spec.node_name.is_none() && block.metadata.name.as_deref() != Some("refused-1"));
    for block in free.filter_map(|block| block.metadata.name.as_deref()) {
        fixture.claim(block, "a-node", "a-uid").await?;
    }
    wait_until("the operator carves further blocks", RECONCILE_TIMEOUT, || async {
        let newest = fixture.blocks_of("refused").await?.iter().map(|block| block.spec.index).max();
        Ok(check(newest > last, || format!("the highest block index is still {newest:?}")))
    })
    .await?;
    let block = fixture.blocks().get("refused-1").await?;
    ensure!(block.metadata.finalizers.as_deref() == Some(&[FINALIZER.to_owned()][..]), "{:?}", block.metadata);
    allow(fixture, "refused-1").await?;
    fixture.until_free("refused-1", RETRY_TIMEOUT).await.map(drop)
}

async fn creation(fixture: &mut OperatorFixture) -> Result<()> {
    let blocks = fixture.blocks();
    let spec = AddressBlockSpec {
        pool_name: "gap".to_owned(),
        index: 2,
        ipv4: Some("10.15.0.4/31".to_owned()),
        ..AddressBlockSpec::default()
    };
    let (refused, dry_run) = (AddressBlock::new("gap-2", spec), PostParams { dry_run: true, ..PostParams::default() });
    let probe = async || blocks.create(&dry_run, &refused).await;
    deny(fixture, "gap-2", ["CREATE", "addressblocks"], "object.metadata.name == 'gap-2'", probe).await?;
    fixture.pool("gap", json!({"subnets": [{"ipv4": "10.15.0.0/28"}], "blockSizeBits": 1})).await?;
    wait_until("the operator carves the other seven blocks", RECONCILE_TIMEOUT, || async {
        let found = fixture.blocks_of("gap").await?.len();
        Ok(check(found == 7, || format!("{found} blocks")))
    })
    .await?;
    fixture.claim("gap-3", "a-node", "a-uid").await?;
    fixture
        .until_status("gap", "counts the claimed block", RECONCILE_TIMEOUT, |status| status.blocks.claimed == 1)
        .await?;
    allow(fixture, "gap-2").await?;
    wait_until("the operator creates the block that the API server refused before", RETRY_TIMEOUT, || async {
        let found = blocks.get_opt("gap-2").await?;
        Ok(check(found.is_some(), || "gap-2 does not exist".to_owned()))
    })
    .await
}

async fn unready(fixture: &mut OperatorFixture) -> Result<()> {
    let port = free_port()?;
    let stop = CancellationToken::new();
    let metrics = format!("--metrics-address=127.0.0.1:{port}");
    fixture.operator("unready", &["--no-leader-election", &metrics], stop.clone())?;
    let _stop = stop.drop_guard();
    fixture.pool("stuck", json!({"subnets": [{"ipv4": "10.13.0.0/24"}]})).await?;
    fixture.until_ready("stuck").await?;
    let until = |ready: bool, says: &'static str| async move {
        wait_until(
            &format!("the operator's readiness is {ready} and its text contains {says:?}"),
            READINESS_TIMEOUT,
            || async {
                let page = http_page(port, "/readyz").await.unwrap_or_default();
                Ok(check(page.starts_with("HTTP/1.1 200") == ready && page.contains(says), || page.clone()))
            },
        )
        .await
    };
    until(true, "ok").await?;
    let used = Patch::Merge(json!({"status": {"used": 1}}));
    let pools = fixture.pools();
    let probe = async || pools.patch_status("stuck", &dry_run(), &used).await;
    deny(fixture, "stuck", ["UPDATE", "addresspools/status"], "object.metadata.name == 'stuck'", probe).await?;
    fixture.change("stuck", json!({"subnets": [{"ipv4": "10.13.0.0/24"}, {"ipv4": "10.13.1.0/24"}]})).await?;
    until(false, "reconciling pool \"stuck\" has failed for").await?;
    let page = metrics_page(port).await?;
    let gauge = page.lines().find_map(|line| line.strip_prefix("bobbin_operator_reconcile_failing_seconds "));
    ensure!(gauge.and_then(|value| value.parse::<f64>().ok()).is_some_and(|value| value > 20.0), "{gauge:?}");
    allow(fixture, "stuck").await?;
    until(true, "ok").await
}

async fn foreign_condition(fixture: &mut OperatorFixture) -> Result<()> {
    fixture.pool("foreign", json!({"subnets": [{"ipv4": "10.14.0.0/24"}]})).await?;
    fixture.until_ready("foreign").await?;
    let condition = json!({
        "type": "example.com/Audited", "status": "True", "reason": "Audited", "message": "by another program",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let patch = json!([{"op": "add", "path": "/status/conditions/-", "value": condition}]);
    let patch: Patch<()> = Patch::Json(serde_json::from_value(patch)?);
    fixture.pools().patch_status("foreign", &PatchParams::default(), &patch).await?;
    fixture.change("foreign", json!({"draining": true})).await?;
    let foreign = |status: &bobbin_crds::AddressPoolStatus| {
        let found = status.conditions.iter().find(|condition| condition.type_ == "example.com/Audited");
        found.is_some_and(|found| found.message == "by another program" && found.status == "True")
    };
    fixture.until_status("foreign", "keeps the condition", RECONCILE_TIMEOUT, foreign).await.map(drop)
}
