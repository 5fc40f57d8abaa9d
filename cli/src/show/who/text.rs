//! Prints who has an address as a sentence.

use jiff::Timestamp;

use super::{Assigned, Owner, State};
use crate::print::age::age;
use crate::print::output::{Report, escaped};

impl Report for Owner {
    fn text(&self, wide: bool) -> String {
        let now = Timestamp::now();
        let address = self.address;
        let place = match (&self.pool, &self.block) {
            (Some(pool), Some(block)) => format!(" (pool {pool}, block {block})"),
            (Some(pool), None) => format!(" (pool {pool})"),
            _ => String::new(),
        };
        let sentence = match &self.state {
            State::Assigned(assigned) => of_assigned(assigned, wide, now),
            State::Unrecorded { namespace, pod, node } => format!(
                "pod {namespace}/{pod} on node {node} reports this address, but no IPAssignment records it; run: kubectl bobbin check"
            ),
            State::Reserved { why } => format!("reserved: {why}"),
            State::Claimed { node } => {
                format!(
                    "no pod has the address; node {node} owns its block and may assign the address, unless the address still cools down"
                )
            }
            State::Free { since, cools_until } => {
                let cools = if *cools_until > now {
                    format!("; the address cools down until {cools_until:.0}")
                } else {
                    String::new()
                };
                format!(
                    "no pod has the address; its block has been free since {since:.0} ({}){cools}",
                    age(*since, now)
                )
            }
            State::NeverAssigned => "never assigned: no node has claimed its block".to_owned(),
            State::NotAccepted { subnet } => format!(
                "not assigned: the operator has not accepted the subnet {subnet}; the reason: kubectl describe addresspool {}",
                self.pool.as_deref().unwrap_or_default()
            ),
            State::NodeAddress { node } => format!("it is an address of Node {node}, so Bobbin does not assign it"),
            State::InNoPool => "in no pool, so Bobbin never assigns it".to_owned(),
        };
        escaped(&format!("{address}{place}: {sentence}"))
    }
}

fn of_assigned(assigned: &Assigned, wide: bool, now: Timestamp) -> String {
    let Assigned { name, namespace, pod, container_id, node, node_exists, since, mismatch } = assigned;
    let who = match (namespace, pod) {
        (Some(namespace), Some(pod)) => format!("pod {namespace}/{pod}"),
        _ => format!("container {container_id}"),
    };
    let container = if wide { format!(", container {container_id}") } else { String::new() };
    let since = format!("since {since:.0} ({}){container}", age(*since, now));
    match mismatch {
        None if !node_exists => format!(
            "{who} on node {node} has had it {since}. The Node does not exist; the operator releases the address after the grace period"
        ),
        None => format!("{who} on node {node} has had it {since}"),
        Some(mismatch) => {
            let (why, next) = (&mismatch.why, &mismatch.next);
            format!("IPAssignment {name} says that {who} on node {node} has had it {since}, but {why}; {next}")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::mismatch::{Mismatch, Reason};
    use super::*;

    fn owner(state: State) -> Owner {
        Owner { address: [10, 0, 0, 1].into(), pool: Some("p".to_owned()), block: Some("p-0".to_owned()), state }
    }

    fn assigned(node_exists: bool, mismatch: Option<Mismatch>) -> State {
        State::Assigned(Assigned {
            name: "10.0.0.1".to_owned(),
            namespace: Some("shop".to_owned()),
            pod: Some("web".to_owned()),
            container_id: "c".to_owned(),
            node: "n1".to_owned(),
            node_exists,
            since: Timestamp::UNIX_EPOCH,
            mismatch,
        })
    }

    #[test]
    fn a_mismatch_replaces_the_statement_that_the_pod_has_the_address() {
        let plain = owner(assigned(true, None)).text(false);
        assert!(
            plain.starts_with("10.0.0.1 (pool p, block p-0): pod shop/web on node n1 has had it since 1970"),
            "{plain}"
        );
        let mismatch =
            || Mismatch { reason: Reason::PodGone, why: "it is gone".to_owned(), next: "wait\u{1b}".to_owned() };
        let text = owner(assigned(true, Some(mismatch()))).text(false);
        assert!(
            text.contains(": IPAssignment 10.0.0.1 says that pod shop/web")
                && text.ends_with("but it is gone; wait\\u{1b}"),
            "{text}"
        );
        let deleted = owner(assigned(false, None)).text(false);
        assert!(deleted.contains("The Node does not exist") && !deleted.contains("it is gone"), "{deleted}");
    }

    #[test]
    fn the_json_of_each_state_names_it() {
        let json = |state| serde_json::to_value(owner(state)).expect("JSON");
        let mismatch = Mismatch { reason: Reason::OtherAddress, why: "w".to_owned(), next: "n".to_owned() };
        let shown = json(assigned(true, Some(mismatch)));
        assert_eq!(
            (&shown["state"], &shown["nodeExists"], &shown["mismatch"]["reason"]),
            (&json!("assigned"), &json!(true), &json!("other-address"))
        );
        assert!(json(assigned(true, None)).get("mismatch").is_none());
        let unrecorded =
            State::Unrecorded { namespace: "shop".to_owned(), pod: "web".to_owned(), node: "n1".to_owned() };
        assert_eq!(json(unrecorded)["state"], "unrecorded");
    }
}
