//! Label selectors with the meaning of `metav1.LabelSelector`, over plain data.

use std::collections::BTreeMap;

/// All parts must hold; an empty selector admits everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Labels that must be there with these values.
    pub match_labels: BTreeMap<String, String>,
    /// Requirements that must hold.
    pub match_expressions: Vec<Expression>,
}

/// One requirement on the label `key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    /// The label's key.
    pub key: String,
    /// What must hold.
    pub operator: Operator,
    /// The values that `In` and `NotIn` speak of.
    pub values: Vec<String>,
}

/// What an expression asks of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The label is there with one of the values.
    In,
    /// The label is not there, or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
}

/// Why an expression means nothing. Kubernetes' own selectors are refused in the same cases.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// No such operator.
    #[error("{0:?} is not a selector operator: use In, NotIn, Exists or DoesNotExist")]
    UnknownOperator(String),
    /// `In` and `NotIn` need values.
    #[error("the selector's {operator} on {key:?} names no values: give at least one")]
    ValuesMissing {
        /// The label's key.
        key: String,
        /// The operator.
        operator: String,
    },
    /// `Exists` and `DoesNotExist` take none.
    #[error("the selector's {operator} on {key:?} names values: remove them, or use In or NotIn")]
    ValuesUnexpected {
        /// The label's key.
        key: String,
        /// The operator.
        operator: String,
    },
}

impl Expression {
    /// Reads an expression as the API writes it.
    pub fn parse(key: &str, operator: &str, values: &[String]) -> Result<Self, SelectorError> {
        let parsed = match operator {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            other => return Err(SelectorError::UnknownOperator(other.to_owned())),
        };
        let takes_values = matches!(parsed, Operator::In | Operator::NotIn);
        match (takes_values, values.is_empty()) {
            (true, true) => Err(SelectorError::ValuesMissing { key: key.to_owned(), operator: operator.to_owned() }),
            (false, false) => {
                Err(SelectorError::ValuesUnexpected { key: key.to_owned(), operator: operator.to_owned() })
            }
            _ => Ok(Self { key: key.to_owned(), operator: parsed, values: values.to_vec() }),
        }
    }

    fn admits(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl Selector {
    /// Whether an object with these labels is meant.
    pub fn admits(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|expression| expression.admits(labels))
    }
}

#[cfg(test)]
mod tests;
