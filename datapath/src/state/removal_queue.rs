//! Links of detached pods that wait for the next batch removal.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::netlink::KernelError;

/// The queue, and whether a thread works on it.
#[derive(Default)]
pub(crate) struct RemovalQueue {
    queue: Mutex<Queue>,
    batches: AtomicU32,
    /// Detaches that have begun and are not in the queue yet.
    arriving: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<QueuedRemoval>,
    running: bool,
}

/// One link to be removed.
pub(crate) struct QueuedRemoval {
    pub(crate) index: u32,
    pub(crate) alias: String,
    pub(crate) done: oneshot::Sender<Result<(), KernelError>>,
}

impl RemovalQueue {
    /// A detach has begun.
    pub(crate) fn arrive(&self) {
        self.arriving.fetch_add(1, Ordering::AcqRel);
    }

    /// That detach is in the queue, or has ended without a link to remove.
    pub(crate) fn arrived(&self) {
        self.arriving.fetch_sub(1, Ordering::AcqRel);
    }

    pub(crate) fn is_awaiting_arrivals(&self) -> bool {
        self.arriving.load(Ordering::Acquire) > 0
    }

    /// Adds a link. `true` when the caller must start the thread that works on the queue.
    pub(crate) fn push(&self, removal: QueuedRemoval) -> bool {
        let mut queue = self.queue.lock();
        queue.waiting.push(removal);
        !std::mem::replace(&mut queue.running, true)
    }

    /// All waiting links; `None` when there is none and the thread must end.
    pub(crate) fn take_batch(&self) -> Option<Vec<QueuedRemoval>> {
        let mut queue = self.queue.lock();
        if queue.waiting.is_empty() {
            queue.running = false;
            return None;
        }
        Some(std::mem::take(&mut queue.waiting))
    }

    /// The thread could not start. The closed channels tell those who wait, and the next detach starts another one.
    pub(crate) fn cancel(&self) {
        let mut queue = self.queue.lock();
        queue.running = false;
        queue.waiting.clear();
    }

    /// A number for the next batch.
    pub(crate) fn next_batch_number(&self) -> u32 {
        self.batches.fetch_add(1, Ordering::Relaxed)
    }
}
