//! Carries what the four watches show into the facts, and wakes who it matters to. Never decides and never calls anything else.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bobbin_api_client::{Clients, Lenient, PartialNode, UnreadableNotice, UnreadableObjects, Watch, WatchAge, watch};
use bobbin_crds::{AddressBlock, AddressPool};
use futures::StreamExt;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Resource};
use tokio::sync::{Notify, mpsc};

use crate::facts::{Facts, Touched};
use crate::slim::SlimAssignment;

/// A page of nodes: they are large, and only a few of their bytes are kept.
const NODE_PAGE: u32 = 100;

/// The facts, and who wants to know of changes.
#[derive(Default)]
pub(crate) struct Board {
    facts: Mutex<Facts>,
    keepers: Mutex<HashMap<Arc<str>, Arc<Notify>>>,
    /// A pool came or went.
    pub(crate) population: Notify,
    /// A node, or what a node owns, changed.
    pub(crate) nodes: Notify,
    /// What can't be read.
    pub(crate) unreadable: UnreadableObjects,
}

impl Board {
    /// Looks at, or changes, the facts. The closure must be quick: every watch waits for it.
    pub(crate) fn facts<T>(&self, look: impl FnOnce(&mut Facts) -> T) -> T {
        look(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What wakes the keeper of a pool.
    pub(crate) fn bell(&self, pool: &Arc<str>) -> Arc<Notify> {
        Arc::clone(self.keepers.lock().unwrap_or_else(PoisonError::into_inner).entry(Arc::clone(pool)).or_default())
    }

    /// Forgets the bell of a keeper that has ended.
    pub(crate) fn no_bell(&self, pool: &str) {
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner).remove(pool);
    }

    /// Wakes everybody.
    pub(crate) fn wake_all(&self) {
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner).values().for_each(|bell| bell.notify_one());
        self.population.notify_one();
        self.nodes.notify_one();
    }

    fn tell(&self, touched: &Touched) {
        if !touched.pools.is_empty() {
            let keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
            touched.pools.iter().filter_map(|pool| keepers.get(pool)).for_each(|bell| bell.notify_one());
        }
        if touched.population {
            self.population.notify_one();
        }
        if touched.nodes {
            self.nodes.notify_one();
        }
    }
}

/// How fresh the facts are.
#[derive(Clone)]
pub(crate) struct Ages(Vec<(&'static str, WatchAge)>);

impl Ages {
    /// Whether every watch has shown all there is at least once.
    pub(crate) fn synced(&self) -> bool {
        self.0.iter().all(|(_, age)| age.synced())
    }

    /// The watch that has been failing for longest.
    pub(crate) fn failing(&self) -> Option<(&'static str, Duration)> {
        self.0.iter().filter_map(|(kind, age)| Some((*kind, age.failing()?))).max_by_key(|(_, time)| *time)
    }
}

/// Starts the four watches. They run until the process ends or `tasks` is dropped. `notices` are of objects that can't be read.
pub(crate) fn start(
    clients: &Clients,
    board: &Arc<Board>,
    tasks: &mut tokio::task::JoinSet<()>,
    notices: &mpsc::UnboundedSender<UnreadableNotice>,
) -> Ages {
    let pools = watch(Api::all(clients.watches.clone()), Config::default());
    let blocks = watch(Api::all(clients.watches.clone()), Config::default());
    let assignments = watch(Api::all(clients.watches.clone()), Config::default());
    let nodes = watch(Api::all(clients.watches.clone()), Config::default().page_size(NODE_PAGE));
    let ages = Ages(vec![
        ("AddressPool", pools.age()),
        ("AddressBlock", blocks.age()),
        ("IPAssignment", assignments.age()),
        ("Node", nodes.age()),
    ]);
    tasks.spawn(follow(Arc::clone(board), pools, POOLS, notices.clone()));
    tasks.spawn(follow(Arc::clone(board), blocks, BLOCKS, notices.clone()));
    tasks.spawn(follow(Arc::clone(board), assignments, ASSIGNMENTS, notices.clone()));
    tasks.spawn(follow(Arc::clone(board), nodes, NODES, notices.clone()));
    ages
}

/// How objects of a kind become facts. Every object is known by its name.
struct Kind<K> {
    apply: fn(&mut Facts, Lenient<K>) -> Touched,
    /// The object as it was when it went is given where it is known.
    remove: fn(&mut Facts, &str, Option<&K>) -> Touched,
    all: fn(&Facts) -> Vec<String>,
}

const POOLS: Kind<AddressPool> =
    Kind { apply: Facts::pool, remove: |facts, name, _| facts.no_pool(name), all: Facts::pool_names };
const BLOCKS: Kind<AddressBlock> = Kind {
    apply: |facts, block| facts.block(&block),
    remove: |facts, name, _| facts.no_block(name),
    all: Facts::block_names,
};
const ASSIGNMENTS: Kind<SlimAssignment> = Kind {
    apply: |facts, assignment| facts.assignment(&assignment),
    remove: |facts, name, _| facts.no_assignment(name),
    all: Facts::assignment_names,
};
const NODES: Kind<PartialNode> = Kind {
    apply: |facts, node| facts.node(&node),
    remove: |facts, name, node| facts.no_node(name, node),
    all: Facts::node_names,
};

async fn follow<K>(
    board: Arc<Board>,
    mut events: Watch<Lenient<K>>,
    kind: Kind<K>,
    notices: mpsc::UnboundedSender<UnreadableNotice>,
) where
    K: Resource,
    K::DynamicType: Default,
{
    // What a list that is under way has shown so far; what it does not show is gone.
    let mut listed: HashSet<String> = HashSet::new();
    while let Some(event) = events.next().await {
        if let Some(notice) = board.unreadable.event(&event) {
            // Nobody listens only while the operator stops.
            let _ = notices.send(notice);
        }
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => {
                listed.insert(object.name().to_owned());
                board.tell(&board.facts(|facts| (kind.apply)(facts, object)));
            }
            Event::Apply(object) => board.tell(&board.facts(|facts| (kind.apply)(facts, object))),
            Event::Delete(object) => {
                board.tell(&board.facts(|facts| (kind.remove)(facts, object.name(), object.readable())));
            }
            Event::InitDone => {
                for name in board.facts(|facts| (kind.all)(facts)) {
                    if !listed.contains(&name) {
                        board.tell(&board.facts(|facts| (kind.remove)(facts, &name, None)));
                    }
                }
                listed = HashSet::new();
                board.wake_all();
            }
        }
    }
}
