//! The UIDs of assignments that this agent deleted recently. If an assignment with such a UID appears again, a restore of etcd has brought
//! the assignment back, although its attachment has ended.

use std::collections::VecDeque;

/// The number of UIDs that the agent keeps. A node with 250 pods usually deletes fewer assignments than this between a snapshot of etcd
/// and its restore.
const CAPACITY: usize = 4096;

/// The UIDs of the assignments that this agent has recently deleted, the oldest deletion first.
#[derive(Debug, Default)]
pub(super) struct DeletedUids(VecDeque<u128>);

impl DeletedUids {
    /// Notes that the API server no longer has the assignment with this UID. Forgets the oldest UID if there are already [`CAPACITY`] UIDs.
    pub(super) fn note(&mut self, uid: &str) {
        let Some(uid) = parse(uid) else { return };
        if self.0.len() >= CAPACITY {
            self.0.pop_front();
        }
        self.0.push_back(uid);
    }

    /// Whether this agent recently deleted the assignment with this UID.
    pub(super) fn contains(&self, uid: &str) -> bool {
        parse(uid).is_some_and(|uid| self.0.contains(&uid))
    }
}

/// Parses a Kubernetes UID, which is a UUID. Returns `None` for a text that is not a UUID.
fn parse(uid: &str) -> Option<u128> {
    let digits: String = uid.chars().filter(|letter| *letter != '-').collect();
    (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(number: usize) -> String {
        format!("00000000-0000-4000-8000-{number:012x}")
    }

    #[test]
    fn a_deleted_uid_is_known_until_too_many_others_follow() {
        let mut deleted = DeletedUids::default();
        assert!(!deleted.contains(&uid(0)));
        deleted.note(&uid(0));
        assert!(deleted.contains(&uid(0)) && !deleted.contains(&uid(1)));
        (1..CAPACITY).for_each(|number| deleted.note(&uid(number)));
        assert!(deleted.contains(&uid(0)));
        deleted.note(&uid(CAPACITY));
        assert!(!deleted.contains(&uid(0)) && deleted.contains(&uid(1)));
    }

    #[test]
    fn a_text_that_is_no_uuid_is_never_known() {
        let mut deleted = DeletedUids::default();
        for text in ["", "uid", "00000000-0000-4000-8000-00000000000g"] {
            deleted.note(text);
            assert!(!deleted.contains(text));
        }
    }
}
