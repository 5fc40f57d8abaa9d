//! Runs the address queues. Each busy address has one task. Semaphores limit how many calls run at the same time. While writes fail, one
//! call at a time probes the API server.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bobbin_api_client::backoff;
use tokio::sync::SemaphorePermit;

use super::health::CallKind;
use super::queue::{AssignmentCall, CallResult, Completion, Operation};
use super::{AssignmentWriter, Confirmation, LateConfirmation};

/// The first pause and the longest pause before the agent repeats a call that the API server refused.
const REFUSAL_BACKOFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

impl AssignmentWriter {
    /// Queues an operation for an assignment. Starts a task for the assignment's queue if no such task is running.
    pub(super) fn push(&self, name: &str, operation: Operation, replayed: bool) {
        let mut queues = self.queues();
        // A queue stays in the map while its task is running, even if the queue is empty.
        let runs = queues.contains_key(name);
        let queue = queues.entry(name.to_owned()).or_default();
        let before = queue.len();
        let cancelled = queue.push(operation);
        let after = queue.len();
        drop(queues);
        self.count_pending(before, after);
        for key in cancelled {
            self.0.deletions.remove(name, &key);
        }
        if !runs {
            tokio::spawn(self.clone().run_queue(name.to_owned(), replayed));
        }
    }

    fn count_pending(&self, before: usize, after: usize) {
        if after >= before {
            self.0.pending.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.0.pending.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// Makes the calls of one address queue in order until the queue is empty.
    async fn run_queue(self, name: String, mut replayed: bool) {
        let mut refusals = 0_u32;
        loop {
            let permit = self.acquire_permit(replayed).await;
            // Choose the call after the wait for the permit, because an operation may be cancelled during that wait.
            let Some(call) = self.next_call(&name) else { return };
            let kind = CallKind::of(&call);
            let deleted = if let AssignmentCall::Delete(uid) = &call { Some(uid.clone()) } else { None };
            let result = self.0.call(&name, call).await;
            if let Some(uid) = deleted.filter(|_| result == CallResult::Deleted) {
                self.0.deleted.lock().note(&uid);
            }
            let answered = result != CallResult::Unknown;
            replayed |= !answered;
            let (completion, is_empty) = self.complete_call(&name, result);
            // Record the health of writes before returning the permit, because the pause before the next probe depends on the recorded
            // health.
            self.observe_health(kind, answered);
            drop(permit);
            if matches!(completion, Completion::RetryLater(_) | Completion::Denied { .. }) {
                if refusals == 0 {
                    self.report_refusal(&name, kind, completion);
                }
                let [first, longest] = REFUSAL_BACKOFF;
                tokio::time::sleep(backoff(refusals, first, longest)).await;
                refusals = refusals.saturating_add(1);
                continue;
            }
            if answered {
                refusals = 0;
            }
            self.deliver(&name, completion);
            if is_empty {
                return;
            }
        }
    }

    /// Reports the first refusal of a call. The queue repeats the call.
    fn report_refusal(&self, name: &str, kind: CallKind, completion: Completion) {
        match completion {
            Completion::RetryLater(why) => tracing::error!(
                "the API server refused the {kind:?} call for IPAssignment {name}: {why}. The agent repeats the call at least every 30 s. Check ClusterRole bobbin-agent and the admission policies"
            ),
            Completion::Denied { key, pair, why } => {
                (self.0.on_late)(LateConfirmation { key, pair, confirmation: Confirmation::Denied(why) });
            }
            Completion::Pending | Completion::Created { .. } | Completion::Deleted { .. } => {}
        }
    }

    /// Returns the next call of a queue. Removes the queue if no call is left.
    fn next_call(&self, name: &str) -> Option<AssignmentCall> {
        let mut queues = self.queues();
        let call = queues.get_mut(name)?.next();
        if call.is_none() {
            queues.remove(name);
        }
        call
    }

    /// Records the result of a call. Returns whether the result completes an operation, and whether the queue is now empty. Removes an
    /// empty queue.
    fn complete_call(&self, name: &str, result: CallResult) -> (Completion, bool) {
        let mut queues = self.queues();
        let Some(queue) = queues.get_mut(name) else { return (Completion::Pending, true) };
        let before = queue.len();
        let completion = queue.complete_call(result);
        let after = queue.len();
        let is_empty = queue.is_idle();
        if is_empty {
            queues.remove(name);
        }
        drop(queues);
        self.count_pending(before, after);
        (completion, is_empty)
    }

    /// Waits for the permit of a call. While writes fail, only one call at a time gets a permit, as a probe of the API server. The pauses
    /// between probes grow. An ADD ends the current pause.
    async fn acquire_permit(&self, replayed: bool) -> Option<SemaphorePermit<'_>> {
        let permits = if replayed { &self.0.replayed_writes } else { &self.0.new_writes };
        loop {
            if let Some(probe) = self.acquire_probe().await {
                return Some(probe);
            }
            let permit = permits.acquire().await.ok()?;
            // If writes began to fail while this call waited, the call needs the permit for a probe instead.
            if self.0.health.is_healthy() {
                return Some(permit);
            }
        }
    }

    /// Waits for the permit of the one call that probes the API server. Returns `None` if the API server already accepts writes, or begins
    /// to accept writes during the wait.
    async fn acquire_probe(&self) -> Option<SemaphorePermit<'_>> {
        let mut healthy = self.0.health.subscribe();
        if *healthy.borrow_and_update() {
            return None;
        }
        let probe = tokio::select! {
            permit = self.0.probe.acquire() => permit.ok()?,
            _ = healthy.wait_for(|healthy| *healthy) => return None,
        };
        let pause = self.0.health.pause();
        tokio::select! {
            _ = healthy.wait_for(|healthy| *healthy) => None,
            () = self.0.health.probe_requested() => Some(probe),
            () = tokio::time::sleep(pause) => Some(probe),
        }
    }

    fn observe_health(&self, call: CallKind, answered: bool) {
        let changed = self.0.health.observe(call, answered);
        if changed && answered {
            tracing::info!(pending = self.pending(), "the API server accepts writes of assignments again");
        } else if changed {
            tracing::warn!(
                ?call,
                "the API server did not answer a call for an assignment. Until the API server answers, pods may start before their assignments exist"
            );
        }
    }

    /// Passes the result of a completed operation to the waiting caller. If no caller is waiting for a confirmation, the confirmation goes
    /// to `on_late`.
    fn deliver(&self, name: &str, completion: Completion) {
        match completion {
            Completion::Pending | Completion::RetryLater(_) | Completion::Denied { .. } => {}
            Completion::Created { key, pair, reply, confirmation } => {
                if let Err(confirmation) = reply.send(confirmation) {
                    (self.0.on_late)(LateConfirmation { key, pair, confirmation });
                }
            }
            Completion::Deleted { key, reply } => {
                self.0.deletions.remove(name, &key);
                if let Some(reply) = reply {
                    // Ignore the result: DEL does not wait for the deletion, so the receiver usually no longer exists.
                    let _ = reply.send(());
                }
            }
        }
    }
}
