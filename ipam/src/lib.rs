//! The address arithmetic and the allocation decisions of operator and agent, as pure functions.
//!
//! The functions do no IO, read no clock and call no API, so that tests can compare every rule with a naive model.

pub mod attachment;
pub mod block;
pub mod block_allocator;
pub mod boot_time;
pub mod claim_order;
pub mod counts;
pub mod deletion_guard;
pub mod demand;
pub mod free_blocks;
pub mod hash;
pub mod pool_selection;
pub mod pool_shape;
pub mod reclaim;
pub mod subnet;
pub mod void_assignment;

pub use attachment::{AttachmentKey, AttachmentKeyError};
pub use block::{BlockError, BlockName, BlockRange};
pub use block_allocator::BlockAllocator;
pub use boot_time::BootTime;
pub use deletion_guard::{Breaker, DeletionDecision, DeletionGuard};
pub use family::Family;
pub use ip_pair::IpPair;
pub use layout::numbering::{Misfit, Numbering};
pub use layout::{LayoutError, PoolLayout};
pub use pool_selection::selector;
pub use pool_selection::{PoolInfo, PoolSelection, SelectionError, SelectionSource, select_pool};
pub use pool_shape::{PoolShape, ShapeError};
pub use reserved::{Reserved, ReservedError};
pub use selector::{SelectorError, admits, parse_selector};
pub use subnet::{SubnetError, SubnetPair};
pub use subnet::{family, ip_pair, layout, overlap, reserved};
