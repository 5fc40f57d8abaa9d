//! The metrics of a program: their definitions, their registry, and the text that Prometheus reads. Each metric is
//! registered near the code that counts it.

mod common;
mod definition;
mod page;

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::{Metric, Registry};

pub use definition::{Definition, Label, Listed};
pub use page::table;

/// A function that sets gauges from the program's state.
type Refresh = Box<dyn Fn() + Send + Sync>;

/// All metrics of a program.
#[derive(Default)]
pub struct Metrics {
    registry: Registry,
    listed: Vec<Listed>,
    /// The functions to call before each reading of the metrics. The lock also serializes readers. Otherwise, a
    /// function that runs for one reader could remove gauges while another reader encodes the metrics.
    refresh: Mutex<Vec<Refresh>>,
}

/// The metrics of one component of Bobbin. Their names begin with `bobbin_` and the name of the component.
pub struct Component<'a> {
    metrics: &'a mut Metrics,
    name: &'static str,
}

impl Metrics {
    /// Adds metrics to a component, for example `agent`.
    pub fn component(&mut self, name: &'static str) -> Component<'_> {
        Component { metrics: self, name }
    }

    /// Calls `refresh` each time the metrics are read. `refresh` must not block.
    pub fn on_read(&self, refresh: impl Fn() + Send + Sync + 'static) {
        self.refresh.lock().push(Box::new(refresh));
    }

    /// The metrics of this program, in the order of their registration.
    pub fn listed(&self) -> &[Listed] {
        &self.listed
    }

    /// All metrics in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let refresh = self.refresh.lock();
        refresh.iter().for_each(|refresh| refresh());
        let mut text = String::new();
        // Encoding into a string fails only if a collector fails. The text then contains only the metrics before that
        // collector.
        let _ = encode(&mut text, &self.registry);
        text
    }

    fn add<M: Metric + Clone>(&mut self, name: String, definition: &Definition, metric: M) -> M {
        self.listed.push(Listed::new(&name, metric.metric_type(), definition));
        self.registry.register(name, definition.help, metric.clone());
        metric
    }
}

impl Component<'_> {
    /// Registers a metric and returns it. The library appends `_total` to the names of counters.
    pub fn add<M: Metric + Clone>(&mut self, definition: &Definition, metric: M) -> M {
        self.metrics.add(format!("bobbin_{}_{}", self.name, definition.name), definition, metric)
    }

    /// Calls `refresh` each time the metrics are read. `refresh` must not block.
    pub fn on_read(&self, refresh: impl Fn() + Send + Sync + 'static) {
        self.metrics.on_read(refresh);
    }
}

#[cfg(test)]
mod tests;
