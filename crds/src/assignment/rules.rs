//! The CEL rules of `IPAssignment`. An assignment is named after its address, so the API server refuses a second assignment
//! of the address.

use kube::core::Rule;

use crate::cel::rule_with_value;

/// The assignment's name is its IPv4 address or, if it has none, its IPv6 address in full with dashes.
///
/// An IPv6 name of 39 characters can only be eight groups of four digits, so each address has only one possible name.
pub(crate) fn name() -> Rule {
    rule_with_value(
        "has(self.spec.ipv4) ? self.metadata.name == self.spec.ipv4 : !has(self.spec.ipv6) || !isIP(self.spec.ipv6) \
         || (self.metadata.name.size() == 39 && isIP(self.metadata.name.replace('-', ':')) && ip(self.metadata.name.replace('-', ':')) == ip(self.spec.ipv6))",
        "'the name is not the address: name it ' + (has(self.spec.ipv4) ? self.spec.ipv4 : self.spec.ipv6 + ' in full, eight groups of four digits with dashes between them')",
    )
}
