//! Blocks and their records, when somebody else has a hand in them: edits, other nodes, restores, watches that lie, writes that fail.
//!
//! The other node `n9` is this test with an administrator's client. The agent is behind a proxy that spoils single requests and
//! watches. All tests share the node and take turns; each cleans up.

#[path = "block_defects/by_hand.rs"]
mod by_hand;
#[path = "block_defects/cooling.rs"]
mod cooling;
#[path = "block_defects/direct.rs"]
mod direct;
#[path = "block_defects/duplicate.rs"]
mod duplicate;
#[path = "block_defects/lost.rs"]
mod lost;
#[path = "block_defects/proven.rs"]
mod proven;
#[path = "block_defects/release.rs"]
mod release;
#[path = "block_defects/restart.rs"]
mod restart;
#[path = "block_defects/resync.rs"]
mod resync;
#[path = "block_defects/scene.rs"]
mod scene;
#[path = "block_defects/signs.rs"]
mod signs;
#[path = "block_defects/unreadable.rs"]
mod unreadable;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use bobbin_e2e::lone_node::{Choice, LoneNode, Turns};

/// What all waits of the agent are multiplied with.
const TIME_SCALE: f64 = 0.05;
/// How long an ADD is held here.
const ADD_TIMEOUT: &str = "--add-timeout=8s";
/// How long the agent may take for what it does at once, on a machine that is busy with other things.
const AT_ONCE: Duration = Duration::from_secs(10);

fn main() -> Result<ExitCode> {
    let mut flags = vec![ADD_TIMEOUT.to_owned()];
    flags.push(scaled(TIME_SCALE));
    let turns = Turns::on(Choice { agent: flags, api_proxy: true, ..Choice::default() })?;
    let tests = vec![
        turns.test("a block goes back only after its records are deleted", release::records_first),
        turns.test("a release is cancelled for an ADD that waits, as long as it was not sent", release::cancelled),
        turns.test("a release that is refused is tried again until it is done", release::retried),
        turns.test("a claim takes no block whose release is under way", release::not_claimed_meanwhile),
        turns.test("a block whose withdrawal failed serves only while it is exported", release::failed_withdrawal),
        turns.test("a held block that reads free is claimed back at once, and its pods are recorded", lost::claimed_back),
        turns.test("a block that another node has taken is lost, and its pods are recorded at once", lost::taken),
        turns.test("while one doubtful block is read, no other lost block gives out addresses", lost::two_at_once),
        turns.test("an ADD that began before its block was lost does not answer with an address of it", lost::during_add),
        turns.test("an agent that starts reads its saved blocks before it assigns from them", restart::read_first),
        turns.test("a failing list of records keeps no lost block assignable", restart::records_fail),
        turns.test("a doubted block stays doubted across a crash", restart::doubt_survives),
        turns.test("an agent that starts during an outage gives out a cooling address if it has no other", restart::cooling),
        turns.test("one waiting pod makes its node claim one cooling block, not all", cooling::one_block),
        turns.test("a block that goes back unused keeps its freeSince", cooling::unused_keeps_its_time),
        turns.test("an address that another node recorded comes back when that record is gone", duplicate::comes_back),
        turns.test("an address that another node recorded is passed over after a restart, too", duplicate::after_restart),
        turns.test("a node's changed address reaches its blocks within a minute", direct::changed_address),
        turns.test("a nodeIPv4 that was edited by hand is right again within a minute", direct::edited_address),
        turns.test("an address that a Node gets late is in all its blocks within a minute", direct::late_address),
        turns.test("other nodes' claims are no repairs", direct::claims_are_no_repairs),
        turns.test(
            "over three resyncs, other nodes' blocks that come, change and go are no repairs, as a metric and as events",
            direct::quiet_resyncs,
        ),
        turns.test(
            "times that only Kubernetes accepts stop neither a running agent nor one that starts",
            unreadable::times,
        ),
        turns.test(
            "a pod and a namespace with times that only Kubernetes accepts get an address",
            unreadable::pod_and_namespace,
        ),
        turns.test("a pool that can't be read serves as it was, and the log names it", unreadable::pool),
        turns.test(
            "a pod whose record can't be read keeps its address, and its DEL deletes the record",
            unreadable::own_record,
        ),
        turns.test("an address whose record can't be read is not given out", unreadable::stray_record),
        turns.test("a record that can't be read is named in the log and is no duplicate", unreadable::named_record),
        turns.test("a block of another node that can't be read costs no route to the others", unreadable::direct),
        turns.test("a record that was deleted by hand is there again", by_hand::deleted_record),
        turns.test("a block of a pool that was removed by force goes back with its last address", by_hand::removed_pool),
        turns.test("a block that is being deleted gives out no address, and the node says so", by_hand::deleted_block),
        turns.test(
            "blocks, records and node addresses are right after one resync though every watch event is dropped",
            resync::without_events,
        ),
        turns.test("a draining pool is obeyed after one resync though every watch event is dropped", resync::pool),
        turns.test("an ADD from a proven block does not wait for its record", proven::no_wait),
        turns.test("a frozen watch gives out no address that another node has recorded", proven::half_open),
        turns.test(
            "a watch that resumes with a resourceVersion from the future gives out no address that another node has recorded",
            proven::from_the_future,
        ),
        turns.test("blocks of a Node that was deleted and made again carry its new UID", proven::another_uid),
        turns.test("an ADD waits for its record after a watch broke", signs::broken_watch),
        turns.test("an ADD waits for its record after an agent start without an answer", signs::agent_start),
        turns.test("an ADD waits for its record after 90 s of silence", signs::silence),
        turns.test("an ADD waits for its record after an answer with a lower resourceVersion", signs::lower_version),
        turns.test("an ADD waits for its record after a duplicate", signs::duplicate),
        turns.test("an ADD waits for its record after more than 60 s of 401", signs::unauthorized),
        turns.test("an idle cluster makes the agent list nothing but for its resync", proven::idle),
        turns.test("leaving a node waits until its blocks have gone back", release::leaving),
    ];
    Ok(turns.run(tests))
}

/// The flag that shortens the agent's waits.
fn scaled(scale: f64) -> String {
    format!("--time-scale={scale}")
}

/// How long to wait for what the agent does within `real`, unscaled; with room for a busy machine.
fn patience(real: Duration) -> Duration {
    AT_ONCE + real.mul_f64(TIME_SCALE)
}

/// Restarts the agent with these flags beside the usual ones.
async fn with_flags(node: &mut LoneNode, flags: &[&str]) -> Result<()> {
    node.kill_agent();
    node.set_agent_flags(flags);
    node.start_agent().await
}
