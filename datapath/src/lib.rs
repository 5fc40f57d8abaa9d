//! The node's Linux network: links, addresses, routes, rules, neighbours, the anti-spoofing filter and sysctls of pods.
//!
//! The node agent calls [`Network`]. This crate does not know Kubernetes, pools or claims. Apart from sysctls, the
//! crate changes only objects with one of Bobbin's protocol numbers, Bobbin's links, and Bobbin's nftables table.

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
pub use netns::{NetnsRef, is_own_netns};
pub use network::Network;
pub use node::{DesiredState, DirectRoute, Drift, DriftKind, DriftSubject, NetworkUse, OccupiedNet};
pub use pod::{AttachError, Attached, GATEWAY_IPV4, GATEWAY_IPV6, Mismatch, NetnsPresence, ObservedLink, Wiring};
pub use settings::Settings;
