//! Runs all tests of the workspace. Several test binaries run at the same time, because most tests wait for a cluster and
//! not for the CPU.
//!
//! The tests of one binary share a fixture and run one after another. Each binary has its own namespaces, so the binaries
//! don't disturb each other. The last line of the output is `N passed, M failed`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use xtask::artifacts::Artifacts;
use xtask::programs::Programs;

/// How many binaries run at the same time.
const CONCURRENT_BINARIES: usize = 3;
/// The test binaries that take minutes, the longest first. They start before the others, so that no long binary runs alone
/// at the end.
const LONGEST: [&str; 8] =
    ["cluster", "operator", "block_defects", "agent", "node_defects", "claims", "restore", "routing"];
/// The maximum number of lines that the summary repeats for each failure.
const FAILURE_LINES: usize = 6;
/// The maximum number of bytes that the summary repeats for each line.
const FAILURE_LINE_BYTES: usize = 1000;

/// Which tests to run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Run only the tests whose names contain this string.
    filter: Option<String>,
}

/// One command that runs tests.
struct Job {
    name: String,
    command: Command,
}

/// The numbers of passed and failed tests, added up over all `test result` lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
}

/// Builds everything, runs the tests and prints the counts. A failed build counts as a failed test, and so does a test
/// binary that can't be started.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> ExitCode {
    // Builds that take minutes run before the tests, so that no test's timeout includes such a build.
    let jobs = match build(root, arguments.filter.as_deref()) {
        Ok(jobs) => jobs,
        Err(error) => {
            println!("test: {error:#}\n0 passed, 1 failed");
            return ExitCode::FAILURE;
        }
    };
    let (queue, log) = (Mutex::new(jobs), Mutex::new(String::new()));
    std::thread::scope(|scope| {
        for _ in 0..CONCURRENT_BINARIES {
            scope.spawn(|| run_jobs(&queue, &log));
        }
    });
    let log = log.into_inner().unwrap_or_else(PoisonError::into_inner);
    for failure in failures(&log) {
        println!("failed: {failure}");
    }
    let mut counts = counts(&log);
    if counts == Counts::default() {
        match &arguments.filter {
            Some(filter) => println!("test: no test has a name that contains {filter:?}"),
            None => println!("test: the workspace has no tests"),
        }
        counts.failed = 1;
    }
    println!("{} passed, {} failed", counts.passed, counts.failed);
    if counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Builds the programs of the test cluster, Bobbin and the tests. Returns the jobs in the order in which they start.
fn build(root: &Path, filter: Option<&str>) -> Result<VecDeque<Job>> {
    Programs::find()?.directory().context("the programs of the test cluster don't build")?;
    // Build Bobbin and the tests at the same time, because Bobbin's link-time optimization uses only one CPU for minutes.
    // The two builds use different directories, so neither waits for the other.
    let (built, bobbin) = std::thread::scope(|scope| {
        let bobbin = scope.spawn(Artifacts::find);
        let mut tests = cargo(root);
        tests.args(["--no-run", "--message-format=json-render-diagnostics"]).stderr(Stdio::inherit());
        (tests.output(), bobbin.join())
    });
    bobbin.map_err(|_| anyhow!("the build of Bobbin panicked"))?.context("Bobbin does not build")?;
    let built = built.context("cargo can't be started")?;
    ensure!(built.status.success(), "the tests don't build");
    let messages = String::from_utf8(built.stdout).context("cargo's messages are not UTF-8")?;
    let mut jobs: Vec<Job> = messages.lines().filter_map(|line| binary(line, filter)).collect();
    let position = |job: &Job| LONGEST.iter().position(|name| *name == job.name).unwrap_or(LONGEST.len());
    jobs.sort_by_key(position);
    let missing = LONGEST.iter().find(|name| !jobs.iter().any(|job| job.name == **name));
    ensure!(missing.is_none(), "no test binary is called {missing:?}: correct LONGEST in xtask/src/test.rs");
    let mut doc_tests = cargo(root);
    doc_tests.args(["--quiet", "--doc", "--"]).args(filter);
    jobs.push(Job { name: "doc tests".to_owned(), command: doc_tests });
    Ok(jobs.into())
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args(["test", "--workspace", "--locked"]);
    command
}

/// Returns the job that runs a test binary. `message` is a line of cargo's output. Returns `None` if the message is not
/// about a test binary.
fn binary(message: &str, filter: Option<&str>) -> Option<Job> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    // Run the test binary in the directory of its package, as cargo does.
    let package = PathBuf::from(message["manifest_path"].as_str()?).parent()?.to_owned();
    let mut command = Command::new(message["executable"].as_str()?);
    command.current_dir(&package).env("CARGO_MANIFEST_DIR", &package).args(filter);
    Some(Job { name: message["target"]["name"].as_str()?.to_owned(), command })
}

/// Runs jobs from the queue until the queue is empty.
fn run_jobs(queue: &Mutex<VecDeque<Job>>, log: &Mutex<String>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(job) = next else { return };
        let name = job.name.clone();
        let output = run_job(job).unwrap_or_else(|error| failed_job(&name, &format!("{error:#}")));
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        print!("{output}");
        log.push_str(&output);
    }
}

/// Returns output that reports a failed test, for a job that failed without reporting one.
fn failed_job(name: &str, why: &str) -> String {
    format!("---- {name} ----\n{why}\ntest result: FAILED. 0 passed; 1 failed\n")
}

/// Runs one job and returns the job's output. If the job failed without reporting a failed test, adds a line that counts
/// one failed test.
fn run_job(mut job: Job) -> Result<String> {
    let (begun, name) = (Instant::now(), &job.name);
    eprintln!("test: {name} begins");
    let mut file: File = tempfile::tempfile().context("a temporary file can't be created")?;
    let status = job
        .command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file.try_clone()?)
        .status()
        .with_context(|| format!("the test binary {name} can't be started"))?;
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let output = String::from_utf8_lossy(&bytes);
    let ended = if status.success() || counts(&output).failed > 0 {
        String::new()
    } else {
        // A binary that crashed prints no result.
        failed_job(name, &format!("the test binary ended with {status}"))
    };
    let took = begun.elapsed().as_secs();
    Ok(format!("\n==== {name}, {took} s ====\n{output}{ended}"))
}

/// Adds up the numbers in the `test result` lines.
fn counts(log: &str) -> Counts {
    let number =
        |part: Option<&str>| part.and_then(|part| part.split_whitespace().rev().nth(1)?.parse().ok()).unwrap_or(0);
    let mut counts = Counts::default();
    for line in log.lines().filter(|line| line.starts_with("test result: ")) {
        let mut parts = line.split(';');
        counts.passed += number(parts.next());
        counts.failed += number(parts.next());
    }
    counts
}

/// Returns the name and the first lines of each failure. The summary repeats these lines, because the log is long.
fn failures(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log.lines().collect();
    let is_head = |line: &str| line.starts_with("---- ") && line.ends_with(" ----");
    let heads = lines.iter().enumerate().filter(|(_, line)| is_head(line));
    let cut = |line: &&str| {
        let end = (0..=FAILURE_LINE_BYTES.min(line.len())).rev().find(|end| line.is_char_boundary(*end));
        line[..end.unwrap_or(0)].to_owned()
    };
    heads.map(|(at, _)| lines[at..].iter().take(FAILURE_LINES + 1).map(cut).collect::<Vec<_>>().join("\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_are_the_sums_of_all_results() {
        let log = "test a ... ok\ntest result: ok. 3 passed; 0 failed; 0 ignored; finished in 0.1s\n\
                   test result: FAILED. 1 passed; 2 failed; 0 ignored\n";
        assert_eq!(counts(log), Counts { passed: 4, failed: 2 });
        assert_eq!(counts("thread panicked"), Counts::default());
    }

    #[test]
    fn a_binary_that_crashes_counts_as_a_failure() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo output; kill -9 $$"]);
        let output = run_job(Job { name: "crashing".to_owned(), command }).unwrap();
        assert_eq!(counts(&output), Counts { passed: 0, failed: 1 });
        assert!(output.contains("output") && failures(&output)[0].contains("signal: 9"), "{output}");
    }

    #[test]
    fn only_messages_about_test_binaries_are_jobs() {
        let message = |is_test: bool| {
            serde_json::json!({
                "reason": "compiler-artifact", "manifest_path": "/p/Cargo.toml", "executable": "/p/target/x",
                "profile": {"test": is_test}, "target": {"name": "operator"},
            })
            .to_string()
        };
        let job = binary(&message(true), Some("spoofed")).unwrap();
        assert_eq!((job.name.as_str(), job.command.get_current_dir()), ("operator", Some(Path::new("/p"))));
        assert_eq!(job.command.get_args().collect::<Vec<_>>(), ["spoofed"]);
        assert!(binary(&message(false), None).is_none() && binary("not JSON", None).is_none());
    }
}
