//! The end of a pool that was deleted, and of blocks that no pool has any more. Pure; `keeper` carries it out.

use crate::facts::{BlockFact, PoolView};

/// What is left to do before a deleted pool may go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Addresses or blocks are in use: wait.
    Holders,
    /// Nothing that the watches have shown: look afresh, then let it go.
    Nothing,
}

/// Whether anything of the pool is left.
pub(crate) fn left(view: &PoolView) -> Left {
    if view.blocks.is_empty() && view.used == 0 { Left::Nothing } else { Left::Holders }
}

/// Blocks that nobody has and nobody shall have: those to delete.
pub(crate) fn deletable(view: &PoolView) -> impl Iterator<Item = &BlockFact> {
    view.blocks.iter().filter(|block| block.node.is_none() && !block.deleting)
}

/// Blocks that are free and still have our finalizer: those to take it off.
pub(crate) fn releasable(view: &PoolView) -> impl Iterator<Item = &BlockFact> {
    view.blocks.iter().filter(|block| block.node.is_none() && block.finalizer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(node: Option<&str>, finalizer: bool, deleting: bool) -> BlockFact {
        BlockFact {
            index: 0,
            range: None,
            node: node.map(Into::into),
            finalizer,
            deleting,
            uid: "u".into(),
            version: "1".into(),
            assigned: 0,
        }
    }

    #[test]
    fn a_pool_goes_when_no_block_and_no_address_is_left() {
        assert_eq!(left(&PoolView::default()), Left::Nothing);
        assert_eq!(left(&PoolView { used: 1, ..PoolView::default() }), Left::Holders);
        assert_eq!(left(&PoolView { blocks: vec![block(None, false, true)], ..PoolView::default() }), Left::Holders);
    }

    #[test]
    fn a_claimed_block_is_never_touched() {
        let view =
            PoolView { blocks: vec![block(Some("n1"), true, false), block(None, true, true)], ..PoolView::default() };
        assert_eq!(deletable(&view).count(), 0);
        assert_eq!(releasable(&view).count(), 1);
    }
}
