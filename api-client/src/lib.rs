//! Access to the Kubernetes API server for Bobbin's programs: clients, deadlines, outcomes of calls, watches, leader election.
//!
//! This crate does not know Bobbin's custom resources and decides nothing about addresses.

pub mod backoff;
pub mod call;
pub mod connect;
pub mod events;
pub mod lease;
pub mod lenient;
pub mod list;
pub mod message;
pub mod node;
pub mod object_name;
pub mod outcome;
pub mod pod;
pub mod request_metrics;
pub mod watch;

pub use backoff::{backoff, jittered, spread};
pub use call::{create, delete, patch, patch_status};
pub use connect::{Clients, ConnectError, connect};
pub use events::{EventPublisher, Notice, publish_now};
pub use lenient::{Lenient, Unreadable, UnreadableNotice, UnreadableObjects};
pub use list::{for_each_listed, selected_by};
pub use message::{MAX_NOTE_BYTES, join_sentences, list_names, without_middle};
pub use node::{MAX_RESERVED_ADDRESSES, PartialNode};
pub use object_name::is_object_name;
pub use outcome::{Outcome, ReadError, Refusal, UnknownWhy, read, write};
pub use pod::PartialPod;
pub use request_metrics::RequestMetrics;
pub use watch::{Watch, WatchAge, watch};
