//! The blocks that the API server has confirmed as this node's and whose routes could not be exported: not in use, but not to be forgotten
//! either. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// Those blocks, by name.
#[derive(Debug, Default)]
pub(super) struct Unexported(BTreeMap<String, Block>);

#[derive(Debug)]
struct Block {
    pool: String,
    /// When it became free before the claim: a claimed block itself says that no more.
    free_since: Option<MicroTime>,
}

impl Unexported {
    /// The block is ours, its route is not up. What was known of its rest stays known.
    pub(super) fn note(&mut self, name: &str, pool: &str, free_since: Option<MicroTime>) {
        let free_since = free_since.or_else(|| self.free_since(name));
        self.0.insert(name.to_owned(), Block { pool: pool.to_owned(), free_since });
    }

    /// The block is in use now, or not ours.
    pub(super) fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Those of a pool.
    pub(super) fn of(&self, pool: &str) -> Vec<String> {
        self.0.iter().filter(|(_, block)| block.pool == pool).map(|(name, _)| name.clone()).collect()
    }

    /// Since when the addresses of the block rest.
    pub(super) fn free_since(&self, name: &str) -> Option<MicroTime> {
        self.0.get(name).and_then(|block| block.free_since.clone())
    }
}

#[cfg(test)]
mod tests;
