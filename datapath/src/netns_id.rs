//! IDs of network namespaces: small numbers by which this namespace knows others, as long as those exist.
//!
//! An ID outlives the links into its namespace. The kernel reuses it as soon as the namespace has ended.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::message::{ACK, Message, Reply, attributes, u32_at};
use crate::socket::Ask;

const NEW: u16 = 88;
const GET: u16 = 90;
const ID: u16 = 1;
const DESCRIPTOR: u16 = 3;
/// Lets the kernel choose an ID.
const ANY: i32 = -1;

/// Gives the namespace an ID; `EEXIST` when it has one.
pub(crate) fn give(netns: BorrowedFd<'_>) -> Ask {
    let message =
        Message::new(NEW, ACK, &[0; 4]).attr(ID, &ANY.to_ne_bytes()).attr(DESCRIPTOR, &netns.as_raw_fd().to_ne_bytes());
    Ask::new("give the network namespace an ID", message)
}

/// Asks for the ID of a namespace.
pub(crate) fn get(netns: BorrowedFd<'_>) -> Ask {
    let message = Message::new(GET, 0, &[0; 4]).attr(DESCRIPTOR, &netns.as_raw_fd().to_ne_bytes());
    Ask::new("look up the ID of the network namespace", message)
}

/// Asks whether an ID leads to a namespace; `ENOENT` when it does not.
pub(crate) fn exists(id: i32) -> Ask {
    let message = Message::new(GET, 0, &[0; 4]).attr(ID, &id.to_ne_bytes());
    Ask::new(format!("look up network namespace ID {id}"), message)
}

/// The ID in an answer to [`get`]; `None` when the namespace has none.
pub(crate) fn read(replies: &[Reply]) -> Option<i32> {
    let reply = replies.iter().find(|reply| reply.kind == NEW)?;
    let list = attributes(reply.payload.get(4..)?);
    let (_, value) = list.iter().find(|(kind, value)| *kind == ID && value.len() == 4)?;
    let id = i32::from_ne_bytes(u32_at(value, 0).to_ne_bytes());
    (id >= 0).then_some(id)
}
