//! The blocks that the API server has confirmed as this node's and whose routes could not be exported: not in use, but not to be forgotten
//! either. Pure.

use std::collections::BTreeMap;

/// Those blocks by name, each with its pool.
#[derive(Debug, Default)]
pub(super) struct Unexported(BTreeMap<String, String>);

impl Unexported {
    /// The block is ours, its route is not up.
    pub(super) fn note(&mut self, name: &str, pool: &str) {
        self.0.insert(name.to_owned(), pool.to_owned());
    }

    /// The block is in use now, or not ours.
    pub(super) fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Those of a pool.
    pub(super) fn of(&self, pool: &str) -> Vec<String> {
        self.0.iter().filter(|(_, of)| *of == pool).map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests;
