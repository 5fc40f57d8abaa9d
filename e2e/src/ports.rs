//! Finds free TCP ports for the programs of a test.

use std::net::TcpListener;
use std::ops::Range;

use anyhow::{Context, Result};

/// The ports to choose from. The kernel gives outgoing connections only higher ports, by default from 32768
/// (`net.ipv4.ip_local_port_range`). So no connection can take a chosen port before the program listens on it.
const PORTS: Range<u16> = 10_000..30_000;
/// The number of ports to try.
const TRIES: usize = 100;

/// A random port of the loopback interface on which no program listens.
pub fn free_port() -> Result<u16> {
    let tried = std::iter::repeat_with(|| fastrand::u16(PORTS)).take(TRIES);
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    tried.into_iter().find(is_free).with_context(|| format!("none of {TRIES} random ports in {PORTS:?} is free"))
}
