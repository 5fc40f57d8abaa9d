//! The network between the machines. A bridge in a separate namespace acts as the switch and as the nodes' default gateway.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};

use crate::network::Namespace;

/// The addresses of a machine on the fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FabricAddresses {
    /// The IPv4 address, in 10.100.0.0/24.
    pub ipv4: Ipv4Addr,
    /// The IPv6 address, in fd00:100::/64.
    pub ipv6: Ipv6Addr,
}

impl FabricAddresses {
    /// The addresses of the machine with this number: 1 is the switch, 2 the control plane, and 10 + N the node `nN`.
    pub fn number(number: u8) -> Self {
        // The decimal digits become hexadecimal digits, so that both addresses end with the same digits: 10.100.0.11 and
        // fd00:100::11.
        let last = u16::from(number / 100) * 0x100 + u16::from(number / 10 % 10) * 0x10 + u16::from(number % 10);
        Self { ipv4: Ipv4Addr::new(10, 100, 0, number), ipv6: Ipv6Addr::new(0xfd00, 0x100, 0, 0, 0, 0, 0, last) }
    }

    /// The addresses of the switch.
    pub fn switch() -> Self {
        Self::number(1)
    }

    /// The addresses of the control plane.
    pub fn control_plane() -> Self {
        Self::number(2)
    }

    /// The addresses of the node `nN`.
    pub fn node(name: &str) -> Result<Self> {
        let number: u8 = name
            .strip_prefix('n')
            .and_then(|digits| digits.parse().ok())
            .filter(|n| (1..=40).contains(n))
            .with_context(|| format!("the test cluster can't have a node named {name}: use n1 to n40"))?;
        Ok(Self::number(10 + number))
    }
}

/// The switch that connects the machines. If a test adds routes to the switch, the switch also routes between the
/// machines.
#[derive(Debug)]
pub struct Fabric {
    namespace: Namespace,
}

impl Fabric {
    /// Creates the switch.
    pub fn make() -> Result<Self> {
        let namespace = Namespace::make()?;
        let FabricAddresses { ipv4, ipv6 } = FabricAddresses::switch();
        namespace.ip(&format!(
            "link add br0 type bridge forward_delay 0\nlink set br0 up\n\
             addr add {ipv4}/24 dev br0\naddr add {ipv6}/64 dev br0 nodad\n"
        ))?;
        for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            let path = format!("/proc/sys/net/{setting}");
            namespace.run(move || std::fs::write(path, "1"))??;
        }
        Ok(Self { namespace })
    }

    /// The network namespace of the switch.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Connects a machine to the switch: adds `eth0` with these addresses, and a default route through the switch.
    pub fn plug(&self, name: &str, place: FabricAddresses, machine: &Namespace) -> Result<()> {
        let FabricAddresses { ipv4, ipv6 } = place;
        // Remove the machine's old port, because the kernel removes the port only some time after a power cut. Ignore a
        // failure, because usually there is no old port.
        let _ = self.namespace.ip(&format!("link del {name}"));
        // Derive the MAC address from the IPv4 address. A machine then keeps its MAC address over a reboot, and the
        // neighbour entries of other machines stay correct.
        let [_, _, _, number] = ipv4.octets();
        self.namespace.ip(&format!(
            "link add {name} type veth peer name eth0 address 02:00:0a:64:00:{number:02x} netns {}\n\
             link set {name} master br0\nlink set {name} up\n",
            machine.path().display()
        ))?;
        let switch = FabricAddresses::switch();
        machine.ip(&format!(
            "addr add {ipv4}/24 dev eth0\naddr add {ipv6}/64 dev eth0 nodad\nlink set eth0 up\n\
             route add default via {}\nroute add default via {}\n",
            switch.ipv4, switch.ipv6
        ))
    }

    /// Unplugs a machine's network cable, or plugs it in again.
    pub fn cable(&self, name: &str, plugged: bool) -> Result<()> {
        self.namespace.ip(&format!("link set {name} {}", if plugged { "up" } else { "down" }))
    }
}
