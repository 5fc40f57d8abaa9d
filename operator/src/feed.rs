//! Carries what the four watches show into the facts, and wakes who it matters to. Never decides and never calls anything else.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bobbin_apiserver::{Clients, Watch, WatchAge, watch};
use bobbin_crds::{AddressBlock, AddressPool};
use futures::StreamExt;
use kube::Api;
use kube::runtime::watcher::{Config, Event};
use tokio::sync::Notify;

use crate::facts::{Facts, Touched, assignment_address};
use crate::slim::{SlimAssignment, SlimNode};

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

/// Starts the four watches. They run until the process ends or `tasks` is dropped.
pub(crate) fn start(clients: &Clients, board: &Arc<Board>, tasks: &mut tokio::task::JoinSet<()>) -> Ages {
    let pools = watch(Api::<AddressPool>::all(clients.watches.clone()), Config::default());
    let blocks = watch(Api::<AddressBlock>::all(clients.watches.clone()), Config::default());
    let assignments = watch(Api::<SlimAssignment>::all(clients.watches.clone()), Config::default());
    let nodes = watch(Api::<SlimNode>::all(clients.watches.clone()), Config::default().page_size(NODE_PAGE));
    let ages = Ages(vec![
        ("AddressPool", pools.age()),
        ("AddressBlock", blocks.age()),
        ("IPAssignment", assignments.age()),
        ("Node", nodes.age()),
    ]);
    tasks.spawn(follow(Arc::clone(board), pools, POOLS));
    tasks.spawn(follow(Arc::clone(board), blocks, BLOCKS));
    tasks.spawn(follow(Arc::clone(board), assignments, ASSIGNMENTS));
    tasks.spawn(follow(Arc::clone(board), nodes, NODES));
    ages
}

/// How objects of a kind become facts.
struct Kind<K, I> {
    key: fn(&K) -> Option<I>,
    apply: fn(&mut Facts, K) -> Touched,
    /// The object as it was when it went is given where it is known.
    remove: fn(&mut Facts, &I, Option<&K>) -> Touched,
    all: fn(&Facts) -> Vec<I>,
}

const POOLS: Kind<AddressPool, String> = Kind {
    key: |pool| pool.metadata.name.clone(),
    apply: Facts::pool,
    remove: |facts, name, _| facts.no_pool(name),
    all: Facts::pool_names,
};
const BLOCKS: Kind<AddressBlock, (Arc<str>, u64)> = Kind {
    key: |block| Some((block.spec.pool_name.as_str().into(), u64::try_from(block.spec.index).ok()?)),
    apply: Facts::block,
    remove: |facts, (pool, index), _| facts.no_block(pool, *index),
    all: Facts::block_keys,
};
const ASSIGNMENTS: Kind<SlimAssignment, std::net::IpAddr> = Kind {
    key: assignment_address,
    apply: |facts, assignment| facts.assignment(&assignment),
    remove: |facts, address, _| facts.no_assignment(*address),
    all: Facts::assignment_addresses,
};
const NODES: Kind<SlimNode, String> = Kind {
    key: |node| node.metadata.name.clone(),
    apply: |facts, node| facts.node(&node),
    remove: |facts, name, node| facts.no_node(name, node),
    all: Facts::node_names,
};

async fn follow<K, I: Eq + Hash + Debug>(board: Arc<Board>, mut events: Watch<K>, kind: Kind<K, I>) {
    // What a list that is under way has shown so far; what it does not show is gone.
    let mut listed: HashSet<I> = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => {
                listed.extend((kind.key)(&object));
                board.tell(&board.facts(|facts| (kind.apply)(facts, object)));
            }
            Event::Apply(object) => board.tell(&board.facts(|facts| (kind.apply)(facts, object))),
            Event::Delete(object) => {
                if let Some(key) = (kind.key)(&object) {
                    board.tell(&board.facts(|facts| (kind.remove)(facts, &key, Some(&object))));
                }
            }
            Event::InitDone => {
                for key in board.facts(|facts| (kind.all)(facts)) {
                    if !listed.contains(&key) {
                        board.tell(&board.facts(|facts| (kind.remove)(facts, &key, None)));
                    }
                }
                listed = HashSet::new();
                board.wake_all();
            }
        }
    }
}
