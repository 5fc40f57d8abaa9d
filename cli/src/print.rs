//! Prints results, ages, counts and errors.

pub(crate) mod age;
pub(crate) mod count;
pub(crate) mod failure;
pub(crate) mod output;
