//! The unix socket: takes a shim's call with the network namespace's descriptor, hands it to the verbs, carries the answer back. Knows
//! frames, no addresses.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bobbin_cni_wire::{Request, Response};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::agent::Agent;
use crate::verb;

/// How long a shim may take to send its call, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Binds the socket under another name and renames it: whoever finds it can connect. Only root may.
///
/// # Errors
/// Something that is no socket has the name, or the directory can't be written.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let beside = path.with_extension("new");
    for name in [path, &beside] {
        match std::fs::symlink_metadata(name) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::other(format!("{} is there and is no socket: remove it", name.display())));
            }
            _ => {}
        }
    }
    if let Err(error) = std::fs::remove_file(&beside)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let listener = UnixListener::bind(&beside)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&beside, path)?;
    Ok(listener)
}

/// Serves until `stop`; calls under way are finished.
pub async fn serve(listener: UnixListener, agent: Arc<Agent>, stop: CancellationToken) {
    let calls = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let agent = Arc::clone(&agent);
                calls.spawn(async move {
                    if let Err(error) = converse(stream, &agent).await {
                        tracing::debug!(%error, "a call broke off");
                    }
                });
            }
            Err(error) => {
                tracing::error!(%error, "the socket accepts no call");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    calls.close();
    calls.wait().await;
}

async fn converse(mut stream: UnixStream, agent: &Arc<Agent>) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    if peer.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("a process of user {} may not call", peer.uid()),
        ));
    }
    let (request, netns) = late(PATIENCE, receive(&mut stream)).await?;
    let response = verb::answer(agent, &request, netns).await;
    let frame =
        response.encode().or_else(|_| Response { exit: 1, stdout: Vec::new() }.encode()).map_err(io::Error::other)?;
    late(PATIENCE, async {
        stream.write_all(&frame).await?;
        stream.shutdown().await
    })
    .await
}

async fn late<T>(patience: Duration, future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(patience, future).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Reads one frame; a descriptor rides on its first byte (unix(7), SCM_RIGHTS).
async fn receive(stream: &mut UnixStream) -> io::Result<(Request, Option<OwnedFd>)> {
    let mut bytes = vec![0; 4096];
    let (mut have, netns) = stream.async_io(Interest::READABLE, || first_bytes(stream, &mut bytes)).await?;
    if have == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    loop {
        let needed = Request::needed(&bytes[..have]).map_err(io::Error::other)?;
        if have >= needed {
            return Ok((Request::decode(&bytes[..have]).map_err(io::Error::other)?, netns));
        }
        bytes.resize(needed.max(4096), 0);
        match stream.read(&mut bytes[have..needed]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => have += read,
        }
    }
}

fn first_bytes(stream: &UnixStream, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(stream.as_fd(), &mut [IoSliceMut::new(bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let netns = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok((received.bytes, netns))
}

#[cfg(test)]
mod tests;
