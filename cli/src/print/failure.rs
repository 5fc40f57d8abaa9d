//! Says in one sentence why a command failed: what it tried, at which API server, the causes, and what to do.

use std::error::Error;
use std::fmt::Display;

use anyhow::anyhow;
use bobbin_api_client::outcome::with_causes;
use bobbin_api_client::{ReadError, Refusal, UnknownWhy};
use kube::Resource;

use crate::api::objects::WriteError;

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
    // The errors of some libraries end with the text of their cause. The cause, which is the next part, is then left out.
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
    if let Some(error) = error.downcast_ref() {
        return Some(match error {
            ReadError::NotFound => format!("{server} has no object with that name"),
            ReadError::Unreachable(UnknownWhy::Deadline(limit)) => {
                format!("{server} did not answer within {limit:?}; try again, or wait longer with --request-timeout")
            }
            ReadError::Unreachable(why) => unknown(why, server),
            ReadError::Refused(why) => refused(why, server),
        });
    }
    Some(match error.downcast_ref()? {
        WriteError::Unknown(UnknownWhy::Deadline(limit)) => {
            format!("{server} did not answer within {limit:?}, so it may have made the change; run the command again")
        }
        WriteError::Unknown(why) => unknown(why, server),
        WriteError::Refused(why) => refused(why, server),
    })
}

fn refused(why: &Refusal, server: &str) -> String {
    match why {
        Refusal::Forbidden(message) => forbidden(message, server),
        // No advice is added: the messages of Bobbin's admission policies already say what to do.
        Refusal::Denied(message) => format!("{server} refuses the call: {message}"),
        Refusal::Conflict => {
            format!("{server}: the object has changed since the command read it; run the command again")
        }
        Refusal::Other(code, message) => status(*code, message, server),
        other => format!("{server}: {other}"),
    }
}

fn unknown(why: &UnknownWhy, server: &str) -> String {
    match why {
        UnknownWhy::Deadline(limit) => format!("{server} did not answer within {limit:?}"),
        UnknownWhy::Transport(why) => format!(
            "the connection to {server} failed: {why}; check that the API server runs and that this machine reaches it, or choose another cluster with --context"
        ),
        UnknownWhy::Server(code, message) => status(*code, message, server),
    }
}

/// The sentence about an answer with the status code 403. It advises to ask an administrator only if the message names a missing right.
fn forbidden(message: &str, server: &str) -> String {
    let message = message.trim_end_matches('.');
    let advice = missing_right(message).map(|right| format!("; ask an administrator for the right to {right}"));
    format!("{server} forbids the call: {message}{}", advice.unwrap_or_default())
}

/// The verb, the resource and the API group that the API server names if the user lacks a right.
fn missing_right(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("\" cannot ")?;
    let (verb, rest) = rest.split_once(" resource \"")?;
    let (resource, rest) = rest.split_once('"')?;
    let group = rest.split_once("in API group \"").and_then(|(_, rest)| rest.split_once('"')).map(|(group, _)| group);
    let group = group.filter(|group| !group.is_empty()).map(|group| format!(".{group}"));
    Some(format!("{verb} {resource}{}", group.unwrap_or_default()))
}

const UNAUTHORIZED: u16 = 401;

/// The sentence about an answer with this status code.
fn status(code: u16, message: &str, server: &str) -> String {
    let message = message.trim_end_matches('.');
    match code {
        UNAUTHORIZED => format!(
            "{server} does not accept the credentials of the kubeconfig ({code} {message}); log in again, or choose a user with --context"
        ),
        _ => format!("{server} answered {code}: {message}"),
    }
}

/// An error that is not from a call: what failed, the causes, and what to do.
pub(crate) fn advised(what: impl Display, cause: &(dyn Error + 'static), remedy: impl Display) -> anyhow::Error {
    anyhow!("{what}: {}; {remedy}", with_causes(cause))
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use bobbin_crds::AddressPool;

    use super::*;

    const SERVER: &str = "https://192.0.2.1:6443";

    fn said(error: ReadError) -> String {
        let error = Err::<(), _>(error).context("can't list addresspools").expect_err("it is an error");
        sentence(&error, Some(SERVER))
    }

    #[test]
    fn each_failed_read_names_the_server_the_cause_and_what_to_do() {
        let forbidden = "addresspools.bobbin.dev is forbidden: User \"a\" cannot list resource \"addresspools\" in API group \"bobbin.dev\" at the cluster scope";
        let cases = [
            (
                ReadError::Refused(Refusal::Forbidden(forbidden.into())),
                forbidden,
                "; ask an administrator for the right to list addresspools.bobbin.dev",
            ),
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

    fn of_write(error: WriteError) -> String {
        sentence(&anyhow::Error::from(error).context("can't change p"), Some(SERVER))
    }

    #[test]
    fn a_failed_write_names_the_server_and_ends_with_what_to_do() {
        let text = of_write(WriteError::Unknown(UnknownWhy::Deadline(std::time::Duration::from_secs(2))));
        assert_eq!(
            text,
            format!(
                "can't change p: {SERVER} did not answer within 2s, so it may have made the change; run the command again"
            )
        );
        let text = of_write(WriteError::Refused(Refusal::Conflict));
        assert!(text.contains(SERVER) && text.ends_with("; run the command again"), "{text}");
        let missing = sentence(&NotServed::of::<AddressPool>().into(), Some(SERVER));
        assert!(missing.contains("has no resource addresspools.bobbin.dev; install Bobbin"), "{missing}");
    }

    #[test]
    fn only_a_missing_right_makes_an_administrator_the_remedy() {
        let message = "pods \"p\" is forbidden: User \"a\" cannot create resource \"pods/eviction\" in API group \"\" in the namespace \"n\"";
        let text = of_write(WriteError::Refused(Refusal::Forbidden(message.into())));
        assert!(text.ends_with("; ask an administrator for the right to create pods/eviction"), "{text}");
        let text =
            of_write(WriteError::Refused(Refusal::Forbidden("admission webhook \"w\" denied the request".into())));
        assert!(text.ends_with("denied the request"), "{text}");
        let text = of_write(WriteError::Refused(Refusal::Denied("keep the pool: pods use it".into())));
        assert_eq!(text, format!("can't change p: {SERVER} refuses the call: keep the pool: pods use it"));
    }

    #[test]
    fn an_error_without_a_call_is_its_chain_of_causes() {
        let error = anyhow::anyhow!("no such file").context("can't read the kubeconfig");
        assert_eq!(sentence(&error, None), "can't read the kubeconfig: no such file");
        let cause = std::io::Error::other("no such file");
        let text = sentence(&advised("can't read the kubeconfig", &cause, "name another file"), None);
        assert_eq!(text, "can't read the kubeconfig: no such file; name another file");
    }
}
