//! strace makes each system call of an ADD fail in turn, or kills the agent at that system call. The agent contains no
//! code for these faults.
//!
//! strace counts calls for each thread, so a fault hits the Nth call of every thread. A fault may therefore also hit a
//! thread that cleans up after the failed ADD. The stale check then removes the attachment.
//!
//! For each system call, a test raises N until an ADD ends without a fault, because no thread makes N of these calls.
//! The number of writes differs between ADDs, because some writes only wake a thread. So the tests that kill the agent
//! go on until two ADDs in a row end without a fault.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::single_node::{Answer, CONVERGENCE_TIMEOUT, Sandbox, SingleNode, ip_json};
use bobbin_e2e::wait::{check, wait_until};
use serde_json::{Value, json};

use super::addresses;

/// The system calls that the test makes fail. Each row has the call, its error, and the minimum number of faults.
const FAILS: [(&str, &str, usize); 19] = [
    ("accept4", "EMFILE", 1),
    ("epoll_ctl", "ENOSPC", 1),
    ("recvmsg", "ENOBUFS", 1),
    ("newfstatat", "EIO", 2),
    ("fcntl", "EMFILE", 1),
    ("clone3", "EAGAIN", 1),
    ("openat", "EMFILE", 8),
    ("read", "EIO", 10),
    ("write", "ENOSPC", 2),
    ("fchmod", "EIO", 1),
    ("renameat", "ENOSPC", 1),
    ("setns", "EPERM", 1),
    ("socket", "EMFILE", 1),
    ("bind", "ENOMEM", 1),
    ("setsockopt", "ENOBUFS", 8),
    ("statx", "EIO", 5),
    ("sendto", "ENOBUFS", 7),
    ("recvfrom", "EIO", 7),
    ("writev", "EPIPE", 1),
];
/// The system calls at which the test kills the agent. Each row has the call and the minimum number of kills. For
/// `write` it is 4: an ADD writes its checkpoint and two files of the pod's namespace, and wakes at least one thread.
pub(super) const KILLS: [(&str, usize); 9] = [
    ("accept4", 1),
    ("clone3", 1),
    ("openat", 8),
    ("write", 4),
    ("fchmod", 1),
    ("renameat", 1),
    ("setns", 1),
    ("socket", 1),
    ("sendto", 6),
];
/// The largest N that the tests try. An ADD makes each system call less often than this.
pub(super) const MAX_CALLS: usize = 48;
/// The number of consecutive ADDs without a fault that ends the test of failing system calls.
const MISSES_AT_LAST_FAILURE: usize = 1;
/// The number of consecutive ADDs without a fault that ends a test of kills.
pub(super) const MISSES_AT_END: usize = 2;
/// Threads of the agent that have no part in an ADD.
const LISTENERS: [&str; 1] = ["bobbin-netlink"];
/// The beginning of the plugin's error when the agent did not answer. Only after this error may parts of the attachment
/// remain until the runtime's DEL.
pub(super) const UNANSWERED: &str = "the Bobbin agent of this node";
/// The agent logs one of these messages when the stale check has removed an attachment.
const REMOVED_AS_STALE: [&str; 2] = ["the runtime did not call DEL", "the removal is now complete"];
/// The number of addresses in the pool. The pool is small, so one address that stays assigned by mistake makes a later
/// ADD fail.
const ADDRESSES: usize = 8;

/// The state of a test: a small pool, and a pod that must keep its address throughout.
pub(super) struct FaultRun {
    name: &'static str,
    pub(super) stays: Sandbox,
    result: Value,
    link: String,
    args: Option<String>,
    faults: BTreeMap<&'static str, usize>,
    /// How many ADDs in a row no fault has hit.
    misses: usize,
    /// The containers of ADDs with at most one fault. If this fault made the ADD fail, the clean-up ran without one.
    /// So the clean-up must have removed the attachments, and the stale check must find none of them.
    undone: Vec<String>,
    failed: usize,
    steps: usize,
}

pub async fn failing(node: &mut SingleNode) -> Result<()> {
    let mut run = FaultRun::begin(node, "steps-failing").await?;
    for (call, error, least) in FAILS {
        if call == "write" {
            // Restart the agent, so that it numbers its files from the start again. The fault applies only to files
            // with small numbers.
            node.kill_agent();
            node.start_agent().await?;
        }
        for number in 1..=MAX_CALLS {
            let pod = run.pod(node)?;
            let mut what = vec![format!("-etrace={call}"), format!("-einject={call}:error={error}:when={number}")];
            if call == "write" {
                what.extend(written(node, &pod).iter().map(|path| format!("-P{}", path.display())));
            }
            let faults = node.inject_syscall_faults(&what).await?;
            let answer = node.call(&pod.call("ADD"))?;
            let mut hits = faults.end(true).await?;
            hits.retain(|hit| !LISTENERS.contains(&hit.thread.as_str()));
            node.agent_must_run()?;
            if hits.len() < 2 {
                run.undone.push(pod.container_id.clone());
            }
            let context = || format!("the test made {call} number {number} fail: {hits:?}");
            run.verify(node, pod, &answer, !hits.is_empty()).await.with_context(context)?;
            if run.record(call, hits.len()) == MISSES_AT_LAST_FAILURE {
                break;
            }
            ensure!(number < MAX_CALLS, "an ADD calls {call} {MAX_CALLS} times or more: {hits:?}");
        }
        run.finish(call, least)?;
    }
    run.end(node).await
}

pub async fn killed(node: &mut SingleNode) -> Result<()> {
    let mut run = FaultRun::begin(node, "steps-killed").await?;
    for (call, least) in KILLS {
        for number in 1..=MAX_CALLS {
            let pod = run.pod(node)?;
            let what = [format!("-etrace={call}"), format!("-einject={call}:signal=KILL:when={number}")];
            let faults = node.inject_syscall_faults(&what).await?;
            let answer = node.call(&pod.call("ADD"))?;
            let unanswered = answer.stdout.contains(UNANSWERED);
            let hits = faults.end(!unanswered).await?;
            let killed = unanswered || !hits.is_empty() || node.agent_must_run().is_err();
            if killed {
                node.kill_agent();
                node.start_agent().await?;
            }
            let context = || format!("the agent was killed at {call} number {number}: {hits:?}");
            run.verify(node, pod, &answer, killed).await.with_context(context)?;
            if run.record(call, usize::from(killed)) == MISSES_AT_END {
                break;
            }
        }
        run.finish(call, least)?;
    }
    run.end(node).await
}

/// The files that the agent writes for an ADD. Faults of `write` hit only these files, because a `write` that wakes a
/// thread can't fail.
fn written(node: &SingleNode, pod: &Sandbox) -> Vec<PathBuf> {
    let inside = ["accept_dad", "accept_ra"].map(|name| PathBuf::from("/proc/sys/net/ipv6/conf/eth0").join(name));
    let file = |number| node.run_dir().join(format!("attachments/{}-eth0.{number}.new", pod.container_id));
    (0..100).map(file).chain(inside).collect()
}

impl FaultRun {
    pub(super) async fn begin(node: &SingleNode, name: &'static str) -> Result<Self> {
        let subnets = json!([{"ipv4": "10.70.0.0/29", "ipv6": "fd00:64:0:70::/125"}]);
        node.apply_pool("steps", json!({"subnets": subnets, "blockSizeBits": 3, "cooldownSeconds": 0})).await?;
        let stays = node.kube_pod("default", name, Some("steps")).await?;
        let result = node.add(&stays)?;
        node.await_assignments(&[&stays.container_id], CONVERGENCE_TIMEOUT).await?;
        let link = node.attachments()?.into_values().next().context("the pod has no link")?.link;
        let args = stays.args.clone();
        Ok(Self {
            name,
            stays,
            result,
            link,
            args,
            faults: BTreeMap::new(),
            misses: 0,
            undone: Vec::new(),
            failed: 0,
            steps: 0,
        })
    }

    /// Creates a new sandbox of the test's pod.
    pub(super) fn pod(&self, node: &SingleNode) -> Result<Sandbox> {
        let mut pod = node.sandbox()?;
        pod.args.clone_from(&self.args);
        Ok(pod)
    }

    /// Checks that a successful ADD is complete, and that a failed ADD left nothing behind.
    pub(super) async fn verify(&mut self, node: &SingleNode, pod: Sandbox, answer: &Answer, hit: bool) -> Result<()> {
        self.steps += 1;
        if answer.exit == 0 {
            let result = answer.ok()?;
            node.call(&pod.check(&result))?.ok().context("CHECK failed after a successful ADD")?;
            let (told, has) = (addresses(&result), pod.addresses()?);
            let has: BTreeSet<String> = has.iter().map(ToString::to_string).collect();
            ensure!(
                told.len() == 2 && told.iter().cloned().collect::<BTreeSet<_>>() == has,
                "the result of ADD has the addresses {told:?}, but the pod has {has:?}"
            );
            node.check_no_duplicate(&[&self.stays, &pod])?;
            node.await_assignments(&[&self.stays.container_id, &pod.container_id], CONVERGENCE_TIMEOUT).await?;
            node.del(&pod)?;
        } else {
            self.failed += 1;
            let error = answer.error()?;
            ensure!(hit, "the ADD failed although the test caused no fault: {error:?}");
            ensure!(error.code > 0 && !error.text.is_empty() && !error.text.contains('\n'), "{error:?}");
            if error.text.contains(UNANSWERED) {
                node.del(&pod)?;
            }
        }
        self.nothing_left(node, &pod)
            .await
            .with_context(|| format!("the answer of the ADD was: {}", answer.stdout.trim()))
    }

    async fn nothing_left(&self, node: &SingleNode, pod: &Sandbox) -> Result<()> {
        node.await_assignments(&[&self.stays.container_id], CONVERGENCE_TIMEOUT).await?;
        wait_until("nothing is left of the attachment", CONVERGENCE_TIMEOUT, || async {
            let left = self.left(node, pod)?;
            Ok(check(left.is_empty(), || left.join(", ")))
        })
        .await
        .with_context(|| format!("the end of the agent's log:\n{}", node.agent_log_tail()))
    }

    /// Lists the links, neighbours, routes and files that belong neither to the node itself nor to the pod that stays.
    fn left(&self, node: &SingleNode, pod: &Sandbox) -> Result<Vec<String>> {
        let names = |what: &Value, field: &str| -> Vec<String> {
            let all = what.as_array().into_iter().flatten();
            all.filter_map(|one| one.get(field)?.as_str().map(str::to_owned)).collect()
        };
        let ours = |name: &String| name.starts_with("bob") && *name != self.link;
        let links = names(&ip_json(&node.namespace, "link show")?, "ifname").into_iter().filter(ours);
        let neighbours = names(&ip_json(&node.namespace, "neigh show nud permanent")?, "dev").into_iter().filter(ours);
        let inside = names(&pod.ip_json("link show")?, "ifname").into_iter().filter(|name| name == "eth0");
        let routes = node.table(116)?.into_iter();
        let routes = routes.filter(|(dst, link)| *link != self.link && !dst.starts_with("blackhole "));
        let mut left: Vec<String> = links.map(|name| format!("link {name}")).collect();
        left.extend(neighbours.map(|name| format!("a neighbour entry on {name}")));
        left.extend(inside.map(|name| format!("the link {name} in the pod")));
        left.extend(routes.map(|(dst, link)| format!("route {dst} over {link}")));
        for directory in ["attachments", "deletions"] {
            for entry in std::fs::read_dir(node.run_dir().join(directory))? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                if name != format!("{}-eth0.json", self.stays.container_id) {
                    left.push(format!("{directory}/{name}"));
                }
            }
        }
        Ok(left)
    }

    /// Adds to the number of faults of a system call. Returns the number of consecutive ADDs without a fault.
    pub(super) fn record(&mut self, call: &'static str, hits: usize) -> usize {
        *self.faults.entry(call).or_default() += hits;
        self.misses = if hits > 0 { 0 } else { self.misses + 1 };
        self.misses
    }

    /// Ends the test of one system call. Fails if the faults hit fewer calls than `least`.
    pub(super) fn finish(&mut self, call: &str, least: usize) -> Result<()> {
        self.misses = 0;
        let hits = self.faults.get(call).copied().unwrap_or_default();
        ensure!(
            hits >= least,
            "the faults hit only {hits} calls of {call}, but {least} are required; all hits: {:?}",
            self.faults
        );
        Ok(())
    }

    /// Checks that the pod that exists during the whole test is intact. Also checks that every other address of the
    /// pool is free.
    pub(super) async fn end(self, node: &SingleNode) -> Result<()> {
        let faults: Vec<String> = self.faults.iter().map(|(call, count)| format!("{call} {count}")).collect();
        println!(
            "the test made {} ADDs, of which {} failed; faults by system call: {}",
            self.steps,
            self.failed,
            faults.join(", ")
        );
        ensure!(
            self.failed >= self.steps / 4,
            "only {} of {} ADDs failed, although the test caused faults",
            self.failed,
            self.steps
        );
        let log = node.agent_log();
        let by_stale_check = |line: &&str| {
            REMOVED_AS_STALE.iter().any(|words| line.contains(words)) && self.undone.iter().any(|id| line.contains(id))
        };
        let stale = log.lines().find(by_stale_check);
        ensure!(stale.is_none(), "a failed ADD did not remove its attachment, so the stale check did: {stale:?}");
        node.call(&self.stays.check(&self.result))?
            .ok()
            .context("CHECK failed for the pod that exists during the whole test")?;
        let mut pods = Vec::new();
        for _ in 1..ADDRESSES {
            let pod = self.pod(node)?;
            node.add(&pod).context("an address of the pool is not free")?;
            pods.push(pod);
        }
        pods.push(self.stays);
        super::state_is_consistent(node, &pods).await?;
        node.delete_kube_pod("default", self.name).await?;
        node.remove_pods(pods).await
    }
}
