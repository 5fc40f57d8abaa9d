//! The destination, level and format of log lines. The level can change while the program runs.

mod level;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use std::{fs, io};

pub use level::LogLevel;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// How often a program reads the files that set its log level. The files are a mounted ConfigMap. Reading them more
/// often would not help, because the kubelet takes longer than this interval to update them after a change.
const READ_INTERVAL: Duration = Duration::from_secs(2);

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people to read.
    #[default]
    Text,
    /// One JSON object per line, for programs.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("unknown log format {other:?}: write text or json")),
        }
    }
}

impl std::fmt::Display for LogFormat {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Changes the level of the program's log.
#[derive(Debug)]
pub struct LogControl {
    filter: reload::Handle<EnvFilter, Registry>,
    /// The level from the flag `--log-level`. It applies while no file sets another level.
    default: LogLevel,
    current: LogLevel,
    /// The last reported problem with a file that sets the level. The program does not report it twice in a row.
    problem: Option<String>,
}

/// Starts to write log lines of this level to standard error. Only the first call in a process has an effect.
pub fn init_logs(format: LogFormat, level: &LogLevel) -> LogControl {
    let (filter, handle) = reload::Layer::new(level.filter());
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    let _ = match format {
        LogFormat::Text => registry.with(lines.with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    LogControl { filter: handle, default: level.clone(), current: level.clone(), problem: None }
}

impl LogControl {
    /// Keeps setting the level from files in a directory: from the first file of `names` that exists and is not empty.
    /// Never returns.
    ///
    /// The function polls the files instead of using inotify. The kubelet replaces the whole directory of links when a
    /// ConfigMap changes, so an inotify watch on a file would report only the first change.
    pub async fn follow(mut self, directory: PathBuf, names: Vec<String>) {
        loop {
            self.apply(&directory, &names);
            tokio::time::sleep(READ_INTERVAL).await;
        }
    }

    fn apply(&mut self, directory: &Path, names: &[String]) {
        let level = match read(directory, names) {
            Ok(level) => level.unwrap_or_else(|| self.default.clone()),
            Err(why) => {
                if self.problem.as_ref() != Some(&why) {
                    tracing::warn!("{why}; the log level stays {}", self.current);
                    self.problem = Some(why);
                }
                return;
            }
        };
        self.problem = None;
        if level == self.current {
            return;
        }
        // The line about the change has level INFO, which the old or the new level may hide. If the old level shows
        // INFO lines, the program writes the line before the change, otherwise after the change.
        let shown = tracing::enabled!(tracing::Level::INFO);
        if shown {
            tracing::info!("the log level changes from {} to {level}", self.current);
        }
        if self.filter.reload(level.filter()).is_ok() && !shown {
            tracing::info!("the log level changed from {} to {level}", self.current);
        }
        self.current = level;
    }
}

/// The level in the first existing file that is not empty. Returns `None` if there is no such file.
///
/// # Errors
/// Fails if a file exists but can't be read, or if the first file that is not empty contains no level. The error is a
/// sentence about the file.
fn read(directory: &Path, names: &[String]) -> Result<Option<LogLevel>, String> {
    for path in names.iter().map(|name| directory.join(name)) {
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(format!("the file {} can't be read: {error}", path.display())),
            Ok(text) => text,
        };
        if !text.trim().is_empty() {
            let level = text.parse().map_err(|why| format!("the file {} has an {why}", path.display()))?;
            return Ok(Some(level));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_file_with_a_level_decides() {
        let directory = tempfile::tempdir().unwrap();
        let names = ["agent.n1".to_owned(), "agent".to_owned()];
        let level = || read(directory.path(), &names).unwrap().map(|level| level.to_string());
        assert_eq!(level(), None);
        fs::write(directory.path().join("agent"), "warn\n").unwrap();
        assert_eq!(level().as_deref(), Some("warn"));
        fs::write(directory.path().join("agent.n1"), "debug").unwrap();
        assert_eq!(level().as_deref(), Some("debug"));
        fs::write(directory.path().join("agent.n1"), " ").unwrap();
        assert_eq!(level().as_deref(), Some("warn"));
        fs::write(directory.path().join("agent.n1"), "loud").unwrap();
        let why = read(directory.path(), &names).unwrap_err();
        assert!(why.contains("agent.n1 has an unknown log level \"loud\""), "{why}");
        // A file that exists but can't be read is an error. The level in the next file does not count, because that
        // level is for nodes without their own file.
        fs::remove_file(directory.path().join("agent.n1")).unwrap();
        fs::create_dir(directory.path().join("agent.n1")).unwrap();
        let why = read(directory.path(), &names).unwrap_err();
        assert!(why.contains("agent.n1 can't be read"), "{why}");
    }
}
