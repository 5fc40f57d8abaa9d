//! Converts label selectors to kube's type `Selector`, and refuses the selectors that Kubernetes refuses.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::core::{Expression, Selector, SelectorExt};

/// Why a requirement of a label selector is invalid. Kubernetes refuses such requirements in its own objects too.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The requirement has an unknown operator.
    #[error(
        "the selector's requirement on {key:?} has the unknown operator {operator:?}: use In, NotIn, Exists or DoesNotExist"
    )]
    UnknownOperator {
        /// The label's key.
        key: String,
        /// The operator of the requirement.
        operator: String,
    },
    /// The requirement has the operator `In` or `NotIn`, but no values.
    #[error("the selector's requirement {operator} on {key:?} has no values: give at least one")]
    ValuesMissing {
        /// The label's key.
        key: String,
        /// The operator of the requirement.
        operator: String,
    },
    /// The requirement has the operator `Exists` or `DoesNotExist`, but also values.
    #[error("the selector's requirement {operator} on {key:?} has values: remove them, or use In or NotIn")]
    ValuesUnexpected {
        /// The label's key.
        key: String,
        /// The operator of the requirement.
        operator: String,
    },
}

/// Converts a label selector of an API object. An empty selector matches everything.
///
/// This function does not use kube's conversion, which accepts `In` without values and ignores the values of `Exists`.
/// With kube's conversion, a pool with an invalid selector could admit every namespace or node.
///
/// # Errors
/// Fails if a requirement has an unknown operator, unexpected values or missing values.
pub fn parse_selector(selector: &LabelSelector) -> Result<Selector, SelectorError> {
    let labels = selector.match_labels.iter().flatten();
    let equal = labels.map(|(key, value)| Ok(Expression::Equal(key.clone(), value.clone())));
    equal.chain(selector.match_expressions.iter().flatten().map(parse_requirement)).collect()
}

fn parse_requirement(requirement: &LabelSelectorRequirement) -> Result<Expression, SelectorError> {
    let (key, operator) = (requirement.key.clone(), requirement.operator.clone());
    let values: BTreeSet<String> = requirement.values.iter().flatten().cloned().collect();
    match (operator.as_str(), values.is_empty()) {
        ("In", false) => Ok(Expression::In(key, values)),
        ("NotIn", false) => Ok(Expression::NotIn(key, values)),
        ("Exists", true) => Ok(Expression::Exists(key)),
        ("DoesNotExist", true) => Ok(Expression::DoesNotExist(key)),
        ("In" | "NotIn", true) => Err(SelectorError::ValuesMissing { key, operator }),
        ("Exists" | "DoesNotExist", false) => Err(SelectorError::ValuesUnexpected { key, operator }),
        _ => Err(SelectorError::UnknownOperator { key, operator }),
    }
}

/// Whether labels match a selector. An absent or empty selector admits everything. An invalid selector admits nothing.
pub fn admits(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    selector.is_none_or(|selector| parse_selector(selector).is_ok_and(|selector| selector.matches(labels)))
}

#[cfg(test)]
mod tests;
