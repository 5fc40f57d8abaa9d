//! Checks the GitHub workflows without GitHub. They are valid YAML, and their scripts are valid shell. Every Makefile target,
//! file and workflow that they call exists.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The workflows by their paths.
fn workflows() -> Vec<(PathBuf, Value)> {
    let directory = std::fs::read_dir(root().join(".github/workflows")).unwrap();
    let mut found: Vec<PathBuf> = directory.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let workflow = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, workflow)
    };
    found.into_iter().map(read).collect()
}

/// The jobs of all workflows, each with a name for messages.
fn jobs() -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for (path, workflow) in workflows() {
        let jobs = workflow["jobs"].as_object().unwrap_or_else(|| panic!("{} has no jobs", path.display()));
        assert!(workflow["on"].is_object(), "{} names no event that starts it", path.display());
        all.extend(jobs.iter().map(|(name, job)| (format!("{name} of {}", path.display()), job.clone())));
    }
    all
}

/// The scripts of all steps, each with a name for messages.
fn scripts() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (name, job) in jobs() {
        for step in job["steps"].as_array().into_iter().flatten() {
            all.extend(step["run"].as_str().map(|script| (name.clone(), script.to_owned())));
        }
    }
    all
}

#[test]
fn each_job_calls_an_existing_workflow_or_has_steps_that_run_a_script_or_a_pinned_action() {
    for (name, job) in jobs() {
        if let Some(called) = job["uses"].as_str() {
            assert!(root().join(called).is_file(), "job {name} calls {called}, which does not exist");
            continue;
        }
        assert!(job["timeout-minutes"].is_u64(), "job {name} has no timeout");
        for step in job["steps"].as_array().unwrap_or_else(|| panic!("job {name} has no steps")) {
            let is_action = step["uses"].as_str().is_some_and(|action| action.contains('@'));
            assert!(
                is_action != step["run"].is_string(),
                "a step of job {name} is no script and no pinned action: {step}"
            );
        }
    }
    for (name, job) in jobs() {
        let of_workflow = name.split(" of ").nth(1).unwrap();
        for needed in job["needs"].as_array().into_iter().flatten() {
            let wanted = format!("{} of {of_workflow}", needed.as_str().unwrap());
            assert!(
                jobs().iter().any(|(other, _)| *other == wanted),
                "job {name} needs {needed}, which does not exist"
            );
        }
    }
}

#[test]
fn each_script_is_valid_shell_and_calls_only_targets_of_the_makefile() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    let scripts = scripts();
    assert!(scripts.iter().any(|(_, script)| script.contains("make test")), "no workflow runs the tests");
    for (name, script) in scripts {
        let checked = Command::new("bash").args(["-n", "-c", &script]).output().unwrap();
        assert!(checked.status.success(), "job {name}: {}", String::from_utf8_lossy(&checked.stderr));
        let words: Vec<&str> = script.split_whitespace().collect();
        for call in words.windows(2).filter(|call| call[0] == "make" && !script.contains("apt-get")) {
            let rule = format!("\n{}:", call[1]);
            assert!(makefile.contains(&rule), "job {name} calls the target {}, which the Makefile lacks", call[1]);
        }
    }
}

#[test]
fn the_uploaded_directories_are_those_that_the_tools_write() {
    let sources = ["Makefile", "xtask/src/release.rs", "docs/book.toml"]
        .map(|file| std::fs::read_to_string(root().join(file)).unwrap())
        .concat();
    for (name, job) in jobs() {
        for step in job["steps"].as_array().into_iter().flatten() {
            let is_upload = step["uses"].as_str().is_some_and(|action| action.starts_with("actions/upload-artifact@"));
            let path = step["with"]["path"].as_str().filter(|_| is_upload);
            let Some(directory) = path.map(|path| path.trim_start_matches("target/")) else { continue };
            assert!(sources.contains(directory), "job {name} uploads {directory}, which no tool writes");
        }
    }
}

#[test]
fn a_release_is_packed_by_the_version_of_helm_that_the_tests_use() {
    let pinned = std::fs::read_to_string(root().join("xtask/programs/helm/go.mod")).unwrap();
    let set_up = |step: &&Value| step["uses"].as_str().is_some_and(|action| action.starts_with("azure/setup-helm@"));
    let jobs = jobs();
    let mut steps = jobs.iter().flat_map(|(_, job)| job["steps"].as_array().into_iter().flatten());
    let version = steps.find(set_up).unwrap()["with"]["version"].as_str().unwrap();
    assert!(pinned.contains(&format!("helm.sh/helm/v3 {version} ")), "the workflow uses Helm {version}: {pinned}");
}
