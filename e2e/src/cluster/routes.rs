//! The control plane's routes to pods. The control plane runs no agent, but must answer pods that call the API server.
//!
//! A task watches the claimed blocks and keeps a route to each block through the block's node.

use std::collections::BTreeMap;

use bobbin_crds::AddressBlock;
use futures::{StreamExt, pin_mut};
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::watcher::{self, Event};
use tokio::task::JoinHandle;

use crate::network::Namespace;

/// The task that keeps the control plane's routes up to date. Dropping this value ends the task.
#[derive(Debug)]
pub struct Routes {
    task: JoinHandle<()>,
}

impl Routes {
    /// Starts a task that keeps the routes to all claimed blocks up to date in a machine's namespace.
    pub fn keep(client: kube::Client, namespace: Namespace) -> Self {
        let task = tokio::spawn(async move {
            let mut known: BTreeMap<String, Vec<Route>> = BTreeMap::new();
            // The watch fails until the custom resource definitions are installed. The watcher retries the watch.
            let events = watcher::watcher(Api::<AddressBlock>::all(client), watcher::Config::default());
            pin_mut!(events);
            while let Some(event) = events.next().await {
                let (name, wanted) = match event {
                    Ok(Event::Apply(block) | Event::InitApply(block)) => (block.name_any(), routes_to(&block)),
                    Ok(Event::Delete(block)) => (block.name_any(), Vec::new()),
                    Ok(Event::Init | Event::InitDone) => continue,
                    Err(_) => {
                        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                        continue;
                    }
                };
                change(&namespace, &known.remove(&name).unwrap_or_default(), &wanted);
                known.insert(name, wanted);
            }
        });
        Self { task }
    }

    /// Whether the task that keeps the routes is still running.
    pub fn are_kept(&self) -> bool {
        !self.task.is_finished()
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The CIDR of a block, and the address of the node that has claimed the block.
type Route = (String, String);

fn routes_to(block: &AddressBlock) -> Vec<Route> {
    let spec = &block.spec;
    [(&spec.ipv4, &spec.node_ipv4), (&spec.ipv6, &spec.node_ipv6)]
        .into_iter()
        .filter_map(|(range, via)| Some((range.clone()?, via.clone()?)))
        .collect()
}

fn change(namespace: &Namespace, old: &[Route], new: &[Route]) {
    for (range, via) in old.iter().filter(|route| !new.contains(route)) {
        // Removing a route fails if the kernel has already removed it.
        let _ = namespace.ip(&format!("route del {range} via {via}\n"));
    }
    for (range, via) in new.iter().filter(|route| !old.contains(route)) {
        if let Err(error) = namespace.ip(&format!("route replace {range} via {via}\n")) {
            tracing::warn!(
                range,
                via,
                error = format!("{error:#}"),
                "the control plane could not set its route to a block, so the block's pods can't reach the API server"
            );
        }
    }
}
