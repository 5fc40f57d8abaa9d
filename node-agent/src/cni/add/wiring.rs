//! Changes the node's kernel network for an ADD. Sets up the node for the pod's address families, then wires the pod.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use bobbin_cni_wire::{CniError, code};
use bobbin_datapath::{AttachError, Attached, KernelError};
use bobbin_ipam::IpPair;

use crate::agent::Agent;
use crate::state::{Attachment, Links};

/// The address families for which the agent has set up the node's forwarding, routing rule and anti-spoofing filter. If another program
/// changes this setup later, the network reconciler repairs it.
#[derive(Debug, Default)]
pub(super) struct PreparedFamilies {
    ipv4: AtomicBool,
    ipv6: AtomicBool,
}

impl PreparedFamilies {
    async fn prepare(&self, agent: &Agent, pair: IpPair) -> Result<(), KernelError> {
        let (need4, need6) = (pair.ipv4.is_some(), pair.ipv6.is_some());
        if (!need4 || self.ipv4.load(Ordering::Acquire)) && (!need6 || self.ipv6.load(Ordering::Acquire)) {
            return Ok(());
        }
        agent.network.set_up(need4, need6).await?;
        self.ipv4.fetch_or(need4, Ordering::Release);
        self.ipv6.fetch_or(need6, Ordering::Release);
        Ok(())
    }
}

/// Sets up the node for the pod's address families, then wires the pod.
pub(super) async fn wire(
    agent: &Agent,
    prepared: &PreparedFamilies,
    attachment: &Attachment,
    netns: OwnedFd,
) -> Result<Attached, CniError> {
    prepared.prepare(agent, attachment.pair).await.map_err(|error| kernel_refused(&error.to_string()))?;
    let wiring = agent.wiring(&attachment.key, attachment.pair);
    agent.network.attach(&wiring, netns).await.map_err(|error| {
        let node = &agent.args.node_name;
        let key = &attachment.key;
        let code = match &error {
            AttachError::InterfaceExists { .. } => code::INTERFACE_EXISTS,
            AttachError::HostNetns(_) => code::INVALID_ENVIRONMENT,
            AttachError::NetnsGone { .. } => code::CONTAINER_UNKNOWN,
            _ => code::KERNEL_REFUSED,
        };
        CniError::new(code, format!("the agent of node {node} could not wire {key}: {error}"))
    })
}

pub(super) fn links_of(attached: &Attached) -> Links {
    Links {
        host_if: attached.host_if.clone(),
        host_mac: mac(attached.host_mac),
        container_mac: mac(attached.container_mac),
        mtu: attached.mtu,
        netns: attached.netns,
    }
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

pub(super) fn kernel_refused(why: &str) -> CniError {
    CniError::new(code::KERNEL_REFUSED, why.to_owned())
}
