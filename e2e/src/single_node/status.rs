//! STATUS calls that go directly to the agent's socket, without the plugin.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use bobbin_cni_wire::{Request, Response};
use serde_json::Value;

/// How long the agent may take to answer STATUS.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks the agent for its STATUS. If the agent does not answer with success, fails with the agent's answer.
pub(crate) fn of_agent(socket: &Path, conf: &Value) -> Result<()> {
    let request =
        Request { env: vec![("CNI_COMMAND".to_owned(), "STATUS".to_owned())], stdin: serde_json::to_vec(conf)? };
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(&request.encode()?)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = Response::decode(&answer)?;
    ensure!(answer.exit == 0, "{}", String::from_utf8_lossy(&answer.stdout).trim());
    Ok(())
}
