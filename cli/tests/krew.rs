//! Fills the krew manifest like a release, and checks it against the rules of krew.

use std::collections::BTreeSet;

use serde::Deserialize;

const TEMPLATE: &str = include_str!("../krew/bobbin.yaml");

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Plugin {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    version: String,
    homepage: String,
    short_description: String,
    description: String,
    caveats: String,
    platforms: Vec<Platform>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Platform {
    selector: Selector,
    uri: String,
    sha256: String,
    bin: String,
    files: Vec<File>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selector {
    match_labels: Labels,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Labels {
    os: String,
    arch: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    from: String,
    to: String,
}

#[test]
fn the_filled_krew_manifest_installs_the_plugin_on_each_platform() {
    let version = env!("CARGO_PKG_VERSION");
    let mut filled = TEMPLATE.replace("vVERSION", &format!("v{version}"));
    for sum in ["SHA256_LINUX_AMD64", "SHA256_LINUX_ARM64"] {
        assert_eq!(filled.matches(sum).count(), 1, "{sum}");
        filled = filled.replace(sum, &"0f".repeat(32));
    }
    let plugin: Plugin = serde_saphyr::from_str(&filled).expect("the manifest is a krew plugin");
    assert_eq!(
        (plugin.api_version.as_str(), plugin.kind.as_str()),
        ("krew.googlecontainertools.github.com/v1alpha2", "Plugin")
    );
    // krew names the command after the manifest.
    assert_eq!(plugin.metadata.name, "bobbin");
    let Spec { version: of_manifest, homepage, short_description, description, caveats, platforms } = plugin.spec;
    assert_eq!(of_manifest, format!("v{version}"));
    assert!(homepage.starts_with("https://") && !description.is_empty() && caveats.contains("kubectl_complete-bobbin"));
    // krew's index refuses longer descriptions.
    assert!(short_description.len() <= 50, "{short_description}");
    let mut seen = BTreeSet::new();
    for platform in platforms {
        let Labels { os, arch } = platform.selector.match_labels;
        let archive = format!("/releases/download/v{version}/kubectl-bobbin-{os}-{arch}.tar.gz");
        assert!(
            platform.uri.starts_with("https://github.com/") && platform.uri.ends_with(&archive),
            "{}",
            platform.uri
        );
        assert!(platform.sha256.len() == 64 && platform.sha256.bytes().all(|one| one.is_ascii_hexdigit()));
        assert_eq!(platform.bin, "kubectl-bobbin");
        assert!(platform.files.iter().any(|file| file.from == platform.bin && file.to == "."), "{:?}", platform.files);
        assert!(seen.insert((os, arch)), "a platform is named twice");
    }
    assert_eq!(seen.len(), 2);
}
