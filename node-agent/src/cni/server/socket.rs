//! A unix socket at a path: bound beside it and renamed, so that whoever finds it can connect; and whether it is still there.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};
use tokio::net::UnixListener;

use crate::state::atomic_file;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Something else has the name.
    #[error("the socket can't be made: {} is there and is no socket; remove it, or name another directory with --run-dir", .0.display())]
    Foreign(PathBuf),
    /// Another program listens there.
    #[error(
        "the socket can't be made: another program{process} listens at {}; stop it, or name another directory with --run-dir",
        path.display()
    )]
    Busy {
        /// The socket.
        path: PathBuf,
        /// Its process, as the end of a word; empty if unknown.
        process: String,
    },
    /// The directory can't be written.
    #[error("the socket {} can't be made: {source}; the agent must be able to write to the directory", path.display())]
    Directory {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A listening socket that only this user may connect to.
#[derive(Debug)]
pub struct Socket {
    /// Where calls arrive.
    pub listener: UnixListener,
    /// Where it is.
    pub place: Place,
}

/// A path, and the socket that was bound there.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    file: (u64, u64),
}

impl Socket {
    /// Binds it; inside the runtime. A socket on which nobody listens any more is replaced.
    ///
    /// # Errors
    /// The name is taken, or the directory can't be written.
    pub fn bind(path: &Path) -> Result<Socket, SocketError> {
        let failed = |source| SocketError::Directory { path: path.to_owned(), source };
        let beside = path.with_extension("new");
        refuse_foreign(path)?;
        refuse_foreign(&beside)?;
        refuse_busy(path)?;
        atomic_file::remove(&beside).map_err(failed)?;
        let listener = UnixListener::bind(&beside).map_err(failed)?;
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let file = file_of(&beside).map_err(failed)?;
        std::fs::rename(&beside, path).map_err(failed)?;
        Ok(Socket { listener, place: Place { path: path.to_owned(), file } })
    }

    /// Listener and place, for a server that takes the listener.
    pub fn split(self) -> (UnixListener, Place) {
        (self.listener, self.place)
    }
}

impl Place {
    /// Whether the path still leads to the socket.
    pub fn is_here(&self) -> bool {
        file_of(&self.path).is_ok_and(|file| file == self.file)
    }

    /// Waits until another program has removed or replaced the socket; looks once per `interval`.
    pub async fn lost(&self, interval: Duration) {
        while self.is_here() {
            tokio::time::sleep(interval).await;
        }
    }

    /// The path.
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

/// The lock of the run directory keeps other agents away, so who listens is a stranger.
fn refuse_busy(path: &Path) -> Result<(), SocketError> {
    match connected(path) {
        Ok(peer) => {
            let process = sockopt::socket_peercred(&peer);
            let process =
                process.map_or_else(|_| String::new(), |peer| format!(" (process {})", peer.pid.as_raw_pid()));
            Err(SocketError::Busy { path: path.to_owned(), process })
        }
        // Its queue is full: somebody is there.
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
