//! Order and calling off, polled by hand: no test depends on which task runs first.

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
async fn a_del_that_came_before_the_add_began_to_wait_calls_it_off() {
    let (locks, key) = (AttachmentLocks::default(), key());
    let add = locks.take(&key, DEADLINE).await.unwrap();
    let mut del = pin!(locks.take_over(&key, DEADLINE));
    assert!(poll!(&mut del).is_pending());
    // Only now the ADD asks: nothing may have been lost.
    assert!(add.called_off().now_or_never().is_some());
    assert_eq!(add.unless_called_off(pending::<()>()).now_or_never(), Some(None));
    drop(add);
    assert!(del.await.is_some());
}

#[tokio::test]
async fn a_del_that_comes_while_the_add_waits_calls_it_off() {
    let (locks, key) = (AttachmentLocks::default(), key());
    let add = locks.take(&key, DEADLINE).await.unwrap();
    let mut waits = pin!(add.unless_called_off(pending::<()>()));
    assert!(poll!(&mut waits).is_pending());
    let mut del = pin!(locks.take_over(&key, DEADLINE));
    assert!(poll!(&mut del).is_pending());
    assert_eq!(waits.now_or_never(), Some(None));
}

#[tokio::test]
async fn the_flag_stays_set_for_every_wait_of_the_adds_turn_and_for_an_add_before_the_del_in_the_queue() {
    let (locks, key) = (AttachmentLocks::default(), key());
    let first = locks.take(&key, DEADLINE).await.unwrap();
    let mut second = pin!(locks.take(&key, DEADLINE));
    assert!(poll!(&mut second).is_pending());
    let mut del = pin!(locks.take_over(&key, DEADLINE));
    assert!(poll!(&mut del).is_pending());
    for _ in 0..3 {
        assert!(first.called_off().now_or_never().is_some());
    }
    drop(first);
    let second = second.await.unwrap();
    assert!(second.called_off().now_or_never().is_some());
}

#[tokio::test]
async fn neither_a_dels_own_turn_nor_an_add_after_it_is_called_off() {
    let (locks, key) = (AttachmentLocks::default(), key());
    let del = locks.take_over(&key, DEADLINE).await.unwrap();
    assert!(del.called_off().now_or_never().is_none());
    drop(del);
    let add = locks.take(&key, DEADLINE).await.unwrap();
    assert!(add.called_off().now_or_never().is_none());
}

#[tokio::test]
async fn of_two_dels_the_one_behind_an_add_calls_that_add_off() {
    let (locks, key) = (AttachmentLocks::default(), key());
    let first = locks.take(&key, DEADLINE).await.unwrap();
    let mut one = pin!(locks.take_over(&key, DEADLINE));
    assert!(poll!(&mut one).is_pending());
    let mut add = pin!(locks.take(&key, DEADLINE));
    assert!(poll!(&mut add).is_pending());
    let mut two = pin!(locks.take_over(&key, DEADLINE));
    assert!(poll!(&mut two).is_pending());
    drop(first);
    drop(one.await.unwrap());
    assert!(add.await.unwrap().called_off().now_or_never().is_some());
}

#[tokio::test]
async fn a_del_of_another_attachment_and_a_del_that_gave_up_call_nothing_off() {
    let (locks, key) = (AttachmentLocks::default(), key());
    let add = locks.take(&key, DEADLINE).await.unwrap();
    assert!(locks.take_over(&AttachmentKey::new("c2", "eth0"), DEADLINE).await.is_some());
    assert!(locks.take_over(&key, Duration::ZERO).await.is_none());
    assert!(add.called_off().now_or_never().is_none());
}

#[tokio::test]
async fn a_result_that_is_there_counts_more_than_a_del() {
    let (locks, key) = (AttachmentLocks::default(), key());
    let add = locks.take(&key, DEADLINE).await.unwrap();
    let mut del = pin!(locks.take_over(&key, DEADLINE));
    assert!(poll!(&mut del).is_pending());
    assert_eq!(add.unless_called_off(std::future::ready(7)).await, Some(7));
}
