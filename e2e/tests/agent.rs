//! The agent on one node with a real API server, and what goes wrong around it: outages, crashes, full pools, foreign things.
//!
//! Faults come from outside: a proxy, a signal, a hand on the kernel. All tests share the node and take turns; each cleans up.

#[path = "agent/api_calls.rs"]
mod api_calls;
#[path = "agent/crash.rs"]
mod crash;
#[path = "agent/foreign.rs"]
mod foreign;
#[path = "agent/outage.rs"]
mod outage;
#[path = "agent/pools.rs"]
mod pools;
#[path = "agent/restart.rs"]
mod restart;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::lone_node::{Choice, LoneNode, Pod, own_mounts};
use bobbin_e2e::proxy::Weather;
use bobbin_e2e::until::{so, until};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use tokio::sync::Mutex;

/// How long a held ADD is held here.
const HOLD: Duration = Duration::from_secs(6);
/// How long it may take until the records are right again.
const CATCH_UP: Duration = Duration::from_mins(1);

macro_rules! test {
    ($shared:expr, $handle:expr, $sentence:expr, $function:path) => {{
        let (shared, handle): (Arc<Mutex<Option<LoneNode>>>, tokio::runtime::Handle) =
            ($shared.clone(), $handle.clone());
        Trial::test($sentence, move || {
            let run = async {
                let mut place = shared.lock().await;
                if place.is_none() {
                    *place = Some(begin().await?);
                }
                let node = place.as_mut().context("the node is there")?;
                node.proxy.set(Weather::Healthy);
                let result = $function(node).await;
                if result.is_err() {
                    // What a failed test left must not fail the next.
                    *place = None;
                }
                result
            };
            handle.block_on(run).map_err(|error: anyhow::Error| Failed::from(format!("{error:#}")))
        })
    }};
}

async fn begin() -> Result<LoneNode> {
    let flags = [format!("--hold-add={}s", HOLD.as_secs()), "--sweep-interval=2s".to_owned()];
    LoneNode::ready(Choice { agent: flags.to_vec(), ..Choice::default() }).await
}

fn main() -> Result<ExitCode> {
    own_mounts()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let handle = runtime.handle().clone();
    let shared = Arc::new(Mutex::new(None));
    let tests = vec![
        test!(
            shared,
            handle,
            "an ADD and a DEL cost one write and no read each, by the API server's own count",
            api_calls::one_write_no_read
        ),
        test!(
            shared,
            handle,
            "table 119 has a block before its first ADD returns",
            api_calls::exported_before_the_first_add
        ),
        test!(
            shared,
            handle,
            "pods start and stop while the API server refuses, and the records catch up",
            outage::refused
        ),
        test!(
            shared,
            handle,
            "pods start and stop while the API server is a black hole, and the records catch up",
            outage::black_hole
        ),
        test!(shared, handle, "pods start and stop without an operator", outage::no_operator),
        test!(
            shared,
            handle,
            "writes whose answers are lost are read back: no record too many, none missing",
            outage::lost_answers
        ),
        test!(shared, handle, "a claim whose answer is lost is neither lost nor doubled", outage::lost_claim),
        test!(
            shared,
            handle,
            "a restart with 250 attachments serves within 1 s: healthy, refused, swallowed",
            restart::within_a_second
        ),
        test!(
            shared,
            handle,
            "an agent killed at any moment under churn loses no address and gives none twice",
            crash::killed_under_churn
        ),
        test!(shared, handle, "a late DEL with an old container ID changes nothing", crash::late_del),
        test!(shared, handle, "an attachment whose namespace is gone is swept without a DEL", crash::swept),
        test!(shared, handle, "after a reboot the old addresses are free and the records gone", crash::rebooted),
        test!(shared, handle, "a full pool says so in one sentence, and STATUS stays success", pools::full),
        test!(shared, handle, "a held ADD goes on when an address comes free", pools::held_until_freed),
        test!(shared, handle, "a held ADD goes on when a subnet is appended", pools::held_until_appended),
        test!(
            shared,
            handle,
            "pod annotation beats namespace annotation beats namespace name beats default",
            pools::order_of_sources
        ),
        test!(shared, handle, "a pool that can't serve is named with its reason", pools::refusals),
        test!(shared, handle, "pools of one family give one address", pools::one_family),
        test!(
            shared,
            handle,
            "a foreign route, rule and CNI file survive, and a file that sorts first is reported",
            foreign::survive
        ),
        test!(shared, handle, "what another program removes is repaired", foreign::repaired),
        test!(shared, handle, "a failed ADD leaves nothing behind", foreign::failed_add_leaves_nothing),
    ];
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let conclusion = libtest_mimic::run(&arguments, tests);
    drop(runtime.block_on(shared.lock()).take());
    Ok(conclusion.exit_code())
}

/// The addresses in a result, without prefix lengths.
fn addresses(result: &Value) -> Vec<String> {
    let ips = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    ips.filter_map(|ip| ip.get("address")?.as_str()?.split('/').next().map(str::to_owned)).collect()
}

/// Adds so many pods, one after another.
fn add_pods(node: &LoneNode, count: usize) -> Result<Vec<Pod>> {
    let mut pods = Vec::with_capacity(count);
    for _ in 0..count {
        let pod = node.pod()?;
        node.add(&pod)?;
        pods.push(pod);
    }
    Ok(pods)
}

/// The container IDs.
fn ids(pods: &[Pod]) -> Vec<&str> {
    pods.iter().map(|pod| pod.container_id.as_str()).collect()
}

/// Deletes these pods, and waits until nothing of any pod is left on the node or in the API.
async fn end(node: &LoneNode, pods: Vec<Pod>) -> Result<()> {
    for pod in &pods {
        node.del(pod)?;
    }
    drop(pods);
    node_is_empty(node).await
}

async fn node_is_empty(node: &LoneNode) -> Result<()> {
    node.await_records(&[], CATCH_UP).await?;
    until("no link and no journal entry is left", CATCH_UP, || async {
        let links = node.attachments()?.len();
        let journal = std::fs::read_dir(node.run_dir().join("attachments"))?.count();
        Ok(so(links == 0 && journal == 0, || format!("{links} links, {journal} entries")))
    })
    .await
}

/// Fails if two live pods share an address, or the records are not exactly theirs.
async fn all_is_right(node: &LoneNode, pods: &[Pod]) -> Result<()> {
    node.no_address_twice(&pods.iter().collect::<Vec<_>>())?;
    node.await_records(&ids(pods), CATCH_UP).await?;
    let links = node.attachments()?;
    ensure!(links.len() == pods.len(), "{} links for {} pods", links.len(), pods.len());
    Ok(())
}
