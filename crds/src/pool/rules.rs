//! What one `AddressPool` may say, in CEL. What needs a look at other pools is the operator's, in a condition.

use kube::core::Rule;

use super::{MAX_BLOCK_SIZE_BITS, MAX_SUBNETS};
use crate::cel::{rule, telling_rule, texts};

/// True for two entries that have an address in common. Both are valid.
const OVERLAP: &str = "((has(a.ipv4) && has(b.ipv4) && (cidr(a.ipv4).containsCIDR(b.ipv4) || cidr(b.ipv4).containsCIDR(a.ipv4))) \
    || (has(a.ipv6) && has(b.ipv6) && (cidr(a.ipv6).containsCIDR(b.ipv6) || cidr(b.ipv6).containsCIDR(a.ipv6))))";

/// True for a list with an entry that another rule refuses.
const UNREADABLE: &str = "self.exists(s, (has(s.ipv4) && !isCIDR(s.ipv4)) || (has(s.ipv6) && !isCIDR(s.ipv6)))";

/// The name is a label, so that the names of its blocks fit.
pub(crate) fn name() -> Rule {
    rule(
        "self.metadata.name.size() <= 63 && !self.metadata.name.contains('.')",
        "the name does not fit, because its blocks are named after the pool: give it at most 63 letters, digits and dashes, without a dot",
    )
}

/// Entries stay, in their order; new ones come behind.
pub(crate) fn append_only() -> Rule {
    rule(
        "oldSelf.all(i, old, i < self.size() && self[i] == old)",
        "entries of subnets can't be changed, removed or reordered, because addresses of theirs may be in use: put them back as they were and append new ones behind; \
         to stop using an entry, make another pool and set draining on this one",
    )
}

/// No address is in two entries.
pub(crate) fn no_overlap() -> Rule {
    let numbers = subnet_indices();
    telling_rule(
        format!("{UNREADABLE} || self.all(i, a, self.all(j, b, i <= j || !{OVERLAP}))"),
        format!(
            "'subnets[' + {numbers}[self.transformList(i, a, self.exists(j, b, i > j && {OVERLAP}), i)[0]] + '] overlaps an entry before it: remove or narrow one of them'"
        ),
    )
}

/// Every entry has the families that the first has.
pub(crate) fn same_families() -> Rule {
    rule(
        "self.all(s, has(s.ipv4) == has(self[0].ipv4) && has(s.ipv6) == has(self[0].ipv6))",
        "entries of subnets differ in their families: give every entry ipv4, or every entry ipv6, or every entry both; pods of one pool all get the same kinds of address",
    )
}

/// A block is not larger than any entry. Guarded against what other rules refuse.
pub(crate) fn block_fits() -> Rule {
    const TOO_SMALL: &str = "((has(s.ipv4) && isCIDR(s.ipv4) && cidr(s.ipv4).ip().family() == 4 && cidr(s.ipv4).prefixLength() + self.blockSizeBits > 32) \
        || (has(s.ipv6) && isCIDR(s.ipv6) && cidr(s.ipv6).ip().family() == 6 && cidr(s.ipv6).prefixLength() + self.blockSizeBits > 128))";
    let (sizes, numbers) = (texts((0..=u32::from(MAX_BLOCK_SIZE_BITS)).map(|bits| 1 << bits)), subnet_indices());
    telling_rule(
        format!("self.blockSizeBits < 0 || self.blockSizeBits > 16 || !self.subnets.exists(s, {TOO_SMALL})"),
        format!(
            "'subnets[' + {numbers}[self.subnets.transformList(i, s, {TOO_SMALL}, i)[0]] + '] is smaller than a block of ' + {sizes}[self.blockSizeBits] + ' addresses: give a smaller blockSizeBits or a larger subnet'"
        ),
    )
}

/// An entry of `reserved` is an address, or a CIDR without stray bits.
pub(crate) fn reserved() -> Rule {
    telling_rule(
        "isIP(self) || (isCIDR(self) && cidr(self) == cidr(self).masked())",
        "isCIDR(self) ? self + ' has bits set behind its prefix: write the first address of the subnet, or a longer prefix' \
         : \"'\" + self + \"' is no address and no CIDR: write one like 10.64.0.1 or 10.64.0.0/28\"",
    )
}

/// Requirements of a label selector that the API would refuse elsewhere.
pub(crate) fn selector() -> Rule {
    rule(
        "!has(self.matchExpressions) || self.matchExpressions.all(e, e.operator in ['In', 'NotIn'] ? has(e.values) && e.values.size() > 0 \
         : e.operator in ['Exists', 'DoesNotExist'] && (!has(e.values) || e.values.size() == 0))",
        "a requirement of matchExpressions is invalid: the operator is In or NotIn with values, or Exists or DoesNotExist without",
    )
}

/// The indices of `subnets`, as a list of texts.
fn subnet_indices() -> String {
    texts(0..MAX_SUBNETS as u32)
}
