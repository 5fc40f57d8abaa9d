//! The node's network as the agent keeps it: exported blocks, pod routes and, under direct routing, routes to other nodes.

pub(crate) mod direct_routes;
pub(crate) mod export;
pub(crate) mod reconcile;
