//! Tells when a program changes a file in the directories of the CNI plugin and of the CNI configuration (inotify(7)).

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

/// How many bytes of events one read takes.
const READ_SIZE: usize = 4096;

/// Watches directories. Without inotify, for example because the kernel's limit `fs.inotify.max_user_instances` is reached, it sees no
/// change.
pub(super) struct DirectoryWatch {
    directories: Vec<PathBuf>,
    queue: Option<AsyncFd<OwnedFd>>,
}

impl DirectoryWatch {
    pub(super) fn new(directories: impl IntoIterator<Item = PathBuf>) -> DirectoryWatch {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        let queue = queue.map_err(std::io::Error::from).and_then(AsyncFd::new);
        let queue = queue.inspect_err(|error| {
            tracing::warn!(
                %error,
                "the agent can't watch the directories of the CNI plugin and the CNI configuration, so it repairs changes of these files later. Check the limit fs.inotify.max_user_instances of the node"
            );
        });
        DirectoryWatch { directories: directories.into_iter().collect(), queue: queue.ok() }
    }

    /// Watches the directories from now on, and forgets earlier changes. Also watches a directory that was created again.
    pub(super) fn begin(&mut self) {
        let Some(queue) = &self.queue else { return };
        let changes = WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR;
        for directory in &self.directories {
            if let Err(error) = inotify::add_watch(queue, directory, changes) {
                // The installer reports a directory that it can't use.
                tracing::debug!(%error, directory = %directory.display(), "the agent can't watch this directory");
            }
        }
        while matches!(rustix::io::read(queue, &mut [0; READ_SIZE]), Ok(read) if read > 0) {}
    }

    /// Waits until a file in one of the directories changes. Waits forever without inotify.
    pub(super) async fn changed(&self) {
        let Some(queue) = &self.queue else { return std::future::pending().await };
        loop {
            let Ok(mut ready) = queue.readable().await else { return std::future::pending().await };
            let read = ready.try_io(|queue| Ok(rustix::io::read(queue, &mut [0; READ_SIZE])?));
            match read {
                Ok(Ok(_)) => return,
                Ok(Err(error)) if error.kind() != ErrorKind::Interrupted => return std::future::pending().await,
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn each_change_of_a_file_is_seen_also_after_the_directory_was_created_again() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("net.d");
        let file = directory.join("10-bobbin.conflist");
        let mut watch = DirectoryWatch::new([directory.clone()]);
        for _ in 0..2 {
            std::fs::create_dir(&directory).unwrap();
            std::fs::write(&file, "{}").unwrap();
            watch.begin();
            assert!(tokio::time::timeout(Duration::ZERO, watch.changed()).await.is_err(), "an earlier change counts");
            std::fs::remove_file(&file).unwrap();
            tokio::time::timeout(WAIT_TIMEOUT, watch.changed()).await.unwrap();
            watch.begin();
            std::fs::rename(parent.path().join("net.d"), parent.path().join("old")).unwrap();
            std::fs::remove_dir(parent.path().join("old")).unwrap();
        }
    }
}
