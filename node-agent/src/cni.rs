//! Carries out the CNI verbs and answers the container runtime.

pub mod add;
pub mod attachment_lock;
mod call_record;
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
use jiff::Timestamp;
use tracing::Instrument;

use crate::agent::Agent;
use crate::state::PodRef;
use add::AddContext;
use call_record::{CallRecord, Stage};
use gc::UnlistedAttachments;

/// How long a verb waits until another verb on the same attachment ends. The shim waits 30 s for the answer to a DEL. The lock's timeout is
/// shorter, so that the runtime gets the agent's error and not the shim's.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_secs(25);

/// Answers the calls of the container runtime. Holds the data that only the CNI verbs use.
pub struct CniHandler {
    agent: Arc<Agent>,
    add: AddContext,
    unlisted: UnlistedAttachments,
}

/// The error of a failed verb, and whether the log already contains this error.
#[derive(Debug)]
pub struct VerbError {
    error: CniError,
    logged: bool,
}

impl From<CniError> for VerbError {
    fn from(error: CniError) -> VerbError {
        VerbError { error, logged: false }
    }
}

impl VerbError {
    /// Creates an error that the log already contains. An earlier ADD of the same pod may have logged it.
    pub(crate) fn logged(error: CniError) -> VerbError {
        VerbError { error, logged: true }
    }
}

impl CniHandler {
    /// Creates a handler that has not answered any call yet.
    pub fn new(agent: Arc<Agent>, add: AddContext) -> CniHandler {
        CniHandler { agent, add, unlisted: UnlistedAttachments::default() }
    }

    /// Answers one call of the container runtime.
    pub async fn answer(&self, request: &Request, netns: Option<OwnedFd>) -> Response {
        let call = match Call::read(request) {
            Ok(call) => call,
            Err(error) => {
                tracing::warn!(code = error.code.number, "the agent refused a CNI call: {error}");
                return error_response(&error, &request.stdin);
            }
        };
        let key = AttachmentKey { container_id: call.container_id.clone(), if_name: call.if_name.clone() };
        let span =
            tracing::info_span!("attach", verb = %call.verb, container = %key.container_id, ifname = %key.if_name);
        let begun = Instant::now();
        let answer = self.dispatch(&call, key.clone(), &request.stdin, netns).instrument(span.clone());
        let (result, record) = call_record::scope(&call, Box::pin(answer)).await;
        let (took, failed) = (begun.elapsed(), result.as_ref().err());
        self.observe(call.verb, &record, took, failed);
        let is_attachment = matches!(call.verb, Verb::Add | Verb::Del);
        if is_attachment {
            let repeated = failed.is_some_and(|failed| failed.logged);
            record.log(&call, took, failed.map(|failed| &failed.error), repeated);
        }
        match result {
            Ok(stdout) => Response { exit: 0, stdout },
            Err(VerbError { error, .. }) => {
                self.agent.recent.call_failed(call.verb, &key, pod_of(&call), &error, Timestamp::now());
                if !is_attachment {
                    let _entered = span.enter();
                    tracing::warn!(code = error.code.number, "{error}");
                }
                error_response(&error, &request.stdin)
            }
        }
    }

    /// Records an answered call and the durations of its stages in the metrics.
    fn observe(&self, verb: Verb, record: &CallRecord, took: Duration, failed: Option<&VerbError>) {
        let metrics = &self.agent.metrics;
        let code = failed.map_or(0, |failed| failed.error.code.number);
        metrics.observe_call(verb, code, record.pool(), took);
        if let Some(took) = record.time(Stage::Address) {
            metrics.observe_address_wait(took);
        }
        if let Some(took) = record.time(Stage::Wiring) {
            metrics.observe_wiring(took);
        }
        if let Some(took) = record.time(Stage::Assignment) {
            metrics.observe_confirmation_wait(took);
        }
    }

    async fn dispatch(
        &self,
        call: &Call,
        key: AttachmentKey,
        stdin: &[u8],
        netns: Option<OwnedFd>,
    ) -> Result<Vec<u8>, VerbError> {
        let agent = &self.agent;
        if call.verb == Verb::Version {
            return Ok(Version::answer(None).into_bytes());
        }
        let conf = NetConf::parse(stdin, call.verb)?;
        match call.verb {
            Verb::Add => return Box::pin(add::add(agent, &self.add, call, key, &conf, netns)).await,
            Verb::Del => del::del(agent, &key).await?,
            Verb::Check => check::check(agent, &key, &conf, netns).await?,
            Verb::Status => status::status(agent)?,
            Verb::Gc => gc::gc(agent, &self.unlisted, &conf).await?,
            Verb::Version => {}
        }
        Ok(Vec::new())
    }
}

fn error_response(error: &CniError, stdin: &[u8]) -> Response {
    Response { exit: 1, stdout: error.to_json(&NetConf::version_text(stdin)) }
}

/// The pod that the runtime names in a call. A field is empty if the runtime did not pass its value.
fn pod_of(call: &Call) -> PodRef {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    PodRef { namespace: text(&call.pod.namespace), name: text(&call.pod.name), uid: text(&call.pod.uid) }
}

/// The error of an ADD that stopped waiting because the runtime called DEL.
fn interrupted_by_del(key: &AttachmentKey, waited_for: &str) -> CniError {
    CniError::new(
        code::TRY_AGAIN_LATER,
        format!(
            "the ADD of {key} stopped waiting for {waited_for}, because the runtime called DEL for the same attachment"
        ),
    )
}

/// The error of a verb that waited too long for the attachment's lock. Records the attachment, so that its pool appears in the metrics and
/// in the log.
fn busy(agent: &Agent, key: &AttachmentKey) -> CniError {
    if let Some(known) = agent.node_state.attachment(key) {
        call_record::note_attachment(&known, &agent.network.host_if(key));
    }
    CniError::new(
        code::TRY_AGAIN_LATER,
        format!("another CNI call for attachment {key} is still running; the runtime repeats this call"),
    )
}
