//! The outcome of a call to the API server. A write is done or refused, or its outcome is unknown.

use std::time::Duration;

use kube::Error;
use kube::core::Status;

/// The outcome of a write to the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// The API server executed the write and returned this value.
    Done(T),
    /// The API server refused the write: nothing was written.
    Refused(Refusal),
    /// The API server may have executed the write, or may still execute it. Read the object to find out whether the write
    /// was executed.
    Unknown(UnknownWhy),
}

/// Why the API server refused a write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An object with that name exists already.
    #[error("an object with that name exists already")]
    AlreadyExists,
    /// The object has changed since the caller read it, its UID is not the expected one, or a test in the JSON patch
    /// failed.
    #[error("the object has changed since Bobbin read it")]
    Conflict,
    /// No object with that name exists.
    #[error("the API server has no object with that name")]
    NotFound,
    /// The object breaks a rule of the schema or of an admission policy.
    #[error("the API server rejected the object as invalid: {0}")]
    Invalid(String),
    /// The program lacks the permission, or the API server has just started: it refuses writes until it has loaded the
    /// admission policies.
    #[error("the API server forbids the request: {0}; check the RBAC rules and admission policies of the chart")]
    Forbidden(String),
    /// An admission policy denied the write. The text is the policy's message.
    #[error("{0}")]
    Denied(String),
    /// The API server refused the write with another status code below 500.
    #[error("the API server refused the request (status {0}): {1}")]
    Other(u16, String),
}

/// Why a call got no definite answer. If the call is a write, its outcome is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownWhy {
    /// The API server did not answer before the deadline.
    #[error("the API server did not answer within {0:?}")]
    Deadline(Duration),
    /// The connection failed before the API server answered.
    #[error("the connection to the API server failed: {0}")]
    Transport(String),
    /// The API server answered 401 (the token is being renewed), 429 or 5xx. The same call may succeed a moment later.
    #[error("the API server answered {0}: {1}")]
    Server(u16, String),
}

/// Why a read returned no object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No object with that name exists. This is a definite answer, not a failure.
    #[error("the API server has no object with that name")]
    NotFound,
    /// The API server is unreachable, overloaded or slow.
    #[error("{0}")]
    Unreachable(UnknownWhy),
    /// The API server refused the read.
    #[error("{0}")]
    Refused(Refusal),
}

/// Sends a write and waits for its outcome until the deadline.
pub async fn write<T>(deadline: Duration, call: impl Future<Output = kube::Result<T>>) -> Outcome<T> {
    match tokio::time::timeout(deadline, call).await {
        Err(_) => Outcome::Unknown(UnknownWhy::Deadline(deadline)),
        Ok(Ok(done)) => Outcome::Done(done),
        Ok(Err(error)) => match classify(error) {
            Ok(refusal) => Outcome::Refused(refusal),
            Err(why) => Outcome::Unknown(why),
        },
    }
}

/// Sends a read and waits for its answer until the deadline.
pub async fn read<T>(deadline: Duration, call: impl Future<Output = kube::Result<T>>) -> Result<T, ReadError> {
    match tokio::time::timeout(deadline, call).await {
        Err(_) => Err(ReadError::Unreachable(UnknownWhy::Deadline(deadline))),
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(match classify(error) {
            Ok(Refusal::NotFound) => ReadError::NotFound,
            Ok(refusal) => ReadError::Refused(refusal),
            Err(why) => ReadError::Unreachable(why),
        }),
    }
}

/// If the API server refused the call, returns the refusal. Otherwise, returns the reason why the outcome is unknown.
fn classify(error: Error) -> Result<Refusal, UnknownWhy> {
    match error {
        Error::Api(status) => status_says(&status),
        // The request could not be built, so it was never sent. This counts as a refusal, because a retry would fail too.
        Error::BuildRequest(error) => Ok(Refusal::Other(0, error.to_string())),
        // The text of this error does not say what failed, so add the texts of its causes.
        Error::Service(error) => Err(UnknownWhy::Transport(with_causes(&*error))),
        other => Err(UnknownWhy::Transport(with_causes(&other))),
    }
}

/// The error and its causes in one line. Leaves out a cause if the line already ends with the text of this cause.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

fn status_says(status: &Status) -> Result<Refusal, UnknownWhy> {
    let message = || status.message.clone();
    match status.code {
        _ if status.is_already_exists() => Ok(Refusal::AlreadyExists),
        _ if status.is_conflict() => Ok(Refusal::Conflict),
        _ if status.is_not_found() => Ok(Refusal::NotFound),
        _ if status.is_invalid() && is_about_no_object(status) => Ok(Refusal::Conflict),
        _ if status.is_invalid() => Ok(Refusal::Invalid(message())),
        _ if status.is_forbidden() => Ok(denial(status).map_or_else(|| Refusal::Forbidden(message()), Refusal::Denied)),
        409 => Ok(Refusal::Conflict),
        404 => Ok(Refusal::NotFound),
        403 => Ok(Refusal::Forbidden(message())),
        code @ (401 | 429) => Err(UnknownWhy::Server(code, message())),
        code @ 400..=499 => Ok(Refusal::Other(code, message())),
        code => Err(UnknownWhy::Server(code, message())),
    }
}

/// Whether an answer with the reason `Invalid` names no object. Such an answer means that the API server could not
/// apply a JSON patch. If an object breaks a rule, the answer names the object.
fn is_about_no_object(status: &Status) -> bool {
    status
        .details
        .as_ref()
        .is_some_and(|details| details.kind.is_empty() && details.name.is_empty() && details.causes.is_empty())
}

/// Returns the message of the admission policy that denied the write, or `None` if no policy denied it. Only admission
/// policies add a cause to an answer with the reason `Forbidden`.
fn denial(status: &Status) -> Option<String> {
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    causes.first().map(|cause| cause.message.clone())
}

impl<T> Outcome<T> {
    /// Returns the API server's value, or `None` if the API server refused the write or the outcome is unknown.
    pub fn done(self) -> Option<T> {
        match self {
            Outcome::Done(done) => Some(done),
            Outcome::Refused(_) | Outcome::Unknown(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
