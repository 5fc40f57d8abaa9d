//! Tests how long an address stays reserved after its Node stopped reporting it.

use super::*;

const GRACE_PERIOD: Duration = Duration::from_mins(5);
const SECOND: Duration = Duration::from_secs(1);

type Reports<'a> = [(&'a str, &'a [u8])];

fn address(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn reports(nodes: &Reports<'_>) -> BTreeMap<Arc<str>, BTreeSet<IpAddr>> {
    nodes.iter().map(|(node, last)| ((*node).into(), last.iter().map(|last| address(*last)).collect())).collect()
}

impl NodeAddresses {
    fn see(&mut self, nodes: &Reports<'_>, now: Instant) {
        self.observe(reports(nodes), now);
    }

    fn expire(&mut self, now: Instant) -> Forgotten {
        self.forget(now, GRACE_PERIOD, |_| false, false)
    }

    fn all(&self) -> Vec<(u8, &Sighting)> {
        let last =
            |address: IpAddr| (0..=u8::MAX).find(|last| self::address(*last) == address).expect("it is in the range");
        self.in_range(address(0)..=address(255)).map(|(address, sighting)| (last(address), sighting)).collect()
    }

    fn count(&self) -> usize {
        self.all().len()
    }
}

#[test]
fn the_address_of_a_deleted_node_counts_for_the_grace_period() {
    let (mut addresses, start) = (NodeAddresses::default(), Instant::now());
    addresses.see(&[("n1", &[1]), ("n2", &[2])], start);
    assert_eq!(addresses.expire(start + GRACE_PERIOD * 9), Forgotten { any: false, next: None });
    let deleted = start + GRACE_PERIOD * 9;
    addresses.see(&[("n2", &[2])], deleted);
    let shown = [(1, &Sighting::Earlier("n1".into())), (2, &Sighting::Reported("n2".into()))];
    assert_eq!(addresses.all(), shown);
    let early = addresses.expire(deleted + GRACE_PERIOD.saturating_sub(SECOND));
    assert_eq!((early, addresses.count()), (Forgotten { any: false, next: Some(SECOND) }, 2));
    assert_eq!(addresses.expire(deleted + GRACE_PERIOD), Forgotten { any: true, next: None });
    assert_eq!(addresses.all(), [(2, &Sighting::Reported("n2".into()))]);
}

#[test]
fn the_addresses_of_a_node_that_reports_none_for_a_while_count_throughout() {
    let (mut addresses, start) = (NodeAddresses::default(), Instant::now());
    addresses.see(&[("n1", &[1, 2])], start);
    addresses.see(&[("n1", &[])], start);
    assert_eq!((addresses.expire(start + GRACE_PERIOD / 2).any, addresses.count()), (false, 2));
    addresses.see(&[("n1", &[1, 2])], start + GRACE_PERIOD / 2);
    assert_eq!(addresses.expire(start + GRACE_PERIOD * 2), Forgotten { any: false, next: None });
    addresses.see(&[("n1", &[2])], start + GRACE_PERIOD * 2);
    assert_eq!(addresses.expire(start + GRACE_PERIOD * 2).next, Some(GRACE_PERIOD), "the grace period did not restart");
}

#[test]
fn the_address_of_a_deleted_node_that_still_owns_blocks_counts_until_they_are_released() {
    let (mut addresses, start) = (NodeAddresses::default(), Instant::now());
    addresses.see(&[("held", &[1]), ("other", &[2])], start);
    addresses.see(&[], start);
    let late = start + GRACE_PERIOD * 3;
    assert!(addresses.forget(late, GRACE_PERIOD, |node| node == "held", false).any);
    assert_eq!(addresses.all(), [(1, &Sighting::Earlier("held".into()))]);
    assert!(addresses.expire(late).any);
    assert_eq!(addresses.count(), 0);
}

#[test]
fn an_operator_that_begins_to_lead_keeps_the_listed_addresses_for_the_grace_period() {
    let (mut addresses, start) = (NodeAddresses::default(), Instant::now());
    addresses.see(&[("n1", &[1])], start);
    addresses.inherit([1, 2].map(address), start);
    assert_eq!(addresses.all(), [(1, &Sighting::Reported("n1".into())), (2, &Sighting::Listed)]);
    assert_eq!(addresses.expire(start).next, Some(GRACE_PERIOD));
    let over = start + GRACE_PERIOD;
    let unreadable_node = addresses.forget(over, GRACE_PERIOD, |_| false, true);
    assert_eq!((unreadable_node.any, addresses.count()), (false, 2));
    assert!(addresses.expire(over).any);
    assert_eq!(addresses.all(), [(1, &Sighting::Reported("n1".into()))]);
}

#[test]
fn a_node_that_reports_ever_new_addresses_reserves_no_more_than_eight() {
    let (mut addresses, start) = (NodeAddresses::default(), Instant::now());
    for round in 0_u8..20 {
        let last: Vec<u8> = (0..4).map(|number| round * 4 + number).collect();
        addresses.see(&[("thief", &last), ("n1", &[200])], start + Duration::from_secs(round.into()));
    }
    let counting: Vec<u8> = addresses.all().into_iter().map(|(last, _)| last).collect();
    assert_eq!(counting, [72, 73, 74, 75, 76, 77, 78, 79, 200]);
    // The Node `thief` reports an address of the Node `n1`. The grace period of `n1` does not depend on `thief`.
    addresses.see(&[("thief", &[200])], start + GRACE_PERIOD);
    addresses.see(&[("thief", &[1, 2, 3, 4, 5, 6, 7, 8])], start + GRACE_PERIOD);
    assert_eq!(addresses.all().last(), Some(&(200, &Sighting::Earlier("n1".into()))));
}
