//! The conditions of a pool. Each message says what is wrong, why, and what to do. Pure.
//!
//! No two conditions of a pool contradict each other. The table in `tests` has all conditions for each state of a pool.

use bobbin_api_client::shortened;
use bobbin_crds::pool::condition::{
    ACCEPTED, ADDRESS_CONFLICT, BLOCKS_EXHAUSTED, EXHAUSTED, MISCONFIGURED, READY, TERMINATING,
};
use bobbin_ipam::pool_shape::{PoolShape, ShapeError};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

mod exhaustion;
mod foreign_addresses;
mod ready;
mod spec_problems;
mod terminating;

use super::{Counts, Inputs};

/// The types of the operator's own conditions.
const OWN: [&str; 7] = [READY, ACCEPTED, BLOCKS_EXHAUSTED, EXHAUSTED, ADDRESS_CONFLICT, MISCONFIGURED, TERMINATING];
/// The reason of several conditions while the pool is being deleted.
const DELETED: &str = "Terminating";
/// The reason of several conditions while the pool is draining.
const DRAINING: &str = "Draining";
/// The reason of several conditions while the spec can't be parsed.
const INVALID: &str = "Invalid";
/// The reason of several conditions while the operator has accepted no subnet.
const NOTHING_ACCEPTED: &str = "NothingAccepted";
/// The maximum number of nodes that a message names.
const MAX_NAMED_NODES: usize = 5;
/// The maximum length of a message, so that it fits on a screen. The API server would accept 32768 bytes.
const MAX_MESSAGE_BYTES: usize = 1000;

struct State {
    /// `None` stands for the status `Unknown`.
    status: Option<bool>,
    reason: &'static str,
    message: String,
}

fn state(status: impl Into<Option<bool>>, reason: &'static str, message: impl Into<String>) -> State {
    State { status: status.into(), reason, message: message.into() }
}

/// The condition that has the type `type_`.
pub(crate) fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Returns all conditions of the pool. A condition keeps its transition time until its status changes. The result also
/// contains the conditions that other programs wrote.
pub(super) fn all(inputs: &Inputs<'_>, counts: &Counts, old: &[Condition]) -> Vec<Condition> {
    let mut all = vec![
        (READY, ready::ready(inputs)),
        (ACCEPTED, accepted(inputs)),
        (BLOCKS_EXHAUSTED, exhaustion::blocks_exhausted(inputs, counts)),
        (EXHAUSTED, exhaustion::exhausted(inputs, counts)),
        (ADDRESS_CONFLICT, foreign_addresses::address_conflict(inputs)),
        (MISCONFIGURED, spec_problems::misconfigured(inputs)),
    ];
    if is_deleting(inputs) {
        all.push((TERMINATING, terminating::terminating(inputs, counts)));
    }
    let condition = |(type_, state): (&str, State)| {
        let status = match state.status {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let since = find(old, type_).filter(|old| old.status == status).map(|old| old.last_transition_time.clone());
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: state.reason.to_owned(),
            message: shortened(&state.message, MAX_MESSAGE_BYTES),
            last_transition_time: since.unwrap_or_else(|| inputs.now.clone()),
            observed_generation: inputs.pool.metadata.generation,
        }
    };
    let foreign = old.iter().filter(|old| !OWN.contains(&old.type_.as_str()));
    all.into_iter().map(condition).chain(foreign.cloned()).collect()
}

fn is_deleting(inputs: &Inputs<'_>) -> bool {
    inputs.pool.metadata.deletion_timestamp.is_some()
}

/// Whether the operator has accepted a subnet of the pool.
fn is_any_accepted(shape: &PoolShape) -> bool {
    shape.accepted.contains(&true)
}

/// Why the spec can't be parsed.
fn unparsed(error: &ShapeError) -> String {
    format!("the operator can't divide the pool into blocks: {error}")
}

fn accepted(inputs: &Inputs<'_>) -> State {
    let shape = match inputs.shape {
        Ok(shape) => shape,
        Err(error) => return state(false, INVALID, unparsed(error)),
    };
    let rejected = &inputs.acceptance.rejected;
    if let Some(first) = rejected.first() {
        let all: Vec<String> = rejected.iter().map(ToString::to_string).collect();
        return state(false, first.reason(), all.join("; "));
    }
    match (shape.accepted.contains(&false), is_deleting(inputs)) {
        (false, _) => state(true, "SubnetsAccepted", "the operator has accepted all subnets of the pool"),
        (true, true) => {
            state(None, DELETED, "the pool is being deleted, so the operator accepts no more of its subnets")
        }
        (true, false) => {
            state(None, "Pending", "the operator is comparing a subnet with the addresses of other objects")
        }
    }
}

#[cfg(test)]
mod tests;
