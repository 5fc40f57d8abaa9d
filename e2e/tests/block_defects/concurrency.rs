//! While a CNI call is waiting for the API server or the kernel, the agent answers other CNI calls.

use anyhow::{Context, Result, anyhow, ensure};
use bobbin_e2e::api_proxy::{Fault, Selector};
use bobbin_e2e::single_node::{Answer, Call, Sandbox, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use serde_json::{Value, json};

use super::fixture::{PoolFixture, READS, WRITES, answered, await_checkpointed};
use super::with_flags;

type Adding = std::thread::JoinHandle<Result<Answer>>;

/// A running pod of the pool `default`, and the result of its ADD.
struct Running {
    pod: Sandbox,
    result: Value,
}

impl Running {
    fn add(node: &SingleNode) -> Result<Self> {
        let pod = node.sandbox()?;
        let result = node.add(&pod)?;
        Ok(Self { pod, result })
    }

    /// Calls STATUS, CHECK and DEL. None of these calls claims a block or waits for a new network namespace.
    fn check_and_delete(self, node: &SingleNode) -> Result<()> {
        node.call(&Call { verb: "STATUS", ..Call::default() })?.ok().context("STATUS")?;
        node.call(&self.pod.check(&self.result))?.ok().context("CHECK")?;
        node.del(&self.pod)
    }
}

/// Checks that the ADD is still waiting. If the ADD has ended, the other calls may have had to wait for it.
fn still_waits(adding: &Adding, what: &str) -> Result<()> {
    ensure!(!adding.is_finished(), "the agent answered other calls only after the ADD that was waiting for {what}");
    Ok(())
}

fn answer_of(adding: Adding) -> Result<Answer> {
    adding.join().map_err(|_| anyhow!("the thread of the ADD panicked"))?
}

pub async fn waits_for_assignment(node: &mut SingleNode) -> Result<()> {
    with_flags(node, &["--confirm-wait=50s"]).await?;
    // Let the node claim a block of the pool `default` now. Later the proxy holds reads, and the node can't claim a
    // block.
    let running = Running::add(node)?;
    let mut fixture = PoolFixture::create(node, "one-waits", 15, 31, 1, json!({})).await?;
    fixture.add(node).await?;
    let taken = fixture.address(0)?;
    let free = fixture.block(node, 0).await?.range.hosts().find(|address| *address != taken);
    let next = fixture.pod(node).await?;
    await_checkpointed(node, &fixture.name_of(next)).await?;
    // Hold reads, so that no read proves that the node owns the block. The ADD then waits until the API server has
    // created its assignment.
    let reads = node.api()?.inject(Selector::verbs(READS).of("addressblocks"), Fault::HoldRequest);
    node.kill_agent();
    node.start_agent_only()?;
    node.await_agent(WAIT_TIMEOUT).await?;
    let creation = Selector::verbs(&["create"]).of("ipassignments");
    let held = node.api()?.inject(creation.clone().once(), Fault::HoldRequest);
    let mark = node.api()?.mark();
    let adding = fixture.begin_add(node, next);
    wait_until("the ADD sends its assignment", WAIT_TIMEOUT, || async {
        let sent = node.api()?.observed(mark, &creation).len();
        Ok(check(sent > 0, || "no create".to_owned()))
    })
    .await?;
    Running::add(node).context("a call failed while another ADD was waiting")?.check_and_delete(node)?;
    running.check_and_delete(node)?;
    still_waits(&adding, "its assignment")?;
    drop((held, reads));
    let answer = answer_of(adding)?;
    ensure!(answered(&answer)? == free, "{}", answer.stdout);
    with_flags(node, &[]).await?;
    fixture.end(node).await
}

pub async fn waits_for_claim(node: &mut SingleNode) -> Result<()> {
    with_flags(node, &["--add-timeout=50s"]).await?;
    // Let the node claim a block of the pool `default`.
    let running = Running::add(node)?;
    let mut fixture = PoolFixture::create(node, "claim-waits", 16, 28, 2, json!({})).await?;
    let claims = Selector::verbs(WRITES).of("addressblocks");
    let held = node.api()?.inject(claims.clone(), Fault::HoldRequest);
    let mark = node.api()?.mark();
    let pod = fixture.pod(node).await?;
    let adding = fixture.begin_add(node, pod);
    wait_until("the agent claims a block", WAIT_TIMEOUT, || async {
        let sent = node.api()?.observed(mark, &claims).len();
        Ok(check(sent > 0, || "no claim".to_owned()))
    })
    .await?;
    Running::add(node).context("a call failed while another ADD was waiting")?.check_and_delete(node)?;
    running.check_and_delete(node)?;
    still_waits(&adding, "its claim")?;
    drop(held);
    answer_of(adding)?.ok()?;
    with_flags(node, &[]).await?;
    fixture.end(node).await
}

pub async fn waits_for_kernel(node: &mut SingleNode) -> Result<()> {
    // Turn the time scale off, because it does not shorten the 8 s by which strace delays each setns below.
    with_flags(node, &["--time-scale=1"]).await?;
    let running = Running::add(node)?;
    let mut fixture = PoolFixture::create(node, "kernel-waits", 17, 28, 2, json!({})).await?;
    fixture.add(node).await?;
    let pod = fixture.pod(node).await?;
    // Only threads that set up a pod's network call setns.
    let delayed = node.inject_syscall_faults(&["-etrace=setns", "-einject=setns:delay_enter=8000000"]).await?;
    let mark = node.api()?.mark();
    let adding = fixture.begin_add(node, pod);
    wait_until("the ADD sends its assignment", WAIT_TIMEOUT, || async {
        let sent = node.api()?.observed(mark, &Selector::verbs(&["create"]).of("ipassignments"));
        Ok(check(!sent.is_empty(), || "no create".to_owned()))
    })
    .await?;
    node.call(&Call { verb: "STATUS", ..Call::default() })?.ok().context("STATUS")?;
    node.del(&running.pod)?;
    still_waits(&adding, "the kernel")?;
    answer_of(adding)?.ok()?;
    delayed.end(true).await?;
    with_flags(node, &[]).await?;
    fixture.end(node).await
}
