//! The check before `helm uninstall`. The check fails while pods have addresses, because after the uninstall nothing removes the
//! routes and addresses of these pods. It also fails while a pool is being deleted, because only the operator removes the
//! pool's finalizer.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context;
use bobbin_api_client::{Clients, Lenient, Notice, ReadError, connect, list_names, publish_now};
use bobbin_crds::AddressPool;
use bobbin_messages::Reporter;
use bobbin_messages::event::operator;
use clap::Parser;
use k8s_openapi::api::batch::v1::Job;
use kube::api::ObjectMeta;
use kube::{Client, Resource};

use crate::cache::objects::PartialAssignment;
use crate::live_reads::for_each;

/// The message of a refused uninstall names at most this many pods or pools, and says how many more there are.
const MAX_NAMED: usize = 5;

/// Fails while pods have addresses of Bobbin, or while a pool is being deleted. `helm uninstall` runs this check before Helm removes anything.
#[derive(Parser, Clone, Debug)]
#[command(name = "bobbin-uninstall-check", version)]
struct CheckArgs {
    /// The kubeconfig for the API server. By default, the check uses the file in $KUBECONFIG. If $KUBECONFIG is not set, it
    /// uses the pod's service account.
    #[arg(long, env = "BOBBIN_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// The namespace of the release and of the Job that runs this check.
    #[arg(long, env = "POD_NAMESPACE", default_value = "bobbin-system")]
    namespace: String,
    /// The name of the Helm release.
    #[arg(long, default_value = "bobbin")]
    release: String,
    /// The current revision of the Helm release.
    #[arg(long, default_value_t = 1)]
    revision: u32,
    /// The Job that runs this check.
    #[arg(long, default_value = "bobbin-uninstall-check")]
    job: String,
}

/// Runs the check as a program.
///
/// # Errors
/// Fails if pods have addresses, if a pool is being deleted, or if a read from the API server fails. The error says what to do.
pub async fn run(args: Vec<OsString>) -> anyhow::Result<()> {
    let args = CheckArgs::try_parse_from(args).unwrap_or_else(|error| error.exit());
    let user_agent = concat!("bobbin-uninstall-check/", env!("CARGO_PKG_VERSION"));
    let clients = connect(args.kubeconfig.as_deref(), user_agent).await.context("the check can't start")?;
    let (pods, pools) = (assigned(&clients).await, deleting_pools(&clients).await);
    let Some(sentence) = refusal(&pods, &args).or_else(|| unfinished(&pools, &args)) else { return Ok(()) };
    publish(clients.requests, &args, &sentence).await;
    Err(anyhow::anyhow!("{sentence}"))
}

/// The pods that have addresses, each with its node. An assignment that can't be decoded counts as the address of a pod.
async fn assigned(clients: &Clients) -> Result<Vec<String>, ReadError> {
    let mut pods = Vec::new();
    let listed = for_each(clients, "", |assignment: Lenient<PartialAssignment>| pods.push(pod_of(&assignment))).await;
    or_no_kind(listed).map(|()| pods)
}

/// The names of the pools that are being deleted.
async fn deleting_pools(clients: &Clients) -> Result<Vec<String>, ReadError> {
    let mut pools = Vec::new();
    let listed = for_each(clients, "", |pool: Lenient<AddressPool>| {
        if is_being_deleted(&pool) {
            pools.push(pool.name().to_owned());
        }
    });
    or_no_kind(listed.await).map(|()| pools)
}

/// Whether the pool is being deleted, even if its spec can't be decoded.
fn is_being_deleted(pool: &Lenient<AddressPool>) -> bool {
    pool.meta().deletion_timestamp.is_some()
}

/// Treats a LIST request for a missing kind as an empty list. If Bobbin's custom resources do not exist, no pod has an
/// address of Bobbin, and no pool is being deleted.
fn or_no_kind(listed: Result<(), ReadError>) -> Result<(), ReadError> {
    match listed {
        Err(ReadError::NotFound) => Ok(()),
        listed => listed,
    }
}

fn pod_of(assignment: &Lenient<PartialAssignment>) -> String {
    let spec = assignment.readable().map(|assignment| &assignment.spec);
    let pod = spec.and_then(|spec| {
        Some(format!("{}/{} on node {}", spec.pod_namespace.as_ref()?, spec.pod_name.as_ref()?, spec.node_name))
    });
    pod.unwrap_or_else(|| format!("the owner of IPAssignment {}", assignment.name()))
}

/// The sentences that say how to keep Bobbin after a refused uninstall. The user needs a rollback, because Helm marks the
/// release as uninstalling before the check runs, and then refuses every upgrade.
fn keep(CheckArgs { release, namespace, revision, .. }: &CheckArgs) -> String {
    format!(
        "Bobbin keeps running, but Helm can't upgrade it after this failed uninstall. To allow upgrades again, run: helm rollback {release} {revision} -n {namespace}"
    )
}

/// The sentence that says how a user skips the check.
fn anyway(CheckArgs { release, namespace, .. }: &CheckArgs) -> String {
    format!("To uninstall anyway, run: helm uninstall {release} -n {namespace} --no-hooks")
}

/// The message that says which pools must be gone before the uninstall; `None` if no pool is being deleted.
fn unfinished(pools: &Result<Vec<String>, ReadError>, args: &CheckArgs) -> Option<String> {
    let (keep, anyway) = (keep(args), anyway(args));
    match pools {
        Ok(pools) if pools.is_empty() => None,
        Ok(pools) => Some(format!(
            "Bobbin is not uninstalled, because the operator has not finished deleting these AddressPools: {}. Wait until \
             all of these pools are gone, and uninstall again. To wait for one pool, run: kubectl wait --for=delete addresspool/{}. {anyway}. {keep}",
            list_names(pools.iter().take(MAX_NAMED), pools.len()),
            pools[0],
        )),
        Err(error) => Some(format!(
            "Bobbin is not uninstalled, because the check could not find out whether a pool is being deleted: {error}. Try again. {keep}. {anyway}"
        )),
    }
}

/// The message that says why Bobbin must not be uninstalled now; `None` if no pod has an address.
fn refusal(pods: &Result<Vec<String>, ReadError>, args: &CheckArgs) -> Option<String> {
    let CheckArgs { release, namespace, .. } = args;
    let (keep, anyway) = (keep(args), anyway(args));
    match pods {
        Ok(pods) if pods.is_empty() => None,
        Ok(pods) => Some(format!(
            "Bobbin is not uninstalled, because {} addresses are assigned to pods: {}. {keep}. Then start the removal from the nodes: helm upgrade \
                 {release} <chart> -n {namespace} --reset-then-reuse-values --set agent.mode=remove --set \
                 agent.maxUnavailable=100%. Then delete or move these pods, so that the agents can finish the removal. \
                 {anyway}",
            pods.len(),
            list_names(pods.iter().take(MAX_NAMED), pods.len()),
        )),
        Err(error) => Some(format!(
            "Bobbin is not uninstalled, because the check could not find out whether pods have addresses: {error}. Try again. {keep}. {anyway}"
        )),
    }
}

/// Publishes the message as an event about the Job. The log contains the message, too.
async fn publish(client: Client, args: &CheckArgs, sentence: &str) {
    let mut job = Job { metadata: ObjectMeta::default(), ..Job::default() }.object_ref(&());
    (job.name, job.namespace) = (Some(args.job.clone()), Some(args.namespace.clone()));
    let notice = Notice::new(&operator::UNINSTALL_REFUSED, sentence);
    if let Err(error) = publish_now(client, Reporter::UNINSTALL_CHECK, &args.job, notice, &job).await {
        eprintln!("bobbin: publishing the event failed: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal_of(pods: &Result<Vec<String>, ReadError>) -> Option<String> {
        refusal(pods, &CheckArgs::parse_from(["bobbin-uninstall-check", "--release=net", "--namespace=ns"]))
    }

    #[test]
    fn an_uninstall_is_refused_while_pods_have_addresses_or_nobody_knows() {
        assert_eq!(refusal_of(&Ok(Vec::new())), None);
        let pods = (0..7).map(|number| format!("default/p{number} on node n1")).collect();
        let text = refusal_of(&Ok(pods)).expect("pods have addresses");
        assert!(text.contains("7 addresses are assigned to pods: default/p0 on node n1, "), "{text}");
        assert!(text.contains("default/p4 on node n1 and 2 more. "), "{text}");
        assert!(text.contains("run: helm rollback net 1 -n ns. Then"), "{text}");
        assert!(text.ends_with("helm uninstall net -n ns --no-hooks"), "{text}");
        assert!(refusal_of(&Err(ReadError::NotFound)).is_some());
    }

    #[test]
    fn an_uninstall_is_refused_while_a_pool_is_being_deleted_or_nobody_knows() {
        let args = CheckArgs::parse_from(["bobbin-uninstall-check", "--release=net", "--namespace=ns"]);
        assert_eq!(unfinished(&Ok(Vec::new()), &args), None);
        let text = unfinished(&Ok(vec!["old".to_owned()]), &args).expect("a pool is being deleted");
        assert!(text.contains("has not finished deleting these AddressPools: old. "), "{text}");
        assert!(text.contains("kubectl wait --for=delete addresspool/old. To uninstall"), "{text}");
        assert!(unfinished(&Err(ReadError::NotFound), &args).is_some());
    }

    #[test]
    fn a_pool_that_can_not_be_decoded_may_be_in_deletion() {
        let pool = |metadata: serde_json::Value| {
            let pool = serde_json::json!({"metadata": metadata, "spec": {"subnets": "unreadable"}});
            serde_json::from_value::<Lenient<AddressPool>>(pool).expect("a pool with a name")
        };
        let deleting = pool(serde_json::json!({"name": "old", "deletionTimestamp": "2026-11-22T10:00:00Z"}));
        assert!(deleting.readable().is_none() && is_being_deleted(&deleting));
        assert!(!is_being_deleted(&pool(serde_json::json!({"name": "old"}))));
    }
}
