//! A lock per attachment, so that the attachment's verbs run one at a time. A waiting DEL interrupts the ADD that holds the lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bobbin_ipam::AttachmentKey;
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, watch};

/// Once the map of locks has more entries than this, its unused locks are dropped.
const MAX_UNUSED: usize = 512;

/// Serializes the CNI verbs of each attachment. Verbs of different attachments never wait for each other.
#[derive(Debug, Default)]
pub struct AttachmentLocks(Mutex<HashMap<AttachmentKey, Arc<LockState>>>);

#[derive(Debug)]
struct LockState {
    lock: Arc<tokio::sync::Mutex<()>>,
    /// How many DELs wait for the lock. It is a count, not a notification, because an ADD that starts to wait later must also see the
    /// waiting DEL.
    waiting_dels: watch::Sender<usize>,
}

impl Default for LockState {
    fn default() -> Self {
        Self { lock: Arc::default(), waiting_dels: watch::channel(0).0 }
    }
}

/// The lock of an attachment while a verb holds it. Other verbs of the attachment wait until this value is dropped.
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
        // The sender lives as long as the lock, so the wait never fails.
        let _ = waiting.wait_for(|count| *count > 0).await;
    }

    /// Returns the result of `work`, or `None` as soon as a DEL waits for this lock. `work` is dropped then, so dropping it must be safe.
    pub async fn unless_del_waits<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            result = work => Some(result),
            () = self.del_waits() => None,
        }
    }
}

impl AttachmentLocks {
    /// Waits for the attachment's lock, up to `deadline`. Returns `None` if another verb still holds the lock.
    pub async fn lock(&self, key: &AttachmentKey, deadline: Duration) -> Option<AttachmentLock> {
        acquire(self.state(key), deadline).await
    }

    /// Like [`Self::lock`], but for a DEL: while the DEL waits, it interrupts the attachment's ADDs.
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
