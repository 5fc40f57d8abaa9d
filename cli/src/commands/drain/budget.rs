//! Names the PodDisruptionBudget that forbids an eviction. Pure.

use kube::Error;
use kube::core::Status;

/// The reason of the cause that names the budget.
const CAUSE: &str = "DisruptionBudget";

/// The error with the budget in its message. The API server puts the name of the budget only into the details of its answer.
pub(super) fn named(error: Error) -> Error {
    match error {
        Error::Api(mut status) => {
            if let Some(message) = message(&status) {
                status.message = message;
            }
            Error::Api(status)
        }
        other => other,
    }
}

/// The message of the answer and the causes about budgets; `None` if there is no such cause.
fn message(status: &Status) -> Option<String> {
    let causes = status.details.iter().flat_map(|details| &details.causes).filter(|cause| cause.reason == CAUSE);
    let causes: Vec<&str> = causes.map(|cause| cause.message.as_str()).collect();
    (!causes.is_empty()).then(|| format!("{}: {}", status.message.trim_end_matches('.'), causes.join("; ")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn said(details: &Value) -> String {
        let status = json!({"status": "Failure", "code": 429, "reason": "TooManyRequests", "message": "Cannot evict pod.", "details": details});
        let status: Status = serde_json::from_value(status).expect("a Status");
        match named(Error::Api(status.boxed())) {
            Error::Api(status) => status.message.clone(),
            other => other.to_string(),
        }
    }

    #[test]
    fn the_message_of_a_refused_eviction_names_the_budget() {
        let cause = json!({"reason": "DisruptionBudget", "message": "The disruption budget web needs 2 healthy pods and has 2 currently"});
        let text = said(&json!({"causes": [{"reason": "Other", "message": "x"}, cause]}));
        assert_eq!(text, "Cannot evict pod: The disruption budget web needs 2 healthy pods and has 2 currently");
        assert_eq!(said(&json!({"causes": []})), "Cannot evict pod.");
        assert_eq!(said(&Value::Null), "Cannot evict pod.");
    }
}
