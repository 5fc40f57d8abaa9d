//! Two looks and the breaker, against remembering every look.

use proptest::prelude::*;

use super::*;

const APART: Duration = Duration::from_mins(1);
/// Typed, because `[]` could be compared in more than one way.
const NONE: [u8; 0] = [];

fn at(seconds: u64) -> BootTime {
    BootTime(Duration::from_secs(seconds))
}

fn set(keys: &[u8]) -> HashSet<u8> {
    keys.iter().copied().collect()
}

#[test]
fn one_look_frees_nothing_and_a_second_too_soon_neither() {
    let mut looks = DeletionGuard::new();
    assert_eq!(looks.look(&set(&[1]), 100, at(0), APART).free, NONE);
    assert_eq!(looks.look(&set(&[1]), 100, at(59), APART).free, NONE);
    assert_eq!(looks.look(&set(&[1]), 100, at(60), APART).free, [1]);
    assert_eq!(looks.look(&set(&[1]), 100, at(61), APART).free, NONE, "freed once; the next two looks begin anew");
}

#[test]
fn a_look_that_finds_it_alive_begins_anew() {
    let mut looks = DeletionGuard::new();
    looks.look(&set(&[1]), 100, at(0), APART);
    looks.look(&set(&[]), 100, at(30), APART);
    assert_eq!(looks.look(&set(&[1]), 100, at(60), APART).free, NONE);
    assert_eq!(looks.look(&set(&[1]), 100, at(120), APART).free, [1]);
}

#[test]
fn a_pass_that_would_free_more_than_a_tenth_stops() {
    let five = set(&[1, 2, 3, 4, 5]);
    let mut looks = DeletionGuard::new();
    looks.look(&five, 49, at(0), APART);
    let verdict = looks.look(&five, 49, at(60), APART);
    assert_eq!(verdict.free, NONE);
    let breaker = verdict.tripped.unwrap();
    assert_eq!(breaker, Breaker { would_free: 5, population: 49 });
    assert!(breaker.to_string().contains("5 of 49"));
    let verdict = looks.look(&five, 50, at(61), APART);
    assert_eq!((verdict.free, verdict.tripped), (vec![1, 2, 3, 4, 5], None), "five of fifty are a tenth, not more");
}

#[test]
fn fewer_than_five_never_stop_a_pass() {
    let four = set(&[1, 2, 3, 4]);
    let mut looks = DeletionGuard::new();
    looks.look(&four, 4, at(0), APART);
    assert_eq!(looks.look(&four, 4, at(60), APART).free, [1, 2, 3, 4]);
}

proptest! {
    #[test]
    fn nothing_is_freed_that_any_look_in_between_found_alive(
        looks in prop::collection::vec((prop::collection::hash_set(0_u8..12, 0..12), 0_u64..50), 1..30), population in 0_usize..200,
    ) {
        let mut rule = DeletionGuard::new();
        let mut history: Vec<(HashSet<u8>, u64, Vec<u8>)> = Vec::new();
        let mut now = 0;
        for (suspects, wait) in looks {
            now += wait;
            let verdict = rule.look(&suspects, population, at(now), APART);
            let mut expected: Vec<u8> = suspects.iter().copied().filter(|key| {
                // the unbroken run of looks before this one that found it suspect, since it was last freed
                let first = history.iter().rev().take_while(|(seen, _, freed)| seen.contains(key) && !freed.contains(key)).last();
                first.is_some_and(|(_, time, _)| now - time >= 60)
            }).collect();
            expected.sort_unstable();
            let stops = expected.len() >= 5 && expected.len() * 10 > population;
            prop_assert_eq!(verdict.tripped.is_some(), stops);
            prop_assert_eq!(&verdict.free, &if stops { vec![] } else { expected });
            history.push((suspects, now, verdict.free));
        }
    }
}
