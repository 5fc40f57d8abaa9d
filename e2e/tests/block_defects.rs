//! Blocks and their records, when somebody else has a hand in them: edits, other nodes, restores, watches that lie, writes that fail.
//!
//! The other node `n9` is this test with an administrator's client. The agent is behind a proxy that spoils single requests and
//! watches. All tests share the node and take turns; each cleans up.

#[path = "block_defects/cool_down.rs"]
mod cool_down;
#[path = "block_defects/direct_routing.rs"]
mod direct_routing;
#[path = "block_defects/duplicate.rs"]
mod duplicate;
#[path = "block_defects/fixture.rs"]
mod fixture;
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
#[path = "block_defects/signs_of_trouble.rs"]
mod signs_of_trouble;
#[path = "block_defects/unreadable.rs"]
mod unreadable;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use bobbin_e2e::single_node::{self, SingleNode, SingleNodeOptions};

/// What all waits of the agent are multiplied with.
const TIME_SCALE: f64 = 0.05;
/// How long an ADD is held here.
const HOLD_ADD: &str = "--hold-add=8s";
/// How long the agent may take for what it does at once, on a machine that is busy with other things.
const AT_ONCE: Duration = Duration::from_secs(10);

fn main() -> Result<ExitCode> {
    let mut flags = vec![HOLD_ADD.to_owned()];
    flags.push(scaled(TIME_SCALE));
    let suite =
        single_node::suite(SingleNodeOptions { agent: flags, api_proxy: true, ..SingleNodeOptions::default() })?;
    let tests = vec![
        suite.test("a block goes back only after its records are deleted", release::records_first),
        suite.test("a release is cancelled for an ADD that waits, as long as it was not sent", release::cancelled),
        suite.test("a release that is refused is tried again until it is done", release::retried),
        suite.test("a claim takes no block whose release is under way", release::not_claimed_meanwhile),
        suite.test("a block whose withdrawal failed serves only while it is exported", release::failed_withdrawal),
        suite.test("a held block that reads free is claimed back at once, and its pods are recorded", lost_blocks::claimed_back),
        suite.test("a block that another node has taken is lost, and its pods are recorded at once", lost_blocks::taken),
        suite.test("while one doubtful block is read, no other lost block gives out addresses", lost_blocks::two_at_once),
        suite.test("an ADD that began before its block was lost does not answer with an address of it", lost_blocks::during_add),
        suite.test("an agent that starts reads its saved blocks before it assigns from them", restart::read_first),
        suite.test("a failing list of records keeps no lost block assignable", restart::records_fail),
        suite.test("a doubted block stays doubted across a crash", restart::doubt_survives),
        suite.test("an agent that starts during an outage gives out a cooling address if it has no other", restart::cooling),
        suite.test("one waiting pod makes its node claim one cooling block, not all", cool_down::one_block),
        suite.test("a block that goes back unused keeps its freeSince", cool_down::unused_keeps_its_time),
        suite.test("an address that another node recorded comes back when that record is gone", duplicate::comes_back),
        suite.test("an address that another node recorded is passed over after a restart, too", duplicate::after_restart),
        suite.test("a node's changed address reaches its blocks within a minute", direct_routing::changed_address),
        suite.test("a nodeIPv4 that was edited by hand is right again within a minute", direct_routing::edited_address),
        suite.test("an address that a Node gets late is in all its blocks within a minute", direct_routing::late_address),
        suite.test("other nodes' claims are no repairs", direct_routing::claims_are_no_repairs),
        suite.test(
            "over three resyncs, other nodes' blocks that come, change and go are no repairs, as a metric and as events",
            direct_routing::quiet_resyncs,
        ),
        suite.test(
            "times that only Kubernetes accepts stop neither a running agent nor one that starts",
            unreadable::times,
        ),
        suite.test(
            "a pod and a namespace with times that only Kubernetes accepts get an address",
            unreadable::pod_and_namespace,
        ),
        suite.test("a pool that can't be read serves as it was, and the log names it", unreadable::pool),
        suite.test(
            "a pod whose record can't be read keeps its address, and its DEL deletes the record",
            unreadable::own_record,
        ),
        suite.test("an address whose record can't be read is not given out", unreadable::stray_record),
        suite.test("a record that can't be read is named in the log and is no duplicate", unreadable::named_record),
        suite.test("a block of another node that can't be read costs no route to the others", unreadable::direct),
        suite.test("a record that was deleted by hand is there again", manual_edits::deleted_record),
        suite.test("a block of a pool that was removed by force goes back with its last address", manual_edits::removed_pool),
        suite.test("a block that is being deleted gives out no address, and the node says so", manual_edits::deleted_block),
        suite.test(
            "blocks, records and node addresses are right after one resync though every watch event is dropped",
            resync::without_events,
        ),
        suite.test("a draining pool is obeyed after one resync though every watch event is dropped", resync::pool),
        suite.test("an ADD from a proven block does not wait for its record", proven_blocks::no_wait),
        suite.test("a frozen watch gives out no address that another node has recorded", proven_blocks::half_open),
        suite.test(
            "a watch that resumes with a resourceVersion from the future gives out no address that another node has recorded",
            proven_blocks::from_the_future,
        ),
        suite.test("blocks of a Node that was deleted and made again carry its new UID", proven_blocks::another_uid),
        suite.test("an ADD waits for its record after a watch broke", signs_of_trouble::broken_watch),
        suite.test("an ADD waits for its record after an agent start without an answer", signs_of_trouble::agent_start),
        suite.test("an ADD waits for its record after 90 s of silence", signs_of_trouble::silence),
        suite.test("an ADD waits for its record after an answer with a lower resourceVersion", signs_of_trouble::lower_version),
        suite.test("an ADD waits for its record after a duplicate", signs_of_trouble::duplicate),
        suite.test("an ADD waits for its record after more than 60 s of 401", signs_of_trouble::unauthorized),
        suite.test("an idle cluster makes the agent list nothing but for its resync", proven_blocks::idle),
        suite.test("leaving a node waits until its blocks have gone back", release::leaving),
    ];
    Ok(suite.run(tests))
}

/// The flag that shortens the agent's waits.
fn scaled(scale: f64) -> String {
    format!("--time-scale={scale}")
}

/// How long to wait for what the agent does within `real`, unscaled; with room for a busy machine.
fn timeout(real: Duration) -> Duration {
    AT_ONCE + real.mul_f64(TIME_SCALE)
}

/// Restarts the agent with these flags beside the usual ones.
async fn with_flags(node: &mut SingleNode, flags: &[&str]) -> Result<()> {
    node.kill_agent();
    node.set_agent_flags(flags);
    node.start_agent().await
}
