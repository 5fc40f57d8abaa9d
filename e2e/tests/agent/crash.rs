//! SIGKILL ends the agent, containers end without a DEL, and nodes reboot. No pod loses its address, and no two pods
//! get the same address.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bobbin_e2e::single_node::{CONVERGENCE_TIMEOUT, Plugin, Sandbox, SingleNode};
use bobbin_e2e::wait::{check, wait_until};
use serde_json::json;

use super::{add_pods, state_is_consistent};

/// How often the test kills the agent, and how many pods must start during the kills.
const KILLS: usize = 40;
const PODS: usize = 50;
/// How long all kills may take in total.
const CHURN_TIMEOUT: Duration = Duration::from_mins(3);
const WORKERS: usize = 6;
/// The test kills the agent when the agent's last save is older than this, or after three more saves. A save contains
/// the time of the last contact with the API server. If the test kills the agent at this age, the restarted agent sees
/// no contact for more than 10 s, and assumes an outage. So the test fails if the agent saves too rarely.
const MAX_SAVE_AGE: Duration = Duration::from_millis(9_500);
/// How long the agent stays down.
const DOWNTIME: Duration = Duration::from_secs(1);

/// Pods that must have an address, because their ADD succeeded and the test has sent no DEL.
type Alive = Arc<Mutex<Vec<Sandbox>>>;

pub async fn killed_under_churn(node: &mut SingleNode) -> Result<()> {
    let alive: Alive = Arc::default();
    let (stop, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let netns = node.path("netns");
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (alive, stop, begun) = (alive.clone(), stop.clone(), begun.clone());
            let (plugin, netns) = (node.plugin(), netns.clone());
            std::thread::spawn(move || churn(&plugin, &netns, &alive, &begun, &stop))
        })
        .collect();
    let (start, mut seed, mut kills) = (Instant::now(), 0x2545_F491_4F6C_DD1D_u64, 0);
    while kills < KILLS || begun.load(Ordering::Relaxed) < PODS {
        let pods = begun.load(Ordering::Relaxed);
        ensure!(
            start.elapsed() < CHURN_TIMEOUT,
            "the test reached its timeout after only {kills} kills and {pods} started pods"
        );
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        tokio::time::sleep(Duration::from_millis(20 + (seed >> 33) % 700)).await;
        node.kill_agent();
        kills += 1;
        node.start_agent_only()?;
        // Holding the lock keeps the workers from adding or deleting these pods during the check.
        let alive = alive.lock().unwrap_or_else(PoisonError::into_inner);
        node.check_no_duplicate(&alive.iter().collect::<Vec<_>>())
            .with_context(|| format!("the check for duplicate addresses failed after {kills} kills of the agent"))?;
    }
    stop.store(true, Ordering::Release);
    for worker in workers {
        worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??;
    }
    node.await_agent(CONVERGENCE_TIMEOUT).await?;
    let pods = std::mem::take(&mut *alive.lock().unwrap_or_else(PoisonError::into_inner));
    println!(
        "the agent was killed {kills} times; {} pods were started, and {} ran at the end",
        begun.load(Ordering::Relaxed),
        pods.len()
    );
    for pod in &pods {
        ensure!(pod.addresses()?.len() == 2, "container {} has lost an address", pod.container_id);
    }
    state_is_consistent(node, &pods).await?;
    node.remove_pods(pods).await
}

/// After a short crash, the agent must not assume an outage of the API server. If it did, a newly claimed block would
/// stay out of service for 15 s. The ADD would then fail, because the `ADD_TIMEOUT` of this suite is shorter.
pub async fn killed_between_heartbeats(node: &mut SingleNode) -> Result<()> {
    node.apply_pool("beat", json!({"subnets": [{"ipv4": "10.69.9.0/29"}], "blockSizeBits": 2})).await?;
    let identity = node.run_dir().join("agent.json");
    let saves = Mutex::new(BTreeSet::new());
    wait_until("the agent's last save is old, or the agent has saved three times", CONVERGENCE_TIMEOUT, || async {
        let saved_at = std::fs::metadata(&identity)?.modified()?;
        let (age, mut saves) = (saved_at.elapsed()?, saves.lock().unwrap_or_else(PoisonError::into_inner));
        saves.insert(saved_at);
        Ok(check(saves.len() > 3 || age > MAX_SAVE_AGE, || format!("{} saves, {age:?}", saves.len())))
    })
    .await?;
    node.kill_agent();
    let killed = Instant::now();
    wait_until("the agent was down for a second", CONVERGENCE_TIMEOUT, || async {
        Ok(check(killed.elapsed() > DOWNTIME, String::new))
    })
    .await?;
    node.start_agent().await?;
    let pod = node.kube_pod("default", "beat", Some("beat")).await?;
    node.add(&pod).context("the node claims a block after the crash")?;
    node.delete_kube_pod("default", "beat").await?;
    node.remove_pods(vec![pod]).await
}

/// Adds and deletes pods as containerd does: after a failed ADD it sends a DEL, and it repeats a failed DEL.
fn churn(
    plugin: &Plugin,
    netns: &std::path::Path,
    alive: &Alive,
    begun: &AtomicUsize,
    stop: &AtomicBool,
) -> Result<()> {
    while !stop.load(Ordering::Acquire) {
        let pod = Sandbox::make(netns)?;
        begun.fetch_add(1, Ordering::Relaxed);
        if plugin.call(&pod.call("ADD"))?.exit == 0 {
            let leaves = {
                let mut alive = alive.lock().unwrap_or_else(PoisonError::into_inner);
                alive.push(pod);
                (alive.len() > 3 * WORKERS).then(|| alive.remove(0))
            };
            if let Some(pod) = leaves {
                del(plugin, &pod)?;
            }
        } else {
            del(plugin, &pod)?;
        }
    }
    Ok(())
}

/// Calls DEL as containerd does: repeats the call as long as the agent asks for another attempt.
pub(super) fn del(plugin: &Plugin, pod: &Sandbox) -> Result<()> {
    let start = Instant::now();
    loop {
        let answer = plugin.call(&pod.call("DEL"))?;
        if answer.exit == 0 {
            return Ok(());
        }
        ensure!(answer.error()?.code == 11 && start.elapsed() < CONVERGENCE_TIMEOUT, "DEL: {}", answer.stdout);
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub async fn late_del(node: &mut SingleNode) -> Result<()> {
    let mut old = Vec::new();
    let mut last: Option<Sandbox> = None;
    for _ in 0..50 {
        let pod = node.sandbox()?;
        node.add(&pod)?;
        if let Some(before) = last.replace(pod) {
            node.del(&before)?;
            old.push(before.call("DEL"));
        }
    }
    let pod = last.context("the test has started no pod")?;
    let result = node.add(&pod)?;
    for call in &old {
        node.call(call)?.ok()?;
    }
    node.call(&pod.check(&result))?.ok()?;
    let pods = vec![pod];
    state_is_consistent(node, &pods).await?;
    node.remove_pods(pods).await
}

pub async fn removed_as_stale(node: &mut SingleNode) -> Result<()> {
    let pods = add_pods(node, 4)?;
    let mut gone = add_pods(node, 2)?;
    node.await_assignments(
        &super::ids(&pods).into_iter().chain(super::ids(&gone)).collect::<Vec<_>>(),
        CONVERGENCE_TIMEOUT,
    )
    .await?;
    gone.clear();
    state_is_consistent(node, &pods).await?;
    wait_until("the agent has deleted the checkpoints of the stale attachments", CONVERGENCE_TIMEOUT, || async {
        let checkpoints = std::fs::read_dir(node.run_dir().join("attachments"))?.count();
        Ok(check(checkpoints == 4, || format!("{checkpoints} checkpoints")))
    })
    .await?;
    node.remove_pods(pods).await
}

pub async fn rebooted(node: &mut SingleNode) -> Result<()> {
    let pods = add_pods(node, 8)?;
    node.await_assignments_of(&pods).await?;
    node.kill_agent();
    // Change the node as a reboot does. Remove namespaces, links, rules, Bobbin's routes and /run, and set a new boot
    // ID.
    drop(pods);
    // The kernel removes the namespaces and links a moment after the drop. A real reboot has no such delay, so wait.
    let seen = &*node;
    wait_until("the links are gone", CONVERGENCE_TIMEOUT, || async {
        let links = seen.attachments()?.len();
        Ok(check(links == 0, || format!("{links} links")))
    })
    .await?;
    for table in
        ["-4 route flush table 116", "-6 route flush table 116", "-4 route flush table 119", "-6 route flush table 119"]
    {
        node.namespace.command("ip").args(table.split(' ')).status()?;
    }
    for entry in std::fs::read_dir(node.run_dir())? {
        let path = entry?.path();
        if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
    }
    std::fs::write(node.path("boot-id"), "22222222-2222-2222-2222-222222222222\n")?;
    node.start_agent().await?;
    let pods = add_pods(node, 2)?;
    state_is_consistent(node, &pods).await?;
    node.remove_pods(pods).await?;
    node.await_empty().await
}
