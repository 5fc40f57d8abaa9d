//! bobbin-e2e: a real cluster on one machine, and what is told with it. The demo, the benches and the tests are its callers; it
//! knows Bobbin only as a chart, an image and three kinds of objects; only `claiming_nodes` runs code of the agent.

pub mod api_proxy;
pub mod bench;
pub mod claiming_nodes;
pub mod cluster;
pub mod control_plane;
pub mod demo;
pub mod fabric;
pub mod image;
pub mod lone_node;
pub mod namespace;
pub mod node;
pub mod paths;
pub mod pod;
pub mod pools;
pub mod product;
pub mod programs;
pub mod proxy;
pub mod run;
pub mod until;
