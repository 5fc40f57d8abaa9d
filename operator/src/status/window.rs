//! The window of indices that agents look for free blocks in: a claim reads one block of it, so most of it should be free.

use bobbin_crds::pool::FreeWindow;

/// The window over free indices, which are sorted: from the first to the last, or, where less than half of that is free, the
/// narrowest part with three quarters of them.
pub(super) fn of(free: &[u64]) -> Option<FreeWindow> {
    let (first, last) = (*free.first()?, *free.last()?);
    let len = free.len() as u64;
    if (last - first) / 2 < len {
        return Some(window(first, last));
    }
    let most = free.len() - free.len() / 4;
    let narrowest = free.windows(most).min_by_key(|part| part[most - 1] - part[0])?;
    Some(window(narrowest[0], narrowest[most - 1]))
}

fn window(first: u64, last: u64) -> FreeWindow {
    // An index is below 2^46.
    FreeWindow { first: i64::try_from(first).unwrap_or(i64::MAX), last: i64::try_from(last).unwrap_or(i64::MAX) }
}
