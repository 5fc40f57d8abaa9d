//! Writes metrics as a table for the documents. Pure.

use super::definition::{Label, Listed};

/// A table in Markdown with one row for each metric.
pub fn table<'a>(metrics: impl IntoIterator<Item = &'a Listed>) -> String {
    let head = "| name | type | labels and their values | unit | meaning |\n|---|---|---|---|---|\n";
    metrics.into_iter().fold(head.to_owned(), |table, metric| table + &row(metric))
}

fn row(metric: &Listed) -> String {
    let labels: Vec<String> = metric.definition.labels.iter().map(label).collect();
    let help = metric.definition.help.replace('|', "\\|");
    format!("| `{}` | {} | {} | {} | {help} |\n", metric.name, metric.kind, labels.join(". "), metric.definition.unit)
}

fn label(label: &Label) -> String {
    match label {
        Label::Only(name, values) => {
            let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
            format!("`{name}`: {}", values.join(", "))
        }
        Label::Described(name, text) => format!("`{name}`: {text}"),
    }
}
