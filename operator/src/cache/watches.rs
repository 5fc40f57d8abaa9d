//! The watches that fill the cache, and the health of these watches. The watches cover pools, nodes, blocks, assignments
//! and Service ranges.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bobbin_api_client::{Clients, Lenient, PartialNode, UnreadableNotice, Watch, WatchAge, watch};
use bobbin_crds::{AddressBlock, AddressPool};
use futures::StreamExt;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Resource};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::objects::{PartialAssignment, PartialServiceCIDR};
use super::{Cache, Changes, Index};

/// How many Nodes the API server returns per page of a LIST response. The operator holds a whole page in memory, and a
/// Node is large, although the cache stores little of it. So pages are small.
const NODE_PAGE_SIZE: u32 = 100;

/// Whether every watch has filled the cache once, and which watches are failing now.
#[derive(Clone)]
pub(crate) struct WatchHealth(Vec<WatchState>);

#[derive(Clone)]
struct WatchState {
    kind: &'static str,
    age: WatchAge,
    /// Whether the cache contains the first complete list of this watch.
    listed: Arc<AtomicBool>,
}

impl WatchHealth {
    /// Whether every watch has listed all its objects once, so that the cache is complete.
    pub(crate) fn synced(&self) -> bool {
        self.0.iter().all(|watch| watch.listed.load(Ordering::Acquire))
    }

    /// The kind of the objects whose watch has been failing for the longest time, and the length of that time.
    pub(crate) fn failing(&self) -> Option<(&'static str, Duration)> {
        self.0.iter().filter_map(|watch| Some((watch.kind, watch.age.failing()?))).max_by_key(|(_, time)| *time)
    }
}

/// Starts the watches, which run until `tasks` is dropped. A watch sends to `notices` when an object becomes unreadable.
pub(crate) fn start(
    clients: &Clients,
    cache: &Arc<Cache>,
    tasks: &mut JoinSet<()>,
    notices: &mpsc::UnboundedSender<UnreadableNotice>,
) -> WatchHealth {
    let mut states = Vec::new();
    let mut spawn = Spawner { cache, tasks, notices, states: &mut states };
    let all = Config::default;
    let client = || clients.watches.clone();
    spawn.watch("AddressPool", watch::<Lenient<AddressPool>>(Api::all(client()), all()), Index::pool_event);
    spawn.watch("AddressBlock", watch::<Lenient<AddressBlock>>(Api::all(client()), all()), Index::block_event);
    spawn.watch(
        "IPAssignment",
        watch::<Lenient<PartialAssignment>>(Api::all(client()), all()),
        Index::assignment_event,
    );
    let nodes = all().page_size(NODE_PAGE_SIZE);
    spawn.watch("Node", watch::<Lenient<PartialNode>>(Api::all(client()), nodes), Index::node_event);
    let services = watch::<Lenient<PartialServiceCIDR>>(Api::all(client()), all());
    spawn.watch("ServiceCIDR", services, Index::service_event);
    WatchHealth(states)
}

/// Applies an event of one watch to the index.
type Apply<K> = fn(&mut Index, &Event<Lenient<K>>) -> Changes;

struct Spawner<'a> {
    cache: &'a Arc<Cache>,
    tasks: &'a mut JoinSet<()>,
    notices: &'a mpsc::UnboundedSender<UnreadableNotice>,
    states: &'a mut Vec<WatchState>,
}

impl Spawner<'_> {
    fn watch<K>(&mut self, kind: &'static str, events: Watch<Lenient<K>>, apply: Apply<K>)
    where
        K: Resource + Send + 'static,
        K::DynamicType: Default,
    {
        let state = WatchState { kind, age: events.age(), listed: Arc::default() };
        self.tasks.spawn(follow(Arc::clone(self.cache), events, apply, state.clone(), self.notices.clone()));
        self.states.push(state);
    }
}

async fn follow<K>(
    cache: Arc<Cache>,
    mut events: Watch<Lenient<K>>,
    apply: Apply<K>,
    state: WatchState,
    notices: mpsc::UnboundedSender<UnreadableNotice>,
) where
    K: Resource,
    K::DynamicType: Default,
{
    while let Some(event) = events.next().await {
        if let Some(notice) = cache.unreadable.event(&event) {
            // The receiver exists until the operator stops, so sending can fail only while the operator stops.
            let _ = notices.send(notice);
        }
        let changes = cache.with(|index| apply(index, &event));
        cache.notify(&changes);
        if matches!(event, Event::InitDone) {
            state.listed.store(true, Ordering::Release);
            cache.notify_all();
        }
    }
}
