//! Keeps the node's network: exported blocks, pod routes and, under direct routing, routes to other nodes.

pub(crate) mod direct_routes;
pub(crate) mod export;
pub(crate) mod reconcile;
