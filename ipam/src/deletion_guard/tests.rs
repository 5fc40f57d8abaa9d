//! Compares the deletion guard with a model that remembers every observation. Also tests the breaker.

use proptest::prelude::*;

use super::*;

const APART: Duration = Duration::from_mins(1);
/// An empty list with a type, because the compiler can't infer the type of `[]` in a comparison.
const NONE: [u8; 0] = [];

fn at(seconds: u64) -> BootTime {
    BootTime(Duration::from_secs(seconds))
}

fn set(keys: &[u8]) -> HashSet<u8> {
    keys.iter().copied().collect()
}

#[test]
fn nothing_is_deleted_before_a_second_observation_after_the_interval() {
    let mut guard = DeletionGuard::new();
    assert_eq!(guard.observe(&set(&[1]), 100, at(0), APART).to_delete, NONE);
    assert_eq!(guard.observe(&set(&[1]), 100, at(59), APART).to_delete, NONE);
    assert_eq!(guard.observe(&set(&[1]), 100, at(60), APART).to_delete, [1]);
    assert_eq!(
        guard.observe(&set(&[1]), 100, at(61), APART).to_delete,
        NONE,
        "after a deletion, the guard needs two new observations"
    );
}

#[test]
fn an_observation_that_finds_an_object_in_use_resets_it() {
    let mut guard = DeletionGuard::new();
    guard.observe(&set(&[1]), 100, at(0), APART);
    guard.observe(&set(&[]), 100, at(30), APART);
    assert_eq!(guard.observe(&set(&[1]), 100, at(60), APART).to_delete, NONE);
    assert_eq!(guard.observe(&set(&[1]), 100, at(120), APART).to_delete, [1]);
}

#[test]
fn a_pass_that_would_delete_more_than_a_tenth_is_stopped() {
    let five = set(&[1, 2, 3, 4, 5]);
    let mut guard = DeletionGuard::new();
    guard.observe(&five, 49, at(0), APART);
    let verdict = guard.observe(&five, 49, at(60), APART);
    assert_eq!(verdict.to_delete, NONE);
    let breaker = verdict.tripped.unwrap();
    assert_eq!(breaker, Breaker { would_delete: 5, population: 49 });
    assert!(breaker.to_string().contains("5 of 49"));
    let verdict = guard.observe(&five, 50, at(61), APART);
    assert_eq!(
        (verdict.to_delete, verdict.tripped),
        (vec![1, 2, 3, 4, 5], None),
        "five of fifty objects are exactly a tenth, so the breaker must not stop the pass"
    );
}

#[test]
fn a_pass_with_fewer_than_five_deletions_is_never_stopped() {
    let four = set(&[1, 2, 3, 4]);
    let mut guard = DeletionGuard::new();
    guard.observe(&four, 4, at(0), APART);
    assert_eq!(guard.observe(&four, 4, at(60), APART).to_delete, [1, 2, 3, 4]);
}

proptest! {
    #[test]
    fn nothing_is_deleted_that_an_observation_in_between_found_in_use(
        observations in prop::collection::vec((prop::collection::hash_set(0_u8..12, 0..12), 0_u64..50), 1..30), population in 0_usize..200,
    ) {
        let mut rule = DeletionGuard::new();
        let mut history: Vec<(HashSet<u8>, u64, Vec<u8>)> = Vec::new();
        let mut now = 0;
        for (suspects, wait) in observations {
            now += wait;
            let verdict = rule.observe(&suspects, population, at(now), APART);
            let mut expected: Vec<u8> = suspects.iter().copied().filter(|key| {
                // Goes back through the observations as long as they found the object unused and did not delete it.
                // Takes the earliest of these observations.
                let first = history.iter().rev().take_while(|(seen, _, freed)| seen.contains(key) && !freed.contains(key)).last();
                first.is_some_and(|(_, time, _)| now - time >= 60)
            }).collect();
            expected.sort_unstable();
            let stops = expected.len() >= 5 && expected.len() * 10 > population;
            prop_assert_eq!(verdict.tripped.is_some(), stops);
            prop_assert_eq!(&verdict.to_delete, &if stops { vec![] } else { expected });
            history.push((suspects, now, verdict.to_delete));
        }
    }
}
