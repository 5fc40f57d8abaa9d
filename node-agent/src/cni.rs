//! The verbs of the CNI specification, one file each. They turn every outcome into the answer that the runtime gets.

pub mod add;
pub mod attachment_lock;
pub mod check;
pub mod del;
pub mod gc;
pub mod server;
pub mod status;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bobbin_cni_wire::{Call, CniError, NetConf, Request, Response, Verb, Version, code};
use bobbin_ipam::AttachmentKey;
use tracing::Instrument;

use crate::agent::Agent;
use crate::state::PodRef;

/// How long a verb waits for another one on the same attachment.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_secs(40);

/// Why a verb failed, and whether the log has it already.
#[derive(Debug)]
pub struct Failure {
    error: CniError,
    logged: bool,
}

impl From<CniError> for Failure {
    fn from(error: CniError) -> Failure {
        Failure { error, logged: false }
    }
}

impl Failure {
    /// An error that was logged where it happened, perhaps by an earlier try of the same pod.
    pub(crate) fn logged(error: CniError) -> Failure {
        Failure { error, logged: true }
    }
}

/// Answers one call.
pub async fn answer(agent: &Arc<Agent>, request: &Request, netns: Option<OwnedFd>) -> Response {
    let call = match Call::read(request) {
        Ok(call) => call,
        Err(error) => return refuse(&error, &request.stdin),
    };
    let key = AttachmentKey { container_id: call.container_id.clone(), if_name: call.if_name.clone() };
    let span = tracing::info_span!("attach", verb = %call.verb, container = %key.container_id, ifname = %key.if_name);
    let begun = Instant::now();
    let result = dispatch(agent, &call, key, &request.stdin, netns).instrument(span.clone()).await;
    agent.metrics.observe_call(call.verb, begun.elapsed(), result.is_ok());
    match result {
        Ok(stdout) => Response { exit: 0, stdout },
        Err(Failure { error, logged }) => {
            let _entered = span.enter();
            let (code, pod) = (error.code, call.pod.name.as_deref().unwrap_or_default());
            if logged {
                tracing::debug!(code, pod, "{error}");
            } else {
                tracing::warn!(code, pod, "{error}");
            }
            refuse(&error, &request.stdin)
        }
    }
}

async fn dispatch(
    agent: &Arc<Agent>,
    call: &Call,
    key: AttachmentKey,
    stdin: &[u8],
    netns: Option<OwnedFd>,
) -> Result<Vec<u8>, Failure> {
    if call.verb == Verb::Version {
        return Ok(Version::answer(None).into_bytes());
    }
    let conf = NetConf::parse(stdin, call.verb)?;
    match call.verb {
        Verb::Add => return add::add(agent, call, key, &conf, netns).await,
        Verb::Del => del::del(agent, &key).await?,
        Verb::Check => check::check(agent, &key, &conf, netns).await?,
        Verb::Status => status::status(agent)?,
        Verb::Gc => gc::gc(agent, &conf).await?,
        Verb::Version => {}
    }
    Ok(Vec::new())
}

fn refuse(error: &CniError, stdin: &[u8]) -> Response {
    Response { exit: 1, stdout: error.to_json(&NetConf::version_text(stdin)) }
}

/// The pod of a call.
fn pod_of(call: &Call) -> PodRef {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    PodRef { namespace: text(&call.pod.namespace), name: text(&call.pod.name), uid: text(&call.pod.uid) }
}

/// A DEL ended an ADD that waited.
fn called_off(key: &AttachmentKey, what: &str) -> CniError {
    CniError::new(
        code::TRY_AGAIN_LATER,
        format!("the ADD of {key} ended while it waited for {what}: the runtime called DEL for the same attachment"),
    )
}

/// Another verb has been at work on the attachment for very long.
fn busy(key: &AttachmentKey) -> CniError {
    CniError::new(
        code::TRY_AGAIN_LATER,
        format!("another call for attachment {key} is still under way; the runtime tries again"),
    )
}
