//! bobbin-e2e: real clusters on one machine. The demo, the benchmark and the end-to-end tests use them.
//!
//! Bobbin is known here only as a chart, an image and three kinds of objects. Only `claiming_nodes` runs code of the agent.

pub mod api_proxy;
pub mod bench;
pub mod claiming_nodes;
pub mod cluster;
pub mod control_plane;
pub mod demo;
pub mod network;
pub mod single_node;
pub mod suite;
pub mod wait;
