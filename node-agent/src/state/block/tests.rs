//! Tests the transitions that ARCHITECTURE.md lists, and the properties of each state.

use std::time::Duration;

use super::BlockState as S;
use super::*;

fn now() -> BootTime {
    BootTime(Duration::from_secs(7))
}

fn exporting() -> S {
    S::Exporting { since: now(), not_before: now() }
}

fn states() -> Vec<S> {
    let settled = [SettledState::Exporting { not_before: now() }, SettledState::Serving, SettledState::Retiring];
    let releases = [ReleaseStage::DeletingAssignments, ReleaseStage::WithdrawingRoute, ReleaseStage::Sent];
    let mut all = vec![exporting(), S::Serving, S::Retiring, S::Lost];
    all.extend(settled.map(|before| S::Doubted { before, doubts: 0 }));
    let both = [false, true];
    all.extend(both.into_iter().flat_map(|doubted| both.map(|seen_owned| S::Claiming { doubted, seen_owned })));
    all.extend(both.into_iter().flat_map(|doubted| releases.map(|stage| S::Releasing { stage, doubted })));
    all
}

fn events() -> Vec<BlockEvent> {
    use BlockEvent as E;
    let now = now();
    vec![
        E::ClaimConfirmed { now, not_before: now },
        E::ClaimRefused,
        E::ClaimFailed,
        E::SeenOwned,
        E::Exported,
        E::Retire,
        E::Reopen,
        E::Doubt,
        E::FoundOwned { now, doubts: 0 },
        E::ClaimedBack { now, not_before: now },
        E::FoundForeign,
        E::FoundFree,
        E::Release,
        E::AssignmentsDeleted,
        E::ReleaseSent,
        E::ReleaseFailed,
        E::Released,
        E::ReleaseCancelled { now, not_before: now },
        E::Vacated,
    ]
}

#[test]
fn a_block_serves_only_after_its_export_a_reopening_or_a_confirmed_ownership() {
    for state in states() {
        for event in events() {
            if state.on(event) == Next::State(S::Serving) {
                let allowed = matches!(
                    (state, event),
                    (S::Exporting { .. }, BlockEvent::Exported)
                        | (S::Retiring, BlockEvent::Reopen)
                        | (S::Doubted { before: SettledState::Serving, .. }, BlockEvent::FoundOwned { .. })
                );
                assert!(allowed, "a block in state {state:?} entered service on the event {event:?}");
            }
        }
    }
}

#[test]
fn doubt_affects_every_owned_state_and_does_not_change_the_stage_of_a_release() {
    for state in states() {
        let next = state.on(BlockEvent::Doubt);
        match state {
            S::Claiming { seen_owned, .. } => {
                assert_eq!(next, Next::State(S::Claiming { doubted: true, seen_owned }));
            }
            S::Doubted { before, .. } => assert_eq!(next, Next::State(S::Doubted { before, doubts: 1 })),
            S::Exporting { .. } | S::Serving | S::Retiring => {
                assert!(
                    matches!(next, Next::State(S::Doubted { .. })),
                    "a block in state {state:?} is not doubted after a doubt"
                );
            }
            S::Releasing { stage, doubted: false } => {
                assert_eq!(next, Next::State(S::Releasing { stage, doubted: true }));
            }
            _ => assert_eq!(next, Next::Unchanged, "a doubt changed a block in state {state:?}"),
        }
    }
}

#[test]
fn a_confirmed_ownership_returns_the_block_to_its_state_before_the_doubt() {
    for state in [exporting(), S::Serving, S::Retiring] {
        let Next::State(doubted) = state.on(BlockEvent::Doubt) else {
            panic!("a doubt had no effect on a block in state {state:?}")
        };
        assert_eq!(doubted.on(BlockEvent::FoundOwned { now: now(), doubts: 0 }), Next::State(state));
    }
}

#[test]
fn a_read_that_began_before_the_last_doubt_decides_nothing() {
    let doubted = S::Doubted { before: SettledState::Serving, doubts: 0 };
    let Next::State(again) = doubted.on(BlockEvent::Doubt) else { panic!("a doubted block ignored a further doubt") };
    assert_eq!(again.on(BlockEvent::FoundOwned { now: now(), doubts: 0 }), Next::Unchanged);
    assert_eq!(again.on(BlockEvent::FoundOwned { now: now(), doubts: 1 }), Next::State(S::Serving));
}

#[test]
fn a_claim_that_was_doubted_before_its_answer_needs_a_read_before_it_serves() {
    let Next::State(claiming) = S::CLAIMING.on(BlockEvent::Doubt) else {
        panic!("an unanswered claim ignored a doubt")
    };
    let confirmed = claiming.on(BlockEvent::ClaimConfirmed { now: now(), not_before: now() });
    let before = SettledState::Exporting { not_before: now() };
    assert_eq!(confirmed, Next::State(S::Doubted { before, doubts: 0 }));
}

#[test]
fn a_refused_claim_of_a_block_that_the_watch_showed_as_owned_stays_until_a_read_decides() {
    let Next::State(seen) = S::CLAIMING.on(BlockEvent::SeenOwned) else {
        panic!("an unanswered claim ignored the watch event")
    };
    assert_eq!(S::CLAIMING.on(BlockEvent::ClaimRefused), Next::Forgotten);
    assert_eq!(seen.on(BlockEvent::ClaimRefused), Next::Unchanged);
    assert_eq!(seen.on(BlockEvent::ClaimFailed), Next::Forgotten);
}

#[test]
fn a_release_can_be_cancelled_only_until_its_write_is_sent() {
    let cancel = BlockEvent::ReleaseCancelled { now: now(), not_before: now() };
    let releasing = |stage| S::Releasing { stage, doubted: false };
    assert_eq!(releasing(ReleaseStage::DeletingAssignments).on(cancel), Next::State(exporting()));
    assert_eq!(releasing(ReleaseStage::WithdrawingRoute).on(cancel), Next::State(exporting()));
    assert_eq!(releasing(ReleaseStage::Sent).on(cancel), Next::Unchanged);
    assert_eq!(
        releasing(ReleaseStage::Sent).on(BlockEvent::ReleaseFailed),
        Next::State(releasing(ReleaseStage::WithdrawingRoute))
    );
}

#[test]
fn a_doubted_release_continues_and_needs_a_read_before_the_block_serves_again() {
    for stage in [ReleaseStage::DeletingAssignments, ReleaseStage::WithdrawingRoute] {
        let doubted = S::Releasing { stage, doubted: true };
        assert_eq!(S::Releasing { stage, doubted: false }.on(BlockEvent::Doubt), Next::State(doubted));
        assert_eq!(S::Releasing { stage, doubted: false }.restored(false), Some(doubted));
        let until = BootTime(Duration::from_secs(20));
        let cancelled = doubted.on(BlockEvent::ReleaseCancelled { now: now(), not_before: until });
        let before = SettledState::Exporting { not_before: until };
        assert_eq!(cancelled, Next::State(S::Doubted { before, doubts: 0 }));
    }
}

#[test]
fn a_block_is_forgotten_only_on_a_failed_claim_a_confirmed_loss_or_its_last_release() {
    for state in states() {
        for event in events() {
            if state.on(event) == Next::Forgotten {
                let allowed = matches!(
                    (state, event),
                    (S::Claiming { .. }, BlockEvent::ClaimFailed)
                        | (S::Claiming { seen_owned: false, .. }, BlockEvent::ClaimRefused)
                        | (S::Doubted { .. }, BlockEvent::FoundFree)
                        | (S::Releasing { .. }, BlockEvent::Released)
                        | (S::Lost, BlockEvent::Vacated)
                );
                assert!(allowed, "the agent forgot a block in state {state:?} on the event {event:?}");
            }
        }
    }
}

#[test]
fn only_a_serving_block_is_assignable_and_it_is_exported() {
    for state in states() {
        assert_eq!(state.assignable(), state == S::Serving);
        assert!(!state.assignable() || state.exported());
    }
    assert!(S::Releasing { stage: ReleaseStage::DeletingAssignments, doubted: false }.exported());
    assert!(!S::Releasing { stage: ReleaseStage::WithdrawingRoute, doubted: false }.exported());
    assert!(!S::Lost.exported());
}

#[test]
fn a_restart_trusts_only_serving_blocks_and_only_after_a_short_absence() {
    assert_eq!(S::Serving.restored(true), Some(S::Serving));
    assert_eq!(S::Serving.restored(false), Some(S::Doubted { before: SettledState::Serving, doubts: 0 }));
    assert_eq!(S::CLAIMING.restored(true), None);
    for state in states() {
        let restored = state.restored(true);
        assert!(
            state == S::Serving || restored.is_none_or(|restored| !restored.assignable()),
            "a restored block is assignable after state {state:?}"
        );
    }
    let doubted = S::Doubted { before: SettledState::Serving, doubts: 0 };
    assert_eq!(doubted.restored(true), Some(doubted));
}
