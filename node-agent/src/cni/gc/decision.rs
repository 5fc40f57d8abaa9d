//! Decides which attachments a GC call may remove. Remembers earlier calls and does no IO.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bobbin_ipam::deletion_guard::Breaker;
use bobbin_ipam::{AttachmentKey, BootTime, DeletionGuard};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::state::{Attachment, AttachmentId, AttachmentPhase};

/// For each network, the attachments that were missing from the list of its last GC call. A network without such attachments has no entry.
#[derive(Debug, Default)]
pub struct UnlistedAttachments(Mutex<HashMap<String, DeletionGuard<AttachmentId>>>);

impl UnlistedAttachments {
    /// Records one GC call for a network. The call began at `begun`. Returns the attachments that are missing from the list of this
    /// call and from the list of the network's previous call.
    ///
    /// # Errors
    /// If the breaker trips, because too many attachments are missing from both calls. The caller must then remove no attachment.
    pub(super) fn call<'a>(
        &self,
        network: &str,
        all: &'a [Attachment],
        valid: &HashSet<AttachmentKey>,
        begun: Timestamp,
        now: BootTime,
    ) -> Result<Vec<&'a Attachment>, Breaker> {
        // The runtime lists an attachment only after the attachment's ADD was answered. An attachment whose DEL has begun needs no GC.
        let listable = |attachment: &&Attachment| {
            attachment.network.as_deref() == Some(network)
                && attachment.phase == AttachmentPhase::Live
                && attachment.created_at < begun
        };
        let of_network: Vec<&Attachment> = all.iter().filter(listable).collect();
        let unlisted: HashMap<AttachmentId, &Attachment> = of_network
            .iter()
            .filter(|attachment| !valid.contains(&attachment.key))
            .map(|attachment| (attachment.id(), *attachment))
            .collect();
        let mut networks = self.0.lock();
        if unlisted.is_empty() {
            networks.remove(network);
            return Ok(Vec::new());
        }
        let guard = networks.entry(network.to_owned()).or_default();
        let decision = guard.observe(&unlisted.keys().cloned().collect(), of_network.len(), now, Duration::ZERO);
        match decision.tripped {
            Some(breaker) => Err(breaker),
            None => Ok(decision.to_delete.iter().filter_map(|id| unlisted.get(id).copied()).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bobbin_ipam::IpPair;
    use proptest::prelude::*;

    use super::*;
    use crate::state::PodRef;

    fn attachment(id: usize, network: Option<&str>) -> Attachment {
        Attachment {
            key: AttachmentKey::new(format!("c{id}"), "eth0"),
            pair: IpPair::default(),
            block: String::new(),
            pool: String::new(),
            pod: PodRef::default(),
            pod_seen: false,
            created_at: Timestamp::UNIX_EPOCH,
            boot_id: String::new(),
            assignment_uid: None,
            phase: AttachmentPhase::Live,
            netns: None,
            network: network.map(ToOwned::to_owned),
            links: None,
        }
    }

    fn begun() -> Timestamp {
        Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(60)
    }

    fn call(
        unlisted: &UnlistedAttachments,
        network: &str,
        all: &[Attachment],
        valid: &[usize],
    ) -> Result<Vec<String>, Breaker> {
        let valid = valid.iter().map(|id| attachment(*id, None).key).collect();
        let free = unlisted.call(network, all, &valid, begun(), BootTime::default())?;
        Ok(free.into_iter().map(|attachment| attachment.key.container_id.clone()).collect())
    }

    const NOTHING: Result<Vec<String>, Breaker> = Ok(Vec::new());

    #[test]
    fn the_second_call_of_a_network_removes_an_attachment_that_neither_lists() {
        let all = [attachment(1, Some("a")), attachment(2, Some("a"))];
        let unlisted = UnlistedAttachments::default();
        assert_eq!(call(&unlisted, "a", &all, &[1]), NOTHING);
        assert_eq!(call(&unlisted, "a", &all, &[1]), Ok(vec!["c2".to_owned()]));
    }

    #[test]
    fn an_attachment_of_another_or_unknown_network_stays() {
        let all = [attachment(1, Some("b")), attachment(2, None)];
        let unlisted = UnlistedAttachments::default();
        for _ in 0..3 {
            assert_eq!(call(&unlisted, "a", &all, &[]), NOTHING);
        }
    }

    #[test]
    fn calls_of_two_networks_do_not_count_as_two_calls_of_one() {
        let all = [attachment(1, Some("a")), attachment(2, Some("b"))];
        let unlisted = UnlistedAttachments::default();
        assert_eq!(call(&unlisted, "a", &all, &[]), NOTHING);
        assert_eq!(call(&unlisted, "b", &all, &[]), NOTHING);
        assert_eq!(call(&unlisted, "a", &all, &[]), Ok(vec!["c1".to_owned()]));
        assert_eq!(call(&unlisted, "b", &all, &[]), Ok(vec!["c2".to_owned()]));
    }

    #[test]
    fn a_call_that_lists_the_attachment_restarts_the_count() {
        let all = [attachment(1, Some("a"))];
        let unlisted = UnlistedAttachments::default();
        assert_eq!(call(&unlisted, "a", &all, &[]), NOTHING);
        assert_eq!(call(&unlisted, "a", &all, &[1]), NOTHING);
        assert_eq!(call(&unlisted, "a", &all, &[]), NOTHING);
    }

    #[test]
    fn a_later_attachment_with_the_same_key_restarts_the_count() {
        let first = attachment(1, Some("a"));
        let later = Attachment { created_at: first.created_at + jiff::SignedDuration::from_secs(1), ..first.clone() };
        let unlisted = UnlistedAttachments::default();
        assert_eq!(call(&unlisted, "a", &[first], &[]), NOTHING);
        assert_eq!(call(&unlisted, "a", &[later], &[]), NOTHING);
    }

    #[test]
    fn an_attachment_newer_than_the_call_or_not_live_stays() {
        let mut all = [1, 2, 3].map(|id| attachment(id, Some("a")));
        all[0].created_at = begun();
        all[1].phase = AttachmentPhase::Adding;
        all[2].phase = AttachmentPhase::Deleting;
        let unlisted = UnlistedAttachments::default();
        for _ in 0..3 {
            assert_eq!(call(&unlisted, "a", &all, &[]), NOTHING);
        }
    }

    #[test]
    fn more_than_a_tenth_of_one_network_trips_the_breaker_whatever_other_networks_have() {
        let mut all: Vec<Attachment> = (0..20).map(|id| attachment(id, Some("a"))).collect();
        all.extend((100..300).map(|id| attachment(id, Some("b"))));
        let valid: Vec<usize> = (5..20).collect();
        let unlisted = UnlistedAttachments::default();
        assert_eq!(call(&unlisted, "a", &all, &valid), NOTHING);
        for _ in 0..3 {
            assert_eq!(call(&unlisted, "a", &all, &valid), Err(Breaker { would_delete: 5, population: 20 }));
        }
        let valid: Vec<usize> = (4..20).collect();
        assert_eq!(call(&unlisted, "a", &all, &valid).map(|free| free.len()), Ok(4));
    }

    proptest! {
        #[test]
        fn whatever_the_wall_clock_shows_gc_removes_only_what_two_calls_in_a_row_do_not_list(
            created in proptest::collection::vec(-100_i64..100, 1..4),
            calls in proptest::collection::vec((-100_i64..100, any::<[bool; 4]>()), 1..12),
        ) {
            let at = |second: i64| Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(second);
            let live = |(id, second): (usize, &i64)| Attachment { created_at: at(*second), ..attachment(id, Some("a")) };
            let all: Vec<Attachment> = created.iter().enumerate().map(live).collect();
            let unlisted = UnlistedAttachments::default();
            let mut listed_before = [true; 4];
            for (clock, listed) in calls {
                let valid = (0..all.len()).filter(|id| listed[*id]).map(|id| all[id].key.clone()).collect();
                let removed = unlisted.call("a", &all, &valid, at(clock), BootTime::default());
                for removed in removed.into_iter().flatten() {
                    let id = all.iter().position(|one| one.key == removed.key).expect("the removed attachment must be one of the attachments");
                    prop_assert!(!listed[id] && !listed_before[id]);
                }
                listed_before = listed;
            }
        }
    }
}
