//! Tests blocks and assignments during edits, changes by other nodes, restored snapshots, broken watches and failed
//! writes.
//!
//! The tests act as a second node, `n9`, with an administrator's client. The agent reaches the API server through a
//! proxy, which can break single requests and watches.

#[path = "block_defects/checkpoint.rs"]
mod checkpoint;
#[path = "block_defects/concurrency.rs"]
mod concurrency;
#[path = "block_defects/cool_down.rs"]
mod cool_down;
#[path = "block_defects/direct_routing.rs"]
mod direct_routing;
#[path = "block_defects/duplicate.rs"]
mod duplicate;
#[path = "block_defects/fixture.rs"]
mod fixture;
#[path = "block_defects/invalidations.rs"]
mod invalidations;
#[path = "block_defects/lost_blocks.rs"]
mod lost_blocks;
#[path = "block_defects/manual_edits.rs"]
mod manual_edits;
#[path = "block_defects/proven_blocks.rs"]
mod proven_blocks;
#[path = "block_defects/release.rs"]
mod release;
#[path = "block_defects/restart.rs"]
mod restart;
#[path = "block_defects/resync.rs"]
mod resync;
#[path = "block_defects/unreadable.rs"]
mod unreadable;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use bobbin_e2e::single_node::{self, SingleNode, SingleNodeOptions};

/// The factor by which the agent's waits are shortened.
const TIME_SCALE: f64 = 0.05;
/// How long an ADD waits for an address in the block tests.
const ADD_TIMEOUT: &str = "--add-timeout=8s";
/// How long the agent may take for work that it does at once. The machine may be busy.
const IMMEDIATE_TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> Result<ExitCode> {
    let flags = [ADD_TIMEOUT, &scaled(TIME_SCALE)];
    let suite =
        single_node::suite(SingleNodeOptions { api_proxy: true, ..SingleNodeOptions::with_agent_flags(flags) })?;
    let tests = vec![
        suite.test("a block is released only after its assignments are deleted", release::assignments_first),
        suite.test("a node that nodeSelector no longer admits releases its last block", release::not_admitted),
        suite.test("a release that was not sent yet is cancelled for a waiting ADD", release::cancelled),
        suite.test("a release that is refused is retried until it succeeds", release::retried),
        suite.test("a block whose release is in flight is not claimed", release::not_claimed_meanwhile),
        suite.test("a block whose withdrawal failed serves only while it is exported", release::failed_withdrawal),
        suite.test("a held block that was freed in the API is claimed back at once, with assignments for its pods", lost_blocks::claimed_back),
        suite.test("a block that another node has claimed is lost, and its pods get assignments at once", lost_blocks::taken),
        suite.test("while one doubted block is read, no other lost block assigns addresses", lost_blocks::two_at_once),
        suite.test("an ADD that began before its block was lost does not answer with an address of it", lost_blocks::during_add),
        suite.test("an agent that starts reads its saved blocks from the API before it assigns from them", restart::read_first),
        suite.test("a lost block assigns nothing while listing assignments fails", restart::assignment_list_fails),
        suite.test("a doubted block stays doubted across a crash", restart::doubt_survives),
        suite.test("an agent that starts during an outage assigns a cooling address if it has no other", restart::cooling),
        suite.test(
            "an ADD that waits for its assignment delays no other call",
            concurrency::waits_for_assignment,
        ),
        suite.test("an ADD that waits for a claim delays no other call", concurrency::waits_for_claim),
        suite.test("an ADD that waits for the kernel delays no other call", concurrency::waits_for_kernel),
        suite.test(
            "a block serves no ADD before the saved list of blocks has it",
            checkpoint::written_before_service,
        ),
        suite.test(
            "a lost block serves no ADD though the saved list of blocks can't be written",
            checkpoint::lost_without_write,
        ),
        suite.test("one waiting pod makes its node claim only one of several cooling blocks", cool_down::one_block),
        suite.test("a block that is released unused keeps its freeSince", cool_down::unused_keeps_its_time),
        suite.test("an address with another node's assignment is assigned again when that assignment is gone", duplicate::comes_back),
        suite.test("an address with another node's assignment is not assigned after a restart either", duplicate::after_restart),
        suite.test("one ADD passes over thirty addresses with another node's assignments", duplicate::passes_over_many),
        suite.test("after one conflict, a list excludes all other conflicts of the block", duplicate::one_list),
        suite.test("a node's new address is in its blocks within a minute", direct_routing::changed_address),
        suite.test("a nodeIPv4 that an administrator changed is restored within a minute", direct_routing::edited_address),
        suite.test("an address that a Node gets later is in all its blocks within a minute", direct_routing::late_address),
        suite.test("claims of other nodes are not counted as repairs", direct_routing::claims_are_no_repairs),
        suite.test(
            "over three resyncs, changes of other nodes' blocks are counted as repairs neither by the metric nor by events",
            direct_routing::quiet_resyncs,
        ),
        suite.test(
            "timestamps that only Kubernetes accepts stop neither a running agent nor one that starts",
            unreadable::timestamps::objects,
        ),
        suite.test(
            "pods get addresses though pod and namespace have timestamps that only Kubernetes accepts",
            unreadable::timestamps::pod_and_namespace,
        ),
        suite.test("an unreadable pool serves as before, and the log names it", unreadable::pool),
        suite.test(
            "a pod whose assignment is unreadable keeps its address, and its DEL deletes the assignment",
            unreadable::own_assignment,
        ),
        suite.test("an address whose assignment is unreadable is not assigned", unreadable::orphaned_assignment),
        suite.test("an unreadable assignment is named in the log and is not taken for a duplicate", unreadable::named_assignment),
        suite.test("an unreadable block of another node costs no route to other blocks", unreadable::timestamps::direct),
        suite.test("an assignment that an administrator deleted is created again", manual_edits::deleted_assignment),
        suite.test("a block whose pool was removed by force is released with its last address", manual_edits::removed_pool),
        suite.test("a deleted block of living pods is claimed for their node again and serves again", manual_edits::vanished_block),
        suite.test(
            "a block outside of the subnets of its pool assigns no address",
            manual_edits::block_outside_of_pool,
        ),
        suite.test("a block that is being deleted assigns no address, and an event on the node says so", manual_edits::deleted_block),
        suite.test(
            "one resync corrects blocks, assignments and node addresses though every watch event is dropped",
            resync::without_events,
        ),
        suite.test("one resync finds a draining pool though every watch event is dropped", resync::pool),
        suite.test("an ADD from a proven block does not wait for its assignment", proven_blocks::no_wait),
        suite.test("with a frozen watch, no address is assigned that another node has an assignment of", proven_blocks::half_open),
        suite.test(
            "with a watch resumed from a future resourceVersion, no address is assigned that another node has an assignment of",
            proven_blocks::from_the_future,
        ),
        suite.test("blocks of a Node that was deleted and created again get its new UID", proven_blocks::another_uid),
        suite.test("an ADD waits for its assignment after a watch broke", invalidations::broken_watch),
        suite.test("an ADD waits for its assignment after an agent start without an answer", invalidations::agent_start),
        suite.test("an ADD waits for its assignment after 90 s without a watch event", invalidations::silence),
        suite.test("an ADD waits for its assignment after a response with a lower resourceVersion", invalidations::lower_version),
        suite.test("an ADD waits for its assignment after a duplicate", invalidations::duplicate),
        suite.test("an ADD waits for its assignment after more than 60 s of status 401", invalidations::unauthorized),
        suite.test("in an idle cluster the agent lists only for its resync", proven_blocks::idle),
        suite.test("uninstalling from a node waits until its blocks are released", release::leaving),
        suite.test("a forced uninstall cuts off pods and leaves no address, block or finalizer", release::forced),
        suite.test(
            "a forced uninstall that can't release a block says so, and releases it when the API server answers",
            release::forced_without_api,
        ),
    ];
    Ok(suite.run(tests))
}

/// The agent's flag that shortens its waits by this factor.
fn scaled(scale: f64) -> String {
    format!("--time-scale={scale}")
}

/// The timeout for work that takes the agent at most `real` without a time scale. The machine may be busy.
fn scaled_timeout(real: Duration) -> Duration {
    IMMEDIATE_TIMEOUT + real.mul_f64(TIME_SCALE)
}

/// Restarts the agent with these flags and the usual flags of the tests.
async fn with_flags(node: &mut SingleNode, flags: &[&str]) -> Result<()> {
    node.kill_agent();
    node.set_agent_flags(flags);
    node.start_agent().await
}
