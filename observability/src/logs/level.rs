//! The level of a log: one word, or directives that give parts of the program different levels.

use std::fmt;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A level such as `debug`, or directives such as `info,bobbin_node_agent::cni=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel(String);

impl Default for LogLevel {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl LogLevel {
    /// The filter of this level. By default, kube's client logs nothing, because Bobbin itself logs failed API calls.
    /// The words `debug` and `trace` apply only to Bobbin, because its libraries would log too many lines.
    pub(super) fn filter(&self) -> EnvFilter {
        match self.0.as_str() {
            "debug" | "trace" => EnvFilter::new(format!("info,kube_client=off,bobbin={}", self.0)),
            directives => EnvFilter::new(format!("kube_client=off,{directives}")),
        }
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let is_level = |word: &str| LEVELS.contains(&word);
        let is_directive = |part: &str| {
            is_level(part)
                || part.split_once('=').is_some_and(|(target, level)| {
                    let named = |character: char| character.is_alphanumeric() || matches!(character, '_' | ':');
                    !target.is_empty() && target.chars().all(named) && is_level(level)
                })
        };
        match text.split(',').find(|part| !is_directive(part)) {
            None => Ok(Self(text.to_owned())),
            Some(part) => Err(format!(
                "unknown log level {part:?}: write error, warn, info, debug, trace or off, or directives such as info,bobbin_node_agent::cni=debug"
            )),
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_levels_and_directives_are_accepted() {
        for text in ["info", "off", "debug\n", "info,bobbin_node_agent::cni=debug", "warn,kube_client=debug"] {
            assert_eq!(text.parse::<LogLevel>().map(|level| level.to_string()), Ok(text.trim().to_owned()));
        }
        for text in ["", "INFO", "loud", "info,", "=debug", "info,cni[x]=debug", "bobbin=loud"] {
            assert!(text.parse::<LogLevel>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn debug_applies_only_to_bobbin() {
        let filter = |text: &str| text.parse::<LogLevel>().unwrap().filter().to_string();
        for directive in ["bobbin=debug", "info", "kube_client=off"] {
            assert!(filter("debug").split(',').any(|part| part == directive), "{}", filter("debug"));
        }
        assert!(filter("warn,kube_client=debug").contains("kube_client=debug"));
    }
}
