//! Parses the variable `CNI_ARGS`. On a Kubernetes node, the container runtime names the container's pod in this
//! variable.

use crate::{CniError, code};

/// The pod of a CNI call. Every field may be absent, because some callers name no pod, for example `cnitool`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodArgs {
    /// The pod's namespace, from `K8S_POD_NAMESPACE`.
    pub namespace: Option<String>,
    /// The pod's name, from `K8S_POD_NAME`.
    pub name: Option<String>,
    /// The pod's UID, from `K8S_POD_UID`.
    pub uid: Option<String>,
}

impl PodArgs {
    /// Parses `KEY=VALUE;KEY=VALUE`. Unknown keys are ignored, and an empty value counts as absent.
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
