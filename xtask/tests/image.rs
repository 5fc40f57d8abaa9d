//! Compares the image that xtask packs with the image that buildah builds from the Dockerfile.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use xtask::artifacts::{Architecture, Artifacts};
use xtask::image::{self, run, sha256};

/// Two files in place of the executables. The contents have no influence on how a layer is packed.
fn executables(directory: &Path) -> Artifacts {
    for (name, content) in [("bobbin-all", "operator and agent".repeat(1000)), ("bobbin", "plugin".to_owned())] {
        let path = directory.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    Artifacts::in_directory(directory).unwrap()
}

/// Reads the configuration of the only image in a docker-archive.
fn config(archive: &Path) -> Value {
    let extract = |name: &str| {
        let text = run(Command::new("tar").arg("-xOf").arg(archive).arg(name)).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    extract(extract("manifest.json")[0]["Config"].as_str().unwrap())
}

#[test]
fn xtask_and_the_dockerfile_build_the_same_layer() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for name in ["executables", "context/target/image"] {
        std::fs::create_dir_all(path(name)).unwrap();
    }
    let artifacts = executables(&path("executables"));
    let packed = image::bobbin(&artifacts, &path("context/target/image"), "bobbin:1").unwrap();

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for name in ["Dockerfile", ".dockerignore"] {
        std::fs::copy(root.join(name), path("context").join(name)).unwrap();
    }
    let buildah = || {
        let mut command = Command::new("buildah");
        command.args(["--storage-driver", "vfs", "--root"]).arg(path("storage")).arg("--runroot").arg(path("run"));
        command
    };
    let arguments =
        ["build", "--isolation", "chroot", "--timestamp", "0", "--no-cache", "--quiet", "--tag", "bobbin:1"];
    let first = run(buildah().args(arguments).arg(path("context"))).unwrap();
    let second = run(buildah().args(arguments).arg(path("context"))).unwrap();
    assert_eq!(first, second, "two builds of the Dockerfile give two images");

    let built = path("built.tar");
    run(buildah().args(["push", "--quiet", "bobbin:1"]).arg(format!("docker-archive:{}:bobbin:1", built.display())))
        .unwrap();
    let (packed, built) = (config(&packed), config(&built));
    assert_eq!(packed["rootfs"], built["rootfs"], "the layers differ");
    assert_eq!(packed["rootfs"]["diff_ids"].as_array().unwrap().len(), 1);
    assert_eq!((&packed["os"], &packed["architecture"]), (&built["os"], &built["architecture"]));
    for key in ["Entrypoint", "Env", "WorkingDir"] {
        assert_eq!(packed["config"][key], built["config"][key], "{key}");
    }
}

#[test]
fn two_images_of_the_same_executables_are_the_same_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for name in ["executables", "copies", "first", "second"] {
        std::fs::create_dir_all(path(name)).unwrap();
    }
    let first = image::bobbin(&executables(&path("executables")), &path("first"), "bobbin:1").unwrap();
    let copies = executables(&path("copies"));
    // The times of files and the permissions of groups and others must not change the image.
    std::fs::set_permissions(copies.all(), std::fs::Permissions::from_mode(0o700)).unwrap();
    run(Command::new("touch").args(["--date=2001-01-01"]).arg(copies.shim())).unwrap();
    let second = image::bobbin(&copies, &path("second"), "bobbin:1").unwrap();
    assert_eq!(sha256(&first).unwrap(), sha256(&second).unwrap());
    assert_eq!(config(&first)["architecture"], Architecture::HOST.name());
}
