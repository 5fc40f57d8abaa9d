//! Errors of the kernel, of netlink and of `/proc/sys`, and the errors that mean "the object does not exist".

use std::time::Duration;

use nix::libc;
use rtnetlink::packet_core::{DecodeError, NLM_F_ACK_TLVS, NLM_F_CAPPED, NetlinkHeader, NlasIterator};

/// The length of a netlink message's header in bytes.
pub(super) const HEADER_LEN: usize = 16;
/// The maximum number of attempts to read a list from the kernel. An attempt fails if the list changes during the read.
pub(super) const MAX_DUMP_ATTEMPTS: u32 = 6;
/// `NLMSGERR_ATTR_MSG`, which libc lacks: the attribute with the kernel's explanation of an error.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// Why a request to the kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The kernel refused a request.
    #[error("the kernel refused to {what}: {}{}", std::io::Error::from_raw_os_error(*.errno), .text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Refused {
        /// The refused request, as a verb phrase.
        what: String,
        /// The error number (errno) of the refusal, as a positive number.
        errno: i32,
        /// The kernel's explanation of the refusal, if the answer contains one.
        text: Option<String>,
    },
    /// The kernel did not answer in time. The request may or may not have taken effect.
    #[error(
        "the kernel did not answer within {0:?} when Bobbin asked it to {1}, so the request may or may not have taken effect"
    )]
    Unanswered(Duration, String),
    /// A list changed during every attempt to read it.
    #[error("the list of {0} changed during each of {MAX_DUMP_ATTEMPTS} attempts to read it; try again")]
    Unstable(String),
    /// Bobbin can't decode the kernel's answer. If one entry of a list can't be decoded, Bobbin refuses the whole list.
    /// An object that is missing in an incomplete list may still exist.
    #[error("Bobbin can't decode the kernel's answer to \"{what}\": {source}")]
    Undecodable {
        /// The request whose answer can't be decoded, as a verb phrase.
        what: String,
        /// Why the answer can't be decoded.
        source: DecodeError,
    },
    /// An operation on a socket, a file or a thread failed.
    #[error("could not {what}: {source}")]
    Io {
        /// The operation that failed, as a verb phrase.
        what: String,
        /// Why the operation failed.
        source: std::io::Error,
    },
    /// A setting of the agent has an invalid value.
    #[error("{0}")]
    InvalidSetting(String),
    /// Bobbin can't add a route, because another program has a route with the same table, prefix and metric.
    #[error("{0}")]
    Conflict(String),
    /// Bobbin removed only some of its objects. The text is the list of refusals.
    #[error("Bobbin could not remove some of its objects from this node: {0}")]
    RemovalIncomplete(String),
}

impl KernelError {
    /// The error number (errno), if the kernel reported one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Io { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn undecodable(what: impl Into<String>) -> impl FnOnce(DecodeError) -> Self {
        let what = what.into();
        move |source| Self::Undecodable { what, source }
    }
}

/// Whether an error means that the object to remove does not exist.
pub(crate) fn is_gone(error: &KernelError) -> bool {
    use libc::{EADDRNOTAVAIL, ENODEV, ENOENT, ESRCH};
    matches!(error.errno(), Some(ENODEV | ENOENT | ESRCH | EADDRNOTAVAIL))
}

/// Treats the error "does not exist" as success, for removals.
pub(crate) fn gone_is_success<T>(answer: Result<T, KernelError>) -> Result<(), KernelError> {
    match answer {
        Err(error) if is_gone(&error) => Ok(()),
        other => other.map(drop),
    }
}

/// Whether an error means that the routing table, or the whole address family, does not exist.
pub(super) fn is_absent(error: &KernelError) -> bool {
    use libc::{EAFNOSUPPORT, ENOENT, EOPNOTSUPP};
    matches!(error.errno(), Some(ENOENT | EAFNOSUPPORT | EOPNOTSUPP))
}

/// Reads the kernel's explanation from an error message. `echoed` is the part of the message after the error number.
pub(super) fn explanation(header: NetlinkHeader, echoed: &[u8]) -> Option<String> {
    if header.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    // The kernel echoes the whole request, or with `NLM_F_CAPPED` only its header.
    let request = if header.flags & NLM_F_CAPPED == 0 {
        usize::try_from(u32::from_ne_bytes(*echoed.first_chunk()?)).ok()?.checked_next_multiple_of(4)?
    } else {
        HEADER_LEN
    };
    let text = NlasIterator::new(echoed.get(request..)?).flatten().find(|nla| nla.kind() == NLMSGERR_ATTR_MSG)?;
    Some(text_of(text.value()))
}

/// The text of a netlink attribute, without the final NUL. Replaces bytes that are not UTF-8, because the kernel allows
/// any bytes in names.
pub(super) fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned()
}
