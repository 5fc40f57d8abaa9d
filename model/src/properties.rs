//! The rules that must hold in every state, and the situations that must be possible.

use bobbin_node_agent::{BlockState, Proof};
use stateright::Property;

use crate::Protocol;
use crate::world::{BLOCKS, Late, NODES, PODS, Plan, Rule, World, block_of};

pub(crate) fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always("two living attachments never have one address", |_, world: &World| {
            let same = |one: usize, other: usize| {
                let (one, other) = (&world.pods[one], &world.pods[other]);
                one.living() && other.living() && one.address == other.address
            };
            !(0..PODS).any(|pod| (0..pod).any(|other| same(pod, other)))
        }),
        Property::always("an address in use is never freed", |_, world: &World| world.broken != Some(Rule::Freed)),
        Property::always("only the node named in a block assigns from it", |_, world: &World| {
            world.broken != Some(Rule::ForeignBlock)
        }),
        Property::always(
            "a block is exported before it serves, and freed after its assignments and its route are gone",
            |_, world: &World| world.broken != Some(Rule::Order),
        ),
        Property::sometimes("two pods of two nodes live", |_, world: &World| {
            world.pods[0].living() && world.pods[1].living() && world.pods[0].node != world.pods[1].node
        }),
        Property::sometimes("a node assigns an address of a block that had an owner before", |_, world: &World| {
            !world.restored
                && any_block(world, |world, node, block| {
                    world.nodes[node].blocks[block].is_some_and(|held| held.proof == Proof::AssignmentsUnseen)
                        && world
                            .pods
                            .iter()
                            .any(|pod| pod.living() && pod.node == node && block_of(pod.address) == block)
                })
        }),
        Property::sometimes("a claim with an unknown outcome is a claim of another node", |_, world: &World| {
            any_block(world, |world, node, block| {
                matches!(world.state(node, block), Some(BlockState::Claiming { .. }))
                    && world.api.blocks[block].owner.is_some_and(|owner| owner.node != node)
            })
        }),
        Property::sometimes("a block with a resident is lost", |_, world: &World| {
            any_block(world, |world, node, block| world.state(node, block) == Some(BlockState::Lost))
        }),
        Property::sometimes("a release is in flight after its node gave up on the answer", |_, world: &World| {
            any_block(world, |world, node, block| world.nodes[node].late == Some(Late::Release(block)))
        }),
        Property::sometimes("an address is excluded", |_, world: &World| {
            world.nodes.iter().any(|node| node.excluded.contains(&true))
        }),
        Property::sometimes("both operators release the same block", |_, world: &World| {
            let planned = |operator: usize, block: usize| matches!(world.operators[operator], Plan::Reclaim { blocks, .. } if blocks[block]);
            (0..BLOCKS).any(|block| planned(0, block) && planned(1, block))
        }),
    ]
}

fn any_block(world: &World, holds: impl Fn(&World, usize, usize) -> bool) -> bool {
    (0..NODES).any(|node| (0..BLOCKS).any(|block| holds(world, node, block)))
}
