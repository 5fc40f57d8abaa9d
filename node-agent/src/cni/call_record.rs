//! Collects what one CNI call did, for its line in the log and for the metrics.

use std::future::Future;
use std::time::{Duration, Instant};

use bobbin_cni_wire::{Call, CniError, Verb};
use parking_lot::Mutex;

use super::pod_of;
use crate::state::{Attachment, PodRef};

tokio::task_local! {
    /// The record of the call that this task answers. [`scope`] sets it as a task-local value, so that the functions of a call need no
    /// extra parameter.
    static RECORD: Mutex<CallRecord>;
}

/// A part of an ADD or DEL. The log line has the duration of each part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The wait for another call on the same attachment.
    Lock,
    /// The choice of the pod's pool.
    Pool,
    /// The wait for the agent's first read of the node's blocks.
    Blocks,
    /// The allocation of an address, with the wait for a block or for a free address.
    Address,
    /// The write of the checkpoint.
    Checkpoint,
    /// The setup of the pod's network in the kernel.
    Wiring,
    /// The wait for the API server's answer about the IPAssignment.
    Assignment,
    /// The removal of the pod's network from the kernel, and of the attachment's checkpoint.
    Removal,
}

const STAGES: usize = Stage::Removal as usize + 1;

/// What one call did so far.
#[derive(Debug, Default)]
pub(crate) struct CallRecord {
    pod: PodRef,
    pool: String,
    block: String,
    addresses: String,
    host_if: String,
    /// The cause of a failed removal, such as the kernel's own text. Only the log contains the cause. If the answer of DEL contained "not
    /// found", containerd would treat the DEL as successful.
    cause: String,
    stages: [Option<Duration>; STAGES],
}

/// Runs `answer`, which answers the call. Returns the answer and the call's record.
pub(super) async fn scope<T>(call: &Call, answer: impl Future<Output = T>) -> (T, CallRecord) {
    let record = Mutex::new(CallRecord { pod: pod_of(call), ..CallRecord::default() });
    RECORD.scope(record, async { (answer.await, RECORD.with(|record| std::mem::take(&mut *record.lock()))) }).await
}

/// Adds the duration of a stage to the record of this task's call.
pub(crate) async fn stage<T>(stage: Stage, work: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let result = work.await;
    note(|record| {
        let time = &mut record.stages[stage as usize];
        time.get_or_insert_default();
        *time = time.map(|time| time + begun.elapsed());
    });
    result
}

/// Records which attachment the call is about.
pub(crate) fn note_attachment(attachment: &Attachment, host_if: &str) {
    note(|record| {
        record.pod = attachment.pod.clone();
        record.pool.clone_from(&attachment.pool);
        record.block.clone_from(&attachment.block);
        record.addresses = attachment.pair.to_string();
        host_if.clone_into(&mut record.host_if);
    });
}

/// Records the selected pool and the pod as the agent knows it.
pub(crate) fn note_pool(pod: &PodRef, pool: &str) {
    // Clear the data of an earlier attachment. A repeated ADD records the earlier attachment first, and then removes it if its wiring is
    // incomplete.
    note(|record| {
        record.pod = pod.clone();
        pool.clone_into(&mut record.pool);
        for part in [&mut record.block, &mut record.addresses, &mut record.host_if] {
            part.clear();
        }
    });
}

/// Records the cause of a failed removal.
pub(crate) fn note_cause(cause: &str) {
    note(|record| cause.clone_into(&mut record.cause));
}

fn note(change: impl FnOnce(&mut CallRecord)) {
    // Outside of a call, for example in the stale-attachment check, there is no record.
    let _ = RECORD.try_with(|record| change(&mut record.lock()));
}

impl CallRecord {
    /// The pool of the attachment. Returns `None` for a call without a pool, and for an ADD that failed before it selected the pool.
    pub(super) fn pool(&self) -> Option<&str> {
        Some(self.pool.as_str()).filter(|pool| !pool.is_empty())
    }

    /// The time that the call spent in a stage. Returns `None` if the call did not reach the stage.
    pub(super) fn time(&self, stage: Stage) -> Option<Duration> {
        self.stages[stage as usize]
    }

    /// Writes the call's log line. If `repeated` is true, an earlier log line already contains the error, so this line is no warning.
    pub(super) fn log(&self, call: &Call, took: Duration, error: Option<&CniError>, repeated: bool) {
        let ms = |stage: Stage| self.time(stage).map(milliseconds);
        let some = |value: &str| Some(value.to_owned()).filter(|value| !value.is_empty());
        let code = error.map_or(0, |error| error.code.number);
        macro_rules! line {
            ($level:ident, $($message:tt)+) => {
                tracing::$level!(
                    parent: None,
                    verb = call.verb.word(),
                    namespace = some(&self.pod.namespace),
                    pod = some(&self.pod.name),
                    uid = some(&self.pod.uid),
                    container = call.container_id,
                    ifname = call.if_name,
                    pool = self.pool(),
                    block = some(&self.block),
                    addresses = some(&self.addresses),
                    host_if = some(&self.host_if),
                    code,
                    took_ms = milliseconds(took),
                    lock_ms = ms(Stage::Lock),
                    pool_ms = ms(Stage::Pool),
                    blocks_ms = ms(Stage::Blocks),
                    address_ms = ms(Stage::Address),
                    checkpoint_ms = ms(Stage::Checkpoint),
                    wiring_ms = ms(Stage::Wiring),
                    assignment_ms = ms(Stage::Assignment),
                    removal_ms = ms(Stage::Removal),
                    cause = some(&self.cause),
                    $($message)+
                )
            };
        }
        match (error, call.verb) {
            (Some(error), _) if repeated => line!(info, "{error}"),
            (Some(error), _) => line!(warn, "{error}"),
            (None, Verb::Add) => line!(info, "added the attachment"),
            (None, _) => line!(info, "removed the attachment"),
        }
    }
}

/// A duration in milliseconds with three decimals.
fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Call {
        let environment = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")];
        let env = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Call::read(&bobbin_cni_wire::Request { env, stdin: Vec::new() }).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_has_the_stages_and_the_pool_of_its_call_only() {
        let pod = PodRef { namespace: "shop".to_owned(), name: "web".to_owned(), uid: "u".to_owned() };
        let answer = async {
            stage(Stage::Pool, async { note_pool(&pod, "gold") }).await;
            7
        };
        let (answer, record) = scope(&call(), answer).await;
        assert_eq!((answer, record.pool.as_str(), &record.pod), (7, "gold", &pod));
        let measured: Vec<bool> = record.stages.iter().map(Option::is_some).collect();
        assert_eq!(measured.iter().filter(|measured| **measured).count(), 1);
        assert!(measured[Stage::Pool as usize]);
        // Outside of a call, a stage only runs its work.
        assert_eq!(stage(Stage::Lock, async { 8 }).await, 8);
    }

    #[test]
    fn milliseconds_have_three_decimals() {
        assert!((milliseconds(Duration::from_nanos(12_345_678)) - 12.345).abs() < 1e-9);
    }
}
