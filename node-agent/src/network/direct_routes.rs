//! Computes the routes to the other nodes' blocks from a watch on all claimed blocks. Only used with `--routing=direct`.
//!
//! The network reconciler applies these routes. Among the agent's watches, only the watch on all claimed blocks grows with the cluster.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bobbin_api_client::{Clients, Lenient};
use bobbin_crds::AddressBlock;
use bobbin_datapath::DirectRoute;
use bobbin_ipam::BlockRange;
use futures::StreamExt;
use kube::Api;
use kube::runtime::watcher::{Config, Event};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

/// The routes to the other nodes' blocks. Cheap to clone.
#[derive(Clone)]
pub struct DirectRoutes(Arc<RouteTable>);

struct RouteTable {
    node_name: String,
    routes: Mutex<Option<BTreeMap<String, DirectRoute>>>,
    changed: watch::Sender<u64>,
}

impl DirectRoutes {
    /// Creates the table of direct routes for a node's agent. The routes are unknown until [`DirectRoutes::run`] has listed the blocks
    /// once.
    pub fn new(node_name: &str) -> DirectRoutes {
        let table =
            RouteTable { node_name: node_name.to_owned(), routes: Mutex::default(), changed: watch::channel(0).0 };
        DirectRoutes(Arc::new(table))
    }

    /// Returns the direct routes that should exist, or `None` before the agent has listed the blocks for the first time. While this method
    /// returns `None`, the reconciler changes no direct routes.
    pub fn wanted(&self) -> Option<Vec<DirectRoute>> {
        self.routes().as_ref().map(|routes| routes.values().copied().collect())
    }

    /// Returns a channel that reports every change of the routes.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Watches all claimed blocks until the agent stops.
    pub async fn run(&self, clients: &Clients) {
        let api: Api<Lenient<AddressBlock>> = Api::all(clients.watches.clone());
        let mut events = bobbin_api_client::watch(api, Config::default().fields("spec.nodeName!="));
        let mut listed = BTreeMap::new();
        while let Some(event) = events.next().await {
            let changed = match event {
                Event::Init => {
                    listed.clear();
                    false
                }
                Event::InitApply(block) => {
                    listed.extend(self.route_to(&block).map(|route| (block.name().to_owned(), route)));
                    false
                }
                Event::InitDone => self.put(std::mem::take(&mut listed)),
                Event::Apply(block) => {
                    let route = self.route_to(&block);
                    self.change(block.name().to_owned(), route)
                }
                Event::Delete(block) => self.change(block.name().to_owned(), None),
            };
            if changed {
                self.0.changed.send_modify(|count| *count += 1);
            }
        }
    }

    /// The route to a block. A block that can't be decoded keeps its earlier route.
    fn route_to(&self, block: &Lenient<AddressBlock>) -> Option<DirectRoute> {
        match block.readable() {
            Some(block) => route_to(block, &self.0.node_name),
            None => self.routes().as_ref()?.get(block.name()).copied(),
        }
    }

    fn put(&self, all: BTreeMap<String, DirectRoute>) -> bool {
        let mut routes = self.routes();
        let changed = routes.as_ref() != Some(&all);
        *routes = Some(all);
        changed
    }

    fn change(&self, block: String, route: Option<DirectRoute>) -> bool {
        let mut routes = self.routes();
        let Some(known) = routes.as_mut() else { return false };
        match route {
            Some(route) => known.insert(block, route) != Some(route),
            None => known.remove(&block).is_some(),
        }
    }

    fn routes(&self) -> MutexGuard<'_, Option<BTreeMap<String, DirectRoute>>> {
        self.0.routes.lock()
    }
}

/// The route to a block of another node. The next hop is the address that the other node wrote into the block when claiming it.
fn route_to(block: &AddressBlock, node_name: &str) -> Option<DirectRoute> {
    let spec = &block.spec;
    if spec.node_name.as_deref().is_none_or(|name| name == node_name) {
        return None;
    }
    let range = BlockRange::parse(spec.ipv4.as_deref(), spec.ipv6.as_deref()).ok()?;
    let via4: Option<Ipv4Addr> = spec.node_ipv4.as_ref().and_then(|address| address.parse().ok());
    let via6: Option<Ipv6Addr> = spec.node_ipv6.as_ref().and_then(|address| address.parse().ok());
    Some(DirectRoute { block: range, via4, via6 })
}

#[cfg(test)]
mod tests {
    use bobbin_crds::AddressBlockSpec;

    use super::*;

    fn block(node: Option<&str>) -> AddressBlock {
        let text = |text: &str| Some(text.to_owned());
        let spec = AddressBlockSpec {
            pool_name: "default".to_owned(),
            ipv4: text("10.64.0.32/27"),
            ipv6: text("fd00::20/123"),
            node_name: node.map(ToOwned::to_owned),
            node_ipv4: text("192.0.2.7"),
            ..AddressBlockSpec::default()
        };
        AddressBlock::new("default-1", spec)
    }

    #[test]
    fn only_other_nodes_blocks_have_a_route_by_their_known_addresses() {
        assert_eq!(route_to(&block(Some("n1")), "n1"), None);
        assert_eq!(route_to(&block(None), "n1"), None);
        let route = route_to(&block(Some("n2")), "n1").unwrap();
        assert_eq!((route.via4, route.via6), (Some(Ipv4Addr::new(192, 0, 2, 7)), None));
    }

    #[test]
    fn before_the_first_list_the_routes_are_unknown() {
        let direct = DirectRoutes::new("n1");
        assert_eq!(direct.wanted(), None);
        assert!(direct.put(BTreeMap::new()));
        assert_eq!(direct.wanted(), Some(Vec::new()));
        assert!(direct.change("default-1".to_owned(), route_to(&block(Some("n2")), "n1")));
        assert!(!direct.change("default-1".to_owned(), route_to(&block(Some("n2")), "n1")));
        assert!(direct.change("default-1".to_owned(), route_to(&block(None), "n1")));
    }
}
