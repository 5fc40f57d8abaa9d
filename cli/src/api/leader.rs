//! Reads from the Lease of the leader election whether an operator leads. Only the leader updates the counts in the API
//! objects, so without a leader these counts go out of date.

use std::time::Duration;

use bobbin_api_client::Lenient;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::{Api, Client};

use crate::api::objects;
use crate::print::age::age;

/// The name of the operators' Lease, in their namespace.
pub(crate) const LEASE: &str = "bobbin-operator";
/// How far the clocks of the operator's machine and of this machine may be apart.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(30);

/// Whether an operator leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Leader {
    /// An operator leads, or the user may not read the Lease.
    #[default]
    PresentOrUnknown,
    /// An operator led until this time.
    GoneSince(Timestamp),
    /// No operator has written the time of a renewal.
    Never,
}

impl Leader {
    /// Reads the Lease.
    pub(crate) async fn read(client: &Client, namespace: &str) -> Self {
        let leases: Api<Lenient<Lease>> = Api::namespaced(client.clone(), namespace);
        match objects::get(&leases, LEASE).await {
            Ok(lease) => Self::of(lease.and_then(|lease| lease.spec).as_ref(), Timestamp::now()),
            Err(_) => Self::PresentOrUnknown,
        }
    }

    fn of(lease: Option<&LeaseSpec>, now: Timestamp) -> Self {
        let Some((lease, renewed)) = lease.and_then(|lease| Some((lease, lease.renew_time.as_ref()?.0))) else {
            return Self::Never;
        };
        let valid = Duration::from_secs(lease.lease_duration_seconds.unwrap_or(0).max(0).unsigned_abs().into());
        let is_held = lease.holder_identity.as_ref().is_some_and(|holder| !holder.is_empty());
        if is_held && renewed.saturating_add(valid + CLOCK_TOLERANCE).is_ok_and(|end| now <= end) {
            Self::PresentOrUnknown
        } else {
            Self::GoneSince(renewed)
        }
    }

    pub(crate) fn is_missing(self) -> bool {
        self != Self::PresentOrUnknown
    }

    /// The time of the last renewal of the Lease; `None` if an operator may lead, or if none has ever led.
    pub(crate) fn gone_since(self) -> Option<Timestamp> {
        match self {
            Self::GoneSince(since) => Some(since),
            Self::PresentOrUnknown | Self::Never => None,
        }
    }

    /// The beginning of a sentence that says that no operator leads; `None` if an operator may lead.
    pub(crate) fn absence(self, namespace: &str, now: Timestamp) -> Option<String> {
        match self {
            Self::PresentOrUnknown => None,
            Self::GoneSince(since) => {
                let age = age(since, now);
                Some(format!("no operator is leading in namespace {namespace} since {since:.0} ({age} ago)"))
            }
            Self::Never => Some(format!("no operator has led in namespace {namespace} yet")),
        }
    }
}

/// How to find out why no operator leads.
pub(crate) fn remedy(namespace: &str) -> String {
    format!(
        "find out why no operator runs: kubectl -n {namespace} describe deployments,pods -l app.kubernetes.io/name=bobbin,app.kubernetes.io/component=operator; if Bobbin is in another namespace, add --bobbin-namespace"
    )
}

/// Prints a warning to standard error if no operator leads, because the pools' numbers may then be out of date.
pub(crate) async fn warn_if_missing(client: &Client, namespace: &str) {
    if let Some(absence) = Leader::read(client, namespace).await.absence(namespace, Timestamp::now()) {
        anstream::eprintln!("warning: {absence}, so these numbers may be out of date; {}", remedy(namespace));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_operator_leads_until_its_lease_and_the_tolerance_of_clocks_have_passed() {
        let of = |now: &str, holder: &str| {
            let lease = json!({"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"});
            let lease: LeaseSpec = serde_json::from_value(lease).expect("a spec");
            Leader::of(Some(&lease), now.parse().expect("a time"))
        };
        let gone = Leader::GoneSince("2026-01-01T00:00:00Z".parse().expect("a time"));
        assert_eq!(of("2026-01-01T00:00:45Z", "a"), Leader::PresentOrUnknown);
        assert_eq!(of("2025-12-31T23:59:00Z", "a"), Leader::PresentOrUnknown);
        assert_eq!(of("2026-01-01T00:00:46Z", "a"), gone);
        assert_eq!(of("2026-01-01T00:00:01Z", ""), gone);
        assert_eq!(Leader::of(None, Timestamp::UNIX_EPOCH), Leader::Never);
        assert_eq!(Leader::of(Some(&LeaseSpec::default()), Timestamp::UNIX_EPOCH), Leader::Never);
    }

    #[test]
    fn a_missing_operator_is_named_with_the_time_of_its_last_renewal() {
        let now = "2026-01-01T00:05:00Z".parse().expect("a time");
        let said = |leader: Leader| leader.absence("net", now);
        let gone = Leader::GoneSince("2026-01-01T00:00:00.5Z".parse().expect("a time"));
        let expected = "no operator is leading in namespace net since 2026-01-01T00:00:00Z (5m ago)";
        assert_eq!(said(gone).as_deref(), Some(expected));
        assert_eq!(said(Leader::Never).as_deref(), Some("no operator has led in namespace net yet"));
        assert_eq!(said(Leader::PresentOrUnknown), None);
    }
}
