//! The range of block indices in which agents look for free blocks. Agents try to claim blocks in this range without
//! reading them first, so most blocks in the range should be free. Pure.

use bobbin_crds::pool::FreeWindow;

/// Returns the window for the sorted indices of the free blocks. If at least half of the blocks from the first to the last
/// free block are free, the window contains all free blocks. Otherwise the window is the narrowest range that contains
/// three quarters of the free blocks.
pub(super) fn of(free: &[u64]) -> Option<FreeWindow> {
    let (first, last) = (*free.first()?, *free.last()?);
    let len = free.len() as u64;
    if (last - first) / 2 < len {
        return Some(window(free));
    }
    let count = free.len() - free.len() / 4;
    let narrowest = free.windows(count).min_by_key(|part| part[count - 1] - part[0])?;
    Some(window(narrowest))
}

fn window(free: &[u64]) -> FreeWindow {
    // The conversion of an index never fails, because every index is below 2^46.
    let index = |index: Option<&u64>| index.map_or(0, |index| i64::try_from(*index).unwrap_or(i64::MAX));
    FreeWindow {
        first: index(free.first()),
        last: index(free.last()),
        free: i64::try_from(free.len()).unwrap_or(i64::MAX),
    }
}
