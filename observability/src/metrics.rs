//! The metrics of a program. Each metric is registered next to the code that counts it; this only holds and prints them.

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// All metrics of a program; their names begin with `bobbin_`.
#[derive(Debug)]
pub struct Metrics(Registry);

impl Default for Metrics {
    fn default() -> Self {
        Self(Registry::with_prefix("bobbin"))
    }
}

impl Metrics {
    /// Where to register a metric. Counters get `_total` appended when they are shown.
    pub fn registry(&mut self) -> &mut Registry {
        &mut self.0
    }

    /// All metrics in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string fails only if a collector does; then what was written so far is shown.
        let _ = encode(&mut text, &self.0);
        text
    }
}
