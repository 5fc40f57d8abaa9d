//! Container images as docker-archives: Bobbin's own image, and the images that pods of the test cluster run.
//!
//! The same files always give the same archive. Buildah builds the same layer from the Dockerfile, byte for byte.
//! So both ways to build Bobbin's image give the same digest of the layer.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::artifacts::{Architecture, Artifacts};
use crate::programs::Programs;

/// The image of the sandbox container, whose process keeps a pod's namespaces open.
pub const PAUSE: &str = "bobbin.test/pause:1";
/// The image of test pods. The image contains `/agnhost`, and busybox in `/bin`.
pub const TOOLS: &str = "bobbin.test/tools:1";
/// The image of the cluster's DNS server. The image contains `/coredns`.
pub const COREDNS: &str = "bobbin.test/coredns:1";
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
    // The sandbox process only sleeps. The container runtime ends it with SIGKILL, because a container's first process
    // ignores SIGTERM if it has no handler for this signal.
    let forever = ["/busybox", "sleep", "2147483647"];
    let images = [
        (root.as_path(), Tag { name: TOOLS, entrypoint: &[] }),
        (pause.as_path(), Tag { name: PAUSE, entrypoint: &forever }),
    ];
    archive(directory, "tools.tar", &images)
}

/// Writes the archive of the image of the cluster's DNS server, and returns the path of the archive.
pub fn coredns(programs: &Programs, directory: &Path) -> Result<PathBuf> {
    let root = directory.join("coredns");
    std::fs::create_dir_all(&root)?;
    copy(&programs.path("coredns")?, &root.join("coredns"))?;
    archive(directory, "coredns.tar", &[(&root, Tag { name: COREDNS, entrypoint: &["/coredns"] })])
}

/// Writes the archive of Bobbin's image with the given image name, and returns the path of the archive.
///
/// After this call, the folder `<directory>/<architecture>` contains the files of the image. From these files, the
/// Dockerfile builds the same layer.
pub fn bobbin(artifacts: &Artifacts, directory: &Path, name: &str) -> Result<PathBuf> {
    let architecture = artifacts.architecture();
    let root = directory.join(architecture.name());
    if root.exists() {
        std::fs::remove_dir_all(&root).with_context(|| format!("{} can't be replaced", root.display()))?;
    }
    std::fs::create_dir_all(&root)?;
    copy(artifacts.all(), &root.join("bobbin-all"))?;
    copy(artifacts.shim(), &root.join("bobbin"))?;
    let file = format!("bobbin-{}.tar", architecture.name());
    archive_for(architecture, directory, &file, &[(&root, Tag { name, entrypoint: &["/bobbin-all"] })])
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

/// Packs several images for this machine into one archive. Each image has one layer.
fn archive(directory: &Path, name: &str, images: &[(&Path, Tag<'_>)]) -> Result<PathBuf> {
    archive_for(Architecture::HOST, directory, name, images)
}

/// Packs several images for one architecture into one archive. Each image has one layer.
fn archive_for(
    architecture: Architecture,
    directory: &Path,
    name: &str,
    images: &[(&Path, Tag<'_>)],
) -> Result<PathBuf> {
    let parts = directory.join(format!("{name}.parts"));
    std::fs::create_dir_all(&parts)?;
    let mut list = Vec::new();
    for (number, (root, tag)) in images.iter().enumerate() {
        let (layer, config) = (format!("{number}.layer.tar"), format!("{number}.json"));
        pack(root, &parts.join(&layer))?;
        let digest = sha256(&parts.join(&layer))?;
        let about = json!({
            "architecture": architecture.name(), "os": "linux", "created": "1970-01-01T00:00:00Z",
            "config": {"Entrypoint": tag.entrypoint, "Env": ["PATH=/bin:/"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        });
        std::fs::write(parts.join(&config), about.to_string())?;
        list.push(json!({"Config": config, "RepoTags": [tag.name], "Layers": [layer]}));
    }
    std::fs::write(parts.join("manifest.json"), json!(list).to_string())?;
    let packed = directory.join(name);
    pack(&parts, &packed)?;
    std::fs::remove_dir_all(&parts)?;
    Ok(packed)
}

/// Writes a tar archive of a folder's contents, sorted by name. Times, owners and the umask have no effect on the archive.
pub fn pack(root: &Path, archive: &Path) -> Result<()> {
    let file = File::create(archive).with_context(|| format!("{} can't be written", archive.display()))?;
    let mut builder = tar::Builder::new(file);
    let mut names = Vec::new();
    list(root, Path::new(""), &mut names)?;
    for name in &names {
        append(&mut builder, root, name).with_context(|| format!("{} can't be packed", root.join(name).display()))?;
    }
    builder.finish()?;
    Ok(())
}

/// Lists the contents of a folder, sorted, each folder before its contents.
fn list(root: &Path, folder: &Path, names: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries = std::fs::read_dir(root.join(folder))?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = folder.join(entry.file_name());
        names.push(name.clone());
        if entry.file_type()?.is_dir() {
            list(root, &name, names)?;
        }
    }
    Ok(())
}

fn append(builder: &mut tar::Builder<File>, root: &Path, name: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let path = root.join(name);
    let found = std::fs::symlink_metadata(&path)?;
    let mut header = tar::Header::new_ustar();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_device_major(0)?;
    header.set_device_minor(0)?;
    header.set_size(0);
    // As in layers of buildah and Docker, the mode contains the bits of the file type.
    if found.is_dir() {
        header.set_path(format!("{}/", name.display()))?;
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o040_755);
    } else if found.is_symlink() {
        header.set_path(name)?;
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o120_777);
        header.set_link_name(std::fs::read_link(&path)?)?;
    } else {
        header.set_path(name)?;
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(if found.permissions().mode() & 0o100 == 0 { 0o100_644 } else { 0o100_755 });
        header.set_size(found.len());
    }
    header.set_cksum();
    // Write the checksum with six octal digits, as Go and GNU tar do. `set_cksum` writes seven digits.
    let sum = format!("{:06o}\0 ", header.cksum()?);
    header.as_old_mut().cksum.copy_from_slice(sum.as_bytes());
    if found.is_file() {
        builder.append(&header, File::open(&path)?)?;
    } else {
        builder.append(&header, std::io::empty())?;
    }
    Ok(())
}

/// The SHA-256 sum of a file in hexadecimal digits.
pub fn sha256(path: &Path) -> Result<String> {
    let output = run(Command::new("sha256sum").arg("--").arg(path))?;
    Ok(output.split_whitespace().next().context("sha256sum printed nothing")?.to_owned())
}

/// Runs a command and returns its output. Fails with the command's error output.
pub fn run(command: &mut Command) -> Result<String> {
    let end = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?} did not start"))?;
    if !end.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&end.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&end.stdout).into_owned())
}
