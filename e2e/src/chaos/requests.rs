//! Chooses the requests that a fault of the API proxy affects. They are requests of one program, selected by verb and
//! resource. The module is pure: the same seed always gives the same choice.

use std::time::Duration;

use super::plan::FaultKind;
use crate::api_proxy::{Fault, Selector};

/// The verbs that change an object.
const WRITES: &[&str] = &["create", "patch", "delete"];
/// The verbs that read objects once.
const READS: &[&str] = &["get", "list"];
/// The verb that opens a watch.
const WATCHES: &[&str] = &["watch"];
/// The verb that stands for an event of an open watch.
const EVENTS: &[&str] = &["event"];
/// All verbs, including watches. An empty list selects every verb.
const ALL: &[&str] = &[];

/// A program that calls the API server through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The agent of one node.
    Agent,
    /// All operators.
    Operator,
}

impl Program {
    /// The name of the program's ServiceAccount.
    fn user(self) -> &'static str {
        match self {
            Self::Agent => "bobbin-agent",
            Self::Operator => "bobbin-operator",
        }
    }

    /// The writes that the program makes in a run, each with its verbs and its resource.
    fn writes(self) -> &'static [(&'static [&'static str], &'static str)] {
        match self {
            Self::Agent => {
                &[(&["patch"], "addressblocks"), (&["create"], "ipassignments"), (&["delete"], "ipassignments")]
            }
            Self::Operator => &[
                (&["create"], "addressblocks"),
                (&["patch"], "addressblocks"),
                (&["patch"], "addresspools"),
                (&["patch"], "leases"),
            ],
        }
    }

    /// The resources that the program reads and watches in a run.
    fn watched(self) -> &'static [&'static str] {
        match self {
            Self::Agent => &["addresspools", "addressblocks", "ipassignments", "nodes", "pods", "namespaces"],
            Self::Operator => &["addresspools", "addressblocks", "ipassignments", "nodes"],
        }
    }
}

/// The requests that the API proxy disturbs, and the fault that it causes in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requests {
    /// The program that sends the requests.
    pub program: Program,
    verbs: &'static [&'static str],
    /// `None` selects the requests for all resources.
    resource: Option<&'static str>,
    /// The fault that the proxy causes.
    pub fault: Fault,
}

impl Requests {
    /// Chooses requests for a kind of fault, and the fault that the API proxy causes in these requests.
    pub fn choose(kind: FaultKind, random: &mut fastrand::Rng) -> Self {
        let program = if random.u8(..3) == 0 { Program::Operator } else { Program::Agent };
        let (verbs, resource) = match kind {
            FaultKind::ClientCutOff => (ALL, None),
            FaultKind::WatchesFrozen => (WATCHES, any_or_one(program.watched(), random)),
            FaultKind::EventDropped => (EVENTS, random.choice(program.watched()).copied()),
            FaultKind::AnswersLost | FaultKind::WritesRepeated | FaultKind::WritesConflict => writes(program, random),
            _ => match random.u8(..4) {
                0 => (ALL, None),
                1 => (READS, any_or_one(program.watched(), random)),
                _ => writes(program, random),
            },
        };
        Self { program, verbs, resource, fault: proxy_fault(kind, random) }
    }

    /// Returns the API proxy's selector for these requests. `node` is the name of the agent's node.
    pub fn selector(&self, node: &str) -> Selector {
        let mut selector = Selector::verbs(self.verbs).by(self.program.user());
        if self.program == Program::Agent {
            selector = selector.from_node(node);
        }
        if let Some(resource) = self.resource {
            selector = selector.of(resource);
        }
        if self.fault == Fault::DropEvents { selector.once() } else { selector }
    }

    /// Describes the requests, for example `create, ipassignments, bobbin-agent on n1`.
    pub fn describe(&self, node: &str) -> String {
        let verbs = if self.verbs.is_empty() { "all verbs".to_owned() } else { self.verbs.join("/") };
        let resource = self.resource.unwrap_or("all resources");
        let place = if self.program == Program::Agent { format!(" on {node}") } else { String::new() };
        format!("{verbs}, {resource}, {}{place}", self.program.user())
    }
}

/// Chooses one kind of a program's writes, or all its writes.
fn writes(program: Program, random: &mut fastrand::Rng) -> (&'static [&'static str], Option<&'static str>) {
    match random.choice(program.writes()).filter(|_| random.u8(..3) > 0) {
        Some((verbs, resource)) => (verbs, Some(resource)),
        None => (WRITES, None),
    }
}

fn any_or_one(resources: &'static [&'static str], random: &mut fastrand::Rng) -> Option<&'static str> {
    random.choice(resources).filter(|_| random.bool()).copied()
}

/// The fault that the proxy causes for this kind.
fn proxy_fault(kind: FaultKind, random: &mut fastrand::Rng) -> Fault {
    match kind {
        FaultKind::RequestsDelayed => Fault::Delay(Duration::from_millis(random.u64(20..3000))),
        FaultKind::AnswersLost => Fault::LoseAnswer,
        FaultKind::WritesRepeated => Fault::ApplyTwice,
        FaultKind::WritesConflict => Fault::Refuse(409),
        FaultKind::RequestsThrottled => Fault::Throttle(Duration::from_secs(random.u64(1..4))),
        FaultKind::RequestsFail => Fault::Refuse(500),
        FaultKind::RequestsUnavailable => Fault::Refuse(503),
        FaultKind::WatchesFrozen => Fault::FreezeThenReset,
        FaultKind::EventDropped => Fault::DropEvents,
        _ => Fault::Reset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_writes_concern_no_reads_and_every_fault_concerns_both_programs() {
        let kinds = FaultKind::ALL.into_iter().filter(|kind| kind.concerns_requests());
        for kind in kinds {
            let choices: Vec<Requests> =
                (0..200).map(|seed| Requests::choose(kind, &mut fastrand::Rng::with_seed(seed))).collect();
            for program in [Program::Agent, Program::Operator] {
                assert!(choices.iter().any(|choice| choice.program == program), "{kind:?} of {program:?}");
            }
            if matches!(kind, FaultKind::AnswersLost | FaultKind::WritesRepeated | FaultKind::WritesConflict) {
                let writes = |choice: &Requests| choice.verbs.iter().all(|verb| WRITES.contains(verb));
                assert!(choices.iter().all(|choice| !choice.verbs.is_empty() && writes(choice)), "{kind:?}");
            }
        }
    }
}
