//! The verbs of the CNI specification, by their word in `CNI_COMMAND`.

use std::fmt;

/// What the runtime asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Add a container to the network.
    Add,
    /// Remove a container from the network.
    Del,
    /// Is the container's network as ADD left it?
    Check,
    /// Free what is not listed as valid.
    Gc,
    /// Can ADD be served?
    Status,
    /// Which versions are spoken?
    Version,
}

impl Verb {
    /// Reads the value of `CNI_COMMAND`; `None` if it is no verb of the specification.
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

    /// The word in `CNI_COMMAND`.
    pub fn word(self) -> &'static str {
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
