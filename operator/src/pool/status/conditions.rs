//! The conditions of a pool. Each message says what is wrong, why, and what to do. Pure.
//!
//! No two conditions of a pool contradict each other. The table in `tests` has all conditions for each state of a pool.

use bobbin_api_client::{join_sentences, without_middle};
use bobbin_ipam::pool_shape::{PoolShape, ShapeError};
use bobbin_messages::Condition;
use bobbin_messages::condition::state as entry;
use bobbin_messages::condition::{
    ACCEPTED, ADDRESS_CONFLICT, BLOCKS_EXHAUSTED, EXHAUSTED, MISCONFIGURED, READY, TERMINATING, TYPES,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition as PoolCondition;

mod exhaustion;
mod foreign_addresses;
mod ready;
mod spec_problems;
mod terminating;

use super::{Counts, Inputs};

/// A message names at most this many nodes.
const MAX_NAMED_NODES: usize = 5;
/// The maximum length of a message, so that it fits on a screen. The API server would accept 32768 bytes.
const MAX_MESSAGE_BYTES: usize = 1000;
/// The maximum length of all refusals in a message. The rest of the message is for a sentence about the pool.
const MAX_REFUSALS_BYTES: usize = 900;

/// A state of the catalog, with its message.
struct State {
    entry: &'static Condition,
    message: String,
}

fn state(entry: &'static Condition, message: impl Into<String>) -> State {
    State { entry, message: message.into() }
}

/// The condition that has the type `type_`.
pub(crate) fn find<'a>(conditions: &'a [PoolCondition], type_: &str) -> Option<&'a PoolCondition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Returns all conditions of the pool. A condition keeps its transition time until its status changes. The result also
/// contains the conditions that other programs wrote.
pub(super) fn all(inputs: &Inputs<'_>, counts: &Counts, old: &[PoolCondition]) -> Vec<PoolCondition> {
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
        let status = state.entry.status.to_string();
        let since = find(old, type_).filter(|old| old.status == status).map(|old| old.last_transition_time.clone());
        PoolCondition {
            type_: type_.to_owned(),
            status,
            reason: state.entry.reason.to_owned(),
            message: without_middle(&state.message, MAX_MESSAGE_BYTES),
            last_transition_time: since.unwrap_or_else(|| inputs.now.clone()),
            observed_generation: inputs.pool.metadata.generation,
        }
    };
    let foreign = old.iter().filter(|old| !TYPES.contains(&old.type_.as_str()));
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

/// Why the operator refuses subnets of the pool, as one text that fits into a message.
fn refusals(inputs: &Inputs<'_>) -> String {
    let all: Vec<String> = inputs.acceptance.rejected.iter().map(ToString::to_string).collect();
    join_sentences(&all, MAX_REFUSALS_BYTES)
}

fn accepted(inputs: &Inputs<'_>) -> State {
    let shape = match inputs.shape {
        Ok(shape) => shape,
        Err(error) => return state(&entry::INVALID, unparsed(error)),
    };
    let rejected = &inputs.acceptance.rejected;
    if let Some(first) = rejected.first() {
        return state(first.refusal(), refusals(inputs));
    }
    match (shape.accepted.contains(&false), is_deleting(inputs)) {
        (false, _) => state(&entry::ACCEPTED, "the operator has accepted all subnets of the pool"),
        (true, true) => {
            state(&entry::ACCEPTED_DELETED, "the pool is being deleted, so the operator accepts no more of its subnets")
        }
        (true, false) => {
            state(&entry::ACCEPTED_PENDING, "the operator is comparing a subnet with the addresses of other objects")
        }
    }
}

#[cfg(test)]
mod tests;
