//! Tests the content and the version of the configuration, and the installation of the files.

use clap::Parser;
use serde_json::{Value, json};

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
    write_if_changed(&path, script.as_bytes(), 0o755).unwrap();
}

fn written(directory: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(directory.join("conf").join(CONFLIST)).unwrap()).unwrap()
}

async fn reconciled(args: &Args) -> InstallReport {
    Installer::new(args.clone()).reconcile(true).await
}

fn reasons(done: &InstallReport) -> Vec<&'static str> {
    done.problems.iter().map(|problem| problem.event.reason).collect()
}

#[tokio::test]
async fn the_plugin_and_then_the_configuration_are_written_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let args = args(directory.path(), &[]);
    let paths = [directory.path().join("bin/bobbin"), directory.path().join("conf").join(CONFLIST)];
    let mut installer = Installer::new(args.clone());
    assert_eq!(
        installer.reconcile(false).await.new,
        paths[..1],
        "the agent installed the configuration before it was ready"
    );
    assert_eq!(installer.reconcile(true).await.new, paths[1..]);
    assert_eq!(installer.reconcile(true).await, InstallReport::default());
    let shim = std::fs::metadata(&paths[0]).unwrap();
    assert_eq!(shim.permissions().mode() & 0o777, 0o755);
    let plugins = json!([{"type": "bobbin", "capabilities": {"portMappings": true}}]);
    assert_eq!(written(directory.path()), json!({"cniVersion": "1.1.0", "name": "bobbin", "plugins": plugins}));
    assert_eq!(
        std::fs::read_dir(directory.path().join("conf")).unwrap().count(),
        1,
        "the agent left a temporary file in the directory of the configuration"
    );
    assert!(remove_conflist(&args).unwrap() && !remove_conflist(&args).unwrap());
    assert!(remove_shim(&args).unwrap() && !remove_shim(&args).unwrap());
}

/// A file's path, and a change of the file by another program.
type Spoilt<'a> = (&'a Path, fn(&Path));

#[tokio::test]
async fn a_removed_or_changed_file_is_restored() {
    let directory = tempfile::tempdir().unwrap();
    let mut installer = Installer::new(args(directory.path(), &[]));
    installer.reconcile(true).await;
    let (plugin, conflist) = (directory.path().join("bin/bobbin"), directory.path().join("conf").join(CONFLIST));
    let spoilt: [Spoilt; 5] = [
        (&plugin, |path| std::fs::remove_file(path).unwrap()),
        (&conflist, |path| std::fs::remove_file(path).unwrap()),
        (&plugin, |path| std::fs::write(path, b"#!/bin/fals\n").unwrap()),
        (&plugin, |path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap()),
        (&conflist, |path| std::fs::write(path, b"{}").unwrap()),
    ];
    for (path, spoil) in spoilt {
        spoil(path);
        let done = installer.reconcile(true).await;
        assert_eq!((done.restored.as_slice(), done.new.as_slice()), (&[path.to_owned()][..], &[][..]));
        assert_eq!(installer.reconcile(true).await, InstallReport::default());
    }
}

#[tokio::test]
async fn without_a_plugin_there_is_no_configuration_and_both_come_when_it_can_be_installed() {
    let directory = tempfile::tempdir().unwrap();
    let args = args(directory.path(), &[]);
    let (bin, conflist) = (directory.path().join("bin"), directory.path().join("conf").join(CONFLIST));
    std::fs::write(&conflist, b"{}").unwrap();
    // Replace the directory by a file, so that even root can't write into the directory.
    std::fs::remove_dir(&bin).unwrap();
    std::fs::write(&bin, b"").unwrap();
    let mut installer = Installer::new(args);
    let done = installer.reconcile(true).await;
    assert_eq!(reasons(&done), ["InstallFailed"]);
    assert!(
        done.problems[0].sentence.contains("installs no CNI configuration without the plugin"),
        "{:?}",
        done.problems
    );
    assert!(!conflist.exists());
    std::fs::remove_file(&bin).unwrap();
    std::fs::create_dir(&bin).unwrap();
    assert_eq!(installer.reconcile(true).await.new.len(), 2);
    assert!(conflist.exists() && bin.join(PLUGIN).exists());
}

#[tokio::test]
async fn a_directory_that_sorts_before_ours_is_no_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let args = args(directory.path(), &[]);
    std::fs::create_dir(args.cni_conf_dir.join("04-directory.conflist")).unwrap();
    assert_eq!(reconciled(&args).await.problems, []);
}

#[tokio::test]
async fn a_directory_in_the_place_of_a_file_is_named_as_the_cause() {
    let directory = tempfile::tempdir().unwrap();
    let args = args(directory.path(), &[]);
    std::fs::create_dir(args.cni_conf_dir.join(CONFLIST)).unwrap();
    let done = reconciled(&args).await;
    assert_eq!(reasons(&done), ["InstallFailed"]);
    let sentence = &done.problems[0].sentence;
    assert!(sentence.contains("Remove this directory on the node"), "{sentence}");
}

#[tokio::test]
async fn an_older_plugin_keeps_the_configuration_that_is_there_but_gets_no_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let args = args(directory.path(), &[]);
    let conflist = directory.path().join("conf").join(CONFLIST);
    plugin(directory.path(), PLUGIN, "");
    std::fs::remove_file(&args.shim_path).unwrap();
    let done = reconciled(&args).await;
    assert!(done.problems[0].sentence.contains("the installed older plugin stays in use"), "{:?}", done.problems);
    assert!(!conflist.exists());
    std::fs::write(&conflist, b"{}").unwrap();
    assert_eq!(reasons(&reconciled(&args).await), ["InstallFailed"]);
    assert_eq!(std::fs::read(&conflist).unwrap(), b"{}");
}

#[tokio::test]
async fn temporary_files_of_a_killed_agent_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    let args = args(directory.path(), &[]);
    for sub in ["bin", "conf"] {
        std::fs::write(directory.path().join(sub).join(".bobbin-half.tmp"), b"").unwrap();
    }
    reconciled(&args).await;
    for sub in ["bin", "conf"] {
        assert_eq!(std::fs::read_dir(directory.path().join(sub)).unwrap().count(), 1);
    }
}

#[tokio::test]
async fn the_version_is_the_highest_that_every_chained_plugin_says_it_supports() {
    let directory = tempfile::tempdir().unwrap();
    let chained = r#"--chained=[{"type":"portmap","capabilities":{"portMappings":true}},{"type":"tuning"}]"#;
    let args = args(directory.path(), &[chained]);
    plugin(directory.path(), "portmap", r#""0.3.1","0.4.0","1.0.0","1.1.0""#);
    plugin(directory.path(), "tuning", r#""0.3.1","0.4.0","1.0.0""#);
    let mut installer = Installer::new(args);
    assert_eq!(reasons(&installer.reconcile(true).await), ["CNIVersionLowered"]);
    let list = written(directory.path());
    assert_eq!(list["cniVersion"], "1.0.0");
    assert_eq!(
        list["plugins"][0],
        json!({"type": "bobbin"}),
        "Bobbin's own entry declares portMappings, although portmap already declares it"
    );
    assert_eq!(list["plugins"][1], json!({"type": "portmap", "capabilities": {"portMappings": true}}));
    // The installer asks the plugin again, because the plugin's file has changed. The installer does not report its own change of the
    // configuration as a restored file.
    plugin(directory.path(), "tuning", r#""0.3.1","1.1.0""#);
    let done = installer.reconcile(true).await;
    assert_eq!((done.new.len(), done.restored.len(), reasons(&done).len()), (1, 0, 0));
    assert_eq!(written(directory.path())["cniVersion"], "1.1.0");
    // A missing plugin reports no versions, so the configuration gets the oldest CNI version.
    std::fs::remove_file(directory.path().join("bin/tuning")).unwrap();
    assert_eq!(reasons(&installer.reconcile(true).await), ["ChainedPluginUnknown", "CNIVersionLowered"]);
    assert_eq!(written(directory.path())["cniVersion"], "0.3.1");
}

#[test]
fn a_configuration_that_sorts_before_ours_is_reported_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let args = args(directory.path(), &[]);
    for name in ["05-other.conflist", "00-notes.txt", "10-calico.conflist", "87-podman.conflist", "05-old.conf.bak"] {
        std::fs::write(directory.path().join("conf").join(name), b"{}").unwrap();
    }
    let multus = json!({"type": "multus", "delegates": [{"plugins": [{"type": "bobbin"}]}]});
    let by_file = json!({"type": "multus", "clusterNetwork": "/host/etc/cni/net.d/10-bobbin.conflist"});
    for (name, config) in [("00-multus.conf", multus), ("01-multus.conf", by_file)] {
        std::fs::write(directory.path().join("conf").join(name), config.to_string()).unwrap();
    }
    let problems = shadowing_configs(&args);
    assert_eq!(problems.len(), 1, "{problems:?}");
    std::fs::write(directory.path().join("conf/07-broken.conflist"), b"{ not json").unwrap();
    assert!(
        shadowing_configs(&args)[1]
            .sentence
            .contains("07-broken.conflist sorts before 10-bobbin.conflist, and can't be read as JSON")
    );
    let sentence = &problems[0].sentence;
    assert!(sentence.contains("05-other.conflist") && sentence.contains("node n1"), "{sentence}");
    assert_eq!(std::fs::read_dir(directory.path().join("conf")).unwrap().count(), 8);
}

#[tokio::test]
async fn invalid_settings_are_named_and_write_no_configuration() {
    let directory = tempfile::tempdir().unwrap();
    for (flag, expected) in [
        ("--chained={\"type\":\"portmap\"}", "--chained"),
        ("--chained=[{\"type\":\"../portmap\"}]", "number 1"),
        ("--chained=[{\"type\":\"portmap\"},{}]", "number 2"),
        ("--cni-version=2.0.0", "2.0.0"),
    ] {
        let done = reconciled(&args(directory.path(), &[flag])).await;
        assert!(done.problems[0].sentence.contains(expected), "{flag}: {:?}", done.problems);
    }
    assert_eq!(std::fs::read_dir(directory.path().join("conf")).unwrap().count(), 0);
}
