//! `CNI_ARGS` as the container runtime of a kubelet sets it. It names the pod of the container.

use crate::{CniError, code};

/// The pod of a call. Every field may be absent: `cnitool` names no pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodArgs {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: Option<String>,
    /// `K8S_POD_NAME`.
    pub name: Option<String>,
    /// `K8S_POD_UID`.
    pub uid: Option<String>,
}

impl PodArgs {
    /// Parses `KEY=VALUE;KEY=VALUE`. It ignores unknown keys, and an empty value counts as absent.
    ///
    /// # Errors
    /// Fails with code 4 if an entry is not `KEY=VALUE`.
    pub fn parse(text: &str) -> Result<PodArgs, CniError> {
        let mut args = PodArgs::default();
        for entry in text.split(';').filter(|entry| !entry.is_empty()) {
            let Some((key, value)) = entry.split_once('=') else {
                return Err(CniError::new(
                    code::INVALID_ENVIRONMENT,
                    format!(
                        "CNI_ARGS has the entry {entry:?}, which is not KEY=VALUE: the container runtime must separate the entries with semicolons"
                    ),
                ));
            };
            let field = match key {
                "K8S_POD_NAMESPACE" => &mut args.namespace,
                "K8S_POD_NAME" => &mut args.name,
                "K8S_POD_UID" => &mut args.uid,
                _ => continue,
            };
            *field = (!value.is_empty()).then(|| value.to_owned());
        }
        Ok(args)
    }
}
