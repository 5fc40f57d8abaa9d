//! The error codes that shim and agent use: codes of the CNI specification 1.1.0, and Bobbin's own codes.

/// The configuration asks for a CNI version that Bobbin does not support, or that does not have the verb.
pub const INCOMPATIBLE_VERSION: u32 = 1;
/// The container is unknown or gone; the runtime need not clean up after a failed ADD.
pub const CONTAINER_UNKNOWN: u32 = 3;
/// An environment variable is missing or malformed.
pub const INVALID_ENVIRONMENT: u32 = 4;
/// Bobbin could not read its input or write a file.
pub const IO_FAILURE: u32 = 5;
/// The configuration on stdin is not JSON.
pub const DECODING_FAILURE: u32 = 6;
/// The configuration on stdin is JSON, but not a valid network configuration.
pub const INVALID_CONFIG: u32 = 7;
/// Try again later: the cause of the error goes away by itself.
pub const TRY_AGAIN_LATER: u32 = 11;
/// Answer to STATUS: the plugin can't handle ADD at the moment.
pub const NOT_AVAILABLE: u32 = 50;
/// Bobbin's own code (plugins may use 100 and above): the interface that ADD should create exists already.
pub const INTERFACE_EXISTS: u32 = 100;
/// Bobbin's own code: CHECK found a change in the container's network since ADD.
pub const CHECK_FAILED: u32 = 101;
/// Bobbin's own code: the agent refuses the pod's choice of pool, and waiting alone does not help.
pub const POOL_REFUSED: u32 = 102;
/// Bobbin's own code: the kernel refused an operation.
pub const KERNEL_REFUSED: u32 = 103;
