//! Which of the kernel's notices only echo our own requests, so that they call for no comparison.
//!
//! What is over is kept until its last notice must have been read, and no longer.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::network::lock;

/// So many that are over are kept at most, should the notices never pause.
const MOST_OVER: usize = 4096;

/// Our sockets and the links that we are removing.
#[derive(Debug, Default)]
pub(crate) struct Echoes {
    ports: Mutex<Kept>,
    removals: Mutex<Kept>,
}

/// The numbers that are followed: `false` while one is in use, `true` once it is over and its last notices may still come.
#[derive(Debug, Default)]
struct Kept(HashMap<u32, bool>);

impl Kept {
    fn over(&mut self, number: u32) {
        if let Some(over) = self.0.get_mut(&number) {
            *over = true;
        }
        if self.0.values().filter(|over| **over).count() > MOST_OVER {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.0.retain(|_, over| !*over);
    }
}

impl Echoes {
    /// A socket was opened.
    pub(crate) fn opened(&self, port: u32) {
        lock(&self.ports).0.insert(port, false);
    }

    /// A socket was closed.
    pub(crate) fn closed(&self, port: u32) {
        lock(&self.ports).over(port);
    }

    /// Whether a notice comes from a request on a socket of ours.
    pub(crate) fn is_own_port(&self, port: u32) -> bool {
        lock(&self.ports).0.contains_key(&port)
    }

    /// A link is about to be removed by us.
    pub(crate) fn removing(&self, link: u32) {
        lock(&self.removals).0.insert(link, false);
    }

    /// The request to remove it was answered, or is given up.
    pub(crate) fn removed(&self, link: u32) {
        lock(&self.removals).over(link);
    }

    /// A link went: whether we removed it.
    pub(crate) fn is_own_removal(&self, link: u32) -> bool {
        lock(&self.removals).0.remove(&link).is_some()
    }

    /// All notices of links and routes so far were read.
    pub(crate) fn all_read(&self) {
        lock(&self.ports).forget();
        lock(&self.removals).forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_socket_and_an_answered_removal_are_known_until_all_notices_are_read() {
        let echoes = Echoes::default();
        echoes.opened(1);
        echoes.opened(2);
        echoes.closed(1);
        echoes.removing(7);
        echoes.removing(8);
        echoes.removing(9);
        echoes.removed(7);
        echoes.removed(8);
        assert!(echoes.is_own_port(1) && echoes.is_own_port(2) && !echoes.is_own_port(3));
        assert!(echoes.is_own_removal(7) && !echoes.is_own_removal(7));
        echoes.all_read();
        assert!(!echoes.is_own_port(1) && echoes.is_own_port(2));
        assert!(!echoes.is_own_removal(8) && echoes.is_own_removal(9));
    }

    #[test]
    fn a_port_that_the_kernel_gives_again_is_in_use() {
        let echoes = Echoes::default();
        echoes.opened(1);
        echoes.closed(1);
        echoes.opened(1);
        echoes.all_read();
        assert!(echoes.is_own_port(1));
    }

    #[test]
    fn notices_that_never_pause_do_not_let_it_grow() {
        let echoes = Echoes::default();
        for port in 0..3 * u32::try_from(MOST_OVER).unwrap() {
            echoes.opened(port);
            echoes.closed(port);
        }
        assert!(lock(&echoes.ports).0.len() <= MOST_OVER);
    }
}
