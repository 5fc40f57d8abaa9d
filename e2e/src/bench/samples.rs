//! Durations and their percentiles.

use std::time::Duration;

/// The times of one row of the report.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    sorted: Vec<Duration>,
}

impl Samples {
    /// Adds one time.
    pub fn add(&mut self, took: Duration) {
        let place = self.sorted.partition_point(|seen| *seen <= took);
        self.sorted.insert(place, took);
    }

    /// Adds all times of another set of samples.
    pub fn extend(&mut self, other: &Self) {
        self.sorted.extend(&other.sorted);
        self.sorted.sort_unstable();
    }

    /// The number of times.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The nearest-rank percentile in milliseconds: the smallest time that at least `percent` % of the times do not
    /// exceed. `None` if there are no times.
    pub fn percentile(&self, percent: usize) -> Option<f64> {
        let rank = (self.sorted.len() * percent).div_ceil(100).max(1);
        self.sorted.get(rank - 1).map(|took| took.as_secs_f64() * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    //! Tests of nearest-rank percentiles.

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
