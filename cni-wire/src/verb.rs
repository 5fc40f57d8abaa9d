//! The verbs of the CNI specification, and their texts in `CNI_COMMAND`.

use std::fmt;

/// The operation that the container runtime requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Add a container to the network.
    Add,
    /// Remove a container from the network.
    Del,
    /// Check whether the container's network is still as ADD configured it.
    Check,
    /// Remove all attachments that are not in the list of valid attachments.
    Gc,
    /// Report whether the plugin can handle ADD.
    Status,
    /// Report which CNI versions the plugin supports.
    Version,
}

impl Verb {
    /// Parses the value of `CNI_COMMAND`; `None` if the value is not a verb of the specification.
    pub fn parse(word: &str) -> Option<Verb> {
        Some(match word {
            "ADD" => Verb::Add,
            "DEL" => Verb::Del,
            "CHECK" => Verb::Check,
            "GC" => Verb::Gc,
            "STATUS" => Verb::Status,
            "VERSION" => Verb::Version,
            _ => return None,
        })
    }

    /// The text of the verb in `CNI_COMMAND`.
    pub const fn word(self) -> &'static str {
        match self {
            Verb::Add => "ADD",
            Verb::Del => "DEL",
            Verb::Check => "CHECK",
            Verb::Gc => "GC",
            Verb::Status => "STATUS",
            Verb::Version => "VERSION",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
