//! Leader election over a `Lease`. An efficiency device only: whoever acts on it must be harmless beside a second leader.
//!
//! The operator calls this. Losing the lease, or the API server, ends nothing: the leadership lapses here first, by this
//! machine's clock, and is taken again when it can be.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;

use crate::backoff::jittered;
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

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Take,
    Renew,
    Look,
}

/// What to do about a lease that reads `spec` and has not changed since `unchanged_for`.
fn decide(spec: Option<&LeaseSpec>, identity: &str, unchanged_for: Duration) -> Step {
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
            let leases: Api<Lease> = Api::namespaced(client, &self.namespace);
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

    async fn stand(&self, leases: &Api<Lease>, tell: &watch::Sender<Leadership>) {
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
    async fn turn(&self, leases: &Api<Lease>, observed: &mut Observed) -> bool {
        let deadline = self.renew_deadline / 2;
        let current = match read(deadline, leases.get(&self.name)).await {
            Ok(lease) => lease,
            Err(ReadError::NotFound) => return self.create(leases, deadline).await,
            Err(error) => {
                tracing::debug!(%error, lease = self.name, "the lease can't be read");
                return false;
            }
        };
        if observed.resource_version != current.metadata.resource_version {
            *observed = Observed { resource_version: current.metadata.resource_version.clone(), since: Instant::now() };
        }
        let step = decide(current.spec.as_ref(), &self.identity, observed.since.elapsed());
        if step == Step::Look {
            return false;
        }
        let mut wanted = current;
        let old = wanted.spec.take().unwrap_or_default();
        wanted.spec = Some(self.spec(&old, step == Step::Take));
        match write(deadline, leases.replace(&self.name, &PostParams::default(), &wanted)).await {
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

    async fn create(&self, leases: &Api<Lease>, deadline: Duration) -> bool {
        let lease = Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            spec: Some(self.spec(&LeaseSpec::default(), true)),
        };
        write(deadline, leases.create(&PostParams::default(), &lease)).await.done().is_some()
    }

    fn spec(&self, old: &LeaseSpec, taken: bool) -> LeaseSpec {
        let now = MicroTime(k8s_openapi::jiff::Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.duration.as_secs()).unwrap_or(i32::MAX).max(1)),
            acquire_time: if taken { Some(now.clone()) } else { old.acquire_time.clone() },
            renew_time: Some(now),
            lease_transitions: Some(old.lease_transitions.unwrap_or(0).saturating_add(i32::from(taken))),
            ..LeaseSpec::default()
        }
    }

    async fn let_go(&self, leases: &Api<Lease>) {
        let deadline = Duration::from_secs(2);
        let Ok(mut lease) = read(deadline, leases.get(&self.name)).await else { return };
        let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.identity))
        else {
            return;
        };
        spec.holder_identity = None;
        // Refused or unknown: the lease then runs out by itself.
        let _ = write(deadline, leases.replace(&self.name, &PostParams::default(), &lease)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str) -> LeaseSpec {
        LeaseSpec { holder_identity: Some(holder.into()), lease_duration_seconds: Some(15), ..LeaseSpec::default() }
    }

    #[test]
    fn a_lease_is_taken_only_when_it_is_free_or_was_not_renewed_for_its_duration() {
        let (short, long) = (Duration::from_secs(14), Duration::from_secs(15));
        assert_eq!(decide(None, "a", Duration::ZERO), Step::Take);
        assert_eq!(decide(Some(&LeaseSpec::default()), "a", Duration::ZERO), Step::Take);
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
}
