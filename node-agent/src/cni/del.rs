//! DEL ends the attachment. A repeated DEL, a late DEL and a DEL of an unknown container also succeed.

use std::sync::Arc;

use bobbin_cni_wire::{CniError, code};
use bobbin_datapath::KernelError;
use bobbin_ipam::{AttachmentKey, IpPair};
use nix::errno::Errno;

use super::call_record::{self, Stage, stage};
use super::{LOCK_TIMEOUT, busy};
use crate::agent::{Agent, EndError};

/// The last part of messages about attachments whose containers are gone. It tells an administrator how to run a DEL for each such
/// container.
pub const MANUAL_DEL: &str = "for each container that is gone, run: echo '{\"cniVersion\":\"1.0.0\",\"name\":\"bobbin\",\"type\":\"bobbin\"}' | CNI_COMMAND=DEL CNI_CONTAINERID=<ID> CNI_IFNAME=eth0 /opt/cni/bin/bobbin";

/// Ends the attachment that has this container ID and this interface name.
///
/// # Errors
/// Code 11 if the agent could not remove the attachment from the kernel. Then the attachment's address stays in use, and the runtime calls
/// DEL again.
pub async fn del(agent: &Arc<Agent>, key: &AttachmentKey) -> Result<(), CniError> {
    let lock = stage(Stage::Lock, agent.locks.lock_for_del(key, LOCK_TIMEOUT)).await;
    let _lock = lock.ok_or_else(|| busy(agent, key))?;
    let ended = if let Some(attachment) = agent.node_state.attachment(key) {
        let derived = agent.network.host_if(key);
        let host_if = attachment.links.as_ref().map_or(derived.as_str(), |links| &links.host_if);
        call_record::note_attachment(&attachment, host_if);
        stage(Stage::Removal, agent.end(&attachment)).await.map(|released| {
            if !released {
                call_record::note_cause("the agent could not remove the checkpoint, so the address stays in use");
            }
        })
    } else {
        // The agent knows no attachment with this key, so DEL frees no address. If the kernel still has a link of this key, DEL removes the
        // link.
        let pair = IpPair::default();
        let failed = |source| EndError { key: key.clone(), pair, source };
        stage(Stage::Removal, agent.network.detach(key, pair)).await.map_err(failed)
    };
    ended.map_err(|error| {
        call_record::note_cause(&error.source.to_string());
        CniError::new(code::TRY_AGAIN_LATER, sentence(&error))
    })
}

/// The error for the runtime. It has the error number's name, such as ENOENT, instead of the kernel's own text, which only the log
/// contains. If the error contained "not found" or "no such file", containerd would treat the DEL as successful and not repeat the DEL.
fn sentence(EndError { key, pair, source }: &EndError) -> String {
    let why = match source {
        KernelError::Refused { what, errno, .. } => format!("the kernel refused to {what}: {}", name(*errno)),
        KernelError::Io { what, source } => {
            let cause = source.raw_os_error().map_or_else(|| format!("{:?}", source.kind()), name);
            format!("could not {what}: {cause}")
        }
        other => other.to_string(),
    };
    let what = match pair.addresses().next() {
        Some(_) => format!("address {pair} of {key}"),
        None => format!("the link of {key}"),
    };
    format!(
        "the agent could not remove {what} from the kernel, so the attachment stays and the runtime calls DEL again. The reason: {why}"
    )
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
    fn containerd_never_takes_a_failed_del_for_success() {
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
    fn the_error_names_the_attachment_the_failed_action_and_the_error_number() {
        let refused = KernelError::Refused { what: "remove the link bob1".to_owned(), errno: 2, text: None };
        let sentence = of(refused);
        for part in ["c1", "10.0.0.1", "remove the link bob1", "ENOENT"] {
            assert!(sentence.contains(part), "{sentence}");
        }
    }
}
