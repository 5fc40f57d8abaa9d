//! The metrics registry of a program. Each metric is registered near the code that counts it.

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// All metrics of a program. Their names begin with `bobbin_`.
#[derive(Debug)]
pub struct Metrics(Registry);

impl Default for Metrics {
    fn default() -> Self {
        Self(Registry::with_prefix("bobbin"))
    }
}

impl Metrics {
    /// The registry, to which a program adds its metrics. The library appends `_total` to the names of counters.
    pub fn registry(&mut self) -> &mut Registry {
        &mut self.0
    }

    /// All metrics in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Encoding into a string fails only if a collector fails. The text then contains only the metrics before that
        // collector.
        let _ = encode(&mut text, &self.0);
        text
    }
}
