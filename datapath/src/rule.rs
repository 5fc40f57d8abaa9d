//! Policy rules: the one of each family that looks up the pods' table, and what a dump shows of others.

use crate::message::{ACK, CREATE, EXCL, Message, ROOT_DUMP, Reply, attributes, u32_at};
use crate::route::is_absent;
use crate::settings::Settings;
use crate::socket::{Ask, KernelError, Netlink};

const NEW: u16 = 32;
const DELETE: u16 = 33;
const GET: u16 = 34;
const PRIORITY: u16 = 6;
const TABLE: u16 = 15;
const PROTOCOL: u16 = 21;
const TO_TABLE: u8 = 1;
/// Attributes that a rule without any selector also shows: suppressors set to "none", protocol, table, priority.
const NOT_SELECTORS: [u16; 6] = [PRIORITY, 13, 14, TABLE, PROTOCOL, 0];

/// One rule as seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) ipv6: bool,
    pub(crate) priority: u32,
    pub(crate) table: u32,
    pub(crate) protocol: u8,
    /// Looks up a table for every packet: no selector, no inversion.
    pub(crate) from_all: bool,
}

impl Rule {
    /// The rule that should be there.
    pub(crate) fn ours(settings: &Settings, ipv6: bool) -> Self {
        Self {
            ipv6,
            priority: settings.rule_priority,
            table: settings.pod_table,
            protocol: settings.protocol,
            from_all: true,
        }
    }

    fn message(self, kind: u16, flags: u16) -> Message {
        let mut fixed = [0; 12];
        fixed[0] = if self.ipv6 { 10 } else { 2 };
        fixed[4] = u8::try_from(self.table).unwrap_or(0);
        fixed[7] = TO_TABLE;
        Message::new(kind, flags, &fixed)
            .u32(PRIORITY, self.priority)
            .u32(TABLE, self.table)
            .attr(PROTOCOL, &[self.protocol])
    }

    /// Adds it; `EEXIST` only for an identical one.
    pub(crate) fn add(self) -> Ask {
        Ask::new(format!("add the rule {self}"), self.message(NEW, ACK | CREATE | EXCL))
    }

    /// Removes it: priority, table and protocol must agree.
    pub(crate) fn delete(self) -> Ask {
        Ask::new(format!("remove the rule {self}"), self.message(DELETE, ACK))
    }

    fn read(reply: &Reply) -> Option<Self> {
        let body = (reply.kind == NEW && reply.payload.len() >= 12).then_some(&reply.payload)?;
        let mut rule = Self {
            ipv6: body[0] == 10,
            priority: 0,
            table: u32::from(body[4]),
            protocol: 0,
            from_all: body[1] == 0 && body[2] == 0 && body[3] == 0 && body[7] == TO_TABLE && u32_at(body, 8) & 2 == 0,
        };
        for (kind, value) in attributes(&body[12..]) {
            match kind {
                PRIORITY => rule.priority = u32_at(value, 0),
                TABLE => rule.table = u32_at(value, 0),
                PROTOCOL => rule.protocol = value.first().copied().unwrap_or_default(),
                _ => {}
            }
            rule.from_all &= NOT_SELECTORS.contains(&kind);
        }
        Some(rule)
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let family = if self.ipv6 { "IPv6" } else { "IPv4" };
        write!(f, "{}: from all lookup {} ({family})", self.priority, self.table)
    }
}

/// The rules of both families.
pub(crate) fn list(netlink: &mut Netlink) -> Result<Vec<Rule>, KernelError> {
    let mut found = Vec::new();
    for family in [2u8, 10] {
        let mut fixed = [0; 12];
        fixed[0] = family;
        match netlink.dump("rules", &Message::new(GET, ROOT_DUMP, &fixed)) {
            Ok(list) => found.extend(list.iter().filter_map(Rule::read).filter(|rule| rule.ipv6 == (family == 10))),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
