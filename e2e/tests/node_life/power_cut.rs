//! A node with 100 pods loses power and boots again.

use anyhow::{Result, ensure};
use bobbin_e2e::single_node::{CONVERGENCE_TIMEOUT, Call, SingleNode};
use bobbin_e2e::wait::{check, wait_until};

use super::add_at_once;

const PODS: usize = 100;

pub async fn wiped(node: &mut SingleNode) -> Result<()> {
    power_cut(node, "22222222-2222-2222-2222-222222222222", true).await
}

/// Keeps the run directory, because on some systems `/run` is not on a tmpfs and survives a power cut.
pub async fn kept(node: &mut SingleNode) -> Result<()> {
    power_cut(node, "33333333-3333-3333-3333-333333333333", false).await
}

async fn power_cut(node: &mut SingleNode, boot_id: &str, wipe: bool) -> Result<()> {
    let old = add_at_once(node, PODS)?;
    node.await_assignments_of(&old).await?;
    let old_ids: Vec<String> = old.iter().map(|pod| pod.container_id.clone()).collect();
    node.kill_agent();
    // Remove network namespaces and routes, as a power cut does.
    drop(old);
    let seen = &*node;
    wait_until("the links of the old pods are gone", CONVERGENCE_TIMEOUT, || async {
        let links = seen.attachments()?.len();
        Ok(check(links == 0, || format!("{links} links")))
    })
    .await?;
    for table in [116, 119] {
        for family in ["-4", "-6"] {
            node.namespace.command("ip").args([family, "route", "flush", "table", &table.to_string()]).status()?;
        }
    }
    if wipe {
        for entry in std::fs::read_dir(node.run_dir())? {
            let path = entry?.path();
            if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
        }
    }
    std::fs::write(node.path("boot-id"), format!("{boot_id}\n"))?;
    node.start_agent().await?;
    let new = add_at_once(node, PODS)?;
    // Like a runtime, send a DEL for each sandbox of the earlier boot. New pods may already have the old addresses, and
    // these DELs must not free them.
    let mut late: Vec<Call> = Vec::new();
    for id in &old_ids {
        late.push(Call::of("DEL", id, "eth0", None));
    }
    for answer in node.plugin().call_at_once(late)?.0 {
        answer.ok()?;
    }
    node.await_assignments_of(&new).await?;
    node.check_no_duplicate(&new.iter().collect::<Vec<_>>())?;
    let links = node.attachments()?.len();
    ensure!(links == PODS, "the node has {links} links for {PODS} pods");
    node.remove_pods(new).await
}
