//! The queue of links that wait for the next batch removal, because their pods were detached.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::netlink::KernelError;

/// The links that wait for removal, the number of batches so far, and the number of detaches that may still queue a
/// link.
#[derive(Default)]
pub(crate) struct RemovalQueue {
    queue: Mutex<Queue>,
    batches: AtomicU32,
    /// The number of detaches that have begun but have not queued their link yet.
    arriving: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<QueuedRemoval>,
    running: bool,
}

/// A link to be removed.
pub(crate) struct QueuedRemoval {
    pub(crate) index: u32,
    pub(crate) alias: String,
    pub(crate) done: oneshot::Sender<Result<(), KernelError>>,
}

impl RemovalQueue {
    /// Records that a detach has begun.
    pub(crate) fn arrive(&self) {
        self.arriving.fetch_add(1, Ordering::AcqRel);
    }

    /// Records that a detach has queued its link, or has ended without a link.
    pub(crate) fn arrived(&self) {
        self.arriving.fetch_sub(1, Ordering::AcqRel);
    }

    pub(crate) fn is_awaiting_arrivals(&self) -> bool {
        self.arriving.load(Ordering::Acquire) > 0
    }

    /// Queues a link for removal. Returns `true` if the caller must start the thread that removes links.
    pub(crate) fn push(&self, removal: QueuedRemoval) -> bool {
        let mut queue = self.queue.lock();
        queue.waiting.push(removal);
        !std::mem::replace(&mut queue.running, true)
    }

    /// Takes all links that wait for removal. Returns `None` if no link waits, so that the removing thread ends.
    pub(crate) fn take_batch(&self) -> Option<Vec<QueuedRemoval>> {
        let mut queue = self.queue.lock();
        if queue.waiting.is_empty() {
            queue.running = false;
            return None;
        }
        Some(std::mem::take(&mut queue.waiting))
    }

    /// Empties the queue because the removing thread could not start. The waiting detaches fail, and the next detach
    /// tries to start the thread.
    pub(crate) fn cancel(&self) {
        let mut queue = self.queue.lock();
        queue.running = false;
        queue.waiting.clear();
    }

    /// Returns the number of the next batch of removals.
    pub(crate) fn next_batch_number(&self) -> u32 {
        self.batches.fetch_add(1, Ordering::Relaxed)
    }
}
