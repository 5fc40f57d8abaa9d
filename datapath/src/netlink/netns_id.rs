//! Network namespace IDs (`nsid`): the numbers by which the node's network namespace refers to other namespaces.
//!
//! A namespace keeps its ID even after the links into it are removed. Once the namespace ends, the kernel may give its
//! ID to another namespace.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;
use rtnetlink::packet_core::{NLM_F_ACK, Parseable};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::nsid::{NsidAttribute, NsidMessage};

use super::socket::{Reply, Request};

/// Tells the kernel to choose the ID of a network namespace.
const ANY: i32 = -1;

fn message(attributes: Vec<NsidAttribute>) -> NsidMessage {
    let mut message = NsidMessage::default();
    message.attributes = attributes;
    message
}

fn descriptor(netns: BorrowedFd<'_>) -> NsidAttribute {
    NsidAttribute::Fd(netns.as_raw_fd().cast_unsigned())
}

/// The request to give a network namespace an ID. The kernel answers `EEXIST` if the namespace already has an ID.
pub(crate) fn assign(netns: BorrowedFd<'_>) -> Request {
    let new = message(vec![NsidAttribute::Id(ANY), descriptor(netns)]);
    Request::new("give the network namespace an ID", NLM_F_ACK, RouteNetlinkMessage::NewNsId(new))
}

/// The request for the ID of a network namespace; [`read`] decodes the answer.
pub(crate) fn get(netns: BorrowedFd<'_>) -> Request {
    let get = message(vec![descriptor(netns)]);
    Request::new("look up the ID of the network namespace", 0, RouteNetlinkMessage::GetNsId(get))
}

/// The request that tests whether a network namespace has this ID. The kernel answers `ENOENT` if no namespace has this
/// ID.
pub(crate) fn exists(id: i32) -> Request {
    let get = message(vec![NsidAttribute::Id(id)]);
    Request::new(format!("look up network namespace ID {id}"), 0, RouteNetlinkMessage::GetNsId(get))
}

/// The namespace ID in the answer to [`get`], or `None` if the namespace has no ID.
pub(crate) fn read(replies: &[Reply]) -> Option<i32> {
    let reply = replies.iter().find(|reply| reply.kind() == libc::RTM_NEWNSID)?;
    let message = NsidMessage::parse(&reply.payload).ok()?;
    message.attributes.iter().find_map(|attribute| match attribute {
        NsidAttribute::Id(id) if *id >= 0 => Some(*id),
        _ => None,
    })
}
