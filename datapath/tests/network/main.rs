//! The crate against the real kernel: each test is a node of its own (a fresh network namespace) with pods of its own.
//! Needs root, `ip` and `nft`.

mod attach;
mod check;
mod converge;
mod detach;
mod finding;
mod foreign;
mod node;
mod own_link;
mod prepare;
mod presence;
mod refuse;
mod spoof;
mod traffic;
