//! The requests and watch events that the proxy has observed, and their counts.

use std::collections::{BTreeMap, VecDeque};

use super::request::{Client, RequestInfo, Selector};

/// The maximum number of requests and events that the log keeps with their bodies. The counts also include those that
/// the log has dropped.
const MAX_KEPT: usize = 50_000;

/// One observed request, or one observed line of a watch.
#[derive(Clone, Debug)]
pub struct ObservedRequest {
    /// The client that sent the request.
    pub client: Client,
    /// The verb of the request, or `event` for a delivered line of a watch.
    pub verb: &'static str,
    /// The name of the object, or empty if the request names no object.
    pub name: String,
    /// The body of the request, or the line of the watch.
    pub body: String,
    /// The status of the API server's answer to a forwarded request. `None` while there is no answer.
    pub answer: Option<u16>,
}

/// How many requests of one client had this verb and resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestCount {
    /// The client that sent the requests.
    pub client: Client,
    /// The verb of the requests, or `event` for delivered lines of watches.
    pub verb: &'static str,
    /// The resource (plural, lower case).
    pub resource: String,
    /// The number of requests.
    pub count: u64,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    kept: VecDeque<(RequestInfo, String, Option<u16>)>,
    /// How many requests and events the log has dropped.
    dropped: usize,
    counts: BTreeMap<(Client, &'static str, String), u64>,
}

impl Log {
    pub(super) fn mark(&self) -> usize {
        self.dropped + self.kept.len()
    }

    pub(super) fn add(&mut self, request: &RequestInfo, body: &str) {
        let key = (request.client.clone(), request.verb, request.resource.clone());
        *self.counts.entry(key).or_default() += 1;
        self.kept.push_back((request.clone(), body.to_owned(), None));
        if self.kept.len() > MAX_KEPT {
            self.kept.pop_front();
            self.dropped += 1;
        }
    }

    pub(super) fn add_answer(&mut self, request: &RequestInfo, status: u16) {
        // An answer comes soon after its request, so the search begins at the end of the list.
        if let Some((_, _, answer)) = self.kept.iter_mut().rev().find(|(kept, ..)| kept.id == request.id) {
            *answer = Some(status);
        }
    }

    pub(super) fn observed(&self, since: usize, selector: &Selector) -> Vec<ObservedRequest> {
        let since = self.kept.iter().skip(since.saturating_sub(self.dropped));
        since
            .filter(|(request, ..)| selector.matches(request))
            .map(|(request, body, answer)| ObservedRequest {
                client: request.client.clone(),
                verb: request.verb,
                name: request.name.clone(),
                body: body.clone(),
                answer: *answer,
            })
            .collect()
    }

    pub(super) fn counts(&self) -> Vec<RequestCount> {
        let counts = self.counts.iter();
        counts
            .map(|((client, verb, resource), count)| RequestCount {
                client: client.clone(),
                verb,
                resource: resource.clone(),
                count: *count,
            })
            .collect()
    }
}
