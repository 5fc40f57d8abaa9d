//! Validation rules, in CEL, that more than one kind has. The types name them; the API server runs them.
//!
//! A rule that takes another for granted guards itself against its failure, so that a bad manifest gets one sentence for
//! one mistake. Only functions that Kubernetes 1.33 has are used.

use kube::core::{Message, Rule};

/// What an address or a subnet is of.
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

/// A rule with a fixed sentence.
pub(crate) fn rule(expression: impl Into<String>, sentence: impl Into<String>) -> Rule {
    Rule::new(expression).message(Message::Message(sentence.into()))
}

/// A rule with a sentence that is an expression itself: it says what is wrong by its value.
pub(crate) fn telling_rule(expression: impl Into<String>, sentence: impl Into<String>) -> Rule {
    Rule::new(expression).message(Message::Expression(sentence.into()))
}

/// A field keeps its first value.
pub(crate) fn immutable(sentence: &str) -> Rule {
    rule("self == oldSelf", sentence)
}

/// A CIDR of the family.
pub(crate) fn cidr(family: Family) -> Rule {
    let (number, (example, _)) = (family.number(), family.example());
    telling_rule(
        format!("isCIDR(self) && cidr(self).ip().family() == {number}"),
        format!("\"'\" + self + \"' is no IPv{number} CIDR: write one like {example}\""),
    )
}

/// A CIDR without bits set behind its prefix.
pub(crate) fn no_host_bits() -> Rule {
    telling_rule(
        "!isCIDR(self) || cidr(self) == cidr(self).masked()",
        "self + ' has bits set behind its prefix: write the first address of the subnet, or a longer prefix'",
    )
}

/// A CIDR of addresses that a pod can have and others can reach: no loopback, multicast, link-local or unspecified ones.
pub(crate) fn for_pods(family: Family) -> Rule {
    let (example, _) = family.example();
    telling_rule(
        "!isCIDR(self) || cidr(self).ip().isGlobalUnicast()",
        format!(
            "self + ' is of addresses that no pod can have (loopback, multicast, link-local or unspecified): write a unicast subnet like {example}'"
        ),
    )
}

/// A CIDR with a prefix of at least so many bits.
pub(crate) fn narrow(family: Family, bits: u8) -> Rule {
    let number = family.number();
    telling_rule(
        format!("!isCIDR(self) || cidr(self).ip().family() != {number} || cidr(self).prefixLength() >= {bits}"),
        format!("self + ' is too wide: write a subnet of /{bits} to /{}'", family.bits()),
    )
}

/// A bare address of the family, in canonical text.
pub(crate) fn address(family: Family) -> Rule {
    let (number, (_, example)) = (family.number(), family.example());
    telling_rule(
        format!("isIP(self) && ip(self).family() == {number} && ip.isCanonical(self)"),
        format!(
            "\"'\" + self + \"' is no IPv{number} address in canonical form: write one like {example}, in lower case, as short as it can be, without a prefix\""
        ),
    )
}

/// At least one of the families is given.
pub(crate) fn some_family(what: &str) -> Rule {
    rule("has(self.ipv4) || has(self.ipv6)", format!("{what} has no address: give ipv4, ipv6 or both"))
}

/// Both families have the same number of addresses. Guarded against what other rules refuse.
pub(crate) fn same_size() -> Rule {
    let prefixes = texts(104..=128);
    telling_rule(
        "!has(self.ipv4) || !has(self.ipv6) || !isCIDR(self.ipv4) || !isCIDR(self.ipv6) || cidr(self.ipv4).ip().family() != 4 || cidr(self.ipv6).ip().family() != 6 \
         || cidr(self.ipv4).prefixLength() < 8 || cidr(self.ipv4).prefixLength() + 96 == cidr(self.ipv6).prefixLength()",
        format!(
            "self.ipv4 + ' and ' + self.ipv6 + ' differ in size, but addresses go out in pairs: give the IPv6 subnet the prefix /' + {prefixes}[cidr(self.ipv4).prefixLength() - 8]"
        ),
    )
}

/// A list of texts to pick one from by a number. `string(number)` has no largest size, so the API server admits it in no sentence.
pub(crate) fn texts(numbers: impl IntoIterator<Item = u32>) -> String {
    let texts: Vec<String> = numbers.into_iter().map(|number| format!("'{number}'")).collect();
    format!("[{}]", texts.join(","))
}
