//! Reports changes of files in the directories of the CNI plugin and of the CNI configuration (inotify(7)).

use std::path::PathBuf;

use futures::{FutureExt, StreamExt};
use inotify::{EventStream, Inotify, WatchMask, Watches};

/// The size of the buffer for events, in bytes. One event has up to 272 bytes.
const BUFFER_SIZE: usize = 4096;

/// Watches directories. Sees no changes if inotify is unavailable, for example because the limit `fs.inotify.max_user_instances` is
/// reached.
pub(super) struct DirectoryWatch {
    directories: Vec<PathBuf>,
    queue: Option<Queue>,
}

struct Queue {
    watches: Watches,
    events: EventStream<[u8; BUFFER_SIZE]>,
}

impl Queue {
    fn new() -> std::io::Result<Queue> {
        let inotify = Inotify::init()?;
        Ok(Queue { watches: inotify.watches(), events: inotify.into_event_stream([0; BUFFER_SIZE])? })
    }
}

impl DirectoryWatch {
    pub(super) fn new(directories: impl IntoIterator<Item = PathBuf>) -> DirectoryWatch {
        let queue = Queue::new().inspect_err(|error| {
            tracing::warn!(
                %error,
                "the agent can't watch the directories of the CNI plugin and the CNI configuration, so it repairs changes of these files later. Check the limit fs.inotify.max_user_instances of the node"
            );
        });
        DirectoryWatch { directories: directories.into_iter().collect(), queue: queue.ok() }
    }

    /// Watches the directories. Call this method before each pass, so that the agent also watches a directory that was removed and created
    /// again.
    pub(super) fn begin(&mut self) {
        let Some(Queue { watches, events }) = &mut self.queue else { return };
        let changes = WatchMask::CLOSE_WRITE
            | WatchMask::ATTRIB
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::ONLYDIR;
        for directory in &self.directories {
            if let Err(error) = watches.add(directory, changes) {
                // A debug message is enough, because the installer itself reports a directory that it can't use.
                tracing::debug!(%error, directory = %directory.display(), "the agent can't watch this directory");
            }
        }
        // Drop the queued events. The caller reads the directories after this call, and so sees the changes that these events report.
        while matches!(events.next().now_or_never(), Some(Some(Ok(_)))) {}
    }

    /// Waits until a file in one of the directories changes. Waits forever without inotify.
    pub(super) async fn changed(&mut self) {
        if let Some(queue) = &mut self.queue
            && let Some(Ok(_)) = queue.events.next().await
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const WAIT_TIMEOUT: Duration = Duration::from_secs(30);
    /// How long a test waits before it concludes that no event is queued. The watch delivers a queued event much sooner.
    const QUIET: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_change_of_a_file_is_seen_also_after_the_directory_was_created_again() {
        let parent = tempfile::tempdir().unwrap();
        let [directory, old] = ["net.d", "old"].map(|name| parent.path().join(name));
        let mut watch = DirectoryWatch::new([directory.clone()]);
        for _ in 0..2 {
            std::fs::create_dir(&directory).unwrap();
            watch.begin();
            std::fs::write(directory.join("10-bobbin.conflist"), "{}").unwrap();
            tokio::time::timeout(WAIT_TIMEOUT, watch.changed()).await.unwrap();
            std::fs::rename(&directory, &old).unwrap();
            std::fs::remove_dir_all(&old).unwrap();
            // Read the events of the removal, so that in the next round only that round's write can end the wait.
            while tokio::time::timeout(QUIET, watch.changed()).await.is_ok() {}
        }
    }

    #[tokio::test]
    async fn one_pass_covers_all_changes_before_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut watch = DirectoryWatch::new([directory.path().to_owned()]);
        watch.begin();
        for number in 0..20 {
            std::fs::write(directory.path().join(number.to_string()), "").unwrap();
        }
        tokio::time::timeout(WAIT_TIMEOUT, watch.changed()).await.unwrap();
        watch.begin();
        assert!(tokio::time::timeout(QUIET, watch.changed()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_change_nothing_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("05-other.conf"), "{}").unwrap();
        let mut watch = DirectoryWatch::new([directory.path().to_owned()]);
        watch.begin();
        assert!(tokio::time::timeout(WAIT_TIMEOUT, watch.changed()).await.is_err());
    }
}
