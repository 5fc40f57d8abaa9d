//! The manifests in examples/ work as they stand. An API server with the chart's admission policies accepts all of them
//! together. The operator brings each pool into the state that the comment in its manifest promises.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use bobbin_crds::AddressPool;
use bobbin_e2e::ports::free_port;
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{check, wait_until};
use bobbin_messages::condition;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use xtask::programs::Programs;

use crate::fixture::{PolicyFixture, TEST_TIMEOUT};

/// The only file without a pool. The API server knows the kind of its object only if the Prometheus operator is
/// installed.
const ALERT_RULES: &str = "10-alert-rules.yaml";
/// The pools whose nodeSelector admits only labelled nodes.
const FOR_LABELLED_NODES: [&str; 3] = ["partner", "rack-a", "rack-b"];

pub fn tests(suite: &Suite<PolicyFixture>) -> Vec<Trial> {
    vec![
        suite.test("all examples are accepted together, and their pools get the promised state", examples),
        suite.test("each example begins with a comment that says what it does and when to use it", comments),
    ]
}

async fn examples(_: &mut PolicyFixture) -> Result<()> {
    // Other tests leave blocks behind, so the examples get their own API server.
    let fixture = PolicyFixture::start().await?;
    let blocks: Api<bobbin_crds::AddressBlock> = Api::all(fixture.admin());
    blocks.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    let port = free_port()?;
    let address = format!("--metrics-address=127.0.0.1:{port}");
    let _operator = fixture.start_operator(&["--no-leader-election", &address])?;
    for file in files()?.iter().filter(|file| !file.ends_with(ALERT_RULES)) {
        apply(&fixture, file)?;
    }
    await_pools(&fixture, "NoNodeAdmitted").await?;
    for (node, labels) in [
        ("n1", json!({"example.com/rack": "a", "example.com/gateway": "true"})),
        ("n2", json!({"example.com/rack": "b"})),
    ] {
        let labelled = Patch::Merge(json!({"metadata": {"labels": labels}}));
        Api::<Node>::all(fixture.admin()).patch(node, &PatchParams::default(), &labelled).await?;
    }
    await_pools(&fixture, "SubnetsAccepted").await?;
    alert_rules(port).await
}

/// Waits until each pool is Ready and the operator has accepted all of its subnets. `labelled` is the expected reason
/// of the condition `Ready` of [`FOR_LABELLED_NODES`].
async fn await_pools(fixture: &PolicyFixture, labelled: &str) -> Result<()> {
    let pools: Api<AddressPool> = Api::all(fixture.admin());
    let pools = &pools;
    wait_until("each pool has the state that its comment promises", TEST_TIMEOUT, || async move {
        let pools = pools.list(&ListParams::default()).await?.items;
        let mut wrong = Vec::new();
        for pool in &pools {
            let name = pool.name_any();
            let ready = match name.as_str() {
                "old-subnet" => "False Draining".to_owned(),
                other if FOR_LABELLED_NODES.contains(&other) => format!("True {labelled}"),
                _ => "True SubnetsAccepted".to_owned(),
            };
            let expected = [(condition::READY, ready.as_str()), (condition::ACCEPTED, "True SubnetsAccepted")];
            for (kind, expected) in expected {
                let seen = state_of(pool, kind);
                if seen != expected {
                    wrong.push(format!("{name}: {kind} must be {expected}, but is {seen}"));
                }
            }
            if state_of(pool, condition::MISCONFIGURED).starts_with("True") {
                wrong.push(format!("{name} is misconfigured"));
            }
        }
        Ok(check(wrong.is_empty() && pools.len() == 12, || format!("{} pools; {}", pools.len(), wrong.join("; "))))
    })
    .await
}

/// The status and the reason of a pool's condition.
fn state_of(pool: &AddressPool, kind: &str) -> String {
    let conditions = pool.status.iter().flat_map(|status| &status.conditions);
    let found = conditions.into_iter().find(|condition| condition.type_ == kind);
    found.map_or_else(String::new, |condition| format!("{} {}", condition.status, condition.reason))
}

/// Checks the alert rules with Prometheus' own checker. Also checks that the operator serves the metric in each rule.
async fn alert_rules(port: u16) -> Result<()> {
    let object: Value = serde_saphyr::from_str(&std::fs::read_to_string(directory().join(ALERT_RULES))?)?;
    let scratch = tempfile::tempdir()?;
    let rules = scratch.path().join("rules.json");
    std::fs::write(&rules, object["spec"].to_string())?;
    let checked = Command::new(Programs::find()?.path("promtool")?).args(["check", "rules"]).arg(&rules).output()?;
    ensure!(checked.status.success(), "promtool refuses the rules: {}", String::from_utf8_lossy(&checked.stderr));
    let page = metrics_page(port).await?;
    let groups = object["spec"]["groups"].as_array().into_iter().flatten();
    let rules: Vec<&Value> = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten()).collect();
    ensure!(rules.len() == 2, "the example must have two rules, but has {}", rules.len());
    for rule in rules {
        let expr = rule["expr"].as_str().context("a rule has no expression")?;
        let (_, selector) = expr.split_once("(bobbin_").context("the expression selects no metric of Bobbin")?;
        let (name, rest) = selector.split_once('{').context("the expression has no labels")?;
        let labels: Vec<&str> = rest.split_once('}').context("the labels have no end")?.0.split(',').collect();
        let served = page.lines().filter(|line| line.starts_with(&format!("bobbin_{name}{{")));
        ensure!(
            served.into_iter().any(|line| labels.iter().all(|label| line.contains(label))),
            "the operator does not serve the metric of {expr}:\n{page}"
        );
    }
    Ok(())
}

async fn metrics_page(port: u16) -> Result<String> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    Ok(page)
}

async fn comments(_: &mut PolicyFixture) -> Result<()> {
    let files = files()?;
    ensure!(files.len() == 10, "examples/ must have ten manifests, but has {files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        let comment: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
        ensure!(
            comment.first().is_some_and(|line| line.contains("Use this ")),
            "{} must begin with a comment that says what the file does and when to use it",
            file.display()
        );
    }
    Ok(())
}

fn apply(fixture: &PolicyFixture, file: &Path) -> Result<()> {
    let kubectl = Command::new(Programs::find()?.path("kubectl")?)
        .arg("--kubeconfig")
        .arg(fixture.control_plane.admin_kubeconfig()?)
        .args(["apply", "--server-side", "-f"])
        .arg(file)
        .stdin(Stdio::null())
        .output()?;
    let words = String::from_utf8_lossy(&kubectl.stderr);
    ensure!(kubectl.status.success() && !words.contains("Warning"), "{}: {words}", file.display());
    Ok(())
}

/// The manifests in examples/, ordered by name.
fn files() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory())? {
        files.push(entry?.path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    Ok(files)
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}
