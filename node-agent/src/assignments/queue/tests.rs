//! Tests an address queue against an API server whose answers are lost. At the end of a test, only the last attachment may have an
//! assignment.

use bobbin_crds::{IPAssignment, IPAssignmentSpec};
use bobbin_ipam::{AttachmentKey, IpPair};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::*;

fn key(number: usize) -> AttachmentKey {
    AttachmentKey::new(format!("c{number}"), "eth0")
}

fn assignment(number: usize) -> Box<IPAssignment> {
    let spec = IPAssignmentSpec {
        pool_name: "default".to_owned(),
        block_name: "default-0".to_owned(),
        node_name: "n1".to_owned(),
        ipv4: Some("10.64.0.5".to_owned()),
        ipv6: None,
        container_id: key(number).container_id,
        if_name: "eth0".to_owned(),
        pod_namespace: None,
        pod_name: None,
        pod_uid: None,
        created_at: MicroTime(jiff::Timestamp::UNIX_EPOCH),
        boot_id: "boot".to_owned(),
    };
    Box::new(IPAssignment::new("10.64.0.5", spec))
}

fn create(number: usize) -> (Operation, oneshot::Receiver<Confirmation>) {
    let (reply, answer) = oneshot::channel();
    (Operation::create(key(number), IpPair { ipv4: None, ipv6: None }, assignment(number), reply), answer)
}

/// A simulated API server that has only the assignment of one address.
#[derive(Default)]
struct Server {
    existing: Option<(AttachmentKey, String)>,
    uids: usize,
    writes: usize,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    /// The call takes effect, but its answer is lost.
    AnswerLost,
    /// The call never reaches the API server.
    CallLost,
}

impl Server {
    fn call(&mut self, step: &AssignmentCall, fault: Fault) -> CallResult {
        if matches!(fault, Fault::CallLost) {
            return CallResult::Unknown;
        }
        let outcome = match step {
            AssignmentCall::Create(_) if self.existing.is_some() => CallResult::Exists,
            AssignmentCall::Create(assignment) => {
                self.uids += 1;
                self.writes += 1;
                let uid = format!("uid-{}", self.uids);
                self.existing =
                    Some((AttachmentKey::new(&assignment.spec.container_id, &assignment.spec.if_name), uid.clone()));
                CallResult::Own(uid)
            }
            AssignmentCall::Get(key) => match &self.existing {
                None => CallResult::Absent,
                Some((whose, uid)) if whose == key => CallResult::Own(uid.clone()),
                Some((whose, uid)) => other_owner(whose, uid),
            },
            AssignmentCall::Delete(uid) => {
                self.writes += 1;
                if self.existing.as_ref().is_some_and(|(_, known)| known == uid) {
                    self.existing = None;
                }
                CallResult::Deleted
            }
        };
        if matches!(fault, Fault::AnswerLost) { CallResult::Unknown } else { outcome }
    }
}

fn run(queue: &mut AddressQueue, server: &mut Server, mut faults: impl Iterator<Item = Fault>) {
    for _ in 0..1000 {
        let Some(step) = queue.next() else { return };
        let outcome = server.call(&step, faults.next().unwrap_or(Fault::None));
        if let Completion::Created { reply, confirmation, .. } = queue.complete_call(outcome) {
            let _ = reply.send(confirmation);
        }
    }
    panic!("the queue still has operations after 1000 calls");
}

#[test]
fn a_healthy_create_and_delete_are_one_write_each_and_no_read() {
    let (mut queue, mut server) = (AddressQueue::default(), Server::default());
    let (write, mut answer) = create(1);
    queue.push(write);
    let Some(AssignmentCall::Create(_)) = queue.next() else {
        panic!("the first call of a queued create must be a create call")
    };
    let posted = server.call(&AssignmentCall::Create(assignment(1)), Fault::None);
    let Completion::Created { reply, confirmation: Confirmation::Created { uid }, .. } = queue.complete_call(posted)
    else {
        panic!("the create is not complete after a successful create call")
    };
    drop(reply);
    assert!(answer.try_recv().is_err());
    queue.push(Operation::delete(key(1), Some(uid.clone()), None));
    assert_eq!(queue.next(), Some(AssignmentCall::Delete(uid)));
    assert!(matches!(queue.complete_call(CallResult::Deleted), Completion::Deleted { .. }));
    assert!(queue.is_idle() && queue.next().is_none());
}

#[test]
fn a_delete_cancels_a_create_that_was_not_sent() {
    let mut queue = AddressQueue::default();
    queue.push(create(1).0);
    assert_eq!(queue.push(Operation::delete(key(1), None, None)), [key(1)]);
    assert!(queue.is_idle());
}

#[test]
fn a_delete_waits_for_a_create_that_was_sent() {
    let (mut queue, mut server) = (AddressQueue::default(), Server::default());
    queue.push(create(1).0);
    let step = queue.next().unwrap();
    assert!(queue.push(Operation::delete(key(1), None, None)).is_empty());
    // The server creates the assignment, but its answer is lost.
    let outcome = server.call(&step, Fault::AnswerLost);
    assert!(matches!(queue.complete_call(outcome), Completion::Pending));
    run(&mut queue, &mut server, std::iter::empty());
    assert_eq!(server.existing, None);
}

/// The result of a read that found the assignment of another attachment.
fn other_owner(holder: &AttachmentKey, uid: &str) -> CallResult {
    CallResult::OtherOwner {
        by: holder.to_string(),
        node: "n9".to_owned(),
        holder: holder.clone(),
        uid: uid.to_owned(),
    }
}

#[test]
fn another_attachments_assignment_is_reported_and_kept() {
    let (mut queue, mut server) = (AddressQueue::default(), Server::default());
    server.existing = Some((AttachmentKey::new("other", "eth0"), "uid-x".to_owned()));
    let (write, mut answer) = create(1);
    queue.push(write);
    queue.push(Operation::delete(key(2), None, None));
    run(&mut queue, &mut server, std::iter::empty());
    assert_eq!(
        answer.try_recv(),
        Ok(Confirmation::Taken {
            by: "other/eth0".to_owned(),
            node: "n9".to_owned(),
            holder: AttachmentKey::new("other", "eth0"),
            uid: "uid-x".to_owned(),
        })
    );
    assert!(server.existing.is_some());
    assert_eq!(server.writes, 0);
}

fn faults() -> impl Strategy<Value = Fault> {
    prop_oneof![3 => Just(Fault::None), 2 => Just(Fault::AnswerLost), 2 => Just(Fault::CallLost)]
}

proptest! {
    /// Several attachments use the same address one after another. If an attachment's ADD learned the UID of the assignment, the
    /// attachment's DEL passes this UID. Between an ADD or DEL and the next one, the queue sends some of its pending calls to the API
    /// server.
    #[test]
    fn in_the_end_the_last_attachments_assignment_exists(
        lives in prop::collection::vec((0_usize..4, 0_usize..4), 1..6),
        ends in any::<bool>(),
        trouble in prop::collection::vec(faults(), 0..60),
    ) {
        let (mut queue, mut server) = (AddressQueue::default(), Server::default());
        let mut trouble = trouble.into_iter();
        let mut answers = Vec::new();
        let mut steps = |queue: &mut AddressQueue, server: &mut Server, count: usize| {
            for _ in 0..count {
                let Some(step) = queue.next() else { return };
                let outcome = server.call(&step, trouble.next().unwrap_or(Fault::None));
                if let Completion::Created { reply, confirmation, .. } = queue.complete_call(outcome) {
                    let _ = reply.send(confirmation);
                }
            }
        };
        for (number, (before, after)) in lives.iter().enumerate() {
            let (write, mut answer) = create(number);
            queue.push(write);
            steps(&mut queue, &mut server, *before);
            let last = number + 1 == lives.len();
            if !last || ends {
                let uid = match answer.try_recv() {
                    Ok(Confirmation::Created { uid }) => Some(uid),
                    _ => None,
                };
                queue.push(Operation::delete(key(number), uid, None));
                steps(&mut queue, &mut server, *after);
            } else {
                answers.push(answer);
            }
        }
        run(&mut queue, &mut server, trouble);
        let existing = server.existing.map(|(key, _)| key);
        prop_assert_eq!(existing, (!ends).then(|| key(lives.len() - 1)));
        for mut answer in answers {
            let created = matches!(answer.try_recv(), Ok(Confirmation::Created { .. }));
            prop_assert!(created || ends, "the last attachment got no confirmation");
        }
        prop_assert!(queue.is_idle());
    }
}

#[test]
fn a_delete_does_not_cancel_a_create_that_an_earlier_run_may_have_sent() {
    let (mut server, mut queue) = (Server::default(), AddressQueue::default());
    // An earlier run of the agent sent the create, but was killed before the answer arrived.
    server.call(&AssignmentCall::Create(assignment(0)), Fault::AnswerLost);
    let (write, _answer) = create(0);
    queue.push(write.may_have_been_sent());
    let cancelled = queue.push(Operation::delete(key(0), None, None));
    assert!(cancelled.is_empty());
    while let Some(step) = queue.next() {
        let outcome = server.call(&step, Fault::None);
        queue.complete_call(outcome);
    }
    assert_eq!(server.existing, None);
}

#[test]
fn a_refused_delete_or_read_stays_until_it_is_done() {
    let (mut queue, mut server) = (AddressQueue::default(), Server::default());
    server.existing = Some((key(1), "uid-x".to_owned()));
    queue.push(Operation::delete(key(1), None, None));
    let refused = || CallResult::Refused("forbidden".to_owned());
    for _ in 0..3 {
        assert_eq!(queue.next(), Some(AssignmentCall::Get(key(1))));
        assert!(matches!(queue.complete_call(refused()), Completion::RetryLater(_)));
    }
    queue.next();
    queue.complete_call(CallResult::Own("uid-x".to_owned()));
    for _ in 0..3 {
        assert_eq!(queue.next(), Some(AssignmentCall::Delete("uid-x".to_owned())));
        assert!(matches!(queue.complete_call(refused()), Completion::RetryLater(_)));
        assert!(!queue.is_idle());
    }
    run(&mut queue, &mut server, std::iter::empty());
    assert_eq!(server.existing, None);
}

#[test]
fn a_refused_read_does_not_complete_a_create_that_may_have_been_sent() {
    let mut queue = AddressQueue::default();
    let (write, _answer) = create(1);
    queue.push(write.may_have_been_sent());
    assert_eq!(queue.next(), Some(AssignmentCall::Get(key(1))));
    assert!(matches!(queue.complete_call(CallResult::Refused("forbidden".to_owned())), Completion::RetryLater(_)));
    assert_eq!(queue.next(), Some(AssignmentCall::Get(key(1))));
}

#[test]
fn a_delete_after_a_create_deletes_the_created_assignment_whatever_uid_it_had() {
    let mut queue = AddressQueue::default();
    queue.push(create(1).0);
    queue.next();
    queue.push(Operation::delete(key(1), Some("of before".to_owned()), None));
    queue.push(Operation::delete(key(2), Some("another's".to_owned()), None));
    queue.complete_call(CallResult::Own("new".to_owned()));
    assert_eq!(queue.next(), Some(AssignmentCall::Delete("new".to_owned())));
    queue.complete_call(CallResult::Deleted);
    assert_eq!(queue.next(), Some(AssignmentCall::Delete("another's".to_owned())));
}

#[test]
fn an_existing_assignment_is_reported_until_its_owner_is_known() {
    let mut queue = AddressQueue::default();
    let (write, mut answer) = create(1);
    queue.push(write);
    assert!(matches!(queue.next(), Some(AssignmentCall::Create(_))) && !queue.found_existing());
    assert!(matches!(queue.complete_call(CallResult::Exists), Completion::Pending) && queue.found_existing());
    assert!(matches!(queue.next(), Some(AssignmentCall::Get(_))));
    let Completion::Created { reply, confirmation, .. } = queue.complete_call(other_owner(&key(2), "uid-2")) else {
        panic!("the result of the read did not complete the create");
    };
    assert!(!queue.found_existing() && answer.try_recv().is_err());
    reply.send(confirmation).unwrap();
    assert!(matches!(answer.try_recv().unwrap(), Confirmation::Taken { .. }));
}
