//! Listens to the kernel's notices and says "something of ours may have changed": a hint, never a fact.
//!
//! A plain thread of its own for as long as the [`Network`] lives. When its sockets fail, it opens new ones and hints
//! once, for what it may have missed.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::attachment::is_host_name;
use crate::link::Link;
use crate::message::Reply;
use crate::network::Inner;
use crate::route;
use crate::settings::Settings;
use crate::socket::{KernelError, Netlink};

/// Links, neighbours, IPv4 routes, IPv4 rules, IPv6 routes, IPv6 rules.
const GROUPS: [u32; 6] = [1, 3, 7, 8, 11, 19];
const NFTABLES: [u32; 1] = [7];
const NEW_LINK: u16 = 16;
const DELETED_LINK: u16 = 17;
/// How often the thread looks whether anybody still wants to know.
const LOOK_UP: Duration = Duration::from_millis(500);

/// Starts listening, in the calling thread's namespace. The sockets are open when it returns: no later change is missed.
pub(crate) fn start(inner: &Arc<Inner>) -> Result<(), KernelError> {
    let routes = subscribe_routes(&inner.settings)?;
    listen(Arc::downgrade(inner), "bobbin-notices", routes, subscribe_routes, |inner| inner.echoes.all_read())?;
    let filter = subscribe_filter(&inner.settings)?;
    listen(Arc::downgrade(inner), "bobbin-filter", filter, subscribe_filter, |_| ())
}

fn subscribe_routes(settings: &Settings) -> Result<Netlink, KernelError> {
    let mut netlink = Netlink::route()?;
    if let Err(error) = netlink.filter(settings) {
        tracing::warn!(%error, "each change of a foreign route wakes the agent for a moment");
    }
    netlink.subscribe(&GROUPS)?;
    Ok(netlink)
}

fn subscribe_filter(_: &Settings) -> Result<Netlink, KernelError> {
    let mut netlink = Netlink::netfilter()?;
    netlink.subscribe(&NFTABLES)?;
    Ok(netlink)
}

fn listen(
    inner: Weak<Inner>,
    name: &str,
    mut netlink: Netlink,
    again: fn(&Settings) -> Result<Netlink, KernelError>,
    all_read: fn(&Inner),
) -> Result<(), KernelError> {
    let run = move || {
        loop {
            let received = netlink.receive(LOOK_UP);
            let Some(inner) = inner.upgrade() else { return };
            let tell = match received {
                Ok(None) => {
                    all_read(&inner);
                    false
                }
                Ok(Some(notices)) => notices.iter().any(|notice| matters(&inner, notice)),
                // Notices were lost: whatever they said, look at everything.
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => true,
                Err(error) => {
                    tracing::warn!(%error, "the kernel's notices broke off; listening anew");
                    match again(&inner.settings) {
                        Ok(fresh) => netlink = fresh,
                        Err(error) => {
                            tracing::warn!(%error, "cannot listen to the kernel's notices yet");
                            std::thread::sleep(LOOK_UP);
                        }
                    }
                    true
                }
            };
            if tell {
                inner.changed.send_modify(|count| *count = count.wrapping_add(1));
            }
        }
    };
    let spawned = std::thread::Builder::new().name(name.to_owned()).stack_size(256 << 10).spawn(run);
    spawned.map(drop).map_err(KernelError::io("start a thread"))
}

/// Whether somebody else changed what could be ours.
fn matters(inner: &Inner, notice: &Reply) -> bool {
    let body = notice.payload.as_slice();
    match notice.kind {
        // Whoever removed it, and in whichever namespace: the kernel does not always tell whose request it was.
        DELETED_LINK => Link::read(notice).is_none_or(|link| !inner.echoes.is_own_removal(link.index)),
        _ if inner.echoes.is_own_port(notice.port) => false,
        NEW_LINK => Link::read(notice).is_none_or(|link| {
            let ours = link.is_ours() || is_host_name(&inner.settings, &link.name);
            // The kernel's own notices of a link of ours follow from our requests, or from its other end.
            !ours || notice.port != 0
        }),
        24 | 25 => route_table(body).is_some_and(|table| {
            let ours = [inner.settings.pod_table, inner.settings.export_table].contains(&table);
            let direct = table == route::MAIN && body.get(5) == Some(&inner.settings.direct_protocol);
            notice.port != 0 && (ours || direct)
        }),
        // Of neighbours only permanent ones are, and losing one is all that matters.
        29 => {
            body.get(8..10).is_some_and(|state| u16::from_ne_bytes([state[0], state[1]]) & 0x80 != 0)
                && notice.port != 0
        }
        32 | 33 => true,
        kind => kind >> 8 == 10 && notice.port != 0 && names_table(body, &inner.settings.nft_table),
    }
}

fn route_table(body: &[u8]) -> Option<u32> {
    let list = crate::message::attributes(body.get(12..)?);
    let long = list.iter().find(|(kind, _)| *kind == 15).map(|(_, value)| crate::message::u32_at(value, 0));
    long.or_else(|| body.get(4).map(|short| u32::from(*short)))
}

fn names_table(body: &[u8], name: &str) -> bool {
    let list = crate::message::attributes(body.get(4..).unwrap_or_default());
    list.iter().any(|(kind, value)| *kind == 1 && crate::message::text_of(value) == name)
}
