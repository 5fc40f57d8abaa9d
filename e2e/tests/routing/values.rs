//! Tests the chart's values for the routing daemon, and that docs/routing/bird.conf is what the chart renders.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::chart;
use bobbin_e2e::cluster::NAMESPACE;
use bobbin_e2e::suite::Suite;
use libtest_mimic::Trial;

use crate::fixture::Routing;

pub fn tests(suite: &Suite<Routing>) -> Vec<Trial> {
    vec![
        suite.test("docs/routing/bird.conf is the configuration that the chart renders", documented_configuration),
        suite.test("a wrong value of the routing daemon is refused with a sentence", refused_values),
    ]
}

/// The directory of the documented configurations.
pub fn documents() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/routing")
}

/// Values that Helm refuses, and words of the sentence that says why.
const REFUSED: [(&[&str], &str); 8] = [
    (&["routing.peers=null"], "routing.peers is empty"),
    (&["routing.image.repository="], "routing.image.repository is empty"),
    (&["routing.peers[0].name=Rack_A"], "lowercase letters, digits and hyphens"),
    (&["routing.peers[0].localAS=0"], "minimum"),
    (&["routing.peers[0].routers[0].address=router.example.com"], "the IP address of a router"),
    (&["routing.peers[0].passwordSecret.name=bgp"], "key"),
    (&["routing.gracefulRestartSeconds=300"], "a number of seconds from 10 to 120"),
    (
        &[
            "routing.peers[1].name=rack-a",
            "routing.peers[1].localAS=65001",
            "routing.peers[1].routers[0].address=192.0.2.1",
            "routing.peers[1].routers[0].as=65000",
        ],
        "two entries of routing.peers have the name rack-a",
    ),
];

async fn refused_values(_: &mut Routing) -> Result<()> {
    for (settings, words) in REFUSED {
        let refused = template(settings)?;
        let sentence = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(
            !refused.status.success() && sentence.contains(words),
            "Helm must refuse {settings:?} and say {words:?}, but says: {sentence}"
        );
    }
    Ok(())
}

async fn documented_configuration(_: &mut Routing) -> Result<()> {
    let rendered = template(&[])?;
    ensure!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
    let rendered = String::from_utf8(rendered.stdout)?;
    let (_, rest) = rendered.split_once("  bird.conf: |\n").context("the chart renders no configuration of BIRD")?;
    let rendered: Vec<&str> = rest.lines().map_while(|line| line.strip_prefix("    ")).collect();
    // docs/routing/bird.conf contains the router ID. In the chart, each pod writes its router ID into a separate file.
    let rendered = rendered.join("\n").replace("include \"/run/bird/router-id.conf\";", "router id 192.0.2.11;");
    let documented = std::fs::read_to_string(documents().join("bird.conf"))?;
    let documented: Vec<&str> = documented.lines().filter(|line| !line.starts_with('#')).collect();
    ensure!(
        documented.join("\n") == rendered,
        "docs/routing/bird.conf differs from the chart: copy the rendered text, and keep the comments:\n{rendered}"
    );
    Ok(())
}

/// Renders the chart with the documented values and these settings.
fn template(settings: &[&str]) -> Result<Output> {
    let mut helm = chart::template(NAMESPACE)?;
    helm.arg("--values").arg(documents().join("example-values.yaml"));
    for setting in settings {
        helm.args(["--set", setting]);
    }
    helm.output().context("the test could not start Helm")
}
