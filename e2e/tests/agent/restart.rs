//! A killed agent serves CNI calls again after a restart, even without the API server. A benchmark measures how long
//! that takes.

use anyhow::{Result, ensure};
use bobbin_e2e::network::NetworkFault;
use bobbin_e2e::single_node::{CONVERGENCE_TIMEOUT, Sandbox, SingleNode};
use bobbin_e2e::wait::{Poll, wait_until};

use super::{add_pods, state_is_consistent};

const ATTACHMENTS: usize = 250;

pub async fn serves_again(node: &mut SingleNode) -> Result<()> {
    let mut pods = add_pods(node, ATTACHMENTS)?;
    node.await_assignments_of(&pods).await?;
    for fault in [NetworkFault::None, NetworkFault::Refuse, NetworkFault::BlackHole] {
        node.kill_agent();
        node.proxy.set(fault);
        let pod = node.sandbox()?;
        node.start_agent_only()?;
        let node_and_pod = (&*node, &pod);
        // Keep the network fault during this wait, so that the agent must answer without the API server.
        wait_until(
            &format!("the restarted agent answers an ADD during the fault {fault:?}"),
            CONVERGENCE_TIMEOUT,
            || async {
                let (node, pod) = node_and_pod;
                let answer = node.call(&pod.call("ADD"))?;
                if answer.exit == 0 {
                    return Ok(Poll::Ready(()));
                }
                let error = answer.error()?;
                ensure!(error.code == 11, "{error:?}");
                Ok(Poll::Pending(error.text))
            },
        )
        .await?;
        node.check_no_duplicate(&pods.iter().chain([&pod]).collect::<Vec<_>>())?;
        node.del(&pod)?;
        node.proxy.set(NetworkFault::None);
    }
    state_is_consistent(node, &pods).await?;
    let rest = pods.split_off(100);
    end_all_at_once(node, &rest)?;
    node.remove_pods(pods).await
}

fn end_all_at_once(node: &SingleNode, pods: &[Sandbox]) -> Result<()> {
    let (answers, _) = node.plugin().call_at_once(pods.iter().map(|pod| pod.call("DEL")).collect())?;
    for answer in answers {
        answer.ok()?;
    }
    Ok(())
}
