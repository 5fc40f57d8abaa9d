//! Whose turn it is to work on an attachment: one verb at a time, and a DEL that waits ends the waits of the ADD before it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bobbin_ipam::AttachmentKey;
use tokio::sync::{OwnedMutexGuard, watch};

/// Entries that nobody uses are dropped once the map is larger than this.
const MAX_UNUSED: usize = 512;

/// Serializes the verbs of one attachment; different attachments never wait for each other.
#[derive(Debug, Default)]
pub struct AttachmentLocks(Mutex<HashMap<AttachmentKey, Arc<Queue>>>);

#[derive(Debug)]
struct Queue {
    lock: Arc<tokio::sync::Mutex<()>>,
    /// How many DELs wait for their turn. A count and not a notification: an ADD that begins to wait later sees it as well.
    waiting_dels: watch::Sender<usize>,
}

impl Default for Queue {
    fn default() -> Self {
        Self { lock: Arc::default(), waiting_dels: watch::channel(0).0 }
    }
}

/// The turn of a verb; another one of the same attachment waits until it is dropped.
#[derive(Debug)]
pub struct AttachmentLock {
    queue: Arc<Queue>,
    _guard: OwnedMutexGuard<()>,
}

/// Counts one DEL as waiting, until it is dropped.
struct WaitingDel(Arc<Queue>);

impl WaitingDel {
    fn new(queue: &Arc<Queue>) -> WaitingDel {
        queue.waiting_dels.send_modify(|count| *count += 1);
        WaitingDel(Arc::clone(queue))
    }
}

impl Drop for WaitingDel {
    fn drop(&mut self) {
        self.0.waiting_dels.send_modify(|count| *count -= 1);
    }
}

impl AttachmentLock {
    /// Returns once a DEL waits for this turn to end; at once if one waits already.
    pub async fn called_off(&self) {
        let mut waiting = self.queue.waiting_dels.subscribe();
        // The sender lives as long as the turn.
        let _ = waiting.wait_for(|count| *count > 0).await;
    }

    /// The result of `work`, or `None` as soon as a DEL waits for this turn. `work` is dropped then, so it must be safe to cancel.
    pub async fn unless_called_off<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            result = work => Some(result),
            () = self.called_off() => None,
        }
    }
}

impl AttachmentLocks {
    /// Waits until no other verb works on the attachment, at most `deadline`; `None`: another verb still does.
    pub async fn take(&self, key: &AttachmentKey, deadline: Duration) -> Option<AttachmentLock> {
        let queue = self.queue(key);
        take(queue, deadline).await
    }

    /// The same for a DEL: while it waits, an ADD of that attachment that waits for something gives up.
    pub async fn take_over(&self, key: &AttachmentKey, deadline: Duration) -> Option<AttachmentLock> {
        let queue = self.queue(key);
        let _waiting = WaitingDel::new(&queue);
        take(queue, deadline).await
    }

    fn queue(&self, key: &AttachmentKey) -> Arc<Queue> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() > MAX_UNUSED {
            all.retain(|_, queue| Arc::strong_count(queue) > 1);
        }
        Arc::clone(all.entry(key.clone()).or_default())
    }
}

async fn take(queue: Arc<Queue>, deadline: Duration) -> Option<AttachmentLock> {
    let guard = tokio::time::timeout(deadline, Arc::clone(&queue.lock).lock_owned()).await.ok()?;
    Some(AttachmentLock { queue, _guard: guard })
}

#[cfg(test)]
mod tests;
