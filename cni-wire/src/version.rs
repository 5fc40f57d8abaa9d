//! The versions of the CNI specification that Bobbin supports, and the verbs of each version.

use crate::Verb;
use std::fmt;

/// A version of the CNI specification that Bobbin supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// Version 0.3.1 has ADD, DEL and VERSION.
    V0_3_1,
    /// Version 0.4.0 adds CHECK.
    V0_4_0,
    /// Version 1.0.0 removes `ips[].version`.
    V1_0_0,
    /// Version 1.1.0 adds GC, STATUS and more fields in the result.
    V1_1_0,
}

impl Version {
    /// All supported versions, the oldest first.
    pub const ALL: [Version; 4] = [Version::V0_3_1, Version::V0_4_0, Version::V1_0_0, Version::V1_1_0];
    /// The newest supported version.
    pub const LATEST: Version = Version::V1_1_0;
    /// All supported versions, as a text for messages.
    pub const NAMED: &'static str = "0.3.1, 0.4.0, 1.0.0 and 1.1.0";

    /// Parses the value of `cniVersion`. Returns `None` if Bobbin does not support the version.
    pub fn parse(text: &str) -> Option<Version> {
        Version::ALL.into_iter().find(|version| version.text() == text)
    }

    /// The text of the version in `cniVersion`.
    pub fn text(self) -> &'static str {
        match self {
            Version::V0_3_1 => "0.3.1",
            Version::V0_4_0 => "0.4.0",
            Version::V1_0_0 => "1.0.0",
            Version::V1_1_0 => "1.1.0",
        }
    }

    /// Whether this version has the verb.
    pub fn allows(self, verb: Verb) -> bool {
        match verb {
            Verb::Add | Verb::Del | Verb::Version => true,
            Verb::Check => self >= Version::V0_4_0,
            Verb::Gc | Verb::Status => self >= Version::V1_1_0,
        }
    }

    /// The answer to VERSION. `asked` is the version in the call. If Bobbin does not support this version, `asked` is
    /// `None`, and the answer names the newest version.
    pub fn answer(asked: Option<Version>) -> String {
        let mut answer = String::from("{\"cniVersion\":\"");
        answer.push_str(asked.unwrap_or(Version::LATEST).text());
        answer.push_str("\",\"supportedVersions\":[");
        for (place, version) in Version::ALL.into_iter().enumerate() {
            answer.push_str(if place == 0 { "\"" } else { ",\"" });
            answer.push_str(version.text());
            answer.push('"');
        }
        answer.push_str("]}");
        answer
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
