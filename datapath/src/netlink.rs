//! Netlink: the requests that Bobbin sends to the kernel, the sockets that carry them, and the decoding of the answers.

pub(crate) mod address;
pub(crate) mod anti_spoofing;
mod error;
mod handle;
pub(crate) mod link;
pub(crate) mod mtu;
pub(crate) mod neighbour;
pub(crate) mod netns_id;
mod own_changes;
pub(crate) mod route;
pub(crate) mod rule;
mod socket;

pub(crate) use address::{add as add_address, list as list_addresses};
pub use error::KernelError;
pub(crate) use error::{gone_is_success, is_gone};
pub(crate) use handle::{NetlinkThread, RouteHandle};
pub(crate) use own_changes::OwnChanges;
pub(crate) use socket::{Netlink, Request, configure};

#[cfg(test)]
mod tests;
