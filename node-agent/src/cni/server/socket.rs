//! Binds a unix socket and listens on it under a temporary name, then renames the socket. So every client that finds the socket can connect
//! to it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};
use tokio::net::UnixListener;

use crate::state::atomic_file;

/// The reason why the agent could not bind a socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path leads to a file that is not a socket.
    #[error("the agent can't create its socket, because {} exists and is not a socket. Remove that file, or set another directory with --run-dir", .0.display())]
    Foreign(PathBuf),
    /// Another program listens at the path.
    #[error(
        "the agent can't create its socket, because another program{process} listens at {}. Stop that program, or set another directory with --run-dir",
        path.display()
    )]
    Busy {
        /// The path of the socket.
        path: PathBuf,
        /// The program's process ID, such as ` (process 7)`. Empty if the agent does not know the process.
        process: String,
    },
    /// The agent can't write to the socket's directory.
    #[error("the agent can't create its socket {}: {source}. The agent must be able to write to the socket's directory", path.display())]
    Directory {
        /// The path of the socket.
        path: PathBuf,
        /// The error of the system call.
        source: io::Error,
    },
}

/// A listening socket. Only processes of the agent's user may connect to it.
#[derive(Debug)]
pub struct Socket {
    /// Accepts calls.
    pub listener: UnixListener,
    /// The socket's path.
    pub path: SocketPath,
}

/// The path of a socket, and the device and inode of the socket file that the agent created there.
#[derive(Debug)]
pub struct SocketPath {
    path: PathBuf,
    file: (u64, u64),
}

impl Socket {
    /// Binds the socket at the path. Replaces an existing socket if no program listens on it. Call this function inside the tokio runtime.
    ///
    /// # Errors
    /// If a file other than a socket has this path, if another program listens there, or if the agent can't write to the directory.
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

    /// Splits the socket into the listener and the path. The caller passes the listener to a server and keeps the path.
    pub fn split(self) -> (UnixListener, SocketPath) {
        (self.listener, self.path)
    }
}

impl SocketPath {
    /// Whether the bound socket is still at the path.
    pub fn is_bound(&self) -> bool {
        file_of(&self.path).is_ok_and(|file| file == self.file)
    }

    /// Waits until another program has removed or replaced the socket. Checks the socket once per `interval`.
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

/// Returns an error if a program listens at the path. That program can't be another agent, because this agent holds the lock of the run
/// directory.
fn refuse_busy(path: &Path) -> Result<(), SocketError> {
    match connected(path) {
        Ok(peer) => {
            let process = sockopt::socket_peercred(&peer);
            let process =
                process.map_or_else(|_| String::new(), |peer| format!(" (process {})", peer.pid.as_raw_pid()));
            Err(SocketError::Busy { path: path.to_owned(), process })
        }
        // A full backlog of connections means that a program listens at this path.
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
