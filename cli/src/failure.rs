//! Says in one sentence why a command failed: what it tried, at which API server, the causes, and what to do.

use std::error::Error;

use bobbin_api_client::{ReadError, Refusal, UnknownWhy};
use kube::Resource;

/// The API server has no such resource.
#[derive(Debug, thiserror::Error)]
#[error("can't find the resource {0}")]
pub(crate) struct NotServed(String);

impl NotServed {
    pub(crate) fn of<K: Resource<DynamicType = ()>>() -> Self {
        let (plural, group) = (K::plural(&()), K::group(&()));
        Self(if group.is_empty() { plural.into_owned() } else { format!("{plural}.{group}") })
    }
}

/// The sentence about an error. `server` is the URL of the API server, if the kubeconfig could be read.
pub(crate) fn sentence(error: &anyhow::Error, server: Option<&str>) -> String {
    let server = server.unwrap_or("the API server");
    let mut parts = Vec::new();
    for cause in error.chain() {
        if let Some(answer) = answer(cause, server) {
            parts.push(answer);
            break;
        }
        parts.push(cause.to_string());
    }
    // Some libraries repeat a cause in the text of its error.
    parts.dedup_by(|later, earlier| earlier.ends_with(later.as_str()));
    parts.join(": ")
}

/// What the API server answered and what to do; `None` if the error is not from a call.
fn answer(error: &(dyn Error + 'static), server: &str) -> Option<String> {
    if let Some(NotServed(resource)) = error.downcast_ref() {
        return Some(format!(
            "{server} has no resource {resource}; install Bobbin in this cluster, or choose another cluster with --context"
        ));
    }
    match error.downcast_ref::<ReadError>() {
        Some(ReadError::Unreachable(UnknownWhy::Deadline(limit))) => return Some(slow(server, &format!("{limit:?}"))),
        Some(ReadError::Unreachable(UnknownWhy::Transport(why))) => return Some(unreachable(server, why)),
        Some(
            ReadError::Unreachable(UnknownWhy::Server(code, message))
            | ReadError::Refused(Refusal::Other(code, message)),
        ) => {
            return Some(status(*code, message, server));
        }
        Some(ReadError::Refused(Refusal::Forbidden(message) | Refusal::Denied(message))) => {
            return Some(status(FORBIDDEN, message, server));
        }
        Some(other) => return Some(format!("{server}: {other}")),
        None => {}
    }
    Some(match error.downcast_ref::<kube::Error>()? {
        kube::Error::Api(answer) => status(answer.code, &answer.message, server),
        other => {
            let why = other.source().map_or_else(|| other.to_string(), chain);
            unreachable(server, &why)
        }
    })
}

const UNAUTHORIZED: u16 = 401;
const FORBIDDEN: u16 = 403;

/// The sentence about an answer with this status code. The message of a 403 names the user, the verb and the resource.
fn status(code: u16, message: &str, server: &str) -> String {
    let message = message.trim_end_matches('.');
    match code {
        UNAUTHORIZED => format!(
            "{server} does not accept the credentials of the kubeconfig ({code} {message}); log in again, or choose a user with --context"
        ),
        FORBIDDEN => format!(
            "{server} forbids the call: {message}; ask an administrator for this right (docs/kubectl-bobbin.md lists the rights of each command)"
        ),
        _ => format!("{server} answered {code}: {message}"),
    }
}

fn slow(server: &str, limit: &str) -> String {
    format!("{server} did not answer within {limit}; try again, or wait longer with --request-timeout")
}

fn unreachable(server: &str, why: &str) -> String {
    format!(
        "the connection to {server} failed: {why}; check that the API server runs and that this machine reaches it, or choose another cluster with --context"
    )
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    texts.dedup_by(|later, earlier| earlier.ends_with(later.as_str()));
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use bobbin_crds::AddressPool;
    use kube::core::Status;

    use super::*;

    const SERVER: &str = "https://192.0.2.1:6443";

    fn said(error: ReadError) -> String {
        let error = Err::<(), _>(error).context("can't list addresspools").expect_err("it is an error");
        sentence(&error, Some(SERVER))
    }

    #[test]
    fn each_failed_read_names_the_server_the_cause_and_what_to_do() {
        let forbidden = "addresspools.bobbin.dev is forbidden: User \"a\" cannot list resource \"addresspools\"";
        let cases = [
            (ReadError::Refused(Refusal::Forbidden(forbidden.into())), forbidden, "ask an administrator"),
            (
                ReadError::Unreachable(UnknownWhy::Server(401, "Unauthorized".into())),
                "401 Unauthorized",
                "log in again",
            ),
            (ReadError::Unreachable(UnknownWhy::Transport("refused".into())), "refused", "--context"),
            (
                ReadError::Unreachable(UnknownWhy::Deadline(std::time::Duration::from_secs(2))),
                "2s",
                "--request-timeout",
            ),
            (ReadError::Refused(Refusal::Other(410, "expired".into())), "410: expired", ""),
        ];
        for (error, cause, advice) in cases {
            let text = said(error);
            assert!(text.starts_with("can't list addresspools: "), "{text}");
            assert!([SERVER, cause, advice].iter().all(|part| text.contains(part)), "{text}");
        }
    }

    #[test]
    fn a_refused_write_and_a_missing_definition_name_the_server_too() {
        let status = Status { code: 403, message: "forbidden: cannot patch".into(), ..Status::default() };
        let refused = anyhow::Error::from(kube::Error::Api(Box::new(status))).context("can't change p");
        let text = sentence(&refused, Some(SERVER));
        assert!(text.contains(SERVER) && text.contains("cannot patch; ask"), "{text}");
        let missing = sentence(&NotServed::of::<AddressPool>().into(), Some(SERVER));
        assert!(missing.contains("has no resource addresspools.bobbin.dev; install Bobbin"), "{missing}");
    }

    #[test]
    fn an_error_without_a_call_is_its_chain_of_causes() {
        let error = anyhow::anyhow!("no such file").context("can't read the kubeconfig");
        assert_eq!(sentence(&error, None), "can't read the kubeconfig: no such file");
    }
}
