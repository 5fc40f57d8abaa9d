//! Tests when a node claims or releases blocks. Also tests that a node never claims and releases blocks in turns.

use proptest::prelude::*;

use super::*;

const IDLE: Duration = Duration::from_mins(5);

fn block(name: &str, held: u32) -> BlockUse {
    BlockUse {
        name: name.into(),
        held,
        cooling: 0,
        usable: 32,
        empty_for: (held == 0).then_some(Duration::ZERO),
        was_used: true,
    }
}

fn empty(name: &str, seconds: u64) -> BlockUse {
    BlockUse { empty_for: Some(Duration::from_secs(seconds)), ..block(name, 0) }
}

fn pool(blocks: Vec<BlockUse>) -> PoolUse {
    PoolUse {
        blocks,
        waiting: 0,
        claiming: 0,
        block_len: 32,
        free_blocks: 100,
        exhausted: false,
        draining: false,
        deleting: false,
        claimable: true,
        max_blocks: None,
        block_idle: IDLE,
        released_for_others: None,
    }
}

fn claim(pool: &PoolUse) -> u32 {
    decide(pool).claim
}

fn back(pool: &PoolUse) -> Vec<String> {
    decide(pool).release.into_iter().map(|name| name.0).collect()
}

#[test]
fn the_first_block_is_claimed_when_a_pod_waits_for_an_address() {
    assert_eq!(claim(&pool(vec![])), 0);
    assert_eq!(claim(&PoolUse { waiting: 1, ..pool(vec![]) }), 1);
    assert_eq!(
        claim(&PoolUse { waiting: 1, claiming: 1, ..pool(vec![]) }),
        0,
        "the node already claims a block for the pod"
    );
    assert_eq!(
        claim(&PoolUse { waiting: 1, ..pool(vec![block("a", 3)]) }),
        0,
        "the node has 29 free addresses, so it needs no block"
    );
}

#[test]
fn a_burst_claims_the_blocks_it_needs_and_an_spare_one() {
    assert_eq!(
        claim(&PoolUse { waiting: 100, ..pool(vec![]) }),
        5,
        "100 of 128 addresses are more than 75 %, so the node needs a spare block"
    );
    assert_eq!(
        claim(&PoolUse { waiting: 65, ..pool(vec![]) }),
        3,
        "65 of 96 addresses are less than 75 %, so the node needs no spare block"
    );
    assert_eq!(claim(&PoolUse { waiting: 100, claiming: 4, ..pool(vec![]) }), 1);
}

#[test]
fn an_spare_block_is_claimed_at_75_percent_use_cooling_included() {
    assert_eq!(claim(&pool(vec![block("a", 23)])), 0);
    assert_eq!(claim(&pool(vec![block("a", 24)])), 1);
    assert_eq!(claim(&pool(vec![BlockUse { cooling: 10, ..block("a", 14) }])), 1);
    assert_eq!(claim(&PoolUse { claiming: 1, ..pool(vec![block("a", 24)]) }), 0);
    assert_eq!(
        claim(&pool(vec![BlockUse { usable: 16, ..block("a", 12) }])),
        1,
        "reserved addresses must not count as usable"
    );
    assert_eq!(claim(&PoolUse { block_len: 1, ..pool(vec![BlockUse { usable: 1, ..block("a", 1) }]) }), 1);
}

#[test]
fn no_spare_block_is_claimed_from_a_closing_or_exhausted_pool_or_beyond_the_limit() {
    let full = || pool(vec![block("a", 32)]);
    for (why, pool) in [
        ("draining", PoolUse { draining: true, ..full() }),
        ("deleting", PoolUse { deleting: true, ..full() }),
        ("exhausted", PoolUse { exhausted: true, ..full() }),
        ("no free block", PoolUse { free_blocks: 0, ..full() }),
        ("the last free block", PoolUse { free_blocks: 1, ..full() }),
        ("limit", PoolUse { max_blocks: Some(1), ..full() }),
        ("not for this node", PoolUse { claimable: false, ..full() }),
        ("released a block for other nodes", PoolUse { released_for_others: Some(Duration::from_secs(299)), ..full() }),
    ] {
        assert_eq!(decide(&pool), BlockDemand::default(), "{why}");
    }
    assert_eq!(claim(&PoolUse { released_for_others: Some(IDLE), ..full() }), 1);
}

#[test]
fn a_waiting_pod_causes_a_claim_even_if_the_status_shows_no_free_block() {
    assert_eq!(claim(&PoolUse { waiting: 1, exhausted: true, free_blocks: 0, ..pool(vec![block("a", 32)]) }), 1);
    assert_eq!(claim(&PoolUse { waiting: 1, draining: true, ..pool(vec![]) }), 0);
    assert_eq!(claim(&PoolUse { waiting: 90, max_blocks: Some(2), ..pool(vec![block("a", 32)]) }), 1);
}

#[test]
fn idle_blocks_are_released_except_the_last() {
    assert_eq!(back(&pool(vec![empty("a", 299), empty("b", 299)])), [""; 0]);
    assert_eq!(back(&pool(vec![empty("a", 301), empty("b", 302), empty("c", 300)])), ["b", "a"]);
    assert_eq!(back(&pool(vec![empty("a", 9999)])), [""; 0]);
    assert_eq!(back(&pool(vec![block("a", 3), empty("b", 300)])), ["b"]);
    assert_eq!(
        back(&pool(vec![block("a", 24), empty("b", 9999)])),
        [""; 0],
        "the node would claim block b again as its spare block"
    );
}

#[test]
fn empty_blocks_are_released_at_once_when_other_nodes_need_them() {
    let one = || pool(vec![empty("a", 0)]);
    assert_eq!(back(&PoolUse { exhausted: true, ..one() }), ["a"]);
    assert_eq!(back(&PoolUse { free_blocks: 0, ..one() }), ["a"]);
    assert_eq!(back(&PoolUse { draining: true, ..one() }), ["a"]);
    assert_eq!(back(&PoolUse { deleting: true, ..one() }), ["a"]);
    assert_eq!(back(&PoolUse { exhausted: true, ..pool(vec![block("a", 1)]) }), [""; 0]);
}

#[test]
fn a_block_claimed_for_a_pod_is_not_released_before_the_pod_starts() {
    let fresh = |millis| BlockUse { was_used: false, empty_for: Some(Duration::from_millis(millis)), ..block("a", 0) };
    assert_eq!(back(&PoolUse { exhausted: true, waiting: 1, ..pool(vec![fresh(9000)]) }), [""; 0]);
    assert_eq!(back(&PoolUse { exhausted: true, ..pool(vec![fresh(2900)]) }), [""; 0]);
    assert_eq!(back(&PoolUse { exhausted: true, ..pool(vec![fresh(3000)]) }), ["a"]);
    assert_eq!(back(&PoolUse { draining: true, waiting: 1, ..pool(vec![fresh(0)]) }), ["a"]);
}

#[test]
fn the_only_block_of_a_pool_is_released_for_another_node() {
    // The node's only pod was deleted, a pod on another node waits for an address, and the pool has no free block.
    let left = PoolUse { exhausted: true, free_blocks: 0, ..pool(vec![empty("a", 0)]) };
    assert_eq!(back(&left), ["a"]);
    // After the release, the pool has a free block again. This node must not claim it as a spare block.
    let after =
        PoolUse { exhausted: false, free_blocks: 1, blocks: vec![], released_for_others: Some(Duration::ZERO), ..left };
    assert_eq!(decide(&after), BlockDemand::default());
}

prop_compose! {
    fn any_block()(name in 0_u32..1000, held in 0_u32..=8, cooling in 0_u32..=8, reserved in 0_u32..=4, seconds in 0_u64..600, was_used: bool)
        -> BlockUse
    {
        let usable = 8 - reserved;
        let held = held.min(usable);
        BlockUse {
            name: format!("p-{name}").into(), held, cooling: cooling.min(usable - held), usable,
            empty_for: (held == 0).then_some(Duration::from_secs(seconds)), was_used,
        }
    }
}

prop_compose! {
    fn any_pool()(
        blocks in prop::collection::vec(any_block(), 0..6), waiting in 0_u32..20, claiming in 0_u32..3, free_blocks in 0_u64..5,
        exhausted: bool, closing in 0..8, claimable in prop::bool::weighted(0.9), max_blocks in prop::option::of(1_u32..8),
        gave_back in prop::option::of(0_u64..600),
    ) -> PoolUse {
        let mut blocks = blocks;
        blocks.sort_by(|a, b| a.name.cmp(&b.name));
        blocks.dedup_by(|a, b| a.name == b.name);
        PoolUse {
            blocks, waiting, claiming, block_len: 8, free_blocks, exhausted: exhausted && free_blocks == 0,
            draining: closing == 1, deleting: closing == 2, claimable, max_blocks, block_idle: IDLE,
            released_for_others: gave_back.map(Duration::from_secs),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]
    #[test]
    fn a_node_never_claims_and_releases_in_turns(pool in any_pool()) {
        let decision = decide(&pool);
        prop_assert!(decision.claim == 0 || decision.release.is_empty());

        // After the released blocks are removed, a second decision claims no block.
        let mut after = pool.clone();
        after.blocks.retain(|block| !decision.release.contains(&block.name));
        after.free_blocks += decision.release.len() as u64;
        if !decision.release.is_empty() {
            if pool.exhausted || pool.free_blocks == 0 { after.released_for_others = Some(Duration::ZERO); }
            after.exhausted = false;
            prop_assert_eq!(decide(&after).claim, 0, "the node claims a block that it has just released: {:?}", decision);
        }

        // After the claimed blocks are added, a second decision releases none of them and claims no further block.
        if decision.claim > 0 && u64::from(decision.claim) <= pool.free_blocks && pool.claiming == 0 {
            let mut after = pool.clone();
            after.free_blocks -= u64::from(decision.claim);
            after.exhausted = false;
            for i in 0..decision.claim {
                after.blocks.push(BlockUse {
                    name: format!("new-{i}").into(), held: 0, cooling: 0, usable: 8, empty_for: Some(Duration::ZERO), was_used: false,
                });
            }
            let next = decide(&after);
            prop_assert_eq!(next.claim, 0, "the first decision claimed fewer blocks than the node needs: {:?}", decision);
            prop_assert!(!next.release.iter().any(|name| name.0.starts_with("new-")), "the node releases a block that it has just claimed");
        }
    }

    #[test]
    fn a_block_in_use_is_never_released_and_the_limit_holds(pool in any_pool()) {
        let decision = decide(&pool);
        for name in &decision.release {
            let block = pool.blocks.iter().find(|block| block.name == *name).unwrap();
            prop_assert_eq!(block.held, 0);
        }
        if let Some(most) = pool.max_blocks {
            let have = pool.blocks.len() as u32 + pool.claiming;
            prop_assert!(decision.claim == 0 || have + decision.claim <= most);
        }
        if !pool.draining && !pool.deleting && pool.free_blocks > 0 {
            prop_assert!(pool.blocks.is_empty() || decision.release.len() < pool.blocks.len(), "the node must keep its last block");
        }
    }
}
