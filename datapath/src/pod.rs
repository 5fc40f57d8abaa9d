//! One attachment: wiring, checking and unwiring its veth pair, routes and neighbours.

pub(crate) mod attach;
pub(crate) mod attachment;
pub(crate) mod check;
mod container;
pub(crate) mod detach;
pub(crate) mod host_link;
pub(crate) mod presence;

pub use attach::AttachError;
pub use attachment::{Attached, ObservedLink, Wiring};
pub use check::Mismatch;
pub use container::{GATEWAY_IPV4, GATEWAY_IPV6};
pub use presence::NetnsPresence;
