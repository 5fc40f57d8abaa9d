//! The CEL rules of `IPAssignment`. An assignment is named after its address, so the API server refuses a second assignment
//! of the address.

use kube::core::Rule;

use crate::cel::rule_with_value;

/// An assignment with an IPv4 address has this address as its name. Any other assignment has its full IPv6 address as
/// its name, with dashes instead of colons.
///
/// A name with an IPv6 address must have 39 characters: eight groups of four digits. So each address has only one
/// possible name.
pub(crate) fn name() -> Rule {
    rule_with_value(
        "has(self.spec.ipv4) ? self.metadata.name == self.spec.ipv4 : !has(self.spec.ipv6) || !isIP(self.spec.ipv6) \
         || (self.metadata.name.size() == 39 && isIP(self.metadata.name.replace('-', ':')) && ip(self.metadata.name.replace('-', ':')) == ip(self.spec.ipv6))",
        "'the name of the assignment is not its address: name the assignment ' + (has(self.spec.ipv4) ? self.spec.ipv4 : self.spec.ipv6 + ' in full, eight groups of four digits with dashes between them')",
    )
}
