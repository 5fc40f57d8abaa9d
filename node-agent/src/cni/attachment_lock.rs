//! One lock for each attachment, so the CNI verbs of an attachment run one at a time. A waiting DEL interrupts the ADD that holds the lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bobbin_ipam::AttachmentKey;
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, watch};

/// The number of entries in the map of locks above which the agent drops the unused locks.
const MAX_UNUSED: usize = 512;

/// Serializes the CNI verbs of each attachment. Verbs of different attachments never wait for each other.
#[derive(Debug, Default)]
pub struct AttachmentLocks(Mutex<HashMap<AttachmentKey, Arc<LockState>>>);

#[derive(Debug)]
struct LockState {
    lock: Arc<tokio::sync::Mutex<()>>,
    /// The number of DELs that wait for the lock. This is a count and not a notification. The ADD would miss the
    /// notification of a DEL that began to wait before the ADD looked.
    waiting_dels: watch::Sender<usize>,
}

impl Default for LockState {
    fn default() -> Self {
        Self { lock: Arc::default(), waiting_dels: watch::channel(0).0 }
    }
}

/// A held lock of an attachment. Other verbs on the attachment wait until this value is dropped.
#[derive(Debug)]
pub struct AttachmentLock {
    state: Arc<LockState>,
    _guard: OwnedMutexGuard<()>,
}

/// Counts one DEL as waiting, until this value is dropped.
struct WaitingDel(Arc<LockState>);

impl WaitingDel {
    fn new(state: &Arc<LockState>) -> WaitingDel {
        state.waiting_dels.send_modify(|count| *count += 1);
        WaitingDel(Arc::clone(state))
    }
}

impl Drop for WaitingDel {
    fn drop(&mut self) {
        self.0.waiting_dels.send_modify(|count| *count -= 1);
    }
}

impl AttachmentLock {
    /// Returns as soon as a DEL waits for this lock.
    pub async fn del_waits(&self) {
        let mut waiting = self.state.waiting_dels.subscribe();
        // Ignore the result: the wait can't fail, because the sender exists as long as the lock.
        let _ = waiting.wait_for(|count| *count > 0).await;
    }

    /// Returns the result of `work`. If a DEL waits for this lock, drops `work` and returns `None`. So `work` must be cancel safe.
    pub async fn unless_del_waits<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            result = work => Some(result),
            () = self.del_waits() => None,
        }
    }
}

impl AttachmentLocks {
    /// Waits for the attachment's lock for at most `deadline`. Returns `None` if another verb holds the lock for longer.
    pub async fn lock(&self, key: &AttachmentKey, deadline: Duration) -> Option<AttachmentLock> {
        acquire(self.state(key), deadline).await
    }

    /// Waits for the attachment's lock on behalf of a DEL, and otherwise works like [`Self::lock`]. The waiting DEL interrupts the ADDs of
    /// the attachment.
    pub async fn lock_for_del(&self, key: &AttachmentKey, deadline: Duration) -> Option<AttachmentLock> {
        let state = self.state(key);
        let _waiting = WaitingDel::new(&state);
        acquire(state, deadline).await
    }

    fn state(&self, key: &AttachmentKey) -> Arc<LockState> {
        let mut all = self.0.lock();
        if all.len() > MAX_UNUSED {
            all.retain(|_, state| Arc::strong_count(state) > 1);
        }
        Arc::clone(all.entry(key.clone()).or_default())
    }
}

async fn acquire(state: Arc<LockState>, deadline: Duration) -> Option<AttachmentLock> {
    let guard = tokio::time::timeout(deadline, Arc::clone(&state.lock).lock_owned()).await.ok()?;
    Some(AttachmentLock { state, _guard: guard })
}

#[cfg(test)]
mod tests;
