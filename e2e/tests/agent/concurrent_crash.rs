//! Tests crashes during two simultaneous actions. One test kills the agent while it handles an ADD of one pod and a DEL
//! of another. The other test kills two programs: the agent while it claims a block, and the operator while it carves
//! blocks.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use bobbin_e2e::api_proxy::{Fault, FaultGuard, Selector};
use bobbin_e2e::invariants::await_none;
use bobbin_e2e::single_node::{
    AGENT_USER, CONVERGENCE_TIMEOUT, OPERATOR_USER, Plugin, Sandbox, SingleNode, SingleNodeOptions,
};
use serde_json::{Value, json};

use super::addresses;
use super::crash::del;
use super::injected_faults::{FaultRun, KILLS, MAX_CALLS, MISSES_AT_END, UNANSWERED};

/// The verbs of the agent's API requests for an ADD.
const ADD_REQUESTS: &[&str] = &["get", "list", "create", "update", "patch"];
/// The API verbs of all writes.
const WRITES: &[&str] = &["create", "update", "patch", "delete"];
/// The test tries every third pair of an agent step and an operator step. Even steps come before a request, and odd
/// steps after an answer. The stride is odd, so that each step meets even and odd steps of the other program.
const STRIDE: usize = 3;
/// How long the test holds one program at its step and waits for the other program to reach its own step. After this
/// time, the test kills only the held program.
const MAX_HOLD: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

pub async fn add_and_del(node: &mut SingleNode) -> Result<()> {
    let mut run = FaultRun::begin(node, "steps-at-once").await?;
    for (call, least) in KILLS {
        for number in 1..=MAX_CALLS {
            let (arriving, leaving) = (run.pod(node)?, run.pod(node)?);
            node.add(&leaving)?;
            let what = [format!("-etrace={call}"), format!("-einject={call}:signal=KILL:when={number}")];
            let faults = node.inject_syscall_faults(&what).await?;
            let (answers, _) = node.plugin().call_at_once(vec![arriving.call("ADD"), leaving.call("DEL")])?;
            let unanswered = answers.iter().any(|answer| answer.stdout.contains(UNANSWERED));
            let hits = faults.end(!unanswered).await?;
            let killed = unanswered || !hits.is_empty() || node.agent_must_run().is_err();
            let context = || format!("the agent was killed at {call} number {number}: {hits:?}");
            node.check_no_duplicate(&[&run.stays, &arriving, &leaving]).with_context(context)?;
            if killed {
                node.kill_agent();
                node.start_agent().await?;
            }
            del(&node.plugin(), &leaving).with_context(context)?;
            let left = leaving.addresses()?;
            ensure!(left.is_empty(), "{}: a pod still has the addresses {left:?} after its DEL", context());
            run.verify(node, arriving, &answers[0], killed).await.with_context(context)?;
            if run.record(call, usize::from(killed)) == MISSES_AT_END {
                break;
            }
        }
        run.finish(call, least)?;
    }
    run.end(node).await
}

pub async fn claim_and_carving(_: &mut SingleNode) -> Result<()> {
    let options = SingleNodeOptions { api_proxy: true, ..SingleNodeOptions::with_agent_flags(["--add-timeout=3s"]) };
    let mut node = SingleNode::ready(options).await?;
    node.stop_operator();
    node.start_operator_behind_proxy()?;
    let mark = round(&mut node, 0, [None, None]).await.context("without a crash")?.0;
    let steps_of = |requests: &Selector| {
        let seen = node.api()?.observed(mark, requests);
        println!("{:?}", seen.iter().map(|one| format!("{} {}", one.verb, one.name)).collect::<Vec<_>>());
        anyhow::Ok(2 * seen.len())
    };
    let (agent_steps, operator_steps) = (steps_of(&agent())?, steps_of(&operator())?);
    ensure!(
        agent_steps >= STRIDE && operator_steps >= STRIDE,
        "there are too few steps: the agent has {agent_steps}, and the operator has {operator_steps}"
    );
    let pairs = (0..agent_steps).flat_map(|agent| (0..operator_steps).map(move |operator| (agent, operator)));
    let (mut tried, mut both) = (0, 0);
    for (agent, operator) in pairs.filter(|(agent, operator)| (agent + operator) % STRIDE == 0) {
        tried += 1;
        let hits = round(&mut node, tried, [Some(agent), Some(operator)]).await;
        let hits =
            hits.with_context(|| format!("the agent was killed at step {agent}, and the operator at step {operator}"))?;
        both += usize::from(hits.1 == 2);
    }
    let all = agent_steps * operator_steps;
    println!(
        "tried {tried} of {all} pairs ({agent_steps} agent steps, {operator_steps} operator steps); {both} killed both programs at once"
    );
    ensure!(both >= tried / 4, "only {both} of {tried} rounds killed both programs at the same time");
    Ok(())
}

fn agent() -> Selector {
    Selector::verbs(ADD_REQUESTS).by(AGENT_USER).not_of("events")
}

fn operator() -> Selector {
    Selector::verbs(WRITES).by(OPERATOR_USER).not_of("events")
}

/// Holds a program at a step: before a request (even number) or after the API server's answer (odd number).
fn hold(node: &SingleNode, requests: Selector, step: Option<usize>) -> Result<Option<FaultGuard>> {
    let Some(step) = step else { return Ok(None) };
    let fault = if step % 2 == 0 { Fault::HoldRequest } else { Fault::HoldAnswer };
    Ok(Some(node.api()?.inject(requests.nth(step / 2), fault)))
}

/// Calls ADD for a pod of a new pool while the operator is carving another subnet of the pool. Kills the agent and the
/// operator at the given steps. Returns how many requests and watch events the proxy had seen before the ADD, and how
/// many of the two programs were down at once.
async fn round(
    node: &mut SingleNode,
    number: usize,
    [agent_step, operator_step]: [Option<usize>; 2],
) -> Result<(usize, usize)> {
    let pool = format!("round-{number}");
    let subnets = [0, 8].map(|last| json!({"ipv4": format!("10.75.{number}.{last}/30")}));
    let spec = |subnets: &[Value]| json!({"subnets": subnets, "blockSizeBits": 1, "cooldownSeconds": 0});
    node.apply_pool(&pool, spec(&subnets[..1])).await?;
    node.await_free_blocks(&pool).await?;
    let mark = node.api()?.mark();
    let mut guards = [hold(node, agent(), agent_step)?, hold(node, operator(), operator_step)?];
    node.apply_pool_only(&pool, spec(&subnets)).await?;
    let template = node.kube_pod("default", &pool, Some(&pool)).await?;
    let (plugin, netns, args) = (node.plugin(), node.path("netns"), template.args.clone());
    let adding = std::thread::spawn(move || add(&plugin, &netns, args.as_ref()));
    let (mut first_hit, mut at_once) = (None, 0);
    while !adding.is_finished() {
        let hits = guards.each_ref().map(|guard| guard.as_ref().is_some_and(FaultGuard::has_hit));
        let count = hits.iter().filter(|hit| **hit).count();
        if count > 0 {
            let since: Instant = *first_hit.get_or_insert_with(Instant::now);
            if count == guards.iter().flatten().count() || since.elapsed() > MAX_HOLD {
                at_once = at_once.max(count);
                first_hit = None;
                crash(node, hits);
                for (guard, _) in guards.iter_mut().zip(hits).filter(|(_, hit)| *hit) {
                    *guard = None;
                }
                restart(node, hits)?;
            }
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    drop(guards);
    let (pod, result) = adding.join().map_err(|_| anyhow!("the ADD's thread panicked"))??;
    node.await_agent(CONVERGENCE_TIMEOUT).await?;
    node.call(&pod.check(&result))?.ok().context("CHECK failed after the ADD")?;
    let has: Vec<String> = pod.addresses()?.iter().map(ToString::to_string).collect();
    ensure!(
        has.len() == 1 && has == addresses(&result),
        "the result of ADD is {result}, but the pod has the addresses {has:?}"
    );
    await_none(node, CONVERGENCE_TIMEOUT).await?;
    node.del(&pod)?;
    node.delete_kube_pod("default", &pool).await?;
    Ok((mark, at_once))
}

/// Kills each of the two programs that has reached its step.
fn crash(node: &mut SingleNode, [agent, operator]: [bool; 2]) {
    if agent {
        node.kill_agent();
    }
    if operator {
        node.stop_operator();
    }
}

fn restart(node: &mut SingleNode, [agent, operator]: [bool; 2]) -> Result<()> {
    if agent {
        node.start_agent_only()?;
    }
    if operator {
        node.start_operator_behind_proxy()?;
    }
    Ok(())
}

/// Calls ADD for the pod as containerd does. After a failed ADD it calls DEL, and then it calls ADD for a new sandbox.
fn add(plugin: &Plugin, netns: &Path, args: Option<&String>) -> Result<(Sandbox, Value)> {
    let start = Instant::now();
    loop {
        let mut pod = Sandbox::make(netns)?;
        pod.args = args.cloned();
        let answer = plugin.call(&pod.call("ADD"))?;
        if answer.exit == 0 {
            return Ok((pod, answer.ok()?));
        }
        ensure!(start.elapsed() < CONVERGENCE_TIMEOUT, "ADD: {}", answer.stdout);
        del(plugin, &pod)?;
    }
}
