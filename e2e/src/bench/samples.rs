//! Durations and their percentiles.

use std::time::Duration;

/// The durations of one row of the report.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    sorted: Vec<Duration>,
}

impl Samples {
    /// Adds one duration.
    pub fn add(&mut self, took: Duration) {
        let place = self.sorted.partition_point(|seen| *seen <= took);
        self.sorted.insert(place, took);
    }

    /// Adds all durations of another set of samples.
    pub fn extend(&mut self, other: &Self) {
        self.sorted.extend(&other.sorted);
        self.sorted.sort_unstable();
    }

    /// The number of durations.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The nearest-rank percentile in milliseconds. At least `percent` % of the durations are not longer than this
    /// value. `None` if there are no durations.
    pub fn percentile(&self, percent: usize) -> Option<f64> {
        let rank = (self.sorted.len() * percent).div_ceil(100).max(1);
        self.sorted.get(rank - 1).map(|took| took.as_secs_f64() * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    //! Tests nearest-rank percentiles.

    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let mut samples = Samples::default();
        assert_eq!(samples.percentile(50), None);
        for millis in (1..=100).rev() {
            samples.add(Duration::from_millis(millis));
        }
        let read = |percent| samples.percentile(percent).map(f64::round);
        assert_eq!((read(50), read(95), read(99), read(100)), (Some(50.0), Some(95.0), Some(99.0), Some(100.0)));
        assert_eq!(samples.count(), 100);
    }
}
