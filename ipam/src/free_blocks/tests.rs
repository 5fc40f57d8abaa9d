//! Tests the number of free blocks with examples of bursts and with random demand.

use proptest::prelude::*;

use super::*;

/// A simulated pool in which each plan takes effect at once.
struct Pool {
    target: FreeBlockTarget,
    stock: PoolStock,
    now: Instant,
    carved: u64,
}

impl Pool {
    fn new(name: &str, nodes: u64) -> Self {
        let now = Instant::now();
        let stock = PoolStock { nodes_without_block: nodes, ..PoolStock::default() };
        Self { target: FreeBlockTarget::new(name, now), stock, now, carved: 0 }
    }

    fn pass(&mut self) -> CarvePlan {
        let plan = self.target.plan(&self.stock, self.now);
        self.stock.free += plan.carve;
        self.stock.free -= plan.delete;
        self.stock.deletable += plan.carve;
        self.stock.deletable -= plan.delete;
        self.carved += plan.carve;
        plan
    }

    /// Lets up to `nodes` nodes without a block claim one block each. Returns how many nodes claimed a block.
    fn claim(&mut self, nodes: u64) -> u64 {
        let claims = nodes.min(self.stock.free).min(self.stock.nodes_without_block);
        self.stock.free -= claims;
        self.stock.claimed += claims;
        self.stock.deletable = self.stock.deletable.min(self.stock.free);
        self.stock.nodes_without_block -= claims;
        self.stock.nodes_with_block += claims;
        claims
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }
}

#[test]
fn an_idle_pool_has_eight_free_blocks_and_the_default_pool_six_for_each_node_without_a_block() {
    let mut pool = Pool::new("other", 1000);
    assert_eq!(pool.pass(), CarvePlan { carve: 8, delete: 0, next: None });
    let mut pool = Pool::new("default", 1000);
    assert_eq!(pool.pass().carve, 6000);
    assert_eq!(pool.claim(999), 999);
    pool.pass();
    for _ in 0..3 {
        pool.wait(DEMAND_PERIOD);
        pool.pass();
    }
    assert_eq!(pool.stock.free, 8);
}

#[test]
fn a_thousand_nodes_that_claim_at_once_are_served_in_five_rounds() {
    let mut pool = Pool::new("other", 1000);
    pool.pass();
    let mut rounds = 0;
    while pool.stock.nodes_without_block > 0 {
        pool.claim(1000);
        pool.pass();
        rounds += 1;
    }
    assert_eq!(rounds, 5);
    assert!(pool.stock.free <= 500, "the pool has {} free blocks", pool.stock.free);
    for _ in 0..3 {
        pool.wait(DEMAND_PERIOD);
        pool.pass();
    }
    assert_eq!(pool.stock.free, 8);
    assert_eq!(pool.pass().next, None);
}

#[test]
fn slow_claims_are_replaced_and_do_not_raise_the_target() {
    let mut pool = Pool::new("other", 1000);
    pool.pass();
    for _ in 0..100 {
        pool.claim(1);
        assert_eq!(pool.pass().carve, 1);
        pool.wait(RECENT / 4);
    }
    assert_eq!(pool.stock.free, 8);
}

#[test]
fn the_target_does_not_depend_on_how_many_passes_see_the_claims() {
    let (mut often, mut once) = (Pool::new("other", 1000), Pool::new("other", 1000));
    often.pass();
    once.pass();
    for _ in 0..8 {
        often.claim(1);
        often.target.plan(&often.stock, often.now);
    }
    once.claim(8);
    assert_eq!((often.pass().carve, once.pass().carve), (64, 64));
}

#[test]
fn with_steady_claims_the_operator_does_not_create_and_delete_the_same_blocks() {
    let mut pool = Pool::new("other", 2000);
    pool.pass();
    let (mut deleted, mut claimed) = (0, 0);
    for _ in 0..600 {
        claimed += pool.claim(2);
        pool.wait(Duration::from_secs(1));
        deleted += pool.pass().delete;
    }
    assert_eq!(claimed, 1200);
    assert!(deleted <= 160, "the operator deleted {deleted} blocks");
    assert!(pool.stock.free <= 80, "the pool has {} free blocks", pool.stock.free);
}

#[test]
fn a_node_that_is_not_admitted_does_not_raise_the_number() {
    let mut pool = Pool::new("default", 0);
    assert_eq!(pool.pass().carve, 8);
    // The only admitted node claims all blocks at once.
    pool.stock.nodes_with_block = 1;
    (pool.stock.free, pool.stock.deletable, pool.stock.claimed) = (0, 0, 8);
    assert_eq!(pool.pass().carve, 8);
}

#[test]
fn free_blocks_that_somebody_deleted_are_replaced_but_do_not_raise_the_target() {
    let mut pool = Pool::new("other", 1000);
    pool.pass();
    (pool.stock.free, pool.stock.deletable) = (0, 0);
    assert_eq!(pool.pass().carve, 8);
}

#[test]
fn surplus_of_an_earlier_version_is_deleted_only_after_a_whole_period() {
    let mut pool = Pool::new("other", 1000);
    (pool.stock.free, pool.stock.deletable) = (2048, 2000);
    let plan = pool.pass();
    assert_eq!((plan.carve, plan.delete, plan.next), (0, 0, Some(DEMAND_PERIOD)));
    pool.wait(DEMAND_PERIOD);
    assert_eq!(pool.pass().delete, 2000);
    // The operator keeps the remaining 48 blocks, because a node has claimed each of them before.
    assert_eq!((pool.stock.free, pool.pass().next), (48, None));
}

#[derive(Clone, Debug)]
enum Step {
    Claim(u64),
    Release(u64),
    Join(u64),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_u64..2000).prop_map(Step::Claim),
        1 => (0_u64..50).prop_map(Step::Release),
        1 => (0_u64..500).prop_map(Step::Join),
        4 => (0_u64..40).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn the_number_stays_between_floor_and_ceiling_and_falls_to_the_floor(
        name in prop_oneof![Just("default"), Just("other")],
        nodes in 0_u64..2000,
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut pool = Pool::new(name, nodes);
        pool.pass();
        for step in steps {
            match step {
                Step::Claim(nodes) => drop(pool.claim(nodes)),
                // The operator must not delete a released block, because a node claimed the block before.
                Step::Release(blocks) => {
                    let blocks = blocks.min(pool.stock.claimed);
                    pool.stock.free += blocks;
                    pool.stock.claimed -= blocks;
                }
                Step::Join(nodes) => pool.stock.nodes_without_block += nodes,
                Step::Pass(seconds) => {
                    pool.wait(Duration::from_secs(seconds));
                    let plan = pool.pass();
                    let floor = pool.target.floor(&pool.stock);
                    prop_assert!(pool.stock.free >= floor);
                    prop_assert!(plan.carve == 0 || plan.delete == 0);
                    prop_assert!(plan.carve == 0 || pool.stock.free <= ceiling(&pool.stock, floor));
                }
            }
        }
        for _ in 0..3 {
            pool.pass();
            pool.wait(DEMAND_PERIOD);
        }
        pool.pass();
        let floor = pool.target.floor(&pool.stock);
        prop_assert!(pool.stock.free == floor || pool.stock.deletable == 0);
        prop_assert_eq!(pool.pass(), CarvePlan::default());
    }

    #[test]
    fn nodes_that_wait_at_least_double_the_number(nodes in 100_u64..5000) {
        let mut pool = Pool::new("other", nodes);
        let mut last = pool.pass().carve;
        while pool.stock.nodes_without_block > 0 {
            pool.claim(nodes);
            let carved = pool.pass().carve;
            let (without, with) = (pool.stock.nodes_without_block, pool.stock.nodes_with_block);
            let enough = without / 2 + with / 4;
            prop_assert!(without == 0 || carved >= enough.min(2 * last), "the operator carved only {} blocks, after {} blocks in the last round", carved, last);
            last = carved;
        }
    }
}

#[test]
fn a_new_cluster_of_a_thousand_nodes_and_250_pools_has_at_most_8000_idle_blocks() {
    let pools = (0..BAR.1).map(|number| if number == 0 { "default" } else { "other" });
    let idle: u64 = pools.map(|name| Pool::new(name, BAR.0).pass().carve).sum();
    assert!(idle <= BAR.3, "the pools have {idle} idle blocks");
}

/// The numbers of nodes, pools and busy pools in these tests, and the largest allowed number of idle blocks.
const BAR: (u64, usize, usize, u64) = (1000, 250, 10, 8000);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn idle_blocks_depend_on_demand_and_not_on_nodes_times_pools(
        rounds in prop::collection::vec((prop::collection::vec(0_u64..1000, BAR.2), 0_u64..20), 1..30),
    ) {
        let (nodes, pools, busy, bar) = BAR;
        let mut pools: Vec<Pool> = (0..pools).map(|number| {
            let mut pool = Pool::new(if number == 0 { "default" } else { "other" }, nodes);
            if number == 0 {
                // Each node runs pods, so it has a block of the pool `default`.
                pool.stock = PoolStock { nodes_with_block: nodes, claimed: nodes, ..PoolStock::default() };
            }
            pool
        }).collect();
        for (claims, seconds) in rounds {
            for (pool, claims) in pools.iter_mut().zip(claims) {
                pool.claim(claims);
            }
            for pool in &mut pools {
                pool.pass();
            }
            let idle: u64 = pools.iter().map(|pool| pool.stock.free).sum();
            prop_assert!(idle <= bar, "the pools have {idle} idle blocks");
            for pool in &mut pools {
                pool.wait(Duration::from_secs(seconds));
            }
        }
        let idle: u64 = pools.iter().skip(busy).map(|pool| pool.stock.free).sum();
        prop_assert_eq!(idle, 240 * MIN_FREE_BLOCKS);
    }
}
