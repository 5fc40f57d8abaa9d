//! The tasks of Bobbin's repository, run as `cargo xtask <task>`. Each task has a file with the task's name.

mod chart_readme;
mod files;
mod flags;
mod lint_architecture;
mod lint_language;
mod messages;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use xtask::artifacts::Artifacts;
use xtask::image;
use xtask::programs::Programs;
use xtask::release;

/// The name of Bobbin's image: the chart's defaults for `image.repository` and `image.tag`.
const IMAGE_NAME: &str = concat!("bobbin:", env!("CARGO_PKG_VERSION"));

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The tasks of Bobbin's repository.")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build Bobbin's two executables, and print their paths.
    Artifacts,
    /// Pack Bobbin's image, a docker-archive for `skopeo copy`, `docker load` or `ctr images import`.
    Image {
        /// The file to write.
        path: PathBuf,
    },
    /// Build everything that a release publishes, for all architectures, in target/release-artifacts.
    Release,
    /// Write docs/reference/flags.md, the flags of operator, agent and `kubectl bobbin`.
    Flags(files::GenerateArgs),
    /// Build the missing programs of the test cluster, and print their directory.
    Programs,
    /// Report sentences that are too long, and phrases that have a plainer form.
    LintLanguage(lint_language::Arguments),
    /// Run all tests, or only the tests whose names contain the filter. The last line of the output is
    /// `N passed, M failed`.
    Test(test::Arguments),
    /// Write the README of the Helm chart, which lists all values with their defaults and comments.
    ChartReadme(files::GenerateArgs),
    /// Write the page of all events, conditions and errors from the catalog. Check that the code contains the texts.
    Messages(files::GenerateArgs),
    /// Report each file or test that ARCHITECTURE.md or docs/failure-modes.md names but that does not exist.
    LintArchitecture,
}

fn main() -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is not inside a workspace")?;
    match Arguments::parse().task {
        Task::Artifacts => print_artifacts(),
        Task::Image { path } => write_image(root, &path),
        Task::Release => write_release(root),
        Task::Flags(arguments) => flags::run(root, &arguments),
        Task::Programs => print_programs(),
        Task::ChartReadme(arguments) => chart_readme::run(root, &arguments),
        Task::LintArchitecture => lint_architecture::run(root),
        Task::Test(arguments) => Ok(test::run(root, &arguments)),
        Task::Messages(arguments) => messages::run(root, &arguments),
        Task::LintLanguage(arguments) => lint_language::run(root, &arguments),
    }
}

fn print_artifacts() -> Result<ExitCode> {
    let artifacts = Artifacts::find()?;
    println!("{}\n{}", artifacts.all().display(), artifacts.shim().display());
    Ok(ExitCode::SUCCESS)
}

/// Writes the image. After this call, the folder target/image contains the files that the Dockerfile copies.
fn write_image(root: &Path, path: &Path) -> Result<ExitCode> {
    let artifacts = Artifacts::find()?;
    let directory = root.join("target/image");
    std::fs::create_dir_all(&directory)?;
    let archive = image::bobbin(&artifacts, &directory, IMAGE_NAME)?;
    std::fs::rename(&archive, path)
        .or_else(|_| std::fs::copy(&archive, path).and_then(|_| std::fs::remove_file(&archive)))
        .with_context(|| format!("the image can't be written to {}", path.display()))?;
    println!("{} ({IMAGE_NAME})", path.display());
    Ok(ExitCode::SUCCESS)
}

fn write_release(root: &Path) -> Result<ExitCode> {
    let directory = release::write(root, IMAGE_NAME)?;
    println!("{}", directory.display());
    Ok(ExitCode::SUCCESS)
}

fn print_programs() -> Result<ExitCode> {
    println!("{}", Programs::find()?.directory()?.display());
    Ok(ExitCode::SUCCESS)
}
