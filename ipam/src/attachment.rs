//! The key of an attachment. An attachment is one interface in one container. The key does not contain the pod's name,
//! because a later pod may have the same name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The container ID and the interface name of an attachment, as the container runtime passes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentKey {
    /// The container ID, from `CNI_CONTAINERID`.
    pub container_id: String,
    /// The interface name, from `CNI_IFNAME`.
    pub if_name: String,
}

/// The text does not have the form `<containerID>/<ifName>` of an attachment key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an attachment: expected <containerID>/<ifName>")]
pub struct AttachmentKeyError(String);

impl AttachmentKey {
    /// Creates the key for an interface in a container.
    pub fn new(container_id: impl Into<String>, if_name: impl Into<String>) -> Self {
        Self { container_id: container_id.into(), if_name: if_name.into() }
    }
}

impl fmt::Display for AttachmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container_id, self.if_name)
    }
}

impl FromStr for AttachmentKey {
    type Err = AttachmentKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((container_id, if_name))
                if !container_id.is_empty() && !if_name.is_empty() && !if_name.contains('/') =>
            {
                Ok(Self::new(container_id, if_name))
            }
            _ => Err(AttachmentKeyError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests;
