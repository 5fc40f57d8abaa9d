//! The check before `helm uninstall`. The check fails while pods have addresses, because after the uninstall nothing removes the
//! routes and addresses of these pods.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context;
use bobbin_api_client::{Clients, Lenient, Notice, ReadError, connect, list_names, publish_now};
use bobbin_messages::Reporter;
use bobbin_messages::event::operator;
use clap::Parser;
use k8s_openapi::api::batch::v1::Job;
use kube::api::ObjectMeta;
use kube::{Client, Resource};

use crate::cache::objects::PartialAssignment;
use crate::live_reads::for_each;

/// The message of a refused uninstall names at most this many pods, and counts the others.
const MAX_NAMED_PODS: usize = 5;

/// Fails while pods have addresses of Bobbin. `helm uninstall` runs this check before Helm removes anything.
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
/// Fails if pods have addresses, or if reading the addresses from the API server fails. The error says what to do.
pub async fn run(args: Vec<OsString>) -> anyhow::Result<()> {
    let args = CheckArgs::try_parse_from(args).unwrap_or_else(|error| error.exit());
    let user_agent = concat!("bobbin-uninstall-check/", env!("CARGO_PKG_VERSION"));
    let clients = connect(args.kubeconfig.as_deref(), user_agent).await.context("the check can't start")?;
    let Some(sentence) = refusal(&assigned(&clients).await, &args) else { return Ok(()) };
    publish(clients.requests, &args, &sentence).await;
    Err(anyhow::anyhow!("{sentence}"))
}

/// The pods that have addresses, each with its node. An assignment that can't be decoded counts as the address of a pod.
async fn assigned(clients: &Clients) -> Result<Vec<String>, ReadError> {
    let mut pods = Vec::new();
    let listed = for_each(clients, "", |assignment: Lenient<PartialAssignment>| pods.push(pod_of(&assignment))).await;
    match listed {
        // Bobbin's custom resources do not exist, so no pod has an address of Bobbin.
        Err(ReadError::NotFound) => Ok(Vec::new()),
        listed => listed.map(|()| pods),
    }
}

fn pod_of(assignment: &Lenient<PartialAssignment>) -> String {
    let spec = assignment.readable().map(|assignment| &assignment.spec);
    let pod = spec.and_then(|spec| {
        Some(format!("{}/{} on node {}", spec.pod_namespace.as_ref()?, spec.pod_name.as_ref()?, spec.node_name))
    });
    pod.unwrap_or_else(|| format!("the owner of IPAssignment {}", assignment.name()))
}

/// The message that says why Bobbin must not be uninstalled now; `None` if nothing prevents the uninstall.
fn refusal(pods: &Result<Vec<String>, ReadError>, args: &CheckArgs) -> Option<String> {
    let CheckArgs { release, namespace, revision, .. } = args;
    // Helm marks the release as uninstalling before it runs the check, and then refuses every upgrade.
    let keep = format!(
        "Bobbin keeps running. Before the next upgrade, run: helm rollback {release} {revision} -n {namespace}"
    );
    let anyway = format!("To uninstall anyway, run: helm uninstall {release} -n {namespace} --no-hooks");
    match pods {
        Ok(pods) if pods.is_empty() => None,
        Ok(pods) => Some(format!(
            "Bobbin is not uninstalled, because {} addresses are assigned to pods: {}. {keep}. Then run: helm upgrade \
                 {release} <chart> -n {namespace} --reset-then-reuse-values --set agent.mode=remove. Then delete or move \
                 these pods, so that the agents remove Bobbin from the nodes. {anyway}",
            pods.len(),
            list_names(pods.iter().take(MAX_NAMED_PODS), pods.len()),
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
}
