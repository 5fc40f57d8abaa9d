//! Policy rules: adds, removes and lists them. Each address family has one rule that looks up the pod table.

use nix::libc;
use rtnetlink::packet_core::{DecodeError, Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NlasIterator, Parseable};
use rtnetlink::packet_route::route::{RouteHeader, RouteProtocol};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleHeader, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::error::{KernelError, is_absent};
use super::route::FAMILIES;
use super::socket::{Netlink, Request};
use crate::settings::Settings;

/// One policy rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) ipv6: bool,
    pub(crate) priority: u32,
    pub(crate) table: u32,
    pub(crate) protocol: u8,
    /// Whether the rule applies to every packet: it has no selector and no `not`.
    pub(crate) from_all: bool,
}

/// Bobbin's policy rules: one for each address family in use.
pub(crate) fn wanted(settings: &Settings, ipv4: bool, ipv6: bool) -> impl Iterator<Item = Rule> + use<> {
    let (priority, table, protocol) = (settings.rule_priority, settings.pod_table, settings.protocol);
    let families = [(ipv4, false), (ipv6, true)].into_iter().filter(|(used, _)| *used);
    families.map(move |(_, ipv6)| Rule { ipv6, priority, table, protocol, from_all: true })
}

impl Rule {
    fn message(self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = if self.ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        message.header.table = u8::try_from(self.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
        message.header.action = RuleAction::ToTable;
        message.attributes = vec![
            RuleAttribute::Priority(self.priority),
            RuleAttribute::Table(self.table),
            RuleAttribute::Protocol(RouteProtocol::from(self.protocol)),
        ];
        message
    }

    /// The request to add the policy rule. The kernel answers `EEXIST` if a rule with the same attributes exists.
    pub(crate) fn add(self) -> Request {
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        Request::new(format!("add the rule {self}"), flags, RouteNetlinkMessage::NewRule(self.message()))
    }

    /// The request to remove the policy rule. The kernel removes a rule only if priority, table and protocol match.
    pub(crate) fn delete(self) -> Request {
        Request::new(format!("remove the rule {self}"), NLM_F_ACK, RouteNetlinkMessage::DelRule(self.message()))
    }

    /// Decodes a policy rule. An attribute that can't be decoded counts as a selector.
    pub(super) fn decode(message: &[u8]) -> Result<Self, DecodeError> {
        let header = RuleHeader::parse(message)?;
        let selects_nothing = header.dst_len == 0 && header.src_len == 0 && header.tos == 0;
        let inverted = header.flags.contains(RuleFlags::Invert);
        let mut rule = Self {
            ipv6: header.family == AddressFamily::Inet6,
            priority: 0,
            table: u32::from(header.table),
            protocol: 0,
            from_all: selects_nothing && header.action == RuleAction::ToTable && !inverted,
        };
        for attribute in NlasIterator::new(&message[header.buffer_len()..]) {
            match RuleAttribute::parse(&attribute?) {
                Ok(RuleAttribute::Priority(priority)) => rule.priority = priority,
                Ok(RuleAttribute::Table(table)) => rule.table = table,
                Ok(RuleAttribute::Protocol(protocol)) => rule.protocol = protocol.into(),
                // The kernel reports these two attributes, with the value "none", even for a rule without a selector.
                Ok(RuleAttribute::SuppressIfGroup(_) | RuleAttribute::SuppressPrefixLen(_)) => {}
                _ => rule.from_all = false,
            }
        }
        Ok(rule)
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let family = if self.ipv6 { "IPv6" } else { "IPv4" };
        write!(f, "{}: from all lookup {} ({family})", self.priority, self.table)
    }
}

/// Lists the policy rules of both address families.
pub(crate) fn list(netlink: &mut Netlink) -> Result<Vec<Rule>, KernelError> {
    let mut found = Vec::new();
    for family in FAMILIES {
        let mut message = RuleMessage::default();
        message.header.family = family;
        match netlink.dump("rules", &RouteNetlinkMessage::GetRule(message)) {
            Ok(list) => {
                for reply in list.iter().filter(|reply| reply.kind() == libc::RTM_NEWRULE) {
                    let rule = Rule::decode(&reply.payload).map_err(KernelError::undecodable("list rules"))?;
                    found.extend(Some(rule).filter(|rule| rule.ipv6 == (family == AddressFamily::Inet6)));
                }
            }
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
