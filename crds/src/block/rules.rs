//! The CEL rules of `AddressBlock`. Separate admission policies decide who may change a block.

use kube::core::Rule;

use crate::cel::{rule, rule_with_value};

/// The block's name consists of the pool's name and the block's index.
pub(crate) fn name() -> Rule {
    rule(
        "self.metadata.name.startsWith(self.spec.poolName + '-') && self.metadata.name.substring(self.spec.poolName.size() + 1) == string(self.spec.index)",
        "the name of a block must be its poolName, a dash and its index: change metadata.name",
    )
}

/// The pool, index and addresses of a block can't be changed.
pub(crate) fn range_stays() -> Rule {
    rule(
        "self.poolName == oldSelf.poolName && self.index == oldSelf.index \
         && has(self.ipv4) == has(oldSelf.ipv4) && (!has(self.ipv4) || self.ipv4 == oldSelf.ipv4) \
         && has(self.ipv6) == has(oldSelf.ipv6) && (!has(self.ipv6) || self.ipv6 == oldSelf.ipv6)",
        "poolName, index, ipv4 and ipv6 of a block are immutable, because its addresses may be in use: restore the old values",
    )
}

/// A claimed block has the name and the UID of a node; a free block has neither.
pub(crate) fn claimed_or_free() -> Rule {
    rule(
        "(self.?nodeName.orValue('') == '') == (self.?nodeUID.orValue('') == '')",
        "nodeName and nodeUID of a block belong together: set both to claim it, or remove both to release it",
    )
}

/// A claimed block must be released before another node can claim it.
pub(crate) fn not_from_node_to_node() -> Rule {
    rule_with_value(
        "oldSelf.?nodeName.orValue('') == '' || self.?nodeName.orValue('') == '' || self.nodeName == oldSelf.nodeName",
        "'the block is claimed by the node ' + oldSelf.nodeName + ' and cannot go to ' + self.nodeName + ' directly: release it first'",
    )
}
