//! Receives netlink notifications, and sends the agent a hint when one of Bobbin's objects may have changed. A hint
//! does not say what has changed: the reconcile pass reads the actual state.
//!
//! When a socket fails, the monitor opens a new socket and sends one hint, because notifications may have been lost.

mod socket_filter;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use nix::libc;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use rtnetlink::proto::{self, NetlinkCodec};
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket, protocols};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::names::is_host_name;
use crate::netlink::link::Link;
use crate::netlink::{KernelError, OwnChanges, anti_spoofing, configure, neighbour, route};
use crate::settings::Settings;

const ROUTE_GROUPS: [MulticastGroup; 6] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv6Rule,
];
const NFTABLES_GROUP: u32 = libc::NFNLGRP_NFTABLES as u32;
const NFTABLES: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;
/// How long the monitor waits for a notification before it counts an idle period. After two idle periods in a row, the
/// monitor has read all notifications that the kernel sent before these periods. One period is not enough: if tasks
/// wake late, the period may end while a notification is still unread.
const IDLE_PERIOD: Duration = Duration::from_millis(500);
/// How long the monitor waits after a failed attempt to open a socket for notifications.
const REOPEN_DELAY: Duration = Duration::from_millis(500);

/// The two tasks that listen for netlink notifications. Dropping this value ends both tasks.
pub(crate) struct Monitor {
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The settings and channels that both listening tasks need.
#[derive(Clone)]
struct Context {
    settings: Settings,
    own_changes: Arc<OwnChanges>,
    changed: watch::Sender<u64>,
}

impl Monitor {
    /// Starts to listen for netlink notifications in the calling thread's namespace. When this function returns, the
    /// sockets for routes and for nftables are open, so the monitor misses no later change.
    pub(crate) fn start(
        runtime: &Handle,
        settings: &Settings,
        own_changes: &Arc<OwnChanges>,
        changed: &watch::Sender<u64>,
    ) -> Result<Self, KernelError> {
        let context =
            Context { settings: settings.clone(), own_changes: own_changes.clone(), changed: changed.clone() };
        let _runtime = runtime.enter();
        let routes = Subscription::to_routes(settings)?;
        let nftables = Subscription::to_nftables(settings)?;
        Ok(Self {
            tasks: [
                runtime.spawn(listen(context.clone(), routes, Subscription::to_routes, true)),
                runtime.spawn(listen(context, nftables, Subscription::to_nftables, false)),
            ],
        })
    }
}

/// The raw bytes of a notification. The monitor does not use rtnetlink's own type, because rtnetlink skips each
/// notification that it can't decode.
#[derive(Debug)]
struct Notification(Vec<u8>);

impl NetlinkDeserializable for Notification {
    type Error = Infallible;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Self(payload.to_vec()))
    }
}

/// rtnetlink's connection requires this trait for sending. Nothing calls these functions, because the monitor only
/// receives.
impl NetlinkSerializable for Notification {
    fn message_type(&self) -> u16 {
        libc::NLMSG_NOOP as u16
    }

    fn buffer_len(&self) -> usize {
        self.0.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.0);
    }
}

/// An open socket for netlink notifications, and the channel that delivers them.
struct Subscription {
    notifications: UnboundedReceiver<(NetlinkMessage<Notification>, SocketAddr)>,
    connection: JoinHandle<()>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Subscription {
    /// Subscribes to notifications about links, routes, rules and neighbours. The socket filter drops notifications
    /// about other programs' routes, so rtnetlink's unbounded queue stays short.
    fn to_routes(settings: &Settings) -> Result<Self, KernelError> {
        Self::open(protocols::NETLINK_ROUTE, &ROUTE_GROUPS.map(|group| group as u32), |socket| {
            if let Err(error) = socket_filter::attach(socket.socket_ref(), settings) {
                tracing::warn!(%error, "the kernel refused the agent's filter on the socket for netlink notifications, so every route change by another program wakes the agent");
            }
        })
    }

    fn to_nftables(_: &Settings) -> Result<Self, KernelError> {
        Self::open(protocols::NETLINK_NETFILTER, &[NFTABLES_GROUP], |_| ())
    }

    /// Opens a socket in the calling thread's namespace. The caller must have entered the tokio runtime.
    fn open(protocol: isize, groups: &[u32], filter: impl FnOnce(&TokioSocket)) -> Result<Self, KernelError> {
        let open = || -> std::io::Result<TokioSocket> {
            let mut socket = TokioSocket::new(protocol)?;
            configure(socket.socket_mut(), protocol)?;
            filter(&socket);
            groups.iter().try_for_each(|group| socket.socket_mut().add_membership(*group))?;
            Ok(socket)
        };
        let socket = open().map_err(KernelError::io("subscribe to netlink notifications"))?;
        let (connection, _, notifications) =
            proto::from_socket_with_codec::<Notification, TokioSocket, NetlinkCodec>(socket);
        Ok(Self { notifications, connection: tokio::spawn(connection) })
    }
}

async fn listen(
    context: Context,
    mut subscription: Subscription,
    reopen: fn(&Settings) -> Result<Subscription, KernelError>,
    hears_own_changes: bool,
) {
    let mut idle_periods = 0;
    loop {
        let received = tokio::time::timeout(IDLE_PERIOD, subscription.notifications.next()).await;
        let hint = match received {
            Err(_) => {
                idle_periods += 1;
                if hears_own_changes && idle_periods >= 2 {
                    context.own_changes.all_notifications_read();
                }
                continue;
            }
            Ok(Some((notification, _))) => concerns_bobbin(&context, &notification),
            Ok(None) => {
                tracing::warn!("the socket that receives netlink notifications failed; the agent opens a new socket");
                match reopen(&context.settings) {
                    Ok(fresh) => subscription = fresh,
                    Err(error) => {
                        tracing::warn!(%error, "the agent could not open a socket for netlink notifications; the agent will try again");
                        tokio::time::sleep(REOPEN_DELAY).await;
                    }
                }
                true
            }
        };
        idle_periods = 0;
        if hint {
            context.changed.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}

/// Whether a notification reports that another program changed an object that may be Bobbin's. Also true for a
/// notification that can't be decoded.
fn concerns_bobbin(context: &Context, notification: &NetlinkMessage<Notification>) -> bool {
    let message = match &notification.payload {
        NetlinkPayload::InnerMessage(Notification(message)) => message,
        // The socket's receive buffer overran (ENOBUFS), so notifications were lost.
        NetlinkPayload::Overrun(_) => return true,
        _ => return false,
    };
    let (settings, own_changes) = (&context.settings, &context.own_changes);
    let (kind, port) = (notification.header.message_type, notification.header.port_number);
    let by_a_program = port != 0;
    match kind {
        // `RTM_DELLINK` does not always carry the port of the socket that requested the removal. So the monitor
        // compares the link's index with the links that this process removed.
        libc::RTM_DELLINK => Link::decode(message).map_or(true, |link| !own_changes.is_own_removal(link.index)),
        _ if own_changes.is_own_port(port) => false,
        libc::RTM_NEWLINK => Link::decode(message).map_or(true, |link| {
            let own = link.is_own() || is_host_name(settings, &link.name);
            // Port 0 means that the kernel itself changed the link. It changes Bobbin's links only after a request of
            // Bobbin or a change of the veth peer. So for Bobbin's links, ignore notifications with port 0.
            !own || by_a_program
        }),
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
            let concerned = route::decode_table(message).map_or(true, |(table, protocol)| {
                let own_table = [settings.pod_table, settings.export_table].contains(&table);
                own_table || (table == route::MAIN && protocol == settings.direct_protocol)
            });
            by_a_program && concerned
        }
        // Bobbin sets only permanent neighbours, so ignore the removal of all other neighbours.
        libc::RTM_DELNEIGH => by_a_program && neighbour::decode_permanent(message).unwrap_or(true),
        libc::RTM_NEWRULE | libc::RTM_DELRULE => true,
        kind => kind >> 8 == NFTABLES && by_a_program && anti_spoofing::is_about_table(message, &settings.nft_table),
    }
}
