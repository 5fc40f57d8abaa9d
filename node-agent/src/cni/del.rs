//! DEL: the attachment ends. Repeated, late, or for something that nobody knows: success.

use std::sync::Arc;

use bobbin_cni_wire::{CniError, code};
use bobbin_datapath::KernelError;
use bobbin_ipam::{AttachmentKey, IpPair};
use nix::errno::Errno;

use super::{LOCK_TIMEOUT, busy};
use crate::agent::{Agent, EndError};

/// How somebody frees an attachment by hand, for sentences that name a remedy.
pub const BY_HAND: &str = "for each container that is gone run echo '{\"cniVersion\":\"1.0.0\",\"name\":\"bobbin\",\"type\":\"bobbin\"}' | CNI_COMMAND=DEL CNI_CONTAINERID=<ID> CNI_IFNAME=eth0 /opt/cni/bin/bobbin";

/// Ends the attachment with that very container ID and interface, and no other.
///
/// # Errors
/// The kernel did not take the address out of use, so it stays held: code 11, the runtime tries again.
pub async fn del(agent: &Arc<Agent>, key: &AttachmentKey) -> Result<(), CniError> {
    let _turn = agent.locks.take_over(key, LOCK_TIMEOUT).await.ok_or_else(|| busy(key))?;
    let ended = if let Some(attachment) = agent.node_state.attachment(key) {
        agent.end(&attachment).await.map(|ended| {
            if ended {
                tracing::info!(pair = %attachment.pair, "removed {}", attachment.who());
            }
        })
    } else {
        // Nobody's address is freed by it; but a link that bears its name goes.
        let pair = IpPair::default();
        let failed = |source| EndError { key: key.clone(), pair, source };
        agent.network.detach(key, pair).await.map_err(failed)
    };
    ended.map_err(|error| {
        tracing::warn!(%error, "a DEL could not be finished");
        CniError::new(code::TRY_AGAIN_LATER, sentence(&error))
    })
}

/// The error as the runtime is told. containerd takes "not found" and "no such file" for success and never calls again, so the kernel's
/// errors go by their names and its own words stay in the log.
fn sentence(EndError { key, pair, source }: &EndError) -> String {
    let why = match source {
        KernelError::Refused { what, errno, .. } => format!("the kernel refused to {what}: {}", name(*errno)),
        KernelError::Io { what, source } => {
            let cause = source.raw_os_error().map_or_else(|| format!("{:?}", source.kind()), name);
            format!("could not {what}: {cause}")
        }
        ours => ours.to_string(),
    };
    let what = match pair.addresses().next() {
        Some(_) => format!("address {pair} of {key}"),
        None => format!("the link of {key}"),
    };
    format!("{what} is still in use by the kernel, so it stays held and the runtime calls DEL again: {why}")
}

/// The name of an error number, such as ENOENT.
fn name(errno: i32) -> String {
    match Errno::from_raw(errno) {
        Errno::UnknownErrno => format!("error {errno}"),
        known => format!("{known:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn of(source: KernelError) -> String {
        let pair = IpPair { ipv4: Some([10, 0, 0, 1].into()), ipv6: None };
        sentence(&EndError { key: AttachmentKey::new("c1", "eth0"), pair, source })
    }

    fn containerd_takes_it_for_success(sentence: &str) -> bool {
        let sentence = sentence.to_lowercase();
        ["not found", "no such file", "does not exist"].iter().any(|words| sentence.contains(words))
    }

    #[test]
    fn no_error_number_makes_containerd_take_a_failed_del_for_success() {
        let what = || "remove the link bob1".to_owned();
        for errno in 0..200 {
            let text = Some("Device not found".to_owned());
            let refused = of(KernelError::Refused { what: what(), errno, text });
            let io = of(KernelError::Io { what: what(), source: io::Error::from_raw_os_error(errno) });
            assert!(!containerd_takes_it_for_success(&refused), "{refused}");
            assert!(!containerd_takes_it_for_success(&io), "{io}");
        }
        let other = of(KernelError::Io { what: what(), source: io::Error::new(io::ErrorKind::NotFound, "not found") });
        assert!(!containerd_takes_it_for_success(&other), "{other}");
    }

    #[test]
    fn the_sentence_names_the_attachment_what_was_tried_and_the_error() {
        let refused = KernelError::Refused { what: "remove the link bob1".to_owned(), errno: 2, text: None };
        let told = of(refused);
        for part in ["c1", "10.0.0.1", "remove the link bob1", "ENOENT"] {
            assert!(told.contains(part), "{told}");
        }
    }
}
