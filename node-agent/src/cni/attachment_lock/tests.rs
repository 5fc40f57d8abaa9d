//! Tests the order in which verbs get the lock, and the interruption of ADDs by a DEL. The tests poll the futures themselves, so the order
//! of tasks has no effect.

use std::future::pending;
use std::pin::pin;

use futures::FutureExt;
use futures::poll;

use super::*;

const DEADLINE: Duration = Duration::from_secs(40);

fn key() -> AttachmentKey {
    AttachmentKey::new("c1", "eth0")
}

#[tokio::test]
async fn a_del_interrupts_an_add_that_starts_to_wait_later() {
    let (locks, key) = (AttachmentLocks::default(), key());
    let add = locks.lock(&key, DEADLINE).await.unwrap();
    let mut del = pin!(locks.lock_for_del(&key, DEADLINE));
    assert!(poll!(&mut del).is_pending());
    // The DEL has begun to wait before the ADD looks for waiting DELs. The ADD must still see the DEL.
    assert!(add.del_waits().now_or_never().is_some());
    assert_eq!(add.unless_del_waits(pending::<()>()).now_or_never(), Some(None));
    drop(add);
    assert!(del.await.is_some());
}

#[tokio::test]
async fn a_del_interrupts_an_add_that_waits() {
    let (locks, key) = (AttachmentLocks::default(), key());
    let add = locks.lock(&key, DEADLINE).await.unwrap();
    let mut waits = pin!(add.unless_del_waits(pending::<()>()));
    assert!(poll!(&mut waits).is_pending());
    let mut del = pin!(locks.lock_for_del(&key, DEADLINE));
    assert!(poll!(&mut del).is_pending());
    assert_eq!(waits.now_or_never(), Some(None));
}

#[tokio::test]
async fn a_waiting_del_interrupts_every_wait_of_each_add_before_it() {
    let (locks, key) = (AttachmentLocks::default(), key());
    let first = locks.lock(&key, DEADLINE).await.unwrap();
    let mut second = pin!(locks.lock(&key, DEADLINE));
    assert!(poll!(&mut second).is_pending());
    let mut del = pin!(locks.lock_for_del(&key, DEADLINE));
    assert!(poll!(&mut del).is_pending());
    for _ in 0..3 {
        assert!(first.del_waits().now_or_never().is_some());
    }
    drop(first);
    let second = second.await.unwrap();
    assert!(second.del_waits().now_or_never().is_some());
}

#[tokio::test]
async fn a_del_interrupts_neither_itself_nor_a_later_add() {
    let (locks, key) = (AttachmentLocks::default(), key());
    let del = locks.lock_for_del(&key, DEADLINE).await.unwrap();
    assert!(del.del_waits().now_or_never().is_none());
    drop(del);
    let add = locks.lock(&key, DEADLINE).await.unwrap();
    assert!(add.del_waits().now_or_never().is_none());
}

#[tokio::test]
async fn an_add_between_two_dels_is_interrupted_by_the_second() {
    let (locks, key) = (AttachmentLocks::default(), key());
    let first = locks.lock(&key, DEADLINE).await.unwrap();
    let mut one = pin!(locks.lock_for_del(&key, DEADLINE));
    assert!(poll!(&mut one).is_pending());
    let mut add = pin!(locks.lock(&key, DEADLINE));
    assert!(poll!(&mut add).is_pending());
    let mut two = pin!(locks.lock_for_del(&key, DEADLINE));
    assert!(poll!(&mut two).is_pending());
    drop(first);
    drop(one.await.unwrap());
    assert!(add.await.unwrap().del_waits().now_or_never().is_some());
}

#[tokio::test]
async fn a_del_of_another_attachment_or_one_that_timed_out_interrupts_nothing() {
    let (locks, key) = (AttachmentLocks::default(), key());
    let add = locks.lock(&key, DEADLINE).await.unwrap();
    assert!(locks.lock_for_del(&AttachmentKey::new("c2", "eth0"), DEADLINE).await.is_some());
    assert!(locks.lock_for_del(&key, Duration::ZERO).await.is_none());
    assert!(add.del_waits().now_or_never().is_none());
}

#[tokio::test]
async fn a_ready_result_wins_over_a_waiting_del() {
    let (locks, key) = (AttachmentLocks::default(), key());
    let add = locks.lock(&key, DEADLINE).await.unwrap();
    let mut del = pin!(locks.lock_for_del(&key, DEADLINE));
    assert!(poll!(&mut del).is_pending());
    assert_eq!(add.unless_del_waits(std::future::ready(7)).await, Some(7));
}
