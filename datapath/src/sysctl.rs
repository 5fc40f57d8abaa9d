//! Reads and writes kernel settings below `/proc/sys/net`, and writes only if the value differs.
//!
//! `/proc/sys/net` shows the calling thread's namespace, so the same path serves the node and its pods.

use std::path::Path;

use crate::netlink::KernelError;

/// Reads a setting, without the line end.
pub(crate) fn get(path: &Path) -> Result<String, KernelError> {
    std::fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(KernelError::io(format!("read {}", path.display())))
}

/// Writes a setting if its value differs, and returns whether it did.
pub(crate) fn set(path: &Path, value: &str) -> Result<bool, KernelError> {
    if get(path)? == value {
        return Ok(false);
    }
    std::fs::write(path, value).map_err(KernelError::io(format!("write {value} to {}", path.display())))?;
    Ok(true)
}
