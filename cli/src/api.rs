//! Reads the data of the commands from the API server and from the agents, and interprets the data.

pub(crate) mod agent;
pub(crate) mod connection;
pub(crate) mod events;
pub(crate) mod leader;
pub(crate) mod objects;
pub(crate) mod pods;
pub(crate) mod pool_subnets;
pub(crate) mod reserved;
pub(crate) mod selection;
pub(crate) mod void;
pub(crate) mod watch;
