//! The host links that an operation is creating or removing.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;

/// The number of operations that are changing each link, by link name.
#[derive(Default)]
pub(crate) struct InFlight(Mutex<HashMap<String, usize>>);

/// Marks a link as in flight until this guard is dropped.
pub(crate) struct InFlightGuard<'a> {
    links: &'a InFlight,
    name: String,
}

impl InFlight {
    /// Marks a link as in flight until the returned guard is dropped.
    pub(crate) fn begin(&self, name: &str) -> InFlightGuard<'_> {
        *self.0.lock().entry(name.to_owned()).or_default() += 1;
        InFlightGuard { links: self, name: name.to_owned() }
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.lock().contains_key(name)
    }

    pub(crate) fn names(&self) -> HashSet<String> {
        self.0.lock().keys().cloned().collect()
    }
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        let mut links = self.links.0.lock();
        if let Some(count) = links.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                links.remove(&self.name);
            }
        }
    }
}
