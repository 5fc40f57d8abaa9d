//! The configuration's content, its version, and how files are put.

use clap::Parser;
use serde_json::json;

use super::*;

fn args(directory: &Path, more: &[&str]) -> Args {
    let shim = directory.join("shim");
    std::fs::write(&shim, b"#!/bin/true\n").unwrap();
    for sub in ["bin", "conf"] {
        std::fs::create_dir_all(directory.join(sub)).unwrap();
    }
    let at = |name: &str| directory.join(name).display().to_string();
    let mut words = vec!["bobbin-agent".to_owned(), "--node-name=n1".to_owned()];
    words.extend([
        format!("--shim-path={}", shim.display()),
        format!("--cni-bin-dir={}", at("bin")),
        format!("--cni-conf-dir={}", at("conf")),
    ]);
    words.extend(more.iter().map(|word| (*word).to_owned()));
    Args::try_parse_from(words).unwrap()
}

fn plugin(directory: &Path, name: &str, versions: &str) {
    let path = directory.join("bin").join(name);
    let script = format!(
        "#!/bin/sh\n[ \"$CNI_COMMAND\" = VERSION ] && cat >/dev/null && echo '{{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[{versions}]}}'\n"
    );
    put(&path, script.as_bytes(), 0o755).unwrap();
}

fn written(directory: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(directory.join("conf").join(CONFLIST)).unwrap()).unwrap()
}

#[tokio::test]
async fn the_shim_and_then_the_configuration_are_put_whole_and_taken_away_again() {
    let directory = tempfile::tempdir().unwrap();
    let args = args(directory.path(), &[]);
    install_shim(&args).unwrap();
    install_shim(&args).unwrap();
    install_conflist(&args).await.unwrap();
    let shim = std::fs::metadata(directory.path().join("bin/bobbin")).unwrap();
    assert_eq!(shim.permissions().mode() & 0o777, 0o755);
    assert_eq!(
        written(directory.path()),
        json!({"cniVersion": "1.1.0", "name": "bobbin", "plugins": [{"type": "bobbin"}]})
    );
    assert_eq!(std::fs::read_dir(directory.path().join("conf")).unwrap().count(), 1, "something is left beside");
    assert!(remove_conflist(&args).unwrap() && !remove_conflist(&args).unwrap());
    assert!(remove_shim(&args).unwrap() && !remove_shim(&args).unwrap());
}

#[tokio::test]
async fn the_version_is_the_highest_that_every_chained_plugin_says_it_supports() {
    let directory = tempfile::tempdir().unwrap();
    let chained = r#"--chained=[{"type":"portmap","capabilities":{"portMappings":true}},{"type":"tuning"}]"#;
    let args = args(directory.path(), &[chained]);
    plugin(directory.path(), "portmap", r#""0.3.1","0.4.0","1.0.0","1.1.0""#);
    plugin(directory.path(), "tuning", r#""0.3.1","0.4.0","1.0.0""#);
    install_conflist(&args).await.unwrap();
    let list = written(directory.path());
    assert_eq!(list["cniVersion"], "1.0.0");
    assert_eq!(list["plugins"][1], json!({"type": "portmap", "capabilities": {"portMappings": true}}));
    plugin(directory.path(), "tuning", r#""0.3.1","1.1.0""#);
    install_conflist(&args).await.unwrap();
    assert_eq!(written(directory.path())["cniVersion"], "1.1.0");
    // One that is missing says nothing.
    std::fs::remove_file(directory.path().join("bin/tuning")).unwrap();
    install_conflist(&args).await.unwrap();
    assert_eq!(written(directory.path())["cniVersion"], "0.3.1");
}

#[test]
fn a_configuration_that_sorts_before_ours_is_told_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let args = args(directory.path(), &[]);
    for name in ["05-other.conflist", "00-notes.txt", "10-calico.conflist", "87-podman.conflist", "05-old.conf.bak"] {
        std::fs::write(directory.path().join("conf").join(name), b"{}").unwrap();
    }
    let told = competitors(&args);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("05-other.conflist") && told[0].contains("node n1"), "{}", told[0]);
    assert_eq!(std::fs::read_dir(directory.path().join("conf")).unwrap().count(), 5);
}

#[tokio::test]
async fn settings_that_make_no_sense_are_told_by_name_and_write_nothing() {
    let directory = tempfile::tempdir().unwrap();
    for (word, told) in [
        ("--chained={\"type\":\"portmap\"}", "--chained"),
        ("--chained=[{\"type\":\"../portmap\"}]", "number 1"),
        ("--chained=[{\"type\":\"portmap\"},{}]", "number 2"),
        ("--cni-version=2.0.0", "2.0.0"),
    ] {
        let error = install_conflist(&args(directory.path(), &[word])).await.unwrap_err().to_string();
        assert!(error.contains(told), "{word}: {error}");
    }
    assert_eq!(std::fs::read_dir(directory.path().join("conf")).unwrap().count(), 0);
}
