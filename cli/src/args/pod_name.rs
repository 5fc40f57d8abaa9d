//! The name of a pod on the command line.

/// A pod: `NAME`, `pod/NAME` or `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodName {
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

/// The words that kubectl accepts before the slash, as in `pod/web`.
const RESOURCE: [&str; 3] = ["pod", "pods", "po"];

/// Parses the name of a pod. As in kubectl, `pod/web` is the pod `web`.
pub(super) fn parse(text: &str) -> Result<PodName, String> {
    let (before, name) = text.split_once('/').map_or((None, text), |(before, name)| (Some(before), name));
    if name.is_empty() || name.contains('/') || before == Some("") {
        return Err("name a pod as NAME, pod/NAME or NAMESPACE/NAME".to_owned());
    }
    let namespace = before.filter(|word| !RESOURCE.contains(word));
    Ok(PodName { namespace: namespace.map(str::to_owned), name: name.to_owned() })
}

impl PodName {
    /// The namespace that the user chose; `None` if the user chose none. `flag` is the value of `--namespace`.
    ///
    /// # Errors
    /// Fails if the name and the flag contain different namespaces.
    pub(crate) fn namespace(&self, flag: Option<&str>) -> Result<Option<String>, String> {
        match (self.namespace.as_deref(), flag) {
            (Some(own), Some(flag)) if own != flag => Err(format!(
                "the pod {own}/{} is in namespace {own}, but --namespace is {flag}; leave out one of the two namespaces",
                self.name
            )),
            (own, flag) => Ok(own.or(flag).map(str::to_owned)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_a_name_and_may_have_a_resource_or_a_namespace() {
        let parsed = |text| parse(text).map(|pod| (pod.namespace, pod.name)).ok();
        for text in ["web", "pod/web", "pods/web", "po/web"] {
            assert_eq!(parsed(text), Some((None, "web".to_owned())), "{text}");
        }
        assert_eq!(parsed("shop/web"), Some((Some("shop".to_owned()), "web".to_owned())));
        for text in ["", "/web", "shop/", "pod/shop/web", "/"] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn two_different_namespaces_are_an_error() {
        let chosen = |text: &str, flag| parse(text).expect("a pod").namespace(flag);
        assert_eq!(chosen("web", None), Ok(None));
        assert_eq!(chosen("pod/web", Some("shop")), Ok(Some("shop".to_owned())));
        assert_eq!(chosen("shop/web", None), Ok(Some("shop".to_owned())));
        assert_eq!(chosen("shop/web", Some("shop")), Ok(Some("shop".to_owned())));
        let error = chosen("shop/web", Some("till")).expect_err("two namespaces");
        assert!(error.contains("shop/web") && error.contains("till") && error.contains("leave out"), "{error}");
    }
}
