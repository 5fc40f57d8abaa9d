//! Decides how soon after a pass of the installer a change of the directories may start another pass. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// The minimum pause after a pass, before a change of a directory starts the next pass. The pause doubles with each further pass that
/// restores a file. So the load stays low if another program changes the files again after each pass.
#[derive(Debug)]
pub(super) struct ChangePause {
    shortest: Duration,
    longest: Duration,
    pause: Duration,
    last_restored: Option<Instant>,
}

impl ChangePause {
    pub(super) fn new(shortest: Duration, longest: Duration) -> ChangePause {
        ChangePause { shortest, longest, pause: shortest, last_restored: None }
    }

    /// The pause after a pass that ended at `now`. `restored` says whether the pass restored a file.
    pub(super) fn after(&mut self, restored: bool, now: Instant) -> Duration {
        if self.last_restored.is_some_and(|last| now.duration_since(last) > 2 * self.longest) {
            self.pause = self.shortest;
            self.last_restored = None;
        }
        if restored && self.last_restored.replace(now).is_some() {
            self.pause = (self.pause * 2).min(self.longest);
        }
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_while_another_program_changes_the_files_and_is_short_again_later() {
        let [shortest, longest] = [1, 5].map(Duration::from_secs);
        let mut pause = ChangePause::new(shortest, longest);
        let mut now = Instant::now();
        assert_eq!((pause.after(false, now), pause.after(true, now)), (shortest, shortest));
        let mut pauses = Vec::new();
        for _ in 0..6 {
            // The agent's own write starts a pass that restores nothing.
            now += pause.after(false, now);
            pauses.push(pause.after(true, now).as_secs());
        }
        assert_eq!(pauses, [2, 4, 5, 5, 5, 5]);
        assert_eq!(pause.after(false, now + 2 * longest), longest);
        assert_eq!(pause.after(true, now + 3 * longest), shortest);
    }
}
