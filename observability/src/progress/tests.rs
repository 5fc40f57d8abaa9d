//! Deadlines, on tokio's clock.

use super::*;

const DEADLINE: Duration = Duration::from_mins(1);

#[tokio::test(start_paused = true)]
async fn a_loop_that_hangs_is_named_with_the_time_that_it_has_been_silent() {
    let progress = Progress::default();
    let repair = progress.register("repair", DEADLINE);
    let _serve = progress.register("serve", Duration::from_mins(10));
    tokio::time::advance(DEADLINE).await;
    assert_eq!(progress.live(), Ok(()));
    tokio::time::advance(Duration::from_secs(15)).await;
    assert_eq!(progress.live(), Err("loop \"repair\" has made no progress for 75 s (its deadline is 60 s)".to_owned()));
    repair.made();
    assert_eq!(progress.live(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn all_that_hang_are_named_the_longest_silent_first() {
    let progress = Progress::default();
    let first = progress.register("first", DEADLINE);
    tokio::time::advance(DEADLINE).await;
    let _second = progress.register("second", Duration::from_secs(10));
    tokio::time::advance(DEADLINE).await;
    let names = |progress: &Progress| progress.stalled().iter().map(|each| each.name).collect::<Vec<_>>();
    assert_eq!(names(&progress), ["first", "second"]);
    first.made();
    assert_eq!(names(&progress), ["second"]);
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_has_ended_is_forgotten() {
    let progress = Progress::default();
    drop(progress.register("ended", DEADLINE));
    tokio::time::advance(DEADLINE * 2).await;
    assert_eq!(progress.live(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn two_loops_of_one_name_are_judged_apart() {
    let progress = Progress::default();
    let (one, _two) = (progress.register("keeper", DEADLINE), progress.register("keeper", DEADLINE));
    tokio::time::advance(DEADLINE * 2).await;
    one.made();
    assert_eq!(progress.stalled().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_loop_is_alive_however_long_it_waits() {
    let progress = Progress::default();
    let beat = progress.register("idle", DEADLINE);
    let watcher = progress.clone();
    let waiting = tokio::spawn(async move {
        beat.while_idle(tokio::time::sleep(DEADLINE * 100)).await;
        beat
    });
    for _ in 0..50 {
        tokio::time::sleep(DEADLINE).await;
        assert_eq!(watcher.live(), Ok(()));
    }
    let beat = waiting.await.unwrap();
    assert_eq!(progress.live(), Ok(()));
    drop(beat);
}
