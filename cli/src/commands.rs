//! The commands that check, change, complete or serve.

pub(crate) mod check;
pub(crate) mod complete;
pub(crate) mod confirm_deletion;
pub(crate) mod dashboard;
pub(crate) mod drain;
