//! Faults in the running agent from outside: strace makes system calls of its fail, or kills it at one.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::LoneNode;
use crate::control_plane::Running;
use crate::until::{Look, so, until};

/// How long strace may take to take hold of the agent.
const HOLD: Duration = Duration::from_secs(30);
/// How long it may take to let go of it by itself.
const LET_GO: Duration = Duration::from_secs(3);
/// What strace says when it has hold of all threads.
const HELD: &str = " attached";

/// An strace that has hold of the agent. Dropped, it ends, and the agent goes on by itself.
#[derive(Debug)]
pub struct Faults {
    strace: Running,
    log: PathBuf,
}

/// One fault that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The name of the thread that was hit.
    pub thread: String,
    /// What strace printed of it.
    pub line: String,
}

impl LoneNode {
    /// Takes hold of the agent: `what` are strace's own arguments.
    pub async fn faults<S: AsRef<str>>(&self, what: &[S]) -> Result<Faults> {
        let pid = self.agent.as_ref().context("the agent was not started")?.pid();
        let log = self.path("strace.log");
        std::fs::write(&log, "")?;
        let mut arguments: Vec<String> = vec!["-f".to_owned(), "-Y".to_owned(), format!("-p{pid}")];
        arguments.extend(what.iter().map(|one| one.as_ref().to_owned()));
        let program = std::path::Path::new("strace");
        let mut strace = Running::start(program, None, &log, arguments)?;
        let seen = until("strace has hold of the agent", HOLD, || {
            let (ended, text) = (strace.ended(), std::fs::read_to_string(&log));
            async move {
                let text = text?;
                let held = text.contains(HELD);
                Ok(if held || ended.is_some() { Look::Yes(held) } else { Look::NotYet(text) })
            }
        });
        let held = seen.await?;
        ensure!(held, "strace (package strace) does not get hold of the agent: {}", strace.log_tail());
        Ok(Faults { strace, log })
    }
}

impl Faults {
    /// Lets go of the agent; what happened. If the agent does not live any more, strace ends by itself.
    pub async fn end(mut self, agent_lives: bool) -> Result<Vec<Fault>> {
        if agent_lives {
            // Refused only when it has ended.
            let _ = self.strace.signal(Signal::SIGTERM);
        }
        let strace = &mut self.strace;
        let gone = until("strace has let go of the agent", LET_GO, || {
            let ended = strace.ended().is_some();
            async move { Ok(so(ended, || "it runs".to_owned())) }
        });
        if gone.await.is_err() {
            // It waits for a thread that was killed meanwhile; the kernel frees what is left.
            self.strace.kill();
        }
        let text = String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned();
        Ok(text.lines().filter_map(fault).collect())
    }
}

/// Reads `[pid 12<bobbin-datapath>] sendto(… (INJECTED)`.
fn fault(line: &str) -> Option<Fault> {
    let hit = line.contains("(INJECTED)") || line.contains("+++ killed by SIGKILL +++");
    let (_, rest) = line.split_once('<').filter(|_| hit)?;
    let (thread, _) = rest.split_once('>')?;
    Some(Fault { thread: thread.to_owned(), line: line.to_owned() })
}
