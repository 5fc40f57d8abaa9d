//! Builds the files that a release publishes, in `target/release-artifacts`: images, chart, CRDs, plugin archives, sums.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::artifacts::{Architecture, Artifacts};
use crate::image::{self, pack, run, sha256};
use crate::programs::Programs;

/// The version of this release. The chart must have the same version.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The oldest version of Kubernetes that the chart accepts. Helm renders the CRDs of the release for this version.
const KUBERNETES: &str = "1.33.0";
/// The name of the file with the SHA-256 sums of all other files.
const SUMS: &str = "SHA256SUMS";

/// Builds all files of a release, and returns their directory. The contents of an earlier build are deleted.
pub fn write(root: &Path, image_name: &str) -> Result<PathBuf> {
    let directory = root.join("target/release-artifacts");
    if directory.exists() {
        std::fs::remove_dir_all(&directory)
            .with_context(|| format!("{} can't be replaced: delete it", directory.display()))?;
    }
    std::fs::create_dir_all(&directory)?;
    let scratch = tempfile::tempdir_in(root.join("target"))?;
    let mut sums = Vec::new();
    for architecture in Architecture::ALL {
        let artifacts = Artifacts::of_release(architecture)?;
        check_executables(&artifacts)?;
        let archive = image::bobbin(&artifacts, scratch.path(), image_name)?;
        std::fs::rename(archive, directory.join(format!("bobbin-image-{VERSION}-linux-{}.tar", architecture.name())))?;
        sums.push((architecture, plugin(&artifacts, root, scratch.path(), &directory)?));
    }
    write_krew_manifest(root, &directory, &sums)?;
    chart(root, scratch.path(), &directory)?;
    write_sums(&directory)?;
    Ok(directory)
}

/// Runs both executables, under QEMU if they are for another architecture.
fn check_executables(artifacts: &Artifacts) -> Result<()> {
    let version = execute(artifacts.architecture(), artifacts.all(), &["--version"], &[], "")?;
    ensure!(version.trim() == format!("bobbin {VERSION}"), "bobbin-all has another version: {version}");
    let answer = execute(
        artifacts.architecture(),
        artifacts.shim(),
        &[],
        &[("CNI_COMMAND", "VERSION")],
        r#"{"cniVersion":"1.1.0"}"#,
    )?;
    let answer: serde_json::Value =
        serde_json::from_str(&answer).context("the plugin's answer to VERSION is not JSON")?;
    let supported = answer["supportedVersions"].as_array().is_some_and(|list| list.iter().any(|one| one == "1.1.0"));
    ensure!(supported, "the plugin's answer to VERSION lacks CNI 1.1.0: {answer}");
    Ok(())
}

fn execute(
    architecture: Architecture,
    program: &Path,
    arguments: &[&str],
    variables: &[(&str, &str)],
    input: &str,
) -> Result<String> {
    let mut command = if architecture == Architecture::HOST {
        Command::new(program)
    } else {
        let processor = architecture.target().split('-').next().unwrap_or_default();
        let mut command = Command::new(format!("qemu-{processor}-static"));
        command.arg(program);
        command
    };
    command.args(arguments).envs(variables.iter().copied());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?} did not start: install Debian's package qemu-user-static"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Ignore a failure, because a program that reads no input may already have closed its stdin.
        let _ = stdin.write_all(input.as_bytes());
    }
    let end = child.wait_with_output()?;
    if !end.status.success() {
        bail!("{command:?} failed ({}) on {}", end.status, architecture.name());
    }
    Ok(String::from_utf8_lossy(&end.stdout).into_owned())
}

/// Writes the archive of `kubectl bobbin` into `directory`, and returns the SHA-256 sum of the archive. `root` is the
/// repository. The folder `scratch` is used while the archive is packed.
pub fn plugin(artifacts: &Artifacts, root: &Path, scratch: &Path, directory: &Path) -> Result<String> {
    let name = format!("kubectl-bobbin-linux-{}", artifacts.architecture().name());
    let folder = scratch.join(&name);
    std::fs::create_dir_all(&folder)?;
    std::fs::copy(artifacts.all(), folder.join("kubectl-bobbin"))?;
    std::fs::copy(root.join("LICENSE"), folder.join("LICENSE"))?;
    let archive = directory.join(format!("{name}.tar"));
    pack(&folder, &archive)?;
    std::fs::remove_dir_all(&folder)?;
    compress(&archive)?;
    sha256(&directory.join(format!("{name}.tar.gz")))
}

/// Compresses a file and adds `.gz` to its name.
fn compress(file: &Path) -> Result<()> {
    // Without --no-name, the compressed file would contain a time.
    run(Command::new("gzip").args(["--no-name", "--best", "--force"]).arg(file))?;
    Ok(())
}

/// Writes the krew manifest of this version, with the SHA-256 sum of the archive of each architecture, as `bobbin.yaml`
/// into `directory`. `root` is the repository.
pub fn write_krew_manifest(root: &Path, directory: &Path, sums: &[(Architecture, String)]) -> Result<()> {
    let template =
        std::fs::read_to_string(root.join("cli/krew/bobbin.yaml")).context("the krew template is missing")?;
    std::fs::write(directory.join("bobbin.yaml"), krew_manifest(&template, sums)?)?;
    Ok(())
}

/// Fills the version and the sums into the template of the krew manifest.
fn krew_manifest(template: &str, sums: &[(Architecture, String)]) -> Result<String> {
    let mut filled = template.replace("vVERSION", &format!("v{VERSION}"));
    for (architecture, sum) in sums {
        let place = format!("SHA256_LINUX_{}", architecture.name().to_uppercase());
        ensure!(filled.contains(&place), "cli/krew/bobbin.yaml has no {place}: add the platform to the template");
        filled = filled.replace(&place, sum);
    }
    ensure!(!filled.contains("SHA256_"), "cli/krew/bobbin.yaml has a platform that the release does not build");
    // Leave out the comments at the top of the template, because they are about the template and not about the manifest.
    Ok(filled.lines().skip_while(|line| line.starts_with('#')).flat_map(|line| [line, "\n"]).collect())
}

/// Packs the chart, and writes the CRDs of the chart as one manifest.
fn chart(root: &Path, scratch: &Path, directory: &Path) -> Result<()> {
    let chart = root.join("charts/bobbin");
    let about = std::fs::read_to_string(chart.join("Chart.yaml")).context("the chart has no Chart.yaml")?;
    for key in ["version", "appVersion"] {
        let expected = format!("{key}: {VERSION}");
        ensure!(
            about.lines().any(|line| line.replace('"', "") == expected),
            "charts/bobbin/Chart.yaml lacks the line `{expected}`: give the chart the version of Cargo.toml"
        );
    }
    let helm = Programs::find()?.path("helm")?;
    run(Command::new(&helm).arg("package").arg(&chart).arg("--destination").arg(scratch))?;
    let name = format!("bobbin-{VERSION}");
    // Helm writes the current time into its package. Unpack the package and pack its files without times, so that each
    // build gives the same package.
    let files = scratch.join("chart");
    std::fs::create_dir(&files)?;
    run(Command::new("tar")
        .arg("--extract")
        .arg("--file")
        .arg(scratch.join(format!("{name}.tgz")))
        .arg("--directory")
        .arg(&files))?;
    let archive = directory.join(format!("{name}.tar"));
    pack(&files, &archive)?;
    compress(&archive)?;
    std::fs::rename(directory.join(format!("{name}.tar.gz")), directory.join(format!("{name}.tgz")))?;
    let manifests = run(Command::new(&helm).args(["template", "bobbin"]).arg(&chart).args([
        "--namespace",
        "bobbin-system",
        "--kube-version",
        KUBERNETES,
        "--show-only",
        "templates/crds/*.yaml",
    ]))?;
    std::fs::write(directory.join(format!("bobbin-crds-{VERSION}.yaml")), manifests)?;
    Ok(())
}

/// Writes the sums of all files in the format that `sha256sum --check` reads.
fn write_sums(directory: &Path) -> Result<()> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let sum = sha256(&entry.path())?;
        lines.push(format!("{}\0{sum}  {}\n", entry.file_name().display(), entry.file_name().display()));
    }
    lines.sort();
    let sums: String = lines.iter().filter_map(|line| Some(line.split_once('\0')?.1)).collect();
    std::fs::write(directory.join(SUMS), sums)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_krew_manifest_has_the_version_and_each_sum_once() {
        let template = include_str!("../../cli/krew/bobbin.yaml");
        let sums = [(Architecture::Amd64, "a".repeat(64)), (Architecture::Arm64, "b".repeat(64))];
        let filled = krew_manifest(template, &sums).unwrap();
        assert!(filled.starts_with("apiVersion:") && filled.contains(&format!("version: v{VERSION}\n")), "{filled}");
        for (_, sum) in &sums {
            assert_eq!(filled.matches(sum).count(), 1, "{filled}");
        }
        assert!(krew_manifest(template, &sums[..1]).is_err());
    }

    #[test]
    fn the_package_of_the_chart_contains_no_current_time_and_helm_reads_it() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let (scratch, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        chart(root, scratch.path(), directory.path()).unwrap();
        let package = directory.path().join(format!("bobbin-{VERSION}.tgz"));
        let list = run(Command::new("tar").args(["--list", "--verbose", "--utc", "--file"]).arg(&package)).unwrap();
        assert!(list.contains("bobbin/Chart.yaml") && list.lines().all(|line| line.contains(" 1970-01-01 ")), "{list}");
        let helm = Programs::find().unwrap().path("helm").unwrap();
        let about = run(Command::new(helm).args(["show", "chart"]).arg(&package)).unwrap();
        assert!(about.contains(&format!("version: {VERSION}")), "{about}");
    }

    #[test]
    fn the_sums_name_all_files_and_sha256sum_accepts_them() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b.tar", "a.yaml"] {
            std::fs::write(directory.path().join(name), name).unwrap();
        }
        write_sums(directory.path()).unwrap();
        let output = run(Command::new("sha256sum").args(["--check", SUMS]).current_dir(&directory)).unwrap();
        assert_eq!(output, "a.yaml: OK\nb.tar: OK\n");
    }
}
