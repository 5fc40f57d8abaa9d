//! Asks a program for its health over a unix socket, for exec probes. The calls block, so they need no async runtime.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The timeout of each read and each write of a probe.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// The maximum size of an answer, in bytes. A longer answer is cut off.
const MAX_ANSWER: u64 = 64 * 1024;

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The program did not answer.
    #[error("the program at {} does not answer: {source}; see its log (kubectl logs)", socket.display())]
    NoAnswer {
        /// The path of the program's socket.
        socket: PathBuf,
        /// Why the request to the program failed.
        source: io::Error,
    },
    /// The program answered that it is unhealthy. The text is the HTTP status and the reason.
    #[error("{0}")]
    Unhealthy(String),
}

/// Asks a program about its health at a path such as `/healthz`.
///
/// # Errors
/// Fails if the program does not answer, or answers with a status other than 200.
pub fn probe(socket: &Path, path: &str) -> Result<(), ProbeError> {
    let answer = ask(socket, path).map_err(|source| ProbeError::NoAnswer { socket: socket.to_owned(), source })?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status == "200" { Ok(()) } else { Err(ProbeError::Unhealthy(format!("{status}: {}", body.trim()))) }
}

fn ask(socket: &Path, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(answer)
}
