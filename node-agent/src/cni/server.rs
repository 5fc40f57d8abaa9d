//! Receives calls of the CNI plugin on the agent's unix socket, and returns the answers. A call may carry a file descriptor of the
//! container's network namespace.

mod socket;

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bobbin_cni_wire::{Request, Response};
use bobbin_observability::Server;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cni::CniHandler;
pub use socket::Socket;

/// How long a CNI plugin process may take to send its call, and how long it may take to read the answer.
const IO_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the accept loop reports progress and checks that its socket still exists.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// The accept loop counts as hanging if it makes no progress for this long, or if every `accept` fails for this long.
const ACCEPT_DEADLINE: Duration = Duration::from_mins(1);
/// The pause after a failed `accept` on the socket.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Accepts calls until `stop`, then waits until the running calls are answered.
pub async fn serve(mut socket: Socket, handler: Arc<CniHandler>, stop: CancellationToken) {
    let beat = handler.agent.watchdog.register("serve", ACCEPT_DEADLINE);
    let calls = TaskTracker::new();
    let mut check = tokio::time::interval(CHECK_INTERVAL);
    let (mut failing, mut lost) = (false, false);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = socket.listener.accept() => accepted,
            _ = check.tick() => {
                bind_again_if_lost(&mut socket, &mut lost);
                if !failing {
                    beat.beat();
                }
                continue;
            }
        };
        match accepted {
            Ok((stream, _)) => {
                failing = false;
                beat.beat();
                let handler = Arc::clone(&handler);
                calls.spawn(async move {
                    if let Err(error) = converse(stream, &handler).await {
                        tracing::debug!(%error, "the agent could not receive or answer a call of the CNI plugin");
                    }
                });
            }
            Err(error) => {
                if !failing {
                    tracing::error!(%error, "the agent can't accept calls of the CNI plugin; the agent tries again");
                }
                failing = true;
                tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
            }
        }
    }
    calls.close();
    calls.wait().await;
}

/// Answers health probes on a unix socket until `stop`. Probes don't use the metrics port, because kubelet would restart a working agent if
/// another program used that port.
pub async fn serve_probes(path: &Path, server: Server, stop: CancellationToken) {
    let mut failing = false;
    while !stop.is_cancelled() {
        let bound = Socket::bind(path);
        if let Err(error) = &bound
            && !failing
        {
            tracing::error!("{error}. The agent can't answer kubelet's health probes before it can create this socket");
        }
        failing = bound.is_err();
        let serving = async {
            match bound {
                Ok(socket) => {
                    let (listener, path) = socket.split();
                    let serving = server.clone().serve(listener, stop.clone().cancelled_owned());
                    tokio::select! {
                        () = serving => {}
                        () = path.lost(CHECK_INTERVAL) => {}
                    }
                }
                Err(_) => tokio::time::sleep(CHECK_INTERVAL).await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = serving => {}
        }
    }
}

/// Creates the socket again if another program removed or replaced it. `failing` is true if the last attempt failed and the agent logged
/// the error.
fn bind_again_if_lost(socket: &mut Socket, failing: &mut bool) {
    if socket.path.is_bound() {
        return;
    }
    let path = socket.path.path().to_owned();
    match Socket::bind(&path) {
        Ok(new) => {
            tracing::warn!(
                "another program removed or replaced the socket {}; the agent created it again",
                path.display()
            );
            *socket = new;
            *failing = false;
        }
        Err(error) if !*failing => {
            tracing::error!("{error}");
            *failing = true;
        }
        Err(_) => {}
    }
}

async fn converse(mut stream: UnixStream, handler: &CniHandler) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    if peer.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("a process of user {} called the agent, but only the agent's own user may call it", peer.uid()),
        ));
    }
    let (request, netns) = with_timeout(IO_TIMEOUT, receive(&mut stream)).await?;
    let response = handler.answer(&request, netns).await;
    let frame =
        response.encode().or_else(|_| Response { exit: 1, stdout: Vec::new() }.encode()).map_err(io::Error::other)?;
    with_timeout(IO_TIMEOUT, async {
        stream.write_all(&frame).await?;
        stream.shutdown().await
    })
    .await
}

async fn with_timeout<T>(timeout: Duration, future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(timeout, future).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Reads the frame of one call. The file descriptor arrives together with the frame's first byte (unix(7), SCM_RIGHTS).
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
