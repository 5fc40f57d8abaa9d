//! What is in doubt is never forgotten.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_cant_be_settled_comes_again_and_again_and_what_is_settled_does_not() {
    let mut doubts = Doubts::default();
    assert_eq!(doubts.due(), None);
    doubts.one("a-1", "a");
    assert_eq!(doubts.due(), Some(Instant::now() + SETTLE));
    for _ in 0..50 {
        let (names, all) = doubts.take();
        assert_eq!((names.len(), all), (1, false));
        doubts.again(names, all);
        doubts.settled();
        assert!(doubts.due().is_some_and(|at| at > Instant::now() && at <= Instant::now() + RARELY));
    }
    assert!(doubts.due().is_some_and(|at| at >= Instant::now() + RARELY / 2));
    let _ = doubts.take();
    doubts.settled();
    assert_eq!(doubts.due(), None);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_failed_is_asked_for_again_and_new_doubts_dont_put_it_off() {
    let mut doubts = Doubts::default();
    doubts.all();
    let (names, all) = doubts.take();
    doubts.again(names, all);
    doubts.settled();
    let due = doubts.due();
    assert!(due.is_some_and(|at| at <= Instant::now() + Duration::from_secs(1)));
    doubts.one("a-1", "a");
    assert_eq!(doubts.due(), due);
    assert!(doubts.take().1);
}
