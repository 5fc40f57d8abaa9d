//! Leader election over a Kubernetes `Lease`. The election only avoids duplicate work. The programs work correctly even
//! if two candidates act as leaders at the same time, for example because a leader's step outlasts its leadership.
//!
//! A leader stops leading before another candidate can take the Lease. Each candidate measures times only by its own
//! machine's clock. A program that loses the Lease keeps running.
//!
//! Bobbin has its own election, because kube has none, and because other crates decode the whole Lease. With such a
//! crate, one unreadable field would stop every election.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams, TypeMeta};
use kube::{Api, Client, Resource};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::backoff::jittered;
use crate::call;
use crate::lenient::Lenient;
use crate::outcome::{Outcome, ReadError, read, write};

/// The name and the timing of a leader election, and this candidate's identity.
#[derive(Clone, Debug)]
pub struct Election {
    /// The Lease's name.
    pub name: String,
    /// The Lease's namespace.
    pub namespace: String,
    /// This candidate's name, which it writes into the Lease when it takes the Lease. The name is unique among the
    /// candidates.
    pub identity: String,
    /// How long the Lease lasts without a renewal. After this time, another candidate may take the Lease.
    pub duration: Duration,
    /// How long this candidate leads without a renewal. Must be shorter than `duration`, so that this candidate stops
    /// leading before another candidate takes the Lease.
    pub renew_deadline: Duration,
    /// How often this candidate reads the Lease, and renews the Lease or takes it if possible.
    pub retry_period: Duration,
}

/// Whether this candidate leads, and when its leadership ends if it does not renew the Lease again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    until: Option<Instant>,
}

impl Leadership {
    /// The state of a candidate that does not lead.
    pub const NONE: Self = Self { until: None };

    /// The state of an operator that always leads, because it runs without an election.
    pub fn permanent() -> Self {
        Self { until: Some(Instant::now() + Duration::from_secs(u32::MAX.into())) }
    }

    /// Whether this candidate leads now. Call this method before each step, because leadership ends when this candidate
    /// does not renew the Lease in time.
    pub fn held(self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }
}

/// The version of the Lease that this candidate last read, and the time of the first read of that version, by this
/// machine's clock.
#[derive(Clone, Debug)]
struct Observed {
    resource_version: Option<String>,
    since: Instant,
}

/// The part of a Lease that an election uses. The election does not read the times in the Lease, because other machines'
/// clocks wrote them.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "Lease")]
struct PartialLease {
    metadata: ObjectMeta,
    spec: Option<PartialLeaseSpec>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct PartialLeaseSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    holder_identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_duration_seconds: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_transitions: Option<i32>,
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    acquire_time: Option<MicroTime>,
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    renew_time: Option<MicroTime>,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Take,
    Renew,
    Observe,
}

/// Decides the next step of the candidate `identity`. The Lease contains `spec` and has not changed for `unchanged_for`.
fn decide(spec: Option<&PartialLeaseSpec>, identity: &str, unchanged_for: Duration) -> Step {
    let Some(spec) = spec else { return Step::Take };
    match spec.holder_identity.as_deref() {
        None | Some("") => Step::Take,
        Some(holder) if holder == identity => Step::Renew,
        Some(_) => {
            let duration = Duration::from_secs(spec.lease_duration_seconds.unwrap_or(0).max(0).unsigned_abs().into());
            if unchanged_for >= duration { Step::Take } else { Step::Observe }
        }
    }
}

impl Election {
    /// Takes part in the election until `shutdown` completes. Then releases the Lease if this candidate is the leader. The
    /// election runs as a separate task.
    ///
    /// The value in the returned receiver changes when this candidate wins or renews leadership, or notices that it
    /// lost leadership. Leadership may end before the value changes, see [`Leadership::held`].
    pub fn run(
        self,
        client: Client,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> (watch::Receiver<Leadership>, tokio::task::JoinHandle<()>) {
        let (tell, told) = watch::channel(Leadership::NONE);
        let task = tokio::spawn(async move {
            let leases: Api<Lenient<PartialLease>> = Api::namespaced(client, &self.namespace);
            tokio::select! {
                () = shutdown => {}
                () = self.campaign(&leases, &tell) => {}
            }
            if tell.send_replace(Leadership::NONE).held() {
                self.release(&leases).await;
            }
        });
        (told, task)
    }

    async fn campaign(&self, leases: &Api<Lenient<PartialLease>>, tell: &watch::Sender<Leadership>) {
        let mut observed = Observed { resource_version: None, since: Instant::now() };
        loop {
            let asked_at = Instant::now();
            let held = self.try_acquire_or_renew(leases, &mut observed).await;
            let leadership = *tell.borrow();
            if held {
                if !leadership.held() {
                    tracing::info!(lease = self.name, identity = self.identity, "this operator is now the leader");
                }
                // Count `renew_deadline` from a moment before the write. Other candidates count `duration` from the
                // moment when they see the write, which is later. So this leader stops before another takes the Lease.
                tell.send_replace(Leadership { until: Some(asked_at + self.renew_deadline) });
            } else if leadership.until.is_some() && !leadership.held() {
                tracing::warn!(
                    lease = self.name,
                    identity = self.identity,
                    "this operator is no longer the leader, because it did not renew the lease in time"
                );
                tell.send_replace(Leadership::NONE);
            }
            tokio::time::sleep(jittered(self.retry_period)).await;
        }
    }

    /// Reads the Lease, and takes or renews it if possible. Returns whether the API server confirmed that this candidate
    /// holds the Lease.
    async fn try_acquire_or_renew(&self, leases: &Api<Lenient<PartialLease>>, observed: &mut Observed) -> bool {
        let deadline = self.renew_deadline / 2;
        let current = match read(deadline, leases.get(&self.name)).await {
            Ok(lease) => lease,
            Err(ReadError::NotFound) => match self.create(leases, deadline).await.done() {
                Some(created) => created,
                None => return false,
            },
            Err(error) => {
                tracing::debug!(%error, lease = self.name, "failed to read the lease; the operator tries again");
                return false;
            }
        };
        let version = &current.meta().resource_version;
        if observed.resource_version != *version {
            *observed = Observed { resource_version: version.clone(), since: Instant::now() };
        }
        let (step, operations) = self.next(&current, observed.since.elapsed());
        if step == Step::Observe {
            return false;
        }
        match write(deadline, call::patch(leases, &self.name, operations)).await {
            Outcome::Done(_) => true,
            Outcome::Refused(why) => {
                tracing::debug!(%why, lease = self.name, "the API server refused the write of the lease; another candidate may have written the lease first");
                false
            }
            Outcome::Unknown(why) => {
                tracing::debug!(%why, lease = self.name, "it is unknown whether the API server wrote the lease");
                false
            }
        }
    }

    /// Returns the next step of this candidate, and the patch for the step. The patch tests that the Lease has not changed
    /// since this candidate read it.
    fn next(&self, current: &Lenient<PartialLease>, unchanged_for: Duration) -> (Step, Value) {
        let test = json!({"op": "test", "path": "/metadata/resourceVersion", "value": current.meta().resource_version});
        let Some(lease) = current.readable() else {
            // The holder of an unreadable Lease is unknown. So this candidate takes the Lease only after the Lease has not
            // changed for `duration`.
            let step = if unchanged_for >= self.duration { Step::Take } else { Step::Observe };
            let spec = self.spec(&PartialLeaseSpec::default(), true);
            return (step, json!([test, {"op": "add", "path": "/spec", "value": spec}]));
        };
        let step = decide(lease.spec.as_ref(), &self.identity, unchanged_for);
        let Some(old) = &lease.spec else {
            let spec = self.spec(&PartialLeaseSpec::default(), true);
            return (step, json!([test, {"op": "add", "path": "/spec", "value": spec}]));
        };
        let spec = json!(self.spec(old, step == Step::Take));
        let fields = spec.as_object().into_iter().flatten();
        let changes =
            fields.map(|(field, value)| json!({"op": "add", "path": format!("/spec/{field}"), "value": value}));
        (step, std::iter::once(test).chain(changes).collect())
    }

    /// Creates the Lease without a holder. If the Lease already exists, the request does not change the Lease.
    ///
    /// The request is an apply patch. RBAC can limit an apply patch to one object name, but can't limit a plain create to
    /// one name.
    async fn create(&self, leases: &Api<Lenient<PartialLease>>, deadline: Duration) -> Outcome<Lenient<PartialLease>> {
        let TypeMeta { api_version, kind } = TypeMeta::resource::<Lease>();
        let empty = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": self.name}});
        let params = PatchParams::apply(&self.name);
        write(deadline, leases.patch(&self.name, &params, &Patch::Apply(empty))).await
    }

    fn spec(&self, old: &PartialLeaseSpec, taken: bool) -> PartialLeaseSpec {
        let now = MicroTime(Timestamp::now());
        PartialLeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.duration.as_secs()).unwrap_or(i32::MAX).max(1)),
            acquire_time: taken.then(|| now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(old.lease_transitions.unwrap_or(0).saturating_add(i32::from(taken))),
        }
    }

    async fn release(&self, leases: &Api<Lenient<PartialLease>>) {
        let deadline = Duration::from_secs(2);
        let Ok(Lenient::Readable(lease)) = read(deadline, leases.get(&self.name)).await else { return };
        let holder = lease.spec.and_then(|spec| spec.holder_identity);
        if holder.as_ref() != Some(&self.identity) {
            return;
        }
        let operations = json!([
            {"op": "test", "path": "/spec/holderIdentity", "value": self.identity},
            {"op": "remove", "path": "/spec/holderIdentity"},
        ]);
        // If the release fails, the Lease expires after its duration.
        let _ = write(deadline, call::patch(leases, &self.name, operations)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str) -> PartialLeaseSpec {
        PartialLeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(15),
            ..PartialLeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_only_when_it_is_free_or_was_not_renewed_for_its_duration() {
        let (short, long) = (Duration::from_secs(14), Duration::from_secs(15));
        assert_eq!(decide(None, "a", Duration::ZERO), Step::Take);
        assert_eq!(decide(Some(&PartialLeaseSpec::default()), "a", Duration::ZERO), Step::Take);
        assert_eq!(decide(Some(&held_by("b")), "a", short), Step::Observe);
        assert_eq!(decide(Some(&held_by("b")), "a", long), Step::Take);
        assert_eq!(decide(Some(&held_by("a")), "a", long), Step::Renew);
    }

    #[test]
    fn leadership_lapses_by_itself() {
        assert!(!Leadership::NONE.held());
        assert!(Leadership::permanent().held());
        assert!(!Leadership { until: Some(Instant::now()) }.held());
    }

    fn election() -> Election {
        Election {
            name: "l".into(),
            namespace: "ns".into(),
            identity: "a".into(),
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }

    fn lease(spec: &Value) -> Lenient<PartialLease> {
        let lease = json!({"metadata": {"name": "l", "resourceVersion": "7"}, "spec": spec});
        serde_json::from_value(lease).expect("it has a name")
    }

    #[test]
    fn a_renewal_keeps_unread_fields_and_tests_the_version_that_was_read() {
        let held = json!({"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": "9999-12-31T23:59:59.000000Z", "strategy": "x"});
        let (step, operations) = election().next(&lease(&held), Duration::ZERO);
        assert_eq!(step, Step::Renew);
        let all = operations.as_array().expect("it is a list");
        let paths: Vec<_> = all.iter().filter_map(|operation| operation["path"].as_str()).collect();
        let fields = ["holderIdentity", "leaseDurationSeconds", "leaseTransitions", "renewTime"];
        assert_eq!(paths[0], "/metadata/resourceVersion");
        assert_eq!(paths[1..], fields.map(|field| format!("/spec/{field}")));
    }

    #[test]
    fn an_unreadable_lease_is_taken_when_it_has_not_changed_for_its_duration() {
        let odd = lease(&json!({"holderIdentity": 7}));
        assert!(odd.readable().is_none());
        assert_eq!(election().next(&odd, Duration::from_secs(14)).0, Step::Observe);
        assert_eq!(election().next(&odd, Duration::from_secs(15)).0, Step::Take);
    }
}
