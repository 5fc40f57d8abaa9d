//! The versions of the CNI specification that Bobbin speaks, and what each allows.

use crate::Verb;
use std::fmt;

/// A supported version of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 0.3.1: ADD, DEL, VERSION.
    V0_3_1,
    /// 0.4.0: CHECK came.
    V0_4_0,
    /// 1.0.0: `ips[].version` went.
    V1_0_0,
    /// 1.1.0: GC and STATUS came, and more fields in the result.
    V1_1_0,
}

impl Version {
    /// All, the oldest first.
    pub const ALL: [Version; 4] = [Version::V0_3_1, Version::V0_4_0, Version::V1_0_0, Version::V1_1_0];
    /// The newest.
    pub const LATEST: Version = Version::V1_1_0;
    /// All of them for a sentence.
    pub const NAMED: &'static str = "0.3.1, 0.4.0, 1.0.0 and 1.1.0";

    /// Reads a `cniVersion`; `None` if it is not supported.
    pub fn parse(text: &str) -> Option<Version> {
        Version::ALL.into_iter().find(|version| version.text() == text)
    }

    /// As in `cniVersion`.
    pub fn text(self) -> &'static str {
        match self {
            Version::V0_3_1 => "0.3.1",
            Version::V0_4_0 => "0.4.0",
            Version::V1_0_0 => "1.0.0",
            Version::V1_1_0 => "1.1.0",
        }
    }

    /// Does the verb exist in this version?
    pub fn allows(self, verb: Verb) -> bool {
        match verb {
            Verb::Add | Verb::Del | Verb::Version => true,
            Verb::Check => self >= Version::V0_4_0,
            Verb::Gc | Verb::Status => self >= Version::V1_1_0,
        }
    }

    /// The answer to VERSION, in the version of the question (the newest, if the question's is not supported).
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
