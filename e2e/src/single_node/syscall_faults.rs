//! Causes faults in system calls of the running agent. strace makes selected system calls fail, delays them, or kills
//! the agent at one of these calls.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::SingleNode;
use crate::control_plane::Process;
use crate::wait::{Poll, check, wait_until};

/// How long strace may take to attach to the agent.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(30);
/// How long strace may take to detach from the agent.
const DETACH_TIMEOUT: Duration = Duration::from_secs(3);
/// A part of the message that strace prints when it has attached to all threads of the agent.
const ATTACHED: &str = " attached";

/// A running strace that is attached to the agent. Dropping this value ends strace. The agent then continues without
/// injected faults.
#[derive(Debug)]
pub struct SyscallFaults {
    strace: Process,
    log: PathBuf,
}

/// A fault that strace caused in a system call of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InjectedSyscall {
    /// The name of the agent's thread that made the system call.
    pub thread: String,
    /// The line that strace printed about the fault.
    pub line: String,
}

impl SingleNode {
    /// Attaches strace to the agent. `what` holds the arguments of strace that select the system calls and the fault.
    pub async fn inject_syscall_faults<S: AsRef<str>>(&self, what: &[S]) -> Result<SyscallFaults> {
        let pid = self.agent.as_ref().context("the agent was not started")?.pid();
        let log = self.path("strace.log");
        std::fs::write(&log, "")?;
        let mut arguments: Vec<String> = vec!["-f".to_owned(), "-Y".to_owned(), format!("-p{pid}")];
        arguments.extend(what.iter().map(|one| one.as_ref().to_owned()));
        let program = std::path::Path::new("strace");
        let mut strace = Process::start(program, None, &log, arguments)?;
        let seen = wait_until("strace is attached to the agent", ATTACH_TIMEOUT, || {
            let (ended, text) = (strace.ended(), std::fs::read_to_string(&log));
            async move {
                let text = text?;
                let held = text.contains(ATTACHED);
                Ok(if held || ended.is_some() { Poll::Ready(held) } else { Poll::Pending(text) })
            }
        });
        let held = seen.await?;
        ensure!(
            held,
            "strace could not attach to the agent; check that strace is installed; the end of strace's log: {}",
            strace.log_tail()
        );
        Ok(SyscallFaults { strace, log })
    }
}

impl SyscallFaults {
    /// Detaches strace from the agent and returns the faults that strace caused. If the agent has ended (`agent_lives`
    /// is false), strace ends by itself.
    pub async fn end(mut self, agent_lives: bool) -> Result<Vec<InjectedSyscall>> {
        if agent_lives {
            // Ignore a failure, because sending the signal fails only if strace has already ended.
            let _ = self.strace.signal(Signal::SIGTERM);
        }
        let strace = &mut self.strace;
        let gone = wait_until("strace has detached from the agent", DETACH_TIMEOUT, || {
            let ended = strace.ended().is_some();
            async move { Ok(check(ended, || "strace is still running".to_owned())) }
        });
        if gone.await.is_err() {
            // strace may hang, because it still waits for a killed thread. Kill strace, so that the kernel detaches it from
            // the other threads.
            self.strace.kill();
        }
        let text = String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned();
        Ok(text.lines().filter_map(fault).collect())
    }
}

/// Parses a line in which strace reports a fault, such as `[pid 12<bobbin-wire>] sendto(… (INJECTED)`.
fn fault(line: &str) -> Option<InjectedSyscall> {
    let hit = line.contains("(INJECTED)") || line.contains("+++ killed by SIGKILL +++");
    let (_, rest) = line.split_once('<').filter(|_| hit)?;
    let (thread, _) = rest.split_once('>')?;
    Some(InjectedSyscall { thread: thread.to_owned(), line: line.to_owned() })
}
