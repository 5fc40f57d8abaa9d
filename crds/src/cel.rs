//! CEL validation rules that several kinds of objects share. The API server evaluates them.
//!
//! Each mistake breaks only one rule, so that the user gets only one message. The rules use only CEL functions of
//! Kubernetes 1.33.

use kube::core::{Message, Rule};

/// The family of an address or a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    fn number(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }

    fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    fn example(self) -> (&'static str, &'static str) {
        match self {
            Self::V4 => ("10.64.0.0/16", "10.64.0.5"),
            Self::V6 => ("fd00:64::/112", "fd00:64::5"),
        }
    }
}

/// A CEL rule with a constant message.
pub(crate) fn rule(expression: impl Into<String>, message: impl Into<String>) -> Rule {
    Rule::new(expression).message(Message::Message(message.into()))
}

/// A CEL rule whose message is a CEL expression, so that the message can quote the refused value.
pub(crate) fn rule_with_value(expression: impl Into<String>, message: impl Into<String>) -> Rule {
    Rule::new(expression).message(Message::Expression(message.into()))
}

/// CEL rule: the field can't be changed.
pub(crate) fn immutable(message: &str) -> Rule {
    rule("self == oldSelf", message)
}

/// CEL rule: the value is a CIDR of the family.
pub(crate) fn cidr(family: Family) -> Rule {
    let (number, (example, _)) = (family.number(), family.example());
    rule_with_value(
        format!("isCIDR(self) && cidr(self).ip().family() == {number}"),
        format!("\"'\" + self + \"' is not an IPv{number} CIDR: write it like {example}\""),
    )
}

/// CEL rule: the value is a CIDR without host bits.
pub(crate) fn no_host_bits() -> Rule {
    rule_with_value(
        "!isCIDR(self) || cidr(self) == cidr(self).masked()",
        "self + ' has host bits set: write the first address of the subnet, or a longer prefix'",
    )
}

/// CEL rule: the CIDR contains only addresses that pods can use: no loopback, multicast, link-local or unspecified
/// addresses.
pub(crate) fn for_pods(family: Family) -> Rule {
    let (example, _) = family.example();
    rule_with_value(
        "!isCIDR(self) || cidr(self).ip().isGlobalUnicast()",
        format!(
            "self + ' has addresses that no pod can use (loopback, multicast, link-local or unspecified): write a unicast subnet like {example}'"
        ),
    )
}

/// CEL rule: the CIDR has a prefix length of at least `bits`.
pub(crate) fn max_size(family: Family, bits: u8) -> Rule {
    let number = family.number();
    rule_with_value(
        format!("!isCIDR(self) || cidr(self).ip().family() != {number} || cidr(self).prefixLength() >= {bits}"),
        format!("self + ' is too large: write a subnet of /{bits} to /{}'", family.bits()),
    )
}

/// CEL rule: the value is an address of the family in canonical form, without a prefix length.
pub(crate) fn address(family: Family) -> Rule {
    let (number, (_, example)) = (family.number(), family.example());
    rule_with_value(
        format!("isIP(self) && ip(self).family() == {number} && ip.isCanonical(self)"),
        format!(
            "\"'\" + self + \"' is not a canonical IPv{number} address: write it like {example}, in lower case, in its shortest form, without a prefix\""
        ),
    )
}

/// CEL rule: `ipv4`, `ipv6` or both are set.
pub(crate) fn any_family(what: &str) -> Rule {
    rule("has(self.ipv4) || has(self.ipv6)", format!("{what} has no address: set ipv4, ipv6 or both"))
}

/// CEL rule: the IPv4 CIDR and the IPv6 CIDR have the same number of addresses. The rule passes if a CIDR is invalid,
/// because another rule refuses an invalid CIDR.
pub(crate) fn same_size() -> Rule {
    let prefixes = texts(104..=128);
    rule_with_value(
        "!has(self.ipv4) || !has(self.ipv6) || !isCIDR(self.ipv4) || !isCIDR(self.ipv6) || cidr(self.ipv4).ip().family() != 4 || cidr(self.ipv6).ip().family() != 6 \
         || cidr(self.ipv4).prefixLength() < 8 || cidr(self.ipv4).prefixLength() + 96 == cidr(self.ipv6).prefixLength()",
        format!(
            "self.ipv4 + ' and ' + self.ipv6 + ' differ in size, but each pod gets one address from each of them: give the IPv6 subnet the prefix /' + {prefixes}[cidr(self.ipv4).prefixLength() - 8]"
        ),
    )
}

/// A CEL list of the numbers as strings. Messages look up a number in this list instead of calling `string(number)`.
/// The API server refuses such a call as too costly, because it assumes that the string has no maximum length.
pub(crate) fn texts(numbers: impl IntoIterator<Item = u32>) -> String {
    let texts: Vec<String> = numbers.into_iter().map(|number| format!("'{number}'")).collect();
    format!("[{}]", texts.join(","))
}
