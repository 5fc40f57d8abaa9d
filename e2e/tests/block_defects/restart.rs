//! An agent that starts: what it takes for its own before the API server has said so, and what it does without it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use bobbin_e2e::api_proxy::{Fault, Selector};
use bobbin_e2e::lone_node::{Answer, LoneNode, PATIENCE, Pod};
use bobbin_e2e::proxy::Weather;
use bobbin_e2e::until::{so, until};
use serde_json::json;

use super::scene::{Block, READS, Scene, answered, in_contact, is_saved, not_of};
use super::with_flags;

/// How the shim's sentence begins when the agent gave no answer.
const UNANSWERED: &str = "the Bobbin agent of this node";

/// The first ADD that an agent which starts answers.
fn first_add(node: &LoneNode, pod: &Pod) -> Result<Answer> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = node.call(&pod.call("ADD"))?;
        if !answer.stdout.contains(UNANSWERED) {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("the agent did not answer: {}", answer.stdout);
        }
    }
}

/// Makes a pool with two pods. The first has an address; the second has no ADD yet, and its name is in the checkpoint. Returns the pool, the
/// block of the first pod, and the number of the second.
async fn one_of_two(node: &LoneNode, pool: &'static str, third: u8) -> Result<(Scene, Block, usize)> {
    let mut scene = Scene::begin(node, pool, third, 28, 2, json!({})).await?;
    scene.add(node).await?;
    let block = scene.block(node, 0).await?;
    let next = scene.pod(node).await?;
    is_saved(node, &scene.name_of(next)).await?;
    Ok((scene, block, next))
}

pub async fn read_first(node: &mut LoneNode) -> Result<()> {
    let (scene, block, next) = one_of_two(node, "read-first", 21).await?;
    node.kill_agent();
    block.hand_over(node).await?;
    // Healthy, and a little further away: less than the first ADD waits for the first read.
    let far = Fault::Delay(Duration::from_millis(20));
    let far = node.api()?.inject(Selector::verbs(&["get", "list", "watch"]).of("addressblocks"), far);
    node.set_agent_flags(&["--time-scale=1"]);
    node.start_agent_only()?;
    let answer = first_add(node, &scene.pods[next])?;
    drop(far);
    not_of(&answer, &block)?;
    with_flags(node, &[]).await?;
    scene.end(node).await
}

pub async fn records_fail(node: &mut LoneNode) -> Result<()> {
    let (scene, block, next) = one_of_two(node, "records-fail", 22).await?;
    node.kill_agent();
    block.hand_over(node).await?;
    let lists = Selector::verbs(&["list"]).of("ipassignments");
    let failing = node.api()?.inject(lists.clone(), Fault::Refuse(500));
    let mark = node.api()?.mark();
    node.start_agent_only()?;
    until("the agent has listed its records twice, in vain", PATIENCE, || async {
        let tries = node.api()?.seen(mark, &lists).len();
        Ok(so(tries >= 2, || format!("{tries} tries")))
    })
    .await?;
    let answer = first_add(node, &scene.pods[next])?;
    drop(failing);
    not_of(&answer, &block)?;
    node.await_agent(PATIENCE).await?;
    scene.end(node).await
}

pub async fn doubt_survives(node: &mut LoneNode) -> Result<()> {
    let (scene, block, next) = one_of_two(node, "doubt", 23).await?;
    let reads = Selector::verbs(READS).of("addressblocks");
    let failing = node.api()?.inject(reads.clone(), Fault::Refuse(500));
    let mark = node.api()?.mark();
    block.hand_over(node).await?;
    until("the agent doubts the block and has read it twice, in vain", PATIENCE, || async {
        let tries = node.api()?.seen(mark, &reads).len();
        Ok(so(tries >= 2, || format!("{tries} reads")))
    })
    .await?;
    node.kill_agent();
    node.start_agent_only()?;
    let answer = first_add(node, &scene.pods[next])?;
    drop(failing);
    not_of(&answer, &block)?;
    node.await_agent(PATIENCE).await?;
    scene.end(node).await
}

pub async fn cooling(node: &mut LoneNode) -> Result<()> {
    let mut scene = Scene::begin(node, "still-cools", 24, 31, 1, json!({"cooldownSeconds": 300})).await?;
    scene.add(node).await?;
    let second = scene.add(node).await?;
    let address = scene.address(second)?;
    let (before, after) = (scene.pod(node).await?, scene.pod(node).await?);
    is_saved(node, &scene.name_of(after)).await?;
    node.del(&scene.pods[second])?;
    node.proxy.set(Weather::Refuse);
    let answer = node.call(&scene.pods[before].call("ADD"))?;
    ensure!(answered(&answer)? == Some(address), "before the restart: {}", answer.stdout);
    node.del(&scene.pods[before])?;
    node.kill_agent();
    node.start_agent_only()?;
    let answer = first_add(node, &scene.pods[after])?;
    ensure!(answered(&answer)? == Some(address), "after the restart no pod gets {address}: {}", answer.stdout);
    let mark = node.api()?.mark();
    node.proxy.set(Weather::Healthy);
    node.await_agent(PATIENCE).await?;
    in_contact(node, mark).await?;
    scene.end(node).await
}
