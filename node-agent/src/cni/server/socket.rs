//! Binds a unix socket under a temporary name, then renames it. So every client that finds the socket can connect to it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};
use tokio::net::UnixListener;

use crate::state::atomic_file;

/// Why the agent could not bind a socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path is a file that is not a socket.
    #[error("the agent can't create its socket: {} exists and is not a socket; remove that file, or set another directory with --run-dir", .0.display())]
    Foreign(PathBuf),
    /// Another program listens at the path.
    #[error(
        "the agent can't create its socket: another program{process} listens at {}; stop that program, or set another directory with --run-dir",
        path.display()
    )]
    Busy {
        /// The path of the socket.
        path: PathBuf,
        /// The program's process, as ` (process 7)`; empty if unknown.
        process: String,
    },
    /// The agent can't write to the socket's directory.
    #[error("the agent can't create its socket {}: {source}; the agent must be able to write to the directory", path.display())]
    Directory {
        /// The path of the socket.
        path: PathBuf,
        /// The error of the system call.
        source: io::Error,
    },
}

/// A listening socket that only this user may connect to.
#[derive(Debug)]
pub struct Socket {
    /// Accepts calls.
    pub listener: UnixListener,
    /// The socket's path.
    pub path: SocketPath,
}

/// The path of a socket, and which socket file was bound there.
#[derive(Debug)]
pub struct SocketPath {
    path: PathBuf,
    file: (u64, u64),
}

impl Socket {
    /// Binds the socket. Replaces a socket at the path if no program listens there. Must be called inside the tokio runtime.
    ///
    /// # Errors
    /// If the path is a file other than a socket, if another program listens there, or if the agent can't write to the directory.
    pub fn bind(path: &Path) -> Result<Socket, SocketError> {
        let failed = |source| SocketError::Directory { path: path.to_owned(), source };
        let temporary = path.with_extension("new");
        refuse_foreign(path)?;
        refuse_foreign(&temporary)?;
        refuse_busy(path)?;
        atomic_file::remove(&temporary).map_err(failed)?;
        let listener = UnixListener::bind(&temporary).map_err(failed)?;
        std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let file = file_of(&temporary).map_err(failed)?;
        std::fs::rename(&temporary, path).map_err(failed)?;
        Ok(Socket { listener, path: SocketPath { path: path.to_owned(), file } })
    }

    /// Splits the socket into listener and path, for a server that takes the listener.
    pub fn split(self) -> (UnixListener, SocketPath) {
        (self.listener, self.path)
    }
}

impl SocketPath {
    /// Whether the bound socket is still at the path.
    pub fn is_bound(&self) -> bool {
        file_of(&self.path).is_ok_and(|file| file == self.file)
    }

    /// Waits until another program has removed or replaced the socket; checks once per `interval`.
    pub async fn lost(&self, interval: Duration) {
        while self.is_bound() {
            tokio::time::sleep(interval).await;
        }
    }

    /// The path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn file_of(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

fn refuse_foreign(path: &Path) -> Result<(), SocketError> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err(SocketError::Foreign(path.to_owned())),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Refuses a path at which a program listens. The program can't be another agent, because this agent holds the lock of the run directory.
fn refuse_busy(path: &Path) -> Result<(), SocketError> {
    match connected(path) {
        Ok(peer) => {
            let process = sockopt::socket_peercred(&peer);
            let process =
                process.map_or_else(|_| String::new(), |peer| format!(" (process {})", peer.pid.as_raw_pid()));
            Err(SocketError::Busy { path: path.to_owned(), process })
        }
        // The listener's backlog is full, so a program listens here.
        Err(rustix::io::Errno::AGAIN) => Err(SocketError::Busy { path: path.to_owned(), process: String::new() }),
        Err(_) => Ok(()),
    }
}

fn connected(path: &Path) -> Result<OwnedFd, rustix::io::Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}
