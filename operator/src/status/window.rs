//! The window of indices that agents look for free blocks in: a claim tries blocks of it unread, so most of it should be free.

use bobbin_crds::pool::FreeWindow;

/// The window over free indices, which are sorted: from the first to the last, or, where less than half of that is free, the
/// narrowest part with three quarters of them.
pub(super) fn of(free: &[u64]) -> Option<FreeWindow> {
    let (first, last) = (*free.first()?, *free.last()?);
    let len = free.len() as u64;
    if (last - first) / 2 < len {
        return Some(window(free));
    }
    let most = free.len() - free.len() / 4;
    let narrowest = free.windows(most).min_by_key(|part| part[most - 1] - part[0])?;
    Some(window(narrowest))
}

fn window(free: &[u64]) -> FreeWindow {
    // An index is below 2^46.
    let index = |index: Option<&u64>| index.map_or(0, |index| i64::try_from(*index).unwrap_or(i64::MAX));
    FreeWindow {
        first: index(free.first()),
        last: index(free.last()),
        free: i64::try_from(free.len()).unwrap_or(i64::MAX),
    }
}
