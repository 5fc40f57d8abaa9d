//! Prints results, ages and errors.

pub(crate) mod age;
pub(crate) mod failure;
pub(crate) mod output;
