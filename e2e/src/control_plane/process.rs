//! Child processes that end with this process, even if SIGKILL ends this process. Tests start every program through
//! this module.
//!
//! The kernel sends the parent-death signal when the *thread* that started the child ends. So one thread, which lives
//! as long as this process, starts all children.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running program. Dropping this value kills the program and waits for its end.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `program`. If `netns` is given, the program runs in that network namespace. The program appends its output to
    /// `log`.
    pub fn start<I, S>(program: &Path, netns: Option<&Path>, log: &Path, args: I) -> Result<Self>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut command = killed_with_parent(program, netns);
        command.args(args);
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("the log {} of {name} can't be opened", log.display()))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = spawn(command).with_context(|| format!("{name} did not start"))?;
        Ok(Self { child, name, log: log.to_owned() })
    }

    /// The program's process ID, which is the ID of the child. The child begins as a wrapper command (`setpriv`). Each
    /// wrapper replaces itself with the next command and keeps the process ID.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).with_context(|| format!("the signal {signal} could not be sent to {}", self.name))
    }

    /// The program's exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Fails if the program has ended. The error contains the end of the program's log.
    pub fn must_be_running(&mut self) -> Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => {
                Err(anyhow!("the program {} ended ({status}); its log ends with:\n{}", self.name, self.log_tail()))
            }
        }
    }

    /// The last lines of the program's log.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Sends SIGKILL and waits until the program has ended.
    pub fn kill(&mut self) {
        // Killing fails only if the program has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Creates a command that the kernel kills when this process ends. If `netns` is given, the command runs in that network
/// namespace. Start the command with [`spawn`].
pub fn killed_with_parent(program: &Path, netns: Option<&Path>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    if let Some(netns) = netns {
        command.arg("nsenter").arg(format!("--net={}", netns.display())).arg("--");
    }
    command.arg(program);
    command
}

type SpawnRequest = (Command, Sender<std::io::Result<Child>>);

/// Starts a command from a thread that lives as long as this process.
pub fn spawn(command: Command) -> Result<Child> {
    static STARTER: OnceLock<Sender<SpawnRequest>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (orders, inbox) = channel::<SpawnRequest>();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                // Ignore a failure, which means that the caller no longer waits for the child. The child then ends with
                // this process.
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    let (reply, answer) = channel();
    starter.send((command, reply)).map_err(|_| anyhow!("the thread that starts child processes has ended"))?;
    Ok(answer.recv().context("the thread that starts child processes has ended")??)
}
