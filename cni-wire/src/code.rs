//! The error codes of the CNI specification (1.1.0, "Error", and of STATUS). Shim and agent use no others.

/// The configuration asks for a CNI version, or for a verb in a version, that the plugin does not speak.
pub const INCOMPATIBLE_VERSION: u32 = 1;
/// A field of the network configuration is not supported.
pub const UNSUPPORTED_FIELD: u32 = 2;
/// The container is unknown or gone; the runtime need not clean up after a failed ADD.
pub const CONTAINER_UNKNOWN: u32 = 3;
/// An environment variable is missing or malformed.
pub const INVALID_ENVIRONMENT: u32 = 4;
/// Reading or writing failed.
pub const IO_FAILURE: u32 = 5;
/// The configuration on stdin is no JSON.
pub const DECODING_FAILURE: u32 = 6;
/// The configuration on stdin is JSON, but not a valid network configuration.
pub const INVALID_CONFIG: u32 = 7;
/// Try again later: what is missing now comes back by itself.
pub const TRY_AGAIN_LATER: u32 = 11;
/// STATUS: the plugin can't serve ADD.
pub const NOT_AVAILABLE: u32 = 50;
/// STATUS: the plugin can't serve ADD, and the containers it has may have limited connectivity.
pub const NOT_AVAILABLE_LIMITED: u32 = 51;
/// Our own (100 and above are a plugin's): the interface that ADD should make exists already.
pub const INTERFACE_EXISTS: u32 = 100;
/// Our own: CHECK found the container's network other than ADD left it.
pub const CHECK_FAILED: u32 = 101;
/// Our own: the pool that the pod should have an address from can't give one, and waiting alone won't change that.
pub const POOL_REFUSED: u32 = 102;
/// Our own: the kernel refused.
pub const KERNEL_REFUSED: u32 = 103;
