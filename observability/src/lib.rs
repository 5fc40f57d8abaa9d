//! Logs, metrics, liveness and readiness of a program.
//!
//! This crate knows nothing about Kubernetes or addresses.

pub mod logs;
pub mod metrics;
pub mod probe;

pub mod server;
pub mod watchdog;

pub use logs::{LogControl, LogFormat, LogLevel, init_logs};
pub use metrics::Metrics;
pub use probe::probe;
pub use server::{Health, PortError, Server};
pub use watchdog::{Heartbeat, Watchdog};
