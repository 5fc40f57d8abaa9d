//! Container images as docker-archives: Bobbin's own image, and the images that pods of the test cluster run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::artifacts::Artifacts;
use crate::programs::Programs;

/// The image of the sandbox container, whose process keeps a pod's namespaces open.
pub const PAUSE: &str = "bobbin.test/pause:1";
/// The image of test pods. The image contains `/agnhost`, and busybox in `/bin`.
pub const TOOLS: &str = "bobbin.test/tools:1";
/// Bobbin's image in the test cluster. The image contains `/bobbin-all` and `/bobbin`.
pub const BOBBIN: &str = "bobbin.test/bobbin:1";
/// The image of the routing daemon in the test cluster. The image contains Debian's `bird` and `birdcl`, and a shell.
pub const BIRD: &str = "bobbin.test/bird:1";

/// The tag and the entry point of an image.
struct Tag<'a> {
    name: &'a str,
    entrypoint: &'a [&'a str],
}

/// Writes the archive of the images that the test cluster runs, and returns the path of the archive.
pub fn test_images(programs: &Programs, directory: &Path) -> Result<PathBuf> {
    let root = directory.join("tools");
    std::fs::create_dir_all(root.join("bin"))?;
    copy(&programs.path("agnhost")?, &root.join("agnhost"))?;
    let busybox = Path::new("/bin/busybox");
    copy(busybox, &root.join("bin/busybox")).context("install the package busybox-static")?;
    for name in ["sh", "sleep", "cat", "ip", "ping", "nc", "wget", "hostname", "ls", "true", "httpd", "udhcpc"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name))?;
    }
    let pause = directory.join("pause");
    std::fs::create_dir_all(&pause)?;
    copy(busybox, &pause.join("busybox"))?;
    // The sandbox process only sleeps. The container runtime stops the process with SIGKILL, because a container's first
    // process ignores SIGTERM.
    let forever = ["/busybox", "sleep", "2147483647"];
    let images = [
        (root.as_path(), Tag { name: TOOLS, entrypoint: &[] }),
        (pause.as_path(), Tag { name: PAUSE, entrypoint: &forever }),
    ];
    archive(directory, "tools.tar", &images)
}

/// Writes the archive of Bobbin's image with the given image name, and returns the path of the archive.
pub fn bobbin(artifacts: &Artifacts, directory: &Path, name: &str) -> Result<PathBuf> {
    let root = directory.join("bobbin");
    std::fs::create_dir_all(&root)?;
    copy(artifacts.all(), &root.join("bobbin-all"))?;
    copy(artifacts.shim(), &root.join("bobbin"))?;
    archive(directory, "bobbin.tar", &[(&root, Tag { name, entrypoint: &["/bobbin-all"] })])
}

/// Writes the archive of an image with this machine's BIRD, and returns the path of the archive.
pub fn bird(directory: &Path) -> Result<PathBuf> {
    let root = directory.join("bird");
    std::fs::create_dir_all(root.join("bin"))?;
    copy(Path::new("/bin/busybox"), &root.join("bin/busybox")).context("install the package busybox-static")?;
    for name in ["sh", "cksum"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name))?;
    }
    for name in ["bird", "birdcl"] {
        let program = Path::new("/usr/sbin").join(name);
        copy(&program, &root.join("bin").join(name)).context("install the package bird2")?;
        // ldd prints `name => path (address)`, and for the loader only `path (address)`.
        let libraries = run(Command::new("ldd").arg(&program))?;
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            let place = root.join(library.trim_start_matches('/'));
            std::fs::create_dir_all(place.parent().context("the path of a library names no directory")?)?;
            copy(Path::new(library), &place)?;
        }
    }
    archive(directory, "bird.tar", &[(&root, Tag { name: BIRD, entrypoint: &[] })])
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).with_context(|| format!("{} is missing", from.display()))?;
    Ok(())
}

/// Packs several images into one archive. Each image has one layer.
fn archive(directory: &Path, name: &str, images: &[(&Path, Tag<'_>)]) -> Result<PathBuf> {
    let parts = directory.join(format!("{name}.parts"));
    std::fs::create_dir_all(&parts)?;
    let mut list = Vec::new();
    for (number, (root, tag)) in images.iter().enumerate() {
        let (layer, config) = (format!("{number}.layer.tar"), format!("{number}.json"));
        run(Command::new("tar")
            .args(["--owner=0", "--group=0", "--mtime=@0", "--sort=name", "-cf"])
            .arg(parts.join(&layer))
            .arg("-C")
            .arg(root)
            .arg("."))?;
        let sum = run(Command::new("sha256sum").arg(parts.join(&layer)))?;
        let digest = sum.split_whitespace().next().context("sha256sum printed nothing")?;
        let about = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
            "config": {"Entrypoint": tag.entrypoint, "Env": ["PATH=/bin:/"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        });
        std::fs::write(parts.join(&config), about.to_string())?;
        list.push(json!({"Config": config, "RepoTags": [tag.name], "Layers": [layer]}));
    }
    std::fs::write(parts.join("manifest.json"), json!(list).to_string())?;
    let packed = directory.join(name);
    run(Command::new("tar").arg("-cf").arg(&packed).arg("-C").arg(&parts).arg("."))?;
    std::fs::remove_dir_all(&parts)?;
    Ok(packed)
}

fn run(command: &mut Command) -> Result<String> {
    let end = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?} did not start"))?;
    if !end.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&end.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&end.stdout).into_owned())
}
