//! Pure arithmetic and decisions of address management: values in, values out.
//!
//! The operator and the agent call it. It never does IO, never reads a clock and knows nothing of Kubernetes, so every
//! rule of the design can be tried here against a naive model.

pub mod attachment;
pub mod block;
pub mod boot_time;
pub mod choice;
pub mod counts;
pub mod family;
pub mod hash;
pub mod layout;
pub mod occupancy;
pub mod overlap;
pub mod pair;
pub mod reserved;
pub mod selector;
pub mod stock;
pub mod subnet;
pub mod two_looks;
pub mod window;

pub use attachment::{AttachmentKey, AttachmentKeyError};
pub use block::{BlockError, BlockName, BlockRange};
pub use boot_time::BootTime;
pub use choice::{Choice, PoolFacts, Refusal, Source, choose};
pub use family::Family;
pub use layout::{LayoutError, PoolLayout};
pub use occupancy::Occupancy;
pub use pair::Pair;
pub use reserved::{Reserved, ReservedError};
pub use selector::{Expression, Operator, Selector, SelectorError};
pub use subnet::{SubnetError, SubnetPair};
pub use two_looks::{Breaker, TwoLooks, Verdict};
