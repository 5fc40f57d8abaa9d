//! Helpers for the network tests: a node with an uplink, pods, and commands on the node and in pods.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use bobbin_datapath::{Network, Settings, Wiring};
use bobbin_ipam::{AttachmentKey, BlockRange, IpPair};
use nix::sched::{CloneFlags, setns, unshare};

pub const NODE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const NODE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// Runs a test in a new network namespace that acts as the node: its uplink has an address of each family.
pub fn on_a_node<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("create a network namespace, for which these tests need root");
        for line in [
            "link set lo up",
            "link add bob-up type veth peer name bob-fabric",
            // Turn link-local addresses off. Otherwise the kernel would add such addresses a second later, and a test
            // would mistake them for another program's change.
            "link set bob-fabric addrgenmode none",
            "link set bob-up addrgenmode none",
            "link set bob-fabric up",
            "link set bob-up mtu 1400 up",
            "addr add 192.0.2.1/24 dev bob-up",
            "-6 addr add 2001:db8::1/64 dev bob-up nodad",
            "route add default via 192.0.2.254",
        ] {
            ip(line);
        }
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test());
    };
    std::thread::spawn(run).join().expect("the test's own panic is printed above");
}

/// A [`bobbin_datapath::Network`] with default settings, set up for both address families.
pub async fn network() -> Network {
    let network = Network::open(Settings::default()).await.expect("open");
    network.set_up(true, true).await.expect("set_up");
    network
}

/// Runs `ip` on the node and returns its output.
pub fn ip(line: &str) -> String {
    run("ip", line)
}

/// Runs a program in the calling thread's namespace and returns its output. The word `EMPTY` becomes an empty argument.
pub fn run(program: &str, line: &str) -> String {
    let words = line.split_whitespace().map(|word| if word == "EMPTY" { "" } else { word });
    let output = Command::new(program).args(words).output();
    let output = output.expect("`ip` (iproute2) and `nft` (nftables) are installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {line}: {}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The names of the node's links.
pub fn links() -> Vec<String> {
    ip("-o link")
        .lines()
        .filter_map(|line| line.split(": ").nth(1))
        .map(|name| name.split('@').next().unwrap_or(name).to_owned())
        .collect()
}

/// A pod's container: a network namespace that exists until this value is dropped.
pub struct Pod {
    netns: OwnedFd,
    pub wiring: Wiring,
}

impl Pod {
    /// Pod number `n`, with an IPv4 and an IPv6 address.
    pub fn dual(n: u8) -> Self {
        Self::new(n, true, true)
    }

    pub fn new(n: u8, ipv4: bool, ipv6: bool) -> Self {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
            OwnedFd::from(std::fs::File::open("/proc/thread-self/ns/net").expect("its descriptor"))
        });
        let pair = IpPair {
            ipv4: ipv4.then_some(Ipv4Addr::new(10, 64, 0, n)),
            ipv6: ipv6.then(|| Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, 0, u16::from(n))),
        };
        let key = AttachmentKey::new(format!("container{n}"), "eth0");
        let wiring = Wiring { key, pair, node_ipv4: Some(NODE_V4), node_ipv6: Some(NODE_V6) };
        Self { netns: made.join().expect("the namespace"), wiring }
    }

    /// Another interface of the same container, with the addresses of pod number `n`.
    pub fn second(&self, if_name: &str, n: u8) -> Self {
        let mut wiring = Self::dual(n).wiring;
        wiring.key = AttachmentKey::new(self.wiring.key.container_id.clone(), if_name);
        Self { netns: self.netns(), wiring }
    }

    /// A path by which other programs can enter the pod's network namespace.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.netns.as_raw_fd())
    }

    pub fn netns(&self) -> OwnedFd {
        self.netns.try_clone().expect("a descriptor")
    }

    pub fn v4(&self) -> IpAddr {
        self.wiring.pair.ipv4.expect("an IPv4 pod").into()
    }

    pub fn v6(&self) -> IpAddr {
        self.wiring.pair.ipv6.expect("an IPv6 pod").into()
    }

    /// Runs a function inside the pod's namespace.
    pub fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let netns = self.netns();
        let run = move || {
            setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).expect("enter the pod");
            work()
        };
        std::thread::spawn(run).join().expect("no panic inside the pod")
    }

    /// Runs `ip` inside the pod and returns its output.
    pub fn ip(&self, line: &str) -> String {
        let line = line.to_owned();
        self.inside(move || ip(&line))
    }

    /// A UDP socket inside the pod.
    pub fn socket(&self, own: IpAddr) -> UdpSocket {
        self.inside(move || socket(own))
    }
}

/// A UDP socket in the calling thread's namespace.
pub fn socket(own: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::new(own, 0)).expect("bind");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    socket
}

/// The time from sending a datagram until its answer arrives. `None` if the datagram or the answer is lost.
pub fn round_trip(from: &UdpSocket, to: &UdpSocket) -> Option<Duration> {
    let start = Instant::now();
    let mut buffer = [0; 16];
    from.send_to(b"there", to.local_addr().expect("an address")).ok()?;
    let (_, sender) = to.recv_from(&mut buffer).ok()?;
    assert_eq!(sender, from.local_addr().expect("an address"), "the datagram arrived with another source address");
    to.send_to(b"back", sender).ok()?;
    from.recv_from(&mut buffer).ok()?;
    Some(start.elapsed())
}

/// Waits until `holds` returns true.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}: this did not happen within 10 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn block() -> BlockRange {
    BlockRange::parse(Some("10.64.0.0/27"), Some("fd00:64::/123")).expect("a block")
}
