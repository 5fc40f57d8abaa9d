//! Tests which outcome Bobbin derives from each answer of the API server.

use super::*;

fn status(code: u16, reason: &str) -> Error {
    Error::Api(Box::new(Status { code, reason: reason.into(), message: "why".into(), ..Status::default() }))
}

async fn written(error: Error) -> Outcome<()> {
    write(Duration::from_secs(1), std::future::ready(Err(error))).await
}

#[tokio::test]
async fn an_answer_that_refuses_the_write_is_a_refusal() {
    assert_eq!(written(status(409, "AlreadyExists")).await, Outcome::Refused(Refusal::AlreadyExists));
    assert_eq!(written(status(409, "Conflict")).await, Outcome::Refused(Refusal::Conflict));
    assert_eq!(written(status(404, "NotFound")).await, Outcome::Refused(Refusal::NotFound));
    assert_eq!(written(status(422, "Invalid")).await, Outcome::Refused(Refusal::Invalid("why".into())));
    assert_eq!(written(status(403, "Forbidden")).await, Outcome::Refused(Refusal::Forbidden("why".into())));
    assert_eq!(written(status(400, "BadRequest")).await, Outcome::Refused(Refusal::Other(400, "why".into())));
}

#[tokio::test]
async fn the_denial_of_a_policy_differs_from_a_missing_permission_by_its_cause() {
    let text =
        r#"{"code": 403, "reason": "Forbidden", "message": "long", "details": {"causes": [{"message": "why"}]}}"#;
    let denied = Error::Api(Box::new(serde_json::from_str(text).expect("it is a status")));
    assert_eq!(written(denied).await, Outcome::Refused(Refusal::Denied("why".into())));
}

#[tokio::test]
async fn a_json_patch_that_can_not_be_applied_is_a_conflict_and_an_invalid_object_is_not() {
    let invalid = |details: &str| {
        let text = format!(r#"{{"code": 422, "reason": "Invalid", "message": "why", "details": {details}}}"#);
        Error::Api(Box::new(serde_json::from_str(&text).expect("it is a status")))
    };
    assert_eq!(written(invalid("{}")).await, Outcome::Refused(Refusal::Conflict));
    let named = invalid(r#"{"name": "p-0", "kind": "AddressBlock"}"#);
    assert_eq!(written(named).await, Outcome::Refused(Refusal::Invalid("why".into())));
}

#[tokio::test]
async fn an_overloaded_or_failing_server_leaves_the_outcome_unknown() {
    for code in [401, 429, 500, 502, 503, 504] {
        assert_eq!(written(status(code, "")).await, Outcome::Unknown(UnknownWhy::Server(code, "why".into())));
    }
    let broken = Error::ReadEvents(std::io::Error::other("reset"));
    assert!(matches!(written(broken).await, Outcome::Unknown(UnknownWhy::Transport(_))));
}

#[tokio::test]
async fn silence_until_the_deadline_leaves_the_outcome_unknown() {
    let deadline = Duration::from_millis(1);
    let outcome: Outcome<()> = write(deadline, std::future::pending()).await;
    assert_eq!(outcome, Outcome::Unknown(UnknownWhy::Deadline(deadline)));
    let answer: Result<(), _> = read(deadline, std::future::pending()).await;
    assert_eq!(answer, Err(ReadError::Unreachable(UnknownWhy::Deadline(deadline))));
}

#[tokio::test]
async fn a_read_of_a_missing_object_returns_not_found() {
    let answer: Result<(), _> = read(Duration::from_secs(1), std::future::ready(Err(status(404, "NotFound")))).await;
    assert_eq!(answer, Err(ReadError::NotFound));
}

#[tokio::test]
async fn a_failed_connection_names_each_cause_once() {
    #[derive(Debug, thiserror::Error)]
    #[error("client error (Connect)")]
    struct Connect(#[source] std::io::Error);
    let refused = Connect(std::io::Error::other("connection refused"));
    let expected = "client error (Connect): connection refused";
    let outcome = written(Error::Service(Box::new(refused))).await;
    assert_eq!(outcome, Outcome::Unknown(UnknownWhy::Transport(expected.into())));
}
