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

/// Blocks that nobody has, that no record lies in, and nobody shall have: those to delete.
pub(crate) fn deletable(view: &PoolView) -> impl Iterator<Item = &BlockFact> {
    view.blocks.iter().filter(|block| block.is_free() && block.assigned == 0 && !block.deleting)
}

/// Blocks that are free and still have our finalizer, and of which no record is known: those to look at and take it off.
pub(crate) fn releasable(view: &PoolView) -> impl Iterator<Item = &BlockFact> {
    view.blocks.iter().filter(|block| block.is_free() && block.assigned == 0 && block.finalizer.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Holder;

    fn block(node: Option<&str>, finalizer: bool, deleting: bool) -> BlockFact {
        let holder = node.map_or(Holder::Nobody, |node| Holder::Node(node.into()));
        BlockFact { holder, finalizer: finalizer.then_some(0), deleting, ..BlockFact::default() }
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

    #[test]
    fn a_free_block_with_a_record_in_it_or_one_that_can_not_be_read_stays_and_keeps_its_finalizer() {
        let recorded = BlockFact { assigned: 1, ..block(None, true, false) };
        let unreadable = BlockFact { finalizer: Some(0), ..BlockFact::unreadable(3) };
        let view = PoolView { blocks: vec![recorded, unreadable], ..PoolView::default() };
        assert_eq!(deletable(&view).count(), 0);
        assert_eq!(releasable(&view).count(), 0);
    }
}
