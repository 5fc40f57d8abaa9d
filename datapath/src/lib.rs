//! The node's Linux network: links, addresses, routes, rules, neighbours, the spoof filter and sysctls of pods.
//!
//! The node agent calls [`Network`]; this crate knows no Kubernetes, no pool and no claim, and touches nothing that
//! does not carry its own protocol number, alias or table name.

mod address;
mod attach;
mod attachment;
mod check;
mod clash;
mod clock;
mod container;
mod converge;
mod detach;
mod echoes;
mod export;
mod finding;
mod in_place;
mod link;
mod message;
mod monitor;
mod mtu;
mod neighbour;
mod netns;
mod netns_id;
mod network;
mod notice_filter;
mod own_link;
mod prepare;
mod presence;
mod route;
mod rule;
mod settings;
mod socket;
mod spoof;
mod sysctl;

pub use attach::AttachError;
pub use attachment::{Attached, SeenLink, Wiring};
pub use check::Miss;
pub use clock::boot_time;
pub use converge::{Desired, DirectRoute};
pub use finding::{Finding, FindingKind};
pub use netns::{NetnsRef, netns_is_ours};
pub use network::Network;
pub use presence::Presence;
pub use settings::Settings;
pub use socket::KernelError;
