//! The protocol between the shim and the agent (module `frame`), and the CNI protocol between the container runtime and
//! Bobbin.
//!
//! The shim uses this crate without the feature `json`; the crate then has no dependencies. The crate opens no socket
//! and no file.

pub mod code;
pub mod frame;
pub mod verb;
pub mod version;

#[cfg(feature = "json")]
pub mod args;
#[cfg(feature = "json")]
pub mod call;
#[cfg(feature = "json")]
pub mod conf;
#[cfg(feature = "json")]
pub mod error;
#[cfg(feature = "json")]
pub mod result;

pub use frame::{FrameError, Request, Response};
pub use verb::Verb;
pub use version::Version;

#[cfg(feature = "json")]
pub use {
    args::PodArgs,
    call::Call,
    conf::{NetConf, ValidAttachment},
    error::CniError,
    result::{AddResult, Interface, Ip, Route},
};

/// The socket on which the agent listens. Tests use a different path.
pub const SOCKET: &str = "/run/bobbin/agent.sock";
/// The name of the ready marker, a file in the socket's directory. The agent creates this file when the agent is ready
/// for the first time after a boot. If the agent does not answer a STATUS, the shim reports success only if this file
/// exists.
pub const READY_MARKER: &str = "ready";
