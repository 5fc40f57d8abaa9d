//! A capture of the packets that arrive at a node, by tcpdump.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use bobbin_e2e::cluster::node::Node;
use bobbin_e2e::control_plane::Process;
use bobbin_e2e::wait::{check, wait_until};

/// A running capture. Dropping this value ends it.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Process,
    log: PathBuf,
}

/// One captured packet.
#[derive(Clone, Debug)]
pub struct Packet {
    /// When the packet arrived.
    pub at: SystemTime,
    /// tcpdump's line about the packet.
    pub line: String,
}

impl Packet {
    /// Whether this is an IPv6 packet.
    pub fn is_ipv6(&self) -> bool {
        self.line.contains(" IP6 ")
    }
}

impl Capture {
    /// Captures the packets that arrive at the node's network card and pass a filter of tcpdump.
    pub async fn start(node: &Node, filter: &str) -> Result<Self> {
        let log = node.disk().join("capture.log");
        let arguments = ["-i", "eth0", "-Q", "in", "-n", "-tt", "-l", "--immediate-mode", "-Z", "root", filter];
        let tcpdump = Process::start(Path::new("tcpdump"), Some(&node.namespace()?.path()), &log, arguments)?;
        let this = Self { tcpdump, log };
        wait_until("tcpdump captures packets", Duration::from_secs(10), || async {
            let text = std::fs::read_to_string(&this.log)?;
            Ok(check(text.contains("listening on eth0"), || text))
        })
        .await?;
        Ok(this)
    }

    /// The packets so far.
    pub fn packets(&mut self) -> Result<Vec<Packet>> {
        self.tcpdump.must_be_running()?;
        Ok(std::fs::read_to_string(&self.log)?.lines().filter_map(packet).collect())
    }
}

/// Reads a line such as `1700000000.123456 IP 10.200.0.10.4000 > 10.64.0.1.8080: UDP, length 8`.
fn packet(line: &str) -> Option<Packet> {
    let (seconds, _) = line.split_once(' ')?;
    let at = UNIX_EPOCH + Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?;
    line.contains(" > ").then(|| Packet { at, line: line.to_owned() })
}
