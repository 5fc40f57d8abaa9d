//! krew installs the plugin from the manifest and the archive of a release.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::control_plane::ADMIN;
use bobbin_e2e::single_node::SingleNode;
use xtask::artifacts::Architecture;
use xtask::release;

use super::{expect, printed};

pub async fn installs(node: &mut SingleNode) -> Result<()> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no repository")?;
    let release = tempfile::tempdir()?;
    let scratch = tempfile::tempdir()?;
    let host = Architecture::HOST;
    let sum = release::plugin(&node.artifacts, repository, scratch.path(), release.path())?;
    // krew reads only the checksum for this machine's platform, so the other checksums may be zeros.
    let sum_of = |architecture| if architecture == host { sum.clone() } else { "0".repeat(64) };
    let sums = Architecture::ALL.map(|architecture| (architecture, sum_of(architecture)));
    release::write_krew_manifest(repository, release.path(), &sums)?;
    let archive = release.path().join(format!("kubectl-bobbin-linux-{}.tar.gz", host.name()));
    let krew_root = node.path("krew");
    let install = |archive: &Path| -> Result<_> {
        let mut krew = Command::new(node.programs.path("krew")?);
        krew.env("KREW_ROOT", &krew_root).arg("install");
        krew.arg(format!("--manifest={}", release.path().join("bobbin.yaml").display()));
        printed(krew.arg(format!("--archive={}", archive.display())))
    };
    let other = release.path().join("other.tar.gz");
    std::fs::write(&other, "another archive")?;
    let refused = install(&other)?;
    ensure!(refused.code != 0 && refused.err.contains("checksum"), "krew accepted another archive: {refused:?}");
    let installed = install(&archive)?;
    expect(&installed, 0, "Installed plugin: bobbin")?;
    let path = format!("{}:{}", krew_root.join("bin").display(), std::env::var("PATH").unwrap_or_default());
    let mut kubectl = Command::new(node.programs.path("kubectl")?);
    kubectl.env("PATH", path).env("KUBECONFIG", node.control_plane.kubeconfig_for(ADMIN)?);
    expect(&printed(kubectl.args(["bobbin", "pools"]))?, 0, "BLOCKS")
}
