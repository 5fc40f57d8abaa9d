//! IDs of network namespaces: the numbers by which the node's namespace refers to existing others.
//!
//! An ID outlives the links into its namespace. When the namespace ends, the kernel may assign the ID to another at
//! once.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;
use rtnetlink::packet_core::{NLM_F_ACK, Parseable};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::nsid::{NsidAttribute, NsidMessage};

use super::socket::{Reply, Request};

/// Lets the kernel choose an ID.
const ANY: i32 = -1;

fn message(attributes: Vec<NsidAttribute>) -> NsidMessage {
    let mut message = NsidMessage::default();
    message.attributes = attributes;
    message
}

fn descriptor(netns: BorrowedFd<'_>) -> NsidAttribute {
    NsidAttribute::Fd(netns.as_raw_fd().cast_unsigned())
}

/// Asks the kernel to assign the namespace an ID; it answers `EEXIST` when the namespace has one.
pub(crate) fn assign(netns: BorrowedFd<'_>) -> Request {
    let new = message(vec![NsidAttribute::Id(ANY), descriptor(netns)]);
    Request::new("give the network namespace an ID", NLM_F_ACK, RouteNetlinkMessage::NewNsId(new))
}

/// Asks for the ID of a namespace; [`read`] reads the answer.
pub(crate) fn get(netns: BorrowedFd<'_>) -> Request {
    let get = message(vec![descriptor(netns)]);
    Request::new("look up the ID of the network namespace", 0, RouteNetlinkMessage::GetNsId(get))
}

/// Asks whether an ID refers to a namespace; the kernel answers `ENOENT` when it does not.
pub(crate) fn exists(id: i32) -> Request {
    let get = message(vec![NsidAttribute::Id(id)]);
    Request::new(format!("look up network namespace ID {id}"), 0, RouteNetlinkMessage::GetNsId(get))
}

/// The ID in an answer to [`get`]; `None` when the namespace has none.
pub(crate) fn read(replies: &[Reply]) -> Option<i32> {
    let reply = replies.iter().find(|reply| reply.kind() == libc::RTM_NEWNSID)?;
    let message = NsidMessage::parse(&reply.payload).ok()?;
    message.attributes.iter().find_map(|attribute| match attribute {
        NsidAttribute::Id(id) if *id >= 0 => Some(*id),
        _ => None,
    })
}
