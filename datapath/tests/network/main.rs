//! Tests this crate against the real kernel. Each test has its own node (a new network namespace) and pods. The tests
//! need root, `ip` and `nft`.

mod anti_spoofing;
mod attach;
mod check;
mod detach;
mod drift;
mod foreign;
mod host_link;
mod node;
mod presence;
mod reconcile;
mod refuse;
mod setup;
mod traffic;
