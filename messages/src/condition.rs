//! The catalog of the conditions of an `AddressPool`: the types, statuses, reasons and texts that the operator writes.

use std::fmt;

/// True when the operator has accepted a subnet, and the pool is open for claims. The reason is `NoNodeAdmitted` if
/// Nodes exist but none of them may claim a block, because of `spec.nodeSelector` or because they are out of service.
pub const READY: &str = "Ready";
/// True when the operator has accepted every entry of `spec.subnets`; false while the operator refuses an entry.
pub const ACCEPTED: &str = "Accepted";
/// True when the pool has no free block. Unknown while the pool is closed for claims. The pool is closed while no
/// subnet is accepted, too many Node addresses lie in the pool, or the pool drains or is being deleted.
pub const BLOCKS_EXHAUSTED: &str = "BlocksExhausted";
/// True when the pool has no free block, and no claimed block has a free address. Unknown whenever `BlocksExhausted` is
/// unknown.
pub const EXHAUSTED: &str = "Exhausted";
/// True while addresses of accepted subnets belong to a Node or a Service range.
pub const ADDRESS_CONFLICT: &str = "AddressConflict";
/// True while an entry of `spec.reserved` lies in no subnet, or a pod has a reserved address.
pub const MISCONFIGURED: &str = "Misconfigured";
/// True while the pool is being deleted.
pub const TERMINATING: &str = "Terminating";

/// The types of all conditions of a pool.
pub const TYPES: [&str; 7] =
    [READY, ACCEPTED, BLOCKS_EXHAUSTED, EXHAUSTED, ADDRESS_CONFLICT, MISCONFIGURED, TERMINATING];

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// The operator can't tell.
    Unknown,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        })
    }
}

/// An entry of the catalog. Only this crate can create one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Condition {
    /// The types that can have this status and this reason.
    pub types: &'static [&'static str],
    /// The condition's `status`.
    pub status: Status,
    /// The condition's `reason`.
    pub reason: &'static str,
    /// The forms of the condition's `message`, with placeholders such as `<pool>`.
    pub texts: &'static [&'static str],
    /// When the condition has this status and this reason.
    pub cause: &'static str,
    /// What an administrator should do.
    pub remedy: &'static str,
}

/// Defines conditions: `NAME: Status "Reason" of [TYPE, …] { texts: [...], cause: "...", remedy: "..." }`. `ALL` lists all of them.
macro_rules! conditions {
    ($($id:ident: $status:ident $reason:literal of [$($type_:ident),+] {
        texts: [$($text:literal),+ $(,)?],
        cause: $cause:literal,
        remedy: $remedy:literal $(,)?
    })+) => {
        $(
            #[doc = $cause]
            pub const $id: $crate::Condition = $crate::Condition {
                types: &[$($crate::condition::$type_),+],
                status: $crate::condition::Status::$status,
                reason: $reason,
                texts: &[$($text),+],
                cause: $cause,
                remedy: $remedy,
            };
        )+
        /// All entries of the module.
        pub const ALL: &[$crate::Condition] = &[$($id),+];
    };
}

pub mod refusal;
pub mod state;

/// All entries.
pub fn all() -> impl Iterator<Item = &'static Condition> {
    state::ALL.iter().chain(refusal::ALL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_has_each_status_and_reason_once() {
        let mut seen = Vec::new();
        for condition in all() {
            for type_ in condition.types {
                let key = (*type_, condition.status.to_string(), condition.reason);
                assert!(TYPES.contains(type_) && !seen.contains(&key), "{key:?}");
                seen.push(key);
            }
        }
        assert!(TYPES.iter().all(|type_| seen.iter().any(|(seen, ..)| seen == type_)));
    }
}
