use proptest::prelude::*;

use super::*;

const GRACE_PERIOD: Duration = Duration::from_mins(5);
const TIMES: HoldTimes = HoldTimes { grace_period: GRACE_PERIOD, hold: Duration::from_hours(1) };

fn deleted(age: Duration) -> DeletedNode {
    DeletedNode { age, confirmed: false, state: ReclaimState::Waiting }
}

fn held(states: &[ReclaimState]) -> usize {
    states.iter().filter(|state| **state == ReclaimState::Held).count()
}

/// Simulates the duration `time` and decides every ten seconds. Returns the number of released nodes, and the
/// largest number of releases within one grace period.
fn run(mut nodes: Vec<DeletedNode>, owners: usize, time: Duration) -> (usize, usize) {
    const STEP: Duration = Duration::from_secs(10);
    let mut releases = Vec::new();
    for step in 0..(time.as_secs() / STEP.as_secs()) {
        let now = STEP * u32::try_from(step).expect("the number of steps fits into u32");
        let states = decide(&nodes, owners, TIMES);
        for (node, state) in nodes.iter_mut().zip(states) {
            if is_released(state) && !is_released(node.state) {
                releases.push(now);
            }
            node.state = match state {
                ReclaimState::Released { ago } => ReclaimState::Released { ago: ago + STEP },
                state => state,
            };
            node.age += STEP;
        }
    }
    let within = |from: &Duration| releases.iter().filter(|at| **at >= *from && **at < *from + GRACE_PERIOD).count();
    (releases.len(), releases.iter().map(within).max().unwrap_or(0))
}

#[test]
fn a_third_of_twelve_nodes_deleted_together_is_held() {
    let states = decide(&[deleted(Duration::ZERO); 4], 12, TIMES);
    assert_eq!(held(&states), 4);
}

#[test]
fn two_nodes_and_a_tenth_of_the_nodes_are_not_held() {
    assert_eq!(held(&decide(&[deleted(Duration::ZERO); 2], 2, TIMES)), 0);
    assert_eq!(held(&decide(&[deleted(Duration::ZERO); 10], 100, TIMES)), 0);
    assert_eq!(held(&decide(&[deleted(Duration::ZERO); 11], 100, TIMES)), 11);
}

#[test]
fn nodes_deleted_one_after_the_other_are_not_held() {
    let nodes: Vec<_> = (0..6).map(|number| deleted(GRACE_PERIOD * number + Duration::from_secs(1))).collect();
    assert_eq!(held(&decide(&nodes, 12, TIMES)), 0);
    // The first and the last of these three deletions are more than a grace period apart.
    let nodes = [0, 200, 301].map(|age| deleted(Duration::from_secs(age)));
    assert_eq!(held(&decide(&nodes, 12, TIMES)), 0);
    assert_eq!(held(&decide(&[0, 200, 300].map(|age| deleted(Duration::from_secs(age))), 12, TIMES)), 3);
}

#[test]
fn a_held_node_stays_held_when_few_are_left() {
    let node = DeletedNode { state: ReclaimState::Held, ..deleted(GRACE_PERIOD * 2) };
    assert_eq!(decide(&[node], 12, TIMES), [ReclaimState::Held]);
}

#[test]
fn a_confirmed_hold_ends_for_one_node_in_each_grace_period_and_for_the_oldest_first() {
    let node = |seconds| DeletedNode { confirmed: true, ..deleted(Duration::from_secs(seconds)) };
    assert_eq!(held(&decide(&[node(299); 4], 12, TIMES)), 4);
    let states = decide(&[node(310), node(330), node(320), node(310)], 12, TIMES);
    assert_eq!(states[1], ReclaimState::Released { ago: Duration::ZERO });
    assert_eq!(held(&states), 3);
    assert_eq!(run(vec![node(300); 4], 12, GRACE_PERIOD * 3), (3, 1));
    assert_eq!(run(vec![node(300); 40], 100, GRACE_PERIOD * 10), (40, 4));
}

#[test]
fn a_hold_that_nobody_confirms_ends_after_the_hold_time() {
    let nodes = vec![deleted(Duration::ZERO); 4];
    assert_eq!(run(nodes.clone(), 12, TIMES.hold).0, 0);
    assert_eq!(run(nodes, 12, TIMES.hold + GRACE_PERIOD * 4).0, 4);
}

proptest! {
    #[test]
    fn no_node_is_released_unconfirmed_before_the_hold_time_and_never_more_than_a_tenth_together(
        nodes in proptest::collection::vec((0..7200_u64, any::<bool>(), 0..3_u8, 0..600_u64), 0..60),
        more in 0..100_usize,
    ) {
        let nodes: Vec<DeletedNode> = nodes
            .into_iter()
            .map(|(age, confirmed, state, ago)| DeletedNode {
                age: Duration::from_secs(age),
                confirmed,
                state: match state {
                    0 => ReclaimState::Waiting,
                    1 => ReclaimState::Held,
                    _ => ReclaimState::Released { ago: Duration::from_secs(ago) },
                },
            })
            .collect();
        let states = decide(&nodes, nodes.len() + more, TIMES);
        let in_hold = states.iter().filter(|state| **state != ReclaimState::Waiting).count();
        let recent = states.iter().filter(|state| matches!(state, ReclaimState::Released { ago } if *ago < GRACE_PERIOD));
        let before =
            nodes.iter().filter(|node| matches!(node.state, ReclaimState::Released { ago } if ago < GRACE_PERIOD)).count();
        prop_assert!(recent.count() <= before.max((in_hold / PART).max(1)));
        for (node, state) in nodes.iter().zip(&states) {
            match node.state {
                ReclaimState::Released { .. } => prop_assert_eq!(*state, node.state),
                ReclaimState::Held => prop_assert!(*state != ReclaimState::Waiting),
                ReclaimState::Waiting => {}
            }
            if *state == (ReclaimState::Released { ago: Duration::ZERO }) && !is_released(node.state) {
                prop_assert!(node.age >= GRACE_PERIOD && (node.confirmed || node.age >= TIMES.hold));
            }
        }
    }
}
