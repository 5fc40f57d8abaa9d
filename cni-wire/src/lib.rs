//! What shim and agent say to each other (`frame`), and what both say to a container runtime (the CNI specification).
//!
//! The shim builds without any dependency; the agent adds feature `json`. Nothing here opens a socket or a file.

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

/// Where the agent listens, unless a test says otherwise.
pub const SOCKET: &str = "/run/bobbin/agent.sock";
/// The file, beside the socket, that the agent makes once it has been ready since boot; STATUS without an agent asks for it.
pub const READY_MARKER: &str = "ready";
