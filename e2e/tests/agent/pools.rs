//! Tests pool selection, and the errors of an ADD whose pool can't give the pod an address.

use anyhow::{Context, Result, ensure};
use bobbin_e2e::single_node::{Answer, Call, Sandbox, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use serde_json::{Value, json};

use super::addresses;

/// The CNI error code of an ADD whose pool can't give the pod an address.
const POOL_REFUSED: u64 = 102;

/// Creates a pool of four addresses, and four pods that use them.
async fn run_full(node: &SingleNode, name: &str, subnet: &str) -> Result<Vec<Sandbox>> {
    node.apply_pool(name, json!({"subnets": [{"ipv4": subnet}], "blockSizeBits": 1, "cooldownSeconds": 300})).await?;
    let mut pods = Vec::new();
    for number in 0..4 {
        let pod = node.kube_pod("default", &format!("{name}-{number}"), Some(name)).await?;
        node.add(&pod)?;
        pods.push(pod);
    }
    Ok(pods)
}

async fn done(node: &SingleNode, pods: Vec<Sandbox>) -> Result<()> {
    for pod in &pods {
        let args = pod.args.clone().unwrap_or_default();
        let field =
            |key: &str| args.split(';').find_map(|entry| entry.strip_prefix(key)).unwrap_or_default().to_owned();
        node.delete_kube_pod(&field("K8S_POD_NAMESPACE="), &field("K8S_POD_NAME=")).await?;
    }
    node.remove_pods(pods).await
}

/// Starts an ADD that waits for an address. The returned thread ends with the answer of the ADD.
fn start_add(node: &SingleNode, pod: &Sandbox) -> std::thread::JoinHandle<Result<Answer>> {
    let (plugin, call) = (node.plugin(), pod.call("ADD"));
    std::thread::spawn(move || plugin.call(&call))
}

/// Waits for an event that says that a pod waits for an address of this pool.
async fn has_pool_exhausted_event(node: &SingleNode, pool: &str) -> Result<()> {
    wait_until("an event says that a pod waits for an address of the full pool", WAIT_TIMEOUT, || async {
        let messages = node.warnings("PoolExhausted").await?;
        let said = messages.iter().any(|message| message.contains(&format!("{pool:?}")));
        Ok(check(said, || format!("{messages:?}")))
    })
    .await
}

pub async fn full(node: &mut SingleNode) -> Result<()> {
    let mut pods = run_full(node, "tiny", "10.69.0.0/30").await?;
    pods.push(node.kube_pod("default", "tiny-4", Some("tiny")).await?);
    let waiting = start_add(node, &pods[4]);
    has_pool_exhausted_event(node, "tiny").await?;
    // While the first ADD is waiting, the agent answers an ADD from another pool.
    let other = node.sandbox()?;
    node.add(&other)?;
    node.del(&other)?;
    ensure!(!waiting.is_finished(), "the ADD from the full pool did not wait");
    node.call(&Call { verb: "STATUS", ..Call::default() })?.ok()?;
    let answer = waiting.join().map_err(|_| anyhow::anyhow!("the ADD's thread panicked"))??;
    let error = answer.error()?;
    let sentence = "pool \"tiny\" has no free address for node n1: 4 addresses in the node's 2 blocks are in use";
    ensure!(error.code == 11 && error.text.contains(sentence), "{error:?}");
    done(node, pods).await
}

pub async fn waits_for_address(node: &mut SingleNode) -> Result<()> {
    let mut pods = run_full(node, "freed", "10.69.1.0/30").await?;
    pods.push(node.kube_pod("default", "freed-4", Some("freed")).await?);
    let waiting = start_add(node, &pods[4]);
    has_pool_exhausted_event(node, "freed").await?;
    node.del(&pods[0])?;
    let answer = waiting.join().map_err(|_| anyhow::anyhow!("the ADD's thread panicked"))??;
    // Without a free address, the ADD would have failed at its timeout. So its success shows that it got the address
    // that the DEL of the other pod released.
    answer.ok()?;
    node.check_no_duplicate(&pods.iter().collect::<Vec<_>>())?;
    done(node, pods).await
}

pub async fn del_ends_wait(node: &mut SingleNode) -> Result<()> {
    let mut pods = run_full(node, "off", "10.69.3.0/30").await?;
    pods.push(node.kube_pod("default", "off-4", Some("off")).await?);
    let waiting = start_add(node, &pods[4]);
    has_pool_exhausted_event(node, "off").await?;
    node.del(&pods[4])?;
    let answer = waiting.join().map_err(|_| anyhow::anyhow!("the ADD's thread panicked"))??;
    let error = answer.error()?;
    // This error shows that the pod's own DEL ended the wait of the ADD. An ADD that reaches its timeout returns
    // another code or message.
    ensure!(error.code == 11 && error.text.contains("called DEL"), "{error:?}");
    done(node, pods).await
}

pub async fn logged_once(node: &mut SingleNode) -> Result<()> {
    let mut pods = run_full(node, "said", "10.69.4.0/30").await?;
    let waiting = node.kube_pod("default", "said-4", Some("said")).await?;
    for _ in 0..2 {
        // A runtime repeats a failed ADD with a new container.
        let mut another = node.sandbox()?;
        another.args.clone_from(&waiting.args);
        let error = node.call(&another.call("ADD"))?.error()?;
        ensure!(error.code == 11 && error.text.contains("has no free address"), "{error:?}");
        node.del(&another)?;
    }
    node.del(&pods[0])?;
    node.add(&waiting)?;
    pods.push(waiting);
    let log = node.agent_log();
    for sentence in ["pod default/said-4 waits for an address", "pod default/said-4 no longer waits"] {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(sentence)).collect();
        ensure!(lines.len() == 1, "exactly one log line must contain {sentence:?}, but these lines do: {lines:?}");
    }
    // Only the first message about the pod has level WARN. Those of the repeated calls have level INFO, because they
    // tell nothing new.
    let warned = |line: &&str| line.contains("WARN") && line.contains("said-4");
    let warnings: Vec<&str> = log.lines().filter(warned).collect();
    ensure!(warnings.len() == 1, "{warnings:?}");
    done(node, pods).await
}

pub async fn waits_for_subnet(node: &mut SingleNode) -> Result<()> {
    let mut pods = run_full(node, "grown", "10.69.2.0/30").await?;
    pods.push(node.kube_pod("default", "grown-4", Some("grown")).await?);
    let waiting = start_add(node, &pods[4]);
    has_pool_exhausted_event(node, "grown").await?;
    let subnets = json!([{"ipv4": "10.69.2.0/30"}, {"ipv4": "10.69.2.8/30"}]);
    node.apply_pool_only("grown", json!({"subnets": subnets, "blockSizeBits": 1, "cooldownSeconds": 300})).await?;
    let answer = waiting.join().map_err(|_| anyhow::anyhow!("the ADD's thread panicked"))??;
    let result = answer.ok()?;
    ensure!(addresses(&result)[0].parse::<std::net::Ipv4Addr>()?.octets()[3] >= 8, "{result}");
    done(node, pods).await
}

/// Finds the pool of an address by the third byte of the address.
async fn pool_of(node: &SingleNode, namespace: &str, name: &str, annotation: Option<&str>) -> Result<String> {
    let pod = node.kube_pod(namespace, name, annotation).await?;
    let result: Value = node.add(&pod)?;
    let given = addresses(&result);
    node.del(&pod)?;
    node.delete_kube_pod(namespace, name).await?;
    let first = given.first().context("no address")?;
    Ok(match first.rsplit_once('.').map(|(net, _)| net) {
        Some("10.70.1") => "by-pod".to_owned(),
        Some("10.70.2") => "by-namespace".to_owned(),
        Some("10.70.3") => "team-c".to_owned(),
        Some(net) if net.starts_with("10.64.") => "default".to_owned(),
        _ => first.clone(),
    })
}

pub async fn order_of_sources(node: &mut SingleNode) -> Result<()> {
    for (pool, subnet) in [("by-pod", "10.70.1.0/24"), ("by-namespace", "10.70.2.0/24"), ("team-c", "10.70.3.0/24")] {
        node.apply_pool(pool, json!({"subnets": [{"ipv4": subnet}]})).await?;
    }
    node.make_namespace("team-b", Some("by-namespace")).await?;
    node.make_namespace("team-c", None).await?;
    node.make_namespace("team-d", None).await?;
    for (namespace, annotation, pool) in [
        ("team-b", Some("by-pod"), "by-pod"),
        ("team-b", None, "by-namespace"),
        ("team-b", Some(""), "by-namespace"),
        ("team-c", None, "team-c"),
        ("team-c", Some("by-pod"), "by-pod"),
        ("team-d", None, "default"),
    ] {
        let name = format!("source-{}", annotation.map_or("none", |name| if name.is_empty() { "empty" } else { name }));
        let seen = pool_of(node, namespace, &name, annotation).await?;
        ensure!(
            seen == pool,
            "a pod of namespace {namespace} with the pool annotation {annotation:?} got an address of pool {seen}, not of {pool}"
        );
    }
    node.remove_pods(Vec::new()).await
}

pub async fn refusals(node: &mut SingleNode) -> Result<()> {
    let subnet = |net: &str| json!([{"ipv4": net}]);
    node.apply_pool_only("leaving", json!({"subnets": subnet("10.71.0.0/24"), "draining": true})).await?;
    node.apply_pool(
        "of-others",
        json!({"subnets": subnet("10.71.1.0/24"), "namespaceSelector": {"matchLabels": {"team": "others"}}}),
    )
    .await?;
    node.apply_pool(
        "elsewhere",
        json!({"subnets": subnet("10.71.2.0/24"), "nodeSelector": {"matchLabels": {"rack": "none"}}}),
    )
    .await?;
    node.apply_pool_only("overlapping", json!({"subnets": subnet("10.71.1.0/25")})).await?;
    for (pool, why) in [
        ("absent", "which does not exist"),
        ("leaving", "which is draining"),
        ("of-others", "whose namespaceSelector does not admit namespace \"default\""),
        ("elsewhere", "whose nodeSelector does not admit the pod's node"),
        ("overlapping", "which is not ready: subnet 10.71.1.0/25 overlaps"),
    ] {
        let pod = node.kube_pod("default", &format!("refused-{pool}"), Some(pool)).await?;
        let error = node.call(&pod.call("ADD"))?.error()?;
        let refusal = format!("selects pool {pool:?}, {why}");
        ensure!(
            error.code == POOL_REFUSED && error.text.contains(&refusal),
            "the error does not contain {refusal:?}: {error:?}"
        );
        ensure!(pod.addresses()?.is_empty() && !error.text.contains('\n'), "{error:?}");
        node.del(&pod)?;
        node.delete_kube_pod("default", &format!("refused-{pool}")).await?;
    }
    node.remove_pods(Vec::new()).await
}

pub async fn one_family(node: &mut SingleNode) -> Result<()> {
    node.apply_pool("only-four", json!({"subnets": [{"ipv4": "10.73.0.0/24"}]})).await?;
    node.apply_pool("only-six", json!({"subnets": [{"ipv6": "fd00:73::/120"}]})).await?;
    for (pool, beginning) in [("only-four", "10.73.0."), ("only-six", "fd00:73::")] {
        let pod = node.kube_pod("default", pool, Some(pool)).await?;
        let result = node.add(&pod)?;
        let given = addresses(&result);
        ensure!(given.len() == 1 && given[0].starts_with(beginning), "{given:?}");
        ensure!(
            pod.addresses()?.len() == 1,
            "the pod must have one address, but the kernel has {:?}",
            pod.addresses()?
        );
        node.call(&pod.check(&result))?.ok()?;
        node.del(&pod)?;
        node.delete_kube_pod("default", pool).await?;
    }
    node.remove_pods(Vec::new()).await
}
