//! `drain`: stops the assignment of a pool's addresses and waits until no pod has one.

mod budget;
mod evictions;
mod outcome;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bobbin_api_client::{Lenient, selected_by};
use bobbin_crds::{AddressPool, IPAssignment};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::Answer;
use crate::api::objects;
use crate::args::DrainArgs;
use crate::print::count::counted;
use crate::print::output::{or_dash, table};
use evictions::Evictions;

/// How often the command counts the addresses in use, and repeats refused evictions.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// The command stops waiting when this many LIST responses in a row contain no assignment of the pool. One response is not
/// enough: an agent that has not yet seen that the pool is draining may still assign an address.
const EMPTY_LISTS: u32 = 2;
/// How many pods the command names.
const MAX_NAMED_PODS: usize = 20;

/// What holds an address of the pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    /// An attachment. The pod is `None` if the assignment names no pod.
    Attachment { address: Option<IpAddr>, pod: Option<PodOf>, node: String },
    /// An assignment that can't be decoded. Its address counts as in use. The command can't evict its pod, because the pod is unknown.
    Undecodable { assignment: String },
}

/// The pod of an attachment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PodOf {
    namespace: String,
    name: String,
    uid: Option<String>,
}

impl Holder {
    fn of(assignment: Lenient<IPAssignment>) -> Self {
        let spec = match assignment {
            Lenient::Readable(assignment) => assignment.spec,
            Lenient::Unreadable(unreadable) => return Self::Undecodable { assignment: unreadable.name().to_owned() },
        };
        let names = spec.pod_namespace.zip(spec.pod_name);
        Self::Attachment {
            address: spec.ipv4.or(spec.ipv6).and_then(|text| text.parse().ok()),
            pod: names.map(|(namespace, name)| PodOf { namespace, name, uid: spec.pod_uid }),
            node: spec.node_name,
        }
    }

    /// The pod to evict.
    fn pod(&self) -> Option<&PodOf> {
        match self {
            Self::Attachment { pod, .. } => pod.as_ref(),
            Self::Undecodable { .. } => None,
        }
    }

    /// The address, the namespace, the pod and the node for a table.
    fn cells(&self) -> [String; 4] {
        match self {
            Self::Attachment { address, pod, node } => {
                let (namespace, name) = pod.as_ref().map(|pod| (pod.namespace.clone(), pod.name.clone())).unzip();
                [or_dash(*address), or_dash(namespace), or_dash(name), node.clone()]
            }
            Self::Undecodable { assignment } => {
                let why = format!("unknown, because IPAssignment {assignment} can't be decoded");
                [or_dash(None::<IpAddr>), or_dash(None::<String>), why, or_dash(None::<String>)]
            }
        }
    }
}

/// Drains the pool, or ends its draining. The answer is no if addresses are still in use when the command ends.
pub(crate) async fn run(client: &Client, args: &DrainArgs) -> Result<Answer> {
    let name = &args.pool;
    let pool = objects::get(&Api::<Lenient<AddressPool>>::all(client.clone()), name)
        .await?
        .with_context(|| format!("AddressPool {name} does not exist; list all pools with: kubectl bobbin pools"))?;
    if let (true, Some(since)) = (args.undo, &pool.metadata.deletion_timestamp) {
        bail!(
            "AddressPool {name} is being deleted since {:.0}, so nodes assign none of its addresses. Kubernetes can't undo a deletion; create the pool again after the deletion has ended",
            since.0
        );
    }
    if args.undo && !pool.spec.draining {
        anstream::println!("AddressPool {name} was not draining; nothing changed");
        return Ok(Answer::Yes);
    }
    let pools: Api<AddressPool> = Api::all(client.clone());
    let patch = Patch::Merge(json!({"spec": {"draining": !args.undo}}));
    objects::written(pools.patch(name, &PatchParams::default(), &patch))
        .await
        .with_context(|| format!("can't change spec.draining of AddressPool {name}"))?;
    if args.undo {
        anstream::println!("AddressPool {name} is not draining any more: nodes assign its addresses again");
        return Ok(Answer::Yes);
    }
    anstream::println!("AddressPool {name} is draining: nodes assign none of its addresses");
    wait(client, args, pool.metadata.deletion_timestamp.is_some()).await
}

/// Waits until no pod has an address of the pool. `is_being_deleted` says whether the pool is being deleted.
async fn wait(client: &Client, args: &DrainArgs, is_being_deleted: bool) -> Result<Answer> {
    let (name, began) = (&args.pool, Instant::now());
    let deadline = args.timeout.map(|timeout| began + timeout);
    let mut evictions = Evictions::new(name, args.force);
    let mut held = holders(client, name).await?;
    print_holders(&held);
    if !held.is_empty() && args.timeout.is_none() {
        anstream::println!("waiting until these pods end. Ctrl-C ends the wait, but the pool stays draining");
    }
    let progress = bar(held.len());
    let mut empty_lists = u32::from(held.is_empty());
    while empty_lists < EMPTY_LISTS {
        let timed_out = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if timed_out && !held.is_empty() {
            progress.finish_and_clear();
            let verb = if held.len() == 1 { "is" } else { "are" };
            anstream::println!("{} of AddressPool {name} {verb} still in use:", counted(held.len(), "address"));
            print_holders(&held);
            if is_being_deleted {
                anstream::println!("the pool is being deleted, and its deletion waits for these addresses");
            } else {
                anstream::println!("the pool stays draining; to undo that, run: kubectl bobbin drain {name} --undo");
            }
            return Ok(Answer::No);
        }
        if args.evict {
            for line in evictions.request(client, &held).await? {
                progress.suspend(|| anstream::eprintln!("{line}"));
            }
        }
        tokio::time::sleep(POLL_INTERVAL).await;
        match holders(client, name).await {
            Ok(left) => {
                empty_lists = if left.is_empty() { empty_lists + 1 } else { 0 };
                held = left;
            }
            Err(error) if timed_out => {
                progress.finish_and_clear();
                return Err(error);
            }
            // The loop lists again, and the next list may succeed. The pool drains even without this command.
            Err(error) => progress.suspend(|| anstream::eprintln!("warning: {error:#}; the command tries again")),
        }
        progress.set_length(progress.length().unwrap_or_default().max(held.len() as u64));
        progress.set_position(progress.length().unwrap_or_default().saturating_sub(held.len() as u64));
    }
    progress.finish_and_clear();
    if is_being_deleted {
        anstream::println!("no pod has an address of AddressPool {name}, so the deletion of the pool can end");
    } else {
        anstream::println!(
            "no pod has an address of AddressPool {name}; you can delete the pool: kubectl delete addresspool {name}"
        );
    }
    Ok(Answer::Yes)
}

/// The assignments that hold addresses of the pool, in the order of the addresses.
async fn holders(client: &Client, pool: &str) -> Result<Vec<Holder>> {
    let assignments: Api<Lenient<IPAssignment>> = Api::all(client.clone());
    let mut held: Vec<_> = objects::list_all(&assignments, selected_by(&format!("spec.poolName={pool}")))
        .await?
        .into_iter()
        .map(Holder::of)
        .collect();
    held.sort();
    Ok(held)
}

fn print_holders(held: &[Holder]) {
    if held.is_empty() {
        return;
    }
    let mut rows = table(["address", "namespace", "pod", "node"]);
    for holder in held.iter().take(MAX_NAMED_PODS) {
        rows.add_row(holder.cells());
    }
    anstream::println!("{}", rows.trim_fmt());
    if held.len() > MAX_NAMED_PODS {
        anstream::println!("and {} more", held.len() - MAX_NAMED_PODS);
    }
}

/// The progress bar of the released addresses. Without a terminal, it prints nothing.
fn bar(total: usize) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} addresses released, {elapsed}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(spec: &serde_json::Value) -> Holder {
        let object = json!({
            "apiVersion": "bobbin.dev/v1", "kind": "IPAssignment", "metadata": {"name": "10.0.0.1"}, "spec": spec
        });
        Holder::of(serde_json::from_value(object).expect("an assignment"))
    }

    #[test]
    fn an_assignment_without_a_pod_and_one_that_cannot_be_decoded_have_no_pod_to_evict() {
        let undecodable = holder(&json!({"ipv4": 7}));
        assert_eq!(undecodable, Holder::Undecodable { assignment: "10.0.0.1".to_owned() });
        assert!(undecodable.pod().is_none() && undecodable.cells()[2].contains("IPAssignment 10.0.0.1"));
        let mut spec = json!({
            "ipv4": "10.0.0.1", "poolName": "p", "blockName": "p-0", "nodeName": "n1", "containerID": "c",
            "ifName": "eth0", "bootID": "b", "createdAt": "2026-01-01T00:00:00.000000Z"
        });
        let without = holder(&spec);
        assert_eq!((without.pod(), without.cells()), (None, ["10.0.0.1", "-", "-", "n1"].map(str::to_owned)));
        (spec["podNamespace"], spec["podName"]) = (json!("shop"), json!("web"));
        assert_eq!(holder(&spec).cells(), ["10.0.0.1", "shop", "web", "n1"].map(str::to_owned));
    }
}
