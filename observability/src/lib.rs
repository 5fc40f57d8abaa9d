//! What a running program shows of itself: logs, metrics, and whether it lives and is ready.
//!
//! It knows nothing of Kubernetes or of addresses.

pub mod logs;
pub mod metrics;
pub mod probe;
pub mod progress;
pub mod server;

pub use logs::{LogFormat, init_logs};
pub use metrics::Metrics;
pub use probe::probe;
pub use progress::{Beat, Progress};
pub use server::{Health, PortError, Server};
