//! Builds the result of ADD. Pure.

use std::net::IpAddr;

use bobbin_cni_wire::{AddResult, Interface, Ip, NetConf, Route};
use bobbin_datapath::{GATEWAY_IPV4, GATEWAY_IPV6};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::state::{Attachment, Links};

/// Builds the result for an attachment. Interface 0 is the host's end of the veth pair, and interface 1 is the container's end.
pub(super) fn of(attachment: &Attachment, links: &Links, conf: &NetConf, netns: &str) -> AddResult {
    let previous = conf.prev_result.clone().unwrap_or_default();
    let mut result = AddResult { dns: previous.dns, ..AddResult::default() };
    result.interfaces = vec![
        Interface {
            name: links.host_if.clone(),
            mac: Some(links.host_mac.clone()),
            mtu: Some(links.mtu),
            ..Interface::default()
        },
        Interface {
            name: attachment.key.if_name.clone(),
            mac: Some(links.container_mac.clone()),
            mtu: Some(links.mtu),
            sandbox: Some(netns.to_owned()),
            ..Interface::default()
        },
    ];
    for address in attachment.pair.addresses() {
        let (single, gateway, everything) = match address {
            IpAddr::V4(address) => {
                (IpNet::from(Ipv4Net::from(address)), IpAddr::V4(GATEWAY_IPV4), IpNet::from(Ipv4Net::default()))
            }
            IpAddr::V6(address) => {
                (IpNet::from(Ipv6Net::from(address)), IpAddr::V6(GATEWAY_IPV6), IpNet::from(Ipv6Net::default()))
            }
        };
        result.ips.push(Ip { address: single, gateway: Some(gateway), interface: Some(1) });
        result.routes.push(Route::new(everything, Some(gateway)));
    }
    result
}
