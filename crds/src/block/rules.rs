//! What one `AddressBlock` may say, and how it may change, in CEL. Who may change it is the admission policy's.

use kube::core::Rule;

use crate::cel::{rule, telling_rule};

/// The name tells pool and index.
pub(crate) fn name() -> Rule {
    rule(
        "self.metadata.name.startsWith(self.spec.poolName + '-') && self.metadata.name.substring(self.spec.poolName.size() + 1) == string(self.spec.index)",
        "the name of a block is its poolName, a dash and its index: name it so",
    )
}

/// What the block is cut from, and where, stays.
pub(crate) fn range_stays() -> Rule {
    rule(
        "self.poolName == oldSelf.poolName && self.index == oldSelf.index \
         && has(self.ipv4) == has(oldSelf.ipv4) && (!has(self.ipv4) || self.ipv4 == oldSelf.ipv4) \
         && has(self.ipv6) == has(oldSelf.ipv6) && (!has(self.ipv6) || self.ipv6 == oldSelf.ipv6)",
        "poolName, index, ipv4 and ipv6 of a block can't be changed, because addresses of it may be in use: leave them as they were",
    )
}

/// Claimed is a name and a UID, free is neither.
pub(crate) fn claimed_or_free() -> Rule {
    rule(
        "(self.?nodeName.orValue('') == '') == (self.?nodeUID.orValue('') == '')",
        "nodeName and nodeUID of a block go together: set both to claim it, or remove both to give it back",
    )
}

/// A claimed block becomes free before another node claims it.
pub(crate) fn not_from_node_to_node() -> Rule {
    telling_rule(
        "oldSelf.?nodeName.orValue('') == '' || self.?nodeName.orValue('') == '' || self.nodeName == oldSelf.nodeName",
        "'the block is claimed by the node ' + oldSelf.nodeName + ' and can not go to ' + self.nodeName + ' directly: it must be given back first'",
    )
}
