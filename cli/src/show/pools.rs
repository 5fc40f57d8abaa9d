//! `pools`: the pools with their addresses and blocks.

mod problems;

use anyhow::{Result, ensure};
use bobbin_api_client::Lenient;
use bobbin_crds::AddressPool;
use bobbin_crds::pool::{FamilyCounts, Subnet};
use bobbin_messages::condition;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;

use crate::Answer;
use crate::api::watch::Changes;
use crate::api::{leader, objects};
use crate::args::ListArgs;
use crate::print::output::{Output, Report, or_dash, table, verdict};

pub(crate) use problems::{NO_NODE_ADMITTED, PoolProblem, Severity};

/// Prints the pools. With `--watch`, prints them again after each change. `namespace` is the operator's.
pub(crate) async fn run(client: &Client, namespace: &str, args: &ListArgs, output: Output) -> Result<Answer> {
    let pools: Api<Lenient<AddressPool>> = Api::all(client.clone());
    let mut changes = args.watch.then(|| Changes::new(client));
    loop {
        let mut listed = objects::list(&pools, "").await?;
        for name in &args.names {
            let exists = listed.iter().any(|pool| pool.name_any() == *name);
            ensure!(exists, "AddressPool {name} does not exist; list all pools with: kubectl bobbin pools");
        }
        listed.retain(|pool| args.names.is_empty() || args.names.contains(&pool.name_any()));
        output.print(&Pools { pools: rows(&listed) })?;
        leader::warn_if_missing(client, namespace).await;
        match &mut changes {
            Some(changes) => changes.next().await,
            None => return Ok(Answer::Yes),
        }
    }
}

/// The rows of the pools, in the order of their names.
pub(crate) fn rows(pools: &[AddressPool]) -> Vec<PoolRow> {
    let mut rows: Vec<PoolRow> = pools.iter().map(PoolRow::of).collect();
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    rows
}

#[derive(Serialize)]
struct Pools {
    pools: Vec<PoolRow>,
}

/// One pool, as its status describes it.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PoolRow {
    pub(crate) name: String,
    /// `Ready`, or why the pool may be unable to serve some or all new pods.
    pub(crate) state: State,
    pub(crate) problems: Vec<PoolProblem>,
    subnets: Vec<Subnet>,
    /// The number of used addresses. In a dual-stack pool, this number and the next three count pairs of addresses.
    pub(crate) used: i64,
    free: i64,
    cooling: i64,
    reserved: i64,
    blocks: Blocks,
    /// Of the claimed blocks' addresses, the percentage that no pod uses. Only the blocks' owners can assign these addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    fragmentation_percent: Option<u8>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Blocks {
    claimed: i64,
    free: i64,
}

/// What a pool can do now. The first state that applies counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum State {
    Deleting,
    Draining,
    NotReady,
    Full,
    NoFreeBlock,
    PartlyAccepted,
    Misconfigured,
    Ready,
}

impl State {
    fn of(pool: &AddressPool, is: impl Fn(&str, &str) -> bool) -> Self {
        if pool.metadata.deletion_timestamp.is_some() {
            Self::Deleting
        } else if pool.spec.draining {
            Self::Draining
        } else if !is(condition::READY, "True") {
            Self::NotReady
        } else if is(condition::EXHAUSTED, "True") {
            Self::Full
        } else if is(condition::BLOCKS_EXHAUSTED, "True") {
            Self::NoFreeBlock
        } else if is(condition::ACCEPTED, "False") {
            Self::PartlyAccepted
        } else if is(condition::MISCONFIGURED, "True") || is(condition::ADDRESS_CONFLICT, "True") {
            Self::Misconfigured
        } else {
            Self::Ready
        }
    }
}

impl PoolRow {
    fn of(pool: &AddressPool) -> Self {
        let status = pool.status.clone().unwrap_or_default();
        let FamilyCounts { assigned, free, cooling, reserved, .. } =
            status.addresses.ipv4.or(status.addresses.ipv6).unwrap_or_default();
        let is =
            |type_: &str, value: &str| status.conditions.iter().any(|one| one.type_ == type_ && one.status == value);
        let capacity = status.blocks.claimed << pool.spec.block_size_bits.clamp(0, 16);
        Self {
            name: pool.name_any(),
            state: State::of(pool, is),
            problems: problems::of(&status.conditions),
            subnets: pool.spec.subnets.clone(),
            used: assigned,
            free,
            cooling,
            reserved,
            blocks: Blocks { claimed: status.blocks.claimed, free: status.blocks.free },
            fragmentation_percent: (capacity > 0)
                .then(|| u8::try_from((capacity - assigned).clamp(0, capacity) * 100 / capacity).unwrap_or(100)),
        }
    }
}

impl Report for Pools {
    fn text(&self, wide: bool) -> String {
        if self.pools.is_empty() {
            return "There are no pools. Create one: kubectl apply -f pool.yaml".to_owned();
        }
        let mut header = vec![
            "name",
            "state",
            "used",
            "free",
            "cooling",
            "reserved",
            "free blocks",
            "claimed",
            "fragmentation",
            "subnets",
        ];
        if wide {
            header.push("problems");
        }
        let mut rows = table(header);
        for pool in &self.pools {
            let shown = if wide { usize::MAX } else { 2 };
            let text = |subnet: &Subnet| {
                [&subnet.ipv4, &subnet.ipv6].into_iter().flatten().cloned().collect::<Vec<_>>().join(" and ")
            };
            let mut subnets: Vec<String> = pool.subnets.iter().take(shown).map(text).collect();
            if pool.subnets.len() > subnets.len() {
                subnets.push(format!("{} more", pool.subnets.len() - subnets.len()));
            }
            let mut row = vec![
                pool.name.clone().into(),
                verdict(format!("{:?}", pool.state), pool.state == State::Ready),
                pool.used.into(),
                pool.free.into(),
                pool.cooling.into(),
                pool.reserved.into(),
                pool.blocks.free.into(),
                pool.blocks.claimed.into(),
                or_dash(pool.fragmentation_percent.map(|percent| format!("{percent}%"))).into(),
                subnets.join(", ").into(),
            ];
            if wide {
                let problems: Vec<&str> = pool.problems.iter().map(|one| one.message.as_str()).collect();
                row.push(problems.join(" | ").into());
            }
            rows.add_row(row);
        }
        rows.trim_fmt()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn several_problems_of_a_pool_are_separated() {
        let condition = |type_: &str, message: &str| json!({"type": type_, "status": "True", "reason": "X", "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let conditions = [condition("Exhausted", "It is full."), condition("AddressConflict", "A Node is in it.")];
        let pool = json!({"metadata": {"name": "p"}, "spec": {"subnets": []}, "status": {"conditions": conditions}});
        let rows = rows(&[serde_json::from_value(pool).expect("a pool")]);
        let text = Pools { pools: rows }.text(true);
        assert!(text.ends_with("It is full. | A Node is in it."), "{text}");
    }

    #[test]
    fn a_row_has_the_counts_of_the_status_and_the_share_of_unused_addresses() {
        let pool = serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"subnets": [{"ipv4": "10.0.0.0/24"}], "blockSizeBits": 5},
            "status": {
                "addresses": {"ipv4": {"total": 256, "reserved": 1, "assigned": 16, "cooling": 2, "free": 237}},
                "blocks": {"total": 8, "claimed": 2, "free": 6},
                "conditions": [{"type": "Ready", "status": "False", "reason": "X", "message": "because", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
            }
        }))
        .expect("a pool");
        let row = PoolRow::of(&pool);
        assert_eq!((row.used, row.free, row.cooling, row.reserved), (16, 237, 2, 1));
        assert_eq!((row.fragmentation_percent, row.state), (Some(75), State::NotReady));
        assert_eq!(serde_json::to_value(&row).expect("JSON")["problems"], json!(["because"]));
        let text = Pools { pools: vec![row] }.text(true);
        let line = text.lines().nth(1).unwrap_or_default();
        assert!(line.starts_with("p ") && line.contains("NotReady") && line.ends_with("because"), "{text}");
    }
}
