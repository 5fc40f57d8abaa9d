//! The CEL rules of `AddressPool`. CEL rules can't compare a pool with other pools. So the operator compares the pools,
//! and reports an overlap in a condition.

use kube::core::Rule;

use super::{MAX_BLOCK_SIZE_BITS, MAX_SUBNETS};
use crate::cel::{rule, rule_with_value, texts};

/// CEL expression: the valid entries `a` and `b` overlap.
const OVERLAP: &str = "((has(a.ipv4) && has(b.ipv4) && (cidr(a.ipv4).containsCIDR(b.ipv4) || cidr(b.ipv4).containsCIDR(a.ipv4))) \
    || (has(a.ipv6) && has(b.ipv6) && (cidr(a.ipv6).containsCIDR(b.ipv6) || cidr(b.ipv6).containsCIDR(a.ipv6))))";

/// CEL expression: `subnets` contains an invalid CIDR, which another rule refuses.
const INVALID: &str = "self.exists(s, (has(s.ipv4) && !isCIDR(s.ipv4)) || (has(s.ipv6) && !isCIDR(s.ipv6)))";

/// CEL rule: the pool's name is a DNS label, so that the names of its blocks are not too long.
pub(crate) fn name() -> Rule {
    rule(
        "self.metadata.name.size() <= 63 && !self.metadata.name.contains('.')",
        "the pool's name is too long or has a dot, but blocks are named after their pool: use at most 63 letters, digits and dashes",
    )
}

/// CEL expression: the entries `a` and `b` have the same texts.
const SAME: &str = "has(a.ipv4) == has(b.ipv4) && (!has(a.ipv4) || a.ipv4 == b.ipv4) \
    && has(a.ipv6) == has(b.ipv6) && (!has(a.ipv6) || a.ipv6 == b.ipv6)";

/// CEL expression: the status contains no `acceptedSubnets`.
const NONE_LISTED: &str = "!has(self.status) || !has(self.status.acceptedSubnets)";

/// CEL expression: before the write, the status contained no `acceptedSubnets`.
const NONE_LISTED_BEFORE: &str = "!has(oldSelf.status) || !has(oldSelf.status.acceptedSubnets)";

/// CEL rule: every accepted entry of `subnets` is still in the spec. The API server checks this rule when the spec or
/// the status is written.
///
/// If the status contains an accepted entry without `firstIndex`, the order of `subnets` determines the block indices.
/// In such a pool, entries can only be appended.
pub(crate) fn accepted_subnets_stay() -> Rule {
    let gone = format!("a.state == 'Accepted' && !self.spec.subnets.exists(b, {SAME})");
    let unnumbered = "a.state == 'Accepted' && !has(a.firstIndex)";
    let appended = "oldSelf.spec.subnets.all(i, old, i < self.spec.subnets.size() && self.spec.subnets[i] == old)";
    rule(
        format!(
            "({NONE_LISTED} || !self.status.acceptedSubnets.exists(a, {gone})) \
             && ({NONE_LISTED_BEFORE} || !oldSelf.status.acceptedSubnets.exists(a, {unnumbered}) || {appended})"
        ),
        "accepted entries of subnets can't be changed or removed, because their addresses may be in use. \
         Restore the entries of status.acceptedSubnets, and append new ones. \
         To stop new pods from using an entry, add its CIDRs to spec.reserved",
    )
}

/// CEL rule: an accepted entry stays in the status, and its `firstIndex` does not change.
pub(crate) fn block_numbers_stay() -> Rule {
    let kept = format!("b.state == 'Accepted' && has(b.firstIndex) && b.firstIndex == a.firstIndex && {SAME}");
    rule(
        format!(
            "{NONE_LISTED_BEFORE} || oldSelf.status.acceptedSubnets.all(a, a.state != 'Accepted' || !has(a.firstIndex) \
             || (!({NONE_LISTED}) && self.status.acceptedSubnets.exists(b, {kept})))"
        ),
        "the status must keep each accepted subnet and its firstIndex, because block names depend on the firstIndex: write the entry as it was",
    )
}

/// CEL rule: no two entries of `subnets` overlap.
pub(crate) fn no_overlap() -> Rule {
    let numbers = subnet_indices();
    rule_with_value(
        format!("{INVALID} || self.all(i, a, self.all(j, b, i <= j || !{OVERLAP}))"),
        format!(
            "'subnets[' + {numbers}[self.transformList(i, a, self.exists(j, b, i > j && {OVERLAP}), i)[0]] + '] overlaps an earlier entry: remove one of them or make it smaller'"
        ),
    )
}

/// CEL rule: all entries of `subnets` have the same address families.
pub(crate) fn same_families() -> Rule {
    rule(
        "self.all(s, has(s.ipv4) == has(self[0].ipv4) && has(s.ipv6) == has(self[0].ipv6))",
        "entries of subnets differ in their families, but all pods of a pool get the same families. Give every entry ipv4, every entry ipv6, or every entry both",
    )
}

/// CEL rule: every entry of `subnets` has room for a block. The rule passes if an entry is invalid, because another
/// rule refuses an invalid entry.
pub(crate) fn block_fits() -> Rule {
    const TOO_SMALL: &str = "((has(s.ipv4) && isCIDR(s.ipv4) && cidr(s.ipv4).ip().family() == 4 && cidr(s.ipv4).prefixLength() + self.blockSizeBits > 32) \
        || (has(s.ipv6) && isCIDR(s.ipv6) && cidr(s.ipv6).ip().family() == 6 && cidr(s.ipv6).prefixLength() + self.blockSizeBits > 128))";
    let (sizes, numbers) = (texts((0..=u32::from(MAX_BLOCK_SIZE_BITS)).map(|bits| 1 << bits)), subnet_indices());
    rule_with_value(
        format!("self.blockSizeBits < 0 || self.blockSizeBits > 16 || !self.subnets.exists(s, {TOO_SMALL})"),
        format!(
            "'subnets[' + {numbers}[self.subnets.transformList(i, s, {TOO_SMALL}, i)[0]] + '] is smaller than a block of ' + {sizes}[self.blockSizeBits] + ' addresses: set a smaller blockSizeBits or a larger subnet'"
        ),
    )
}

/// CEL rule: an entry of `reserved` is an address, or a CIDR without host bits.
pub(crate) fn reserved() -> Rule {
    rule_with_value(
        "isIP(self) || (isCIDR(self) && cidr(self) == cidr(self).masked())",
        "isCIDR(self) ? self + ' has host bits set: write the first address of the subnet, or a longer prefix' \
         : \"'\" + self + \"' is neither an address nor a CIDR: write it like 10.64.0.1 or 10.64.0.0/28\"",
    )
}

/// CEL rule: the requirements of a label selector are valid.
pub(crate) fn selector() -> Rule {
    rule(
        "!has(self.matchExpressions) || self.matchExpressions.all(e, e.operator in ['In', 'NotIn'] ? has(e.values) && e.values.size() > 0 \
         : e.operator in ['Exists', 'DoesNotExist'] && (!has(e.values) || e.values.size() == 0))",
        "a requirement of matchExpressions is invalid: use In or NotIn with values, or Exists or DoesNotExist without values",
    )
}

/// A CEL list that contains the possible indices of `subnets` as texts.
fn subnet_indices() -> String {
    texts(0..MAX_SUBNETS as u32)
}
