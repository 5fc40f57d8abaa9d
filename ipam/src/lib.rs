//! Pure arithmetic and decisions of address management: values in, values out.
//!
//! The operator and the agent call it. It never does IO, never reads a clock and knows nothing of Kubernetes, so every
//! rule of the design can be tried here against a naive model.

pub mod attachment;
pub mod block;
pub mod block_allocator;
pub mod boot_time;
pub mod claim_order;
pub mod counts;
pub mod deletion_guard;
pub mod demand;
pub mod family;
pub mod hash;
pub mod ip_pair;
pub mod layout;
pub mod overlap;
pub mod pool_selection;
pub mod reserved;
pub mod selector;
pub mod subnet;

pub use attachment::{AttachmentKey, AttachmentKeyError};
pub use block::{BlockError, BlockName, BlockRange};
pub use block_allocator::BlockAllocator;
pub use boot_time::BootTime;
pub use deletion_guard::{Breaker, DeletionDecision, DeletionGuard};
pub use family::Family;
pub use ip_pair::IpPair;
pub use layout::{LayoutError, PoolLayout};
pub use pool_selection::{PoolInfo, PoolSelection, SelectionError, SelectionSource, select_pool};
pub use reserved::{Reserved, ReservedError};
pub use selector::{SelectorError, parse_selector};
pub use subnet::{SubnetError, SubnetPair};
