//! Tests the deadlines of loops with tokio's simulated clock.

use super::*;

const DEADLINE: Duration = Duration::from_mins(1);

#[tokio::test(start_paused = true)]
async fn a_hanging_loop_is_named_with_its_silence() {
    let watchdog = Watchdog::default();
    let repair = watchdog.register("repair", DEADLINE);
    let _serve = watchdog.register("serve", Duration::from_mins(10));
    tokio::time::advance(DEADLINE).await;
    assert_eq!(watchdog.live(), Ok(()));
    tokio::time::advance(Duration::from_secs(15)).await;
    assert_eq!(watchdog.live(), Err("loop \"repair\" has made no progress for 75 s (its deadline is 60 s)".to_owned()));
    repair.beat();
    assert_eq!(watchdog.live(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn hanging_loops_are_sorted_by_their_silence() {
    let watchdog = Watchdog::default();
    let first = watchdog.register("first", DEADLINE);
    tokio::time::advance(DEADLINE).await;
    let _second = watchdog.register("second", Duration::from_secs(10));
    tokio::time::advance(DEADLINE).await;
    let names = |watchdog: &Watchdog| watchdog.stalled().iter().map(|each| each.name).collect::<Vec<_>>();
    assert_eq!(names(&watchdog), ["first", "second"]);
    first.beat();
    assert_eq!(names(&watchdog), ["second"]);
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_has_ended_is_forgotten() {
    let watchdog = Watchdog::default();
    drop(watchdog.register("ended", DEADLINE));
    tokio::time::advance(DEADLINE * 2).await;
    assert_eq!(watchdog.live(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn two_loops_of_one_name_are_watched_separately() {
    let watchdog = Watchdog::default();
    let (one, _two) = (watchdog.register("keeper", DEADLINE), watchdog.register("keeper", DEADLINE));
    tokio::time::advance(DEADLINE * 2).await;
    one.beat();
    assert_eq!(watchdog.stalled().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_loop_stays_alive() {
    let watchdog = Watchdog::default();
    let beat = watchdog.register("idle", DEADLINE);
    let watcher = watchdog.clone();
    let waiting = tokio::spawn(async move {
        beat.while_idle(tokio::time::sleep(DEADLINE * 100)).await;
        beat
    });
    for _ in 0..50 {
        tokio::time::sleep(DEADLINE).await;
        assert_eq!(watcher.live(), Ok(()));
    }
    let beat = waiting.await.unwrap();
    assert_eq!(watchdog.live(), Ok(()));
    drop(beat);
}
