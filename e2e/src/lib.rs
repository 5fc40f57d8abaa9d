//! bobbin-e2e: test clusters with real components on one machine, for the demo, the benchmark and the end-to-end tests.
//!
//! This crate uses Bobbin through its chart, image and API objects. Only `claiming_nodes` runs the agent's code.

pub mod api_proxy;
pub mod bare_nodes;
pub mod bench;
pub mod chaos;
pub mod chart;
pub mod claiming_nodes;
pub mod cluster;
pub mod control_plane;
pub mod demo;
pub mod invariants;
pub mod network;
pub mod ports;
pub mod recorded_version;
pub mod single_node;
pub mod suite;
pub mod wait;
