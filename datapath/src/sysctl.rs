//! Kernel settings below `/proc/sys/net`: read first, and written only when they differ.
//!
//! `/proc/sys/net` shows the namespace of the calling thread, so the same root serves node and pods.

use std::path::Path;

use crate::netlink::KernelError;

/// A setting's value, without the line end.
pub(crate) fn get(path: &Path) -> Result<String, KernelError> {
    std::fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(KernelError::io(format!("read {}", path.display())))
}

/// Sets it. `true` when that changed something.
pub(crate) fn set(path: &Path, value: &str) -> Result<bool, KernelError> {
    if get(path)? == value {
        return Ok(false);
    }
    std::fs::write(path, value).map_err(KernelError::io(format!("write {value} to {}", path.display())))?;
    Ok(true)
}
