//! Reads everything that the dashboard shows.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use bobbin_api_client::{Lenient, PartialNode};
use bobbin_crds::{AddressBlock, AddressPool, IPAssignment, deleted_nodes, denied_nodes};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Event};
use kube::{Api, Client, ResourceExt};
use serde::Serialize;

use super::problems::{Problem, Seen, problems};
use crate::api::events::{REPORTERS, last_seen};
use crate::api::leader::Leader;
use crate::api::objects;
use crate::commands::confirm_deletion::DeletedNodes;
use crate::print::failure;
use crate::show::map::Map;
use crate::show::nodes::NodeRow;
use crate::show::pools::PoolRow;
use crate::show::{map, nodes, pools};

/// How many events the page shows.
const MAX_EVENTS: usize = 30;

/// Where the data comes from.
pub(super) struct Source {
    pub(super) client: Client,
    /// The URL of the API server.
    pub(super) server: String,
    /// The namespace of Bobbin's operator.
    pub(super) namespace: String,
}

/// What the page shows. Pools, maps and nodes are the same as those that the commands print as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Snapshot {
    server: String,
    read_at: Timestamp,
    pools: Vec<PoolRow>,
    maps: Vec<Map>,
    nodes: Vec<NodeRow>,
    problems: Vec<Problem>,
    /// Bobbin's Warning events, the newest first.
    events: Vec<Warning>,
    /// What could not be read, and why.
    missing: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Warning {
    object: String,
    reason: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<Timestamp>,
}

impl Source {
    /// Reads the data. Without the right to read events or ConfigMaps, the data says so.
    pub(super) async fn read(&self) -> Result<Snapshot> {
        let client = || self.client.clone();
        let all_nodes: Vec<PartialNode> = objects::list(&Api::<Lenient<PartialNode>>::all(client()), "").await?;
        let all_pools = objects::list(&Api::<Lenient<AddressPool>>::all(client()), "").await?;
        // The blocks are listed after the assignments, because a node claims a block before it assigns addresses. So
        // the list of blocks shows the owner of each assignment's block.
        let assignments = objects::list(&Api::<Lenient<IPAssignment>>::all(client()), "").await?;
        let blocks = objects::list(&Api::<Lenient<AddressBlock>>::all(client()), "").await?;
        let mut missing = Vec::new();
        let mut optional = |error: anyhow::Error| missing.push(failure::sentence(&error, Some(&self.server)));
        let maps: Api<Lenient<ConfigMap>> = Api::namespaced(client(), &self.namespace);
        let deleted = objects::get(&maps, deleted_nodes::CONFIG_MAP).await.map_err(&mut optional).ok().flatten();
        let denied = objects::get(&maps, denied_nodes::CONFIG_MAP).await.map_err(&mut optional).ok().flatten();
        let events = self.events().await.map_err(&mut optional).unwrap_or_default();

        let names: BTreeSet<String> = all_nodes.iter().map(ResourceExt::name_any).collect();
        let (pools, nodes) = (pools::rows(&all_pools), nodes::rows(&names, &all_pools, &blocks, &assignments));
        let seen = Seen {
            pools: &pools,
            nodes: &nodes,
            without_ip: all_nodes
                .iter()
                .filter(|node| node.addresses().is_empty())
                .map(ResourceExt::name_any)
                .collect(),
            deleted: &DeletedNodes::of(&deleted.unwrap_or_default()),
            denied: &denied.unwrap_or_default(),
            leader: Leader::read(&self.client, &self.namespace).await,
            namespace: &self.namespace,
        };
        let problems = problems(&seen);
        Ok(Snapshot {
            server: self.server.clone(),
            read_at: Timestamp::now(),
            maps: maps_of(&all_pools, blocks, assignments),
            pools,
            nodes,
            problems,
            events,
            missing,
        })
    }

    async fn events(&self) -> Result<Vec<Warning>> {
        let events: Api<Lenient<Event>> = Api::all(self.client.clone());
        let mut found = Vec::new();
        for reporter in REPORTERS {
            found.extend(objects::list(&events, &format!("type=Warning,reportingComponent={reporter}")).await?);
        }
        Ok(newest(found))
    }
}

fn newest(mut events: Vec<Event>) -> Vec<Warning> {
    events.sort_by_key(|event| Reverse(last_seen(event)));
    let warning = |event: Event| {
        let last_seen = last_seen(&event);
        let about = event.involved_object;
        let name = [about.namespace, about.name].into_iter().flatten().collect::<Vec<_>>().join("/");
        Warning {
            object: format!("{} {name}", about.kind.unwrap_or_default()),
            reason: event.reason.unwrap_or_default(),
            message: event.message.unwrap_or_default(),
            last_seen,
        }
    };
    events.into_iter().take(MAX_EVENTS).map(warning).collect()
}

/// The picture of each pool, in the order of their names.
fn maps_of(pools: &[AddressPool], blocks: Vec<AddressBlock>, assignments: Vec<IPAssignment>) -> Vec<Map> {
    let mut by_pool: BTreeMap<String, (Vec<AddressBlock>, Vec<IPAssignment>)> = BTreeMap::new();
    for block in blocks {
        by_pool.entry(block.spec.pool_name.clone()).or_default().0.push(block);
    }
    for assignment in assignments {
        by_pool.entry(assignment.spec.pool_name.clone()).or_default().1.push(assignment);
    }
    let mut sorted: Vec<&AddressPool> = pools.iter().collect();
    sorted.sort_by_key(|pool| pool.name_any());
    let picture = |pool: &AddressPool| {
        let (blocks, assignments) = by_pool.remove(&pool.name_any()).unwrap_or_default();
        map::draw(pool, &blocks, &assignments)
    };
    sorted.into_iter().map(picture).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_event_is_the_first_and_names_its_object() {
        let event = |name: &str, time: &str| -> Event {
            serde_json::from_value(json!({
                "metadata": {"name": name}, "reason": "R", "message": "m", "lastTimestamp": time,
                "involvedObject": {"kind": "Pod", "namespace": "shop", "name": name},
            }))
            .expect("an event")
        };
        let found = newest(vec![event("old", "2026-01-01T00:00:01Z"), event("new", "2026-01-01T00:00:02Z")]);
        assert_eq!(found.iter().map(|one| one.object.as_str()).collect::<Vec<_>>(), ["Pod shop/new", "Pod shop/old"]);
        let many = (0..40).map(|_| event("e", "2026-01-01T00:00:01Z")).collect();
        assert_eq!(newest(many).len(), MAX_EVENTS);
    }
}
