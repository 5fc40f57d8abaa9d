//! The API server's audit log, for tests that limit the number of Bobbin's API calls.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

/// The audit policy. The log contains the caller, the object and the result of every request, but no bodies.
pub const POLICY: &str =
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";

/// The audit log of a control plane. The API server writes the entry of a call shortly after the caller has received
/// the answer.
#[derive(Clone, Debug)]
pub struct AuditLog {
    path: PathBuf,
}

/// A position in the audit log. [`AuditLog::since`] returns the calls after this position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark(u64);

/// One entry about a call. A watch has one entry for its start and another entry for its end. The field `stage` tells them
/// apart.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The stage of the call: `ResponseStarted` (of long-running calls, such as watches), `ResponseComplete` or `Panic`.
    pub stage: String,
    /// The verb: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// The path and the query of the request.
    #[serde(rename = "requestURI", default)]
    pub request_uri: String,
    /// The user that made the call.
    pub user: User,
    /// The user agent of the calling program.
    #[serde(default)]
    pub user_agent: String,
    /// The object that the call concerns; absent for paths like `/readyz`.
    pub object_ref: Option<ObjectRef>,
    /// The status of the answer to the call.
    pub response_status: Option<ResponseStatus>,
}

/// The user that made a call.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct User {
    /// The user's name.
    #[serde(default)]
    pub username: String,
}

/// The object that a call concerns.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef {
    /// The resource, plural and in lower case.
    pub resource: String,
    /// The subresource, such as `status`, or empty.
    pub subresource: String,
    /// The object's namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// The object's name; empty for lists and for creates with a generated name.
    pub name: String,
}

/// The result of a call, from the API server's answer.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ResponseStatus {
    /// The HTTP status.
    #[serde(default)]
    pub code: u16,
}

impl Entry {
    /// The resource (plural) that the call concerns, or an empty text.
    pub fn resource(&self) -> &str {
        self.object_ref.as_ref().map_or("", |object| &object.resource)
    }

    /// The name of the object that the call concerns, or an empty text.
    pub fn name(&self) -> &str {
        self.object_ref.as_ref().map_or("", |object| &object.name)
    }

    /// The HTTP status of the answer, or 0 if there was no answer.
    pub fn code(&self) -> u16 {
        self.response_status.as_ref().map_or(0, |status| status.code)
    }

    /// Whether this entry describes the end of the call. A watch also has an entry for its start.
    pub fn is_complete(&self) -> bool {
        self.stage == "ResponseComplete"
    }

    /// Whether the call writes.
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }

    /// Whether the call is a get or a list, not a watch.
    pub fn is_read(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list")
    }
}

impl AuditLog {
    pub(super) fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The mark at the current end of the audit log.
    pub fn mark(&self) -> Mark {
        Mark(std::fs::metadata(&self.path).map_or(0, |file| file.len()))
    }

    /// All calls in the log.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        self.since(Mark::default())
    }

    /// The calls after a mark. Skips a line that the API server is still writing.
    pub fn since(&self, mark: Mark) -> Result<Vec<Entry>> {
        let mut text = String::new();
        let mut file = File::open(&self.path).with_context(|| {
            format!("the audit log {} can't be opened: set ControlPlaneOptions::audit", self.path.display())
        })?;
        file.seek(SeekFrom::Start(mark.0))?;
        file.read_to_string(&mut text)?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| {
                serde_json::from_str(line).with_context(|| format!("a line of the audit log can't be parsed: {line}"))
            })
            .collect()
    }

    /// The completed calls after a mark for which `filter` returns true.
    pub fn calls(&self, mark: Mark, filter: impl Fn(&Entry) -> bool) -> Result<Vec<Entry>> {
        Ok(self.since(mark)?.into_iter().filter(|entry| entry.is_complete() && filter(entry)).collect())
    }
}
