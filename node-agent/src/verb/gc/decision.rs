//! Which attachments a GC call may free. Pure but for the memory of earlier calls.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bobbin_ipam::deletion_guard::Breaker;
use bobbin_ipam::{AttachmentKey, BootTime, DeletionGuard};
use jiff::Timestamp;

use crate::ledger::{Attachment, Phase};

/// An attachment and when it began: a later ADD with the same key is another attachment.
type Identity = (AttachmentKey, Timestamp);

/// What the last GC call of each network did not list. Networks that listed everything are not kept.
#[derive(Debug, Default)]
pub struct Unlisted(Mutex<HashMap<String, DeletionGuard<Identity>>>);

impl Unlisted {
    /// Takes in one call of a network at `begun`. Returns the attachments of that network that the call before did not list either.
    ///
    /// # Errors
    /// That would be too many: nothing is to be freed.
    pub(super) fn call<'a>(
        &self,
        network: &str,
        all: &'a [Attachment],
        valid: &HashSet<AttachmentKey>,
        begun: Timestamp,
        now: BootTime,
    ) -> Result<Vec<&'a Attachment>, Breaker> {
        // What an ADD has not answered for is not in a list yet, and what a DEL has begun to end is ended without GC.
        let listable = |attachment: &&Attachment| {
            attachment.network.as_deref() == Some(network)
                && attachment.phase == Phase::Live
                && attachment.created_at < begun
        };
        let of_network: Vec<&Attachment> = all.iter().filter(listable).collect();
        let unlisted: HashMap<Identity, &Attachment> = of_network
            .iter()
            .filter(|attachment| !valid.contains(&attachment.key))
            .map(|attachment| ((attachment.key.clone(), attachment.created_at), *attachment))
            .collect();
        let mut networks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if unlisted.is_empty() {
            networks.remove(network);
            return Ok(Vec::new());
        }
        let looks = networks.entry(network.to_owned()).or_default();
        let verdict = looks.observe(&unlisted.keys().cloned().collect(), of_network.len(), now, Duration::ZERO);
        match verdict.tripped {
            Some(breaker) => Err(breaker),
            None => Ok(verdict.free.iter().filter_map(|identity| unlisted.get(identity).copied()).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bobbin_ipam::IpPair;

    use super::*;
    use crate::ledger::PodRef;

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
            phase: Phase::Live,
            netns: None,
            network: network.map(ToOwned::to_owned),
            links: None,
        }
    }

    fn begun() -> Timestamp {
        Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(60)
    }

    fn call(unlisted: &Unlisted, network: &str, all: &[Attachment], valid: &[usize]) -> Result<Vec<String>, Breaker> {
        let valid = valid.iter().map(|id| attachment(*id, None).key).collect();
        let free = unlisted.call(network, all, &valid, begun(), BootTime::default())?;
        Ok(free.into_iter().map(|attachment| attachment.key.container_id.clone()).collect())
    }

    const NOTHING: Result<Vec<String>, Breaker> = Ok(Vec::new());

    #[test]
    fn the_second_call_of_a_network_frees_what_neither_lists() {
        let all = [attachment(1, Some("a")), attachment(2, Some("a"))];
        let unlisted = Unlisted::default();
        assert_eq!(call(&unlisted, "a", &all, &[1]), NOTHING);
        assert_eq!(call(&unlisted, "a", &all, &[1]), Ok(vec!["c2".to_owned()]));
    }

    #[test]
    fn an_attachment_of_another_network_or_of_none_that_is_known_stays() {
        let all = [attachment(1, Some("b")), attachment(2, None)];
        let unlisted = Unlisted::default();
        for _ in 0..3 {
            assert_eq!(call(&unlisted, "a", &all, &[]), NOTHING);
        }
    }

    #[test]
    fn calls_of_two_networks_do_not_count_as_two_calls_of_one() {
        let all = [attachment(1, Some("a")), attachment(2, Some("b"))];
        let unlisted = Unlisted::default();
        assert_eq!(call(&unlisted, "a", &all, &[]), NOTHING);
        assert_eq!(call(&unlisted, "b", &all, &[]), NOTHING);
        assert_eq!(call(&unlisted, "a", &all, &[]), Ok(vec!["c1".to_owned()]));
        assert_eq!(call(&unlisted, "b", &all, &[]), Ok(vec!["c2".to_owned()]));
    }

    #[test]
    fn a_call_that_lists_it_begins_anew() {
        let all = [attachment(1, Some("a"))];
        let unlisted = Unlisted::default();
        assert_eq!(call(&unlisted, "a", &all, &[]), NOTHING);
        assert_eq!(call(&unlisted, "a", &all, &[1]), NOTHING);
        assert_eq!(call(&unlisted, "a", &all, &[]), NOTHING);
    }

    #[test]
    fn a_later_attachment_of_the_same_key_begins_anew() {
        let first = attachment(1, Some("a"));
        let later = Attachment { created_at: first.created_at + jiff::SignedDuration::from_secs(1), ..first.clone() };
        let unlisted = Unlisted::default();
        assert_eq!(call(&unlisted, "a", &[first], &[]), NOTHING);
        assert_eq!(call(&unlisted, "a", &[later], &[]), NOTHING);
    }

    #[test]
    fn what_began_after_the_call_or_is_not_live_stays() {
        let mut all = [1, 2, 3].map(|id| attachment(id, Some("a")));
        all[0].created_at = begun();
        all[1].phase = Phase::Adding;
        all[2].phase = Phase::Deleting;
        let unlisted = Unlisted::default();
        for _ in 0..3 {
            assert_eq!(call(&unlisted, "a", &all, &[]), NOTHING);
        }
    }

    #[test]
    fn more_than_a_tenth_of_the_network_stops_the_pass_however_many_other_networks_have() {
        let mut all: Vec<Attachment> = (0..20).map(|id| attachment(id, Some("a"))).collect();
        all.extend((100..300).map(|id| attachment(id, Some("b"))));
        let valid: Vec<usize> = (5..20).collect();
        let unlisted = Unlisted::default();
        assert_eq!(call(&unlisted, "a", &all, &valid), NOTHING);
        for _ in 0..3 {
            assert_eq!(call(&unlisted, "a", &all, &valid), Err(Breaker { would_delete: 5, population: 20 }));
        }
        let valid: Vec<usize> = (4..20).collect();
        assert_eq!(call(&unlisted, "a", &all, &valid).map(|free| free.len()), Ok(4));
    }
}
