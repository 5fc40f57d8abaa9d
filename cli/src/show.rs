//! The commands that only show.

pub(crate) mod explain;
pub(crate) mod map;
pub(crate) mod node;
pub(crate) mod nodes;
pub(crate) mod pools;
mod since;
pub(crate) mod who;
