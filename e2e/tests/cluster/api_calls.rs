//! Counts Bobbin's API calls in the API server's audit log.

use std::time::Duration;

use anyhow::{Result, ensure};
use bobbin_e2e::cluster::Pool;
use bobbin_e2e::cluster::{Cluster, Workload};
use bobbin_e2e::control_plane::Entry;
use bobbin_e2e::suite::Suite;
use libtest_mimic::Trial;

const AGENT: &str = "system:serviceaccount:bobbin-system:bobbin-agent";
const PODS: usize = 12;

pub fn tests(suite: &Suite<Cluster>) -> Vec<Trial> {
    vec![suite.test("an ADD costs one write and no read, by the API server's audit log", one_write_no_read)]
}

async fn one_write_no_read(cluster: &mut Cluster) -> Result<()> {
    // The block of 64 addresses stays less than three quarters full, so the agent claims no block during the count.
    let pool = Pool::named("counted").subnet("10.79.0.0/20", "fd00:79::/116").bits(6).build();
    cluster.apply(&pool).await?;
    cluster.await_condition(&pool, "Ready", "True", Duration::from_secs(20)).await?;
    cluster.make_namespace("counted", &[]).await?;
    cluster.create_ready_pod(Workload::pod("counted", "first").on("n1")).await?;

    let audit = cluster.control_plane().audit();
    let mark = audit.mark();
    for number in 0..PODS {
        cluster.create_pod(&Workload::pod("counted", &format!("pod-{number}")).on("n1")).await?;
    }
    cluster.await_ready_pods("counted", "", "", PODS + 1, Duration::from_secs(90)).await?;
    cluster.await_invariants(Duration::from_secs(10)).await?;
    let calls = audit.calls(mark, |call| call.user.username == AGENT && call.verb != "watch")?;
    let about_assignments: Vec<&Entry> = calls.iter().filter(|call| call.resource() == "ipassignments").collect();
    ensure!(
        about_assignments.len() == PODS
            && about_assignments.iter().all(|call| call.verb == "create" && call.code() == 201),
        "{PODS} ADDs must cost one create of an assignment each, but they cost {:?}",
        told(about_assignments)
    );
    // Ignore calls about blocks of earlier tests' pools, because an agent that lost such a block may still send them.
    let of_another_pool = |call: &Entry| {
        let block = call.request_uri.split("/addressblocks/").nth(1);
        block.is_some_and(|block| !block.starts_with("counted-"))
    };
    let reads: Vec<&Entry> = calls.iter().filter(|call| call.is_read() && !of_another_pool(call)).collect();
    ensure!(reads.is_empty(), "{PODS} ADDs must cost no read, but they cost {:?}", told(reads));

    let mark = audit.mark();
    cluster.delete_all_pods("counted").await?;
    cluster.await_invariants(Duration::from_secs(10)).await?;
    let calls = audit.calls(mark, |call| {
        call.user.username == AGENT && call.resource() == "ipassignments" && call.verb != "watch"
    })?;
    ensure!(
        calls.len() == PODS + 1 && calls.iter().all(|call| call.verb == "delete"),
        "{} DELs must cost one delete of an assignment each, but they cost {:?}",
        PODS + 1,
        told(calls.iter().collect())
    );
    Ok(())
}

fn told(calls: Vec<&Entry>) -> Vec<String> {
    calls.into_iter().map(|call| format!("{} {} {}", call.verb, call.request_uri, call.code())).collect()
}
