//! Leader election over a `Lease`. An efficiency device only: whoever acts on it must be harmless beside a second leader.
//!
//! Losing the lease, or the API server, ends nothing: the leadership lapses here first, by this
//! machine's clock, and is taken again when it can be.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, TypeMeta};
use kube::{Api, Client, Resource};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::backoff::jittered;
use crate::call;
use crate::lenient::Lenient;
use crate::outcome::{Outcome, ReadError, read, write};

/// Whose lease, and how patient we are.
#[derive(Clone, Debug)]
pub struct Election {
    /// The Lease's name.
    pub name: String,
    /// The Lease's namespace.
    pub namespace: String,
    /// What we write as holder: unique among the candidates.
    pub identity: String,
    /// Others may take the lease when they have seen no renewal for this long.
    pub duration: Duration,
    /// We stop leading when we could not renew for this long; shorter than `duration`.
    pub renew_deadline: Duration,
    /// How often we renew, or look.
    pub retry_period: Duration,
}

/// Whether we lead, as far as we know now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    until: Option<Instant>,
}

impl Leadership {
    /// Not leading.
    pub const NONE: Self = Self { until: None };
    /// Leading without an election.
    pub fn for_ever() -> Self {
        Self { until: Some(Instant::now() + Duration::from_secs(u32::MAX.into())) }
    }

    /// Whether we lead at this moment: ask again before each step, since it lapses by itself.
    pub fn held(self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }
}

/// What this candidate has seen of the lease, by its own clock.
#[derive(Clone, Debug)]
struct Observed {
    resource_version: Option<String>,
    since: Instant,
}

/// A Lease, as much of it as an election uses: its times are other machines' and are not read.
#[derive(Resource, Clone, Debug, Deserialize, Serialize)]
#[resource(inherit = "Lease")]
#[serde(rename_all = "camelCase")]
struct PartialLease {
    /// For the creation only.
    #[serde(skip_deserializing)]
    api_version: String,
    #[serde(skip_deserializing)]
    kind: String,
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
    Look,
}

/// What to do about a lease that reads `spec` and has not changed since `unchanged_for`.
fn decide(spec: Option<&PartialLeaseSpec>, identity: &str, unchanged_for: Duration) -> Step {
    let Some(spec) = spec else { return Step::Take };
    match spec.holder_identity.as_deref() {
        None | Some("") => Step::Take,
        Some(holder) if holder == identity => Step::Renew,
        Some(_) => {
            let duration = Duration::from_secs(spec.lease_duration_seconds.unwrap_or(0).max(0).unsigned_abs().into());
            if unchanged_for >= duration { Step::Take } else { Step::Look }
        }
    }
}

impl Election {
    /// Stands for election until `shutdown` is over, then lets go of the lease. Runs as a task of its own.
    ///
    /// The receiver changes whenever leadership is won, renewed or lost; it also lapses by itself, see [`Leadership::held`].
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
                () = self.stand(&leases, &tell) => {}
            }
            if tell.send_replace(Leadership::NONE).held() {
                self.let_go(&leases).await;
            }
        });
        (told, task)
    }

    async fn stand(&self, leases: &Api<Lenient<PartialLease>>, tell: &watch::Sender<Leadership>) {
        let mut observed = Observed { resource_version: None, since: Instant::now() };
        loop {
            let asked_at = Instant::now();
            let held = self.turn(leases, &mut observed).await;
            let leadership = *tell.borrow();
            if held {
                if !leadership.held() {
                    tracing::info!(lease = self.name, identity = self.identity, "this operator leads");
                }
                // Counted from before the write: others count from when they see it.
                tell.send_replace(Leadership { until: Some(asked_at + self.renew_deadline) });
            } else if leadership.until.is_some() && !leadership.held() {
                tracing::warn!(lease = self.name, identity = self.identity, "this operator leads no more");
                tell.send_replace(Leadership::NONE);
            }
            tokio::time::sleep(jittered(self.retry_period)).await;
        }
    }

    /// Reads the lease and takes or renews it if it may. Returns whether the lease is ours by the API server's own word.
    async fn turn(&self, leases: &Api<Lenient<PartialLease>>, observed: &mut Observed) -> bool {
        let deadline = self.renew_deadline / 2;
        let current = match read(deadline, leases.get(&self.name)).await {
            Ok(lease) => lease,
            Err(ReadError::NotFound) => return self.create(leases, deadline).await,
            Err(error) => {
                tracing::debug!(%error, lease = self.name, "the lease can't be read");
                return false;
            }
        };
        let version = &current.meta().resource_version;
        if observed.resource_version != *version {
            *observed = Observed { resource_version: version.clone(), since: Instant::now() };
        }
        let (step, operations) = self.next(&current, observed.since.elapsed());
        if step == Step::Look {
            return false;
        }
        match write(deadline, call::patch(leases, &self.name, operations)).await {
            Outcome::Done(_) => true,
            Outcome::Refused(why) => {
                tracing::debug!(%why, lease = self.name, "somebody else wrote the lease");
                false
            }
            Outcome::Unknown(why) => {
                tracing::debug!(%why, lease = self.name, "nobody knows whether the lease was written");
                false
            }
        }
    }

    /// What to do about the lease, and the patch that does it if it is still as it was read.
    fn next(&self, current: &Lenient<PartialLease>, unchanged_for: Duration) -> (Step, Value) {
        let test = json!({"op": "test", "path": "/metadata/resourceVersion", "value": current.meta().resource_version});
        let Some(lease) = current.readable() else {
            // Somebody may hold it: nobody knows who, or for how long.
            let step = if unchanged_for >= self.duration { Step::Take } else { Step::Look };
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

    async fn create(&self, leases: &Api<Lenient<PartialLease>>, deadline: Duration) -> bool {
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        let TypeMeta { api_version, kind } = TypeMeta::resource::<Lease>();
        let lease =
            PartialLease { api_version, kind, metadata, spec: Some(self.spec(&PartialLeaseSpec::default(), true)) };
        write(deadline, call::create(leases, &lease)).await.done().is_some()
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

    async fn let_go(&self, leases: &Api<Lenient<PartialLease>>) {
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
        // Refused or unknown: the lease then runs out by itself.
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
        assert_eq!(decide(Some(&held_by("b")), "a", short), Step::Look);
        assert_eq!(decide(Some(&held_by("b")), "a", long), Step::Take);
        assert_eq!(decide(Some(&held_by("a")), "a", long), Step::Renew);
    }

    #[test]
    fn leadership_lapses_by_itself() {
        assert!(!Leadership::NONE.held());
        assert!(Leadership::for_ever().held());
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
    fn a_renewal_keeps_the_fields_that_are_not_read_and_is_tied_to_what_was_read() {
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
    fn a_lease_that_can_not_be_read_is_taken_when_it_has_not_changed_for_its_duration() {
        let odd = lease(&json!({"holderIdentity": 7}));
        assert!(odd.readable().is_none());
        assert_eq!(election().next(&odd, Duration::from_secs(14)).0, Step::Look);
        assert_eq!(election().next(&odd, Duration::from_secs(15)).0, Step::Take);
    }
}
