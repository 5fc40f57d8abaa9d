//! The error codes that shim and agent use: codes of the CNI specification 1.1.0, and Bobbin's own codes.

/// Bobbin does not support the CNI version in the configuration, or this version does not have the verb.
pub const INCOMPATIBLE_VERSION: u32 = 1;
/// The container is unknown or no longer exists. After a failed ADD, the container runtime need not clean up.
pub const CONTAINER_UNKNOWN: u32 = 3;
/// An environment variable is missing or malformed.
pub const INVALID_ENVIRONMENT: u32 = 4;
/// Bobbin could not read its input or write a file.
pub const IO_FAILURE: u32 = 5;
/// The configuration on stdin is not JSON.
pub const DECODING_FAILURE: u32 = 6;
/// The configuration on stdin is JSON, but not a valid network configuration.
pub const INVALID_CONFIG: u32 = 7;
/// The caller should try again later, because the cause of the error goes away without any action.
pub const TRY_AGAIN_LATER: u32 = 11;
/// The answer to a STATUS while the plugin can't handle ADD.
pub const NOT_AVAILABLE: u32 = 50;
/// Bobbin's own code (plugins may use 100 and above): the interface that ADD should create exists already.
pub const INTERFACE_EXISTS: u32 = 100;
/// Bobbin's own code: CHECK found a change in the container's network since ADD.
pub const CHECK_FAILED: u32 = 101;
/// Bobbin's own code: the agent refuses to use the pool that was selected for the pod. A retry alone does not help.
pub const POOL_REFUSED: u32 = 102;
/// Bobbin's own code: the kernel refused an operation.
pub const KERNEL_REFUSED: u32 = 103;
