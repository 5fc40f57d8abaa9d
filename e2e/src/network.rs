//! The network of the test machines: network namespaces, the fabric that joins them, and a proxy that causes network faults.

mod fabric;
mod namespace;
mod tcp_proxy;

pub use fabric::{Fabric, FabricAddresses};
pub use namespace::Namespace;
pub use tcp_proxy::{NetworkFault, TcpProxy};
