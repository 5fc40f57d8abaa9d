//! The crate against the real kernel: each test is a node of its own (a fresh network namespace) with its own pods.
//! Needs root, `ip` and `nft`.

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
