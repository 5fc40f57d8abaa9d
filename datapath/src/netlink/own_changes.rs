//! Recognises netlink notifications that follow from this process's own requests, so that these notifications start no
//! reconcile pass.
//!
//! A notification may arrive after the socket of the request was closed, or after the link was removed. So this module
//! keeps the ports of closed sockets and the indexes of removed links until the monitor has read all notifications.

use std::collections::HashMap;

use parking_lot::Mutex;

/// How many closed sockets are remembered at most, and how many ended removals. Above this number, all of them are
/// forgotten. Usually the monitor forgets them in a pause between notifications, but a busy node may have no pauses.
const MAX_FINISHED: usize = 4096;

/// This process's own netlink sockets, and the links that this process is removing.
#[derive(Debug, Default)]
pub(crate) struct OwnChanges {
    ports: Mutex<Tracked>,
    removals: Mutex<Tracked>,
}

/// Socket ports (`nl_pid`), or indexes of links to remove. `true` means that the socket is closed or the removal has
/// ended, but notifications may still arrive.
#[derive(Debug, Default)]
struct Tracked(HashMap<u32, bool>);

impl Tracked {
    fn finish(&mut self, number: u32) {
        if let Some(finished) = self.0.get_mut(&number) {
            *finished = true;
        }
        if self.0.values().filter(|finished| **finished).count() > MAX_FINISHED {
            self.forget_finished();
        }
    }

    fn forget_finished(&mut self) {
        self.0.retain(|_, finished| !*finished);
    }
}

impl OwnChanges {
    /// Records that this process opened the netlink socket with this port.
    pub(crate) fn opened(&self, port: u32) {
        self.ports.lock().0.insert(port, false);
    }

    /// Records that this process closed the netlink socket with this port.
    pub(crate) fn closed(&self, port: u32) {
        self.ports.lock().finish(port);
    }

    /// Whether the port in a notification belongs to one of this process's netlink sockets.
    pub(crate) fn is_own_port(&self, port: u32) -> bool {
        self.ports.lock().0.contains_key(&port)
    }

    /// Records that this process is about to remove a link.
    pub(crate) fn removing(&self, link: u32) {
        self.removals.lock().0.insert(link, false);
    }

    /// Records that the request to remove a link has ended, with or without success.
    pub(crate) fn removed(&self, link: u32) {
        self.removals.lock().finish(link);
    }

    /// Whether this process itself removed a link. Also forgets the link, so call this only for an `RTM_DELLINK`
    /// notification.
    pub(crate) fn is_own_removal(&self, link: u32) -> bool {
        self.removals.lock().0.remove(&link).is_some()
    }

    /// Forgets closed sockets and finished removals. The monitor calls this method when it has read all notifications
    /// about links and routes.
    pub(crate) fn all_notifications_read(&self) {
        self.ports.lock().forget_finished();
        self.removals.lock().forget_finished();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_socket_and_a_finished_removal_are_remembered_until_all_notices_are_read() {
        let own_changes = OwnChanges::default();
        own_changes.opened(1);
        own_changes.opened(2);
        own_changes.closed(1);
        own_changes.removing(7);
        own_changes.removing(8);
        own_changes.removing(9);
        own_changes.removed(7);
        own_changes.removed(8);
        assert!(own_changes.is_own_port(1) && own_changes.is_own_port(2) && !own_changes.is_own_port(3));
        assert!(own_changes.is_own_removal(7) && !own_changes.is_own_removal(7));
        own_changes.all_notifications_read();
        assert!(!own_changes.is_own_port(1) && own_changes.is_own_port(2));
        assert!(!own_changes.is_own_removal(8) && own_changes.is_own_removal(9));
    }

    #[test]
    fn a_port_that_the_kernel_reuses_is_in_use() {
        let own_changes = OwnChanges::default();
        own_changes.opened(1);
        own_changes.closed(1);
        own_changes.opened(1);
        own_changes.all_notifications_read();
        assert!(own_changes.is_own_port(1));
    }

    #[test]
    fn memory_stays_bounded_when_notices_never_pause() {
        let own_changes = OwnChanges::default();
        for port in 0..3 * u32::try_from(MAX_FINISHED).unwrap() {
            own_changes.opened(port);
            own_changes.closed(port);
        }
        assert!(own_changes.ports.lock().0.len() <= MAX_FINISHED);
    }
}
