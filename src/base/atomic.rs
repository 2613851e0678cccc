//! The atomics of slots. A test puts others in their place, which play very many orders of threads
//! (`tests/permit_orders`).

pub use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
