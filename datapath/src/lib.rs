//! The node's Linux network: links, addresses, routes, rules, neighbours, the anti-spoofing filter and sysctls of pods.
//!
//! The node agent calls [`Network`]. This crate knows no Kubernetes, no pool and no claim. It changes only objects that
//! carry its own protocol number, alias or table name.

mod clock;
mod conflicts;
mod monitor;
mod names;
mod netlink;
mod netns;
mod network;
mod node;
mod pod;
mod settings;
mod state;
mod sysctl;

pub use clock::boot_time;
pub use netlink::KernelError;
pub use netns::{NetnsRef, netns_is_ours};
pub use network::Network;
pub use node::{Desired, DirectRoute, Finding, FindingKind};
pub use pod::{AttachError, Attached, GATEWAY_IPV4, GATEWAY_IPV6, Miss, Presence, SeenLink, Wiring};
pub use settings::Settings;
