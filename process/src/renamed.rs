//! Refuses to start a program if the environment has a variable that Bobbin has renamed.

/// The old names of renamed variables, each with the new name.
const RENAMED: [(&str, &str); 3] = [
    ("BOBBIN_HOLD_ADD", "BOBBIN_ADD_TIMEOUT"),
    ("BOBBIN_SWEEP_INTERVAL", "BOBBIN_STALE_CHECK_INTERVAL"),
    ("BOBBIN_NODE_GONE_SECONDS", "BOBBIN_NODE_GRACE_PERIOD"),
];

/// The environment has a variable that Bobbin has renamed. Its value would have no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this version of Bobbin does not read the environment variable {old}: set {new} instead, with a unit, for example {new}=5m"
)]
pub struct RenamedVariable {
    old: &'static str,
    new: &'static str,
}

/// Checks that the environment has no variable that Bobbin has renamed.
///
/// # Errors
/// Fails if such a variable is set. The error names the variable to set instead.
pub fn refuse_renamed_variables() -> Result<(), RenamedVariable> {
    find_renamed(|name| std::env::var_os(name).is_some())
}

fn find_renamed(is_set: impl Fn(&str) -> bool) -> Result<(), RenamedVariable> {
    RENAMED.iter().find(|(old, _)| is_set(old)).map_or(Ok(()), |&(old, new)| Err(RenamedVariable { old, new }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_variable_is_refused_with_its_new_name() {
        let error = find_renamed(|name| name == "BOBBIN_NODE_GONE_SECONDS").unwrap_err();
        assert!(error.to_string().contains("set BOBBIN_NODE_GRACE_PERIOD instead"), "{error}");
        assert_eq!(find_renamed(|name| name == "BOBBIN_NODE_GRACE_PERIOD"), Ok(()));
    }
}
