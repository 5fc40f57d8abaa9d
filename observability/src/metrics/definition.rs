//! Describes a metric: its name, its labels with their values, its unit and its meaning.

use prometheus_client::metrics::MetricType;

/// The description of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// The name without the prefix of the component and without the suffix `_total`.
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) help: &'static str,
    pub(super) labels: &'static [Label],
}

/// A label of a metric, and the values that the label may have.
#[derive(Clone, Copy, Debug)]
pub enum Label {
    /// The name of a label that has only these values.
    Only(&'static str, &'static [&'static str]),
    /// The name of a label, and a description of its values.
    Described(&'static str, &'static str),
}

impl Definition {
    /// A metric without labels. The sentence `help` has no full stop, because the library adds one.
    pub const fn new(name: &'static str, unit: &'static str, help: &'static str) -> Self {
        Self { name, unit, help, labels: &[] }
    }

    /// The same metric with labels.
    #[must_use]
    pub const fn labels(self, labels: &'static [Label]) -> Self {
        Self { labels, ..self }
    }
}

/// A registered metric.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The name of the metric as Prometheus shows it. For a histogram, the name without the suffixes `_bucket`, `_sum` and
    /// `_count`.
    pub(super) name: String,
    /// The metric's type: `counter`, `gauge` or `histogram`.
    pub(super) kind: String,
    pub(super) definition: Definition,
}

impl Listed {
    pub(super) fn new(name: &str, kind: MetricType, definition: &Definition) -> Self {
        let suffix = if matches!(kind, MetricType::Counter) { "_total" } else { "" };
        Self { name: format!("{name}{suffix}"), kind: kind.as_str().to_owned(), definition: *definition }
    }

    /// Whether this is a metric of the process, which each program has.
    pub fn is_of_process(&self) -> bool {
        self.name.starts_with("process_")
    }
}
