//! Reads kernel settings below `/proc/sys/net`, and writes a setting only if its value differs.
//!
//! `/proc/sys/net` shows the settings of the calling thread's namespace, so the same path works for the node and for
//! pods.

use std::path::Path;

use crate::netlink::KernelError;

/// Reads a kernel setting, without the line end.
pub(crate) fn get(path: &Path) -> Result<String, KernelError> {
    std::fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(KernelError::io(format!("read {}", path.display())))
}

/// Writes a kernel setting if its value differs. Returns whether the setting was written.
pub(crate) fn set(path: &Path, value: &str) -> Result<bool, KernelError> {
    if get(path)? == value {
        return Ok(false);
    }
    std::fs::write(path, value).map_err(KernelError::io(format!("write {value} to {}", path.display())))?;
    Ok(true)
}
