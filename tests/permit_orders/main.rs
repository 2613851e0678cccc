//! Slots and the queue's two rules, in very many orders of threads (shuttle). The slots are the very file of the program; their
//! history and the queue are as small as they can be.
//!
//! Every access counts as sequentially consistent here, as those of the slots and of the queue's length are; the cells of a
//! history are not in the program. (loom, which knows weaker orders, takes SeqCst for less than it is.)

mod base {
    pub(crate) mod atomic {
        pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

        /// The one of shuttle, whose `fetch_update` would take what its closure does in between for one step.
        #[derive(Debug, Default)]
        pub(crate) struct AtomicU32(shuttle::sync::atomic::AtomicU32);

        impl AtomicU32 {
            pub(crate) fn new(value: u32) -> Self {
                Self(value.into())
            }

            pub(crate) fn fetch_update(
                &self,
                set: Ordering,
                fetch: Ordering,
                mut update: impl FnMut(u32) -> Option<u32>,
            ) -> Result<u32, u32> {
                let mut before = self.0.load(fetch);
                while let Some(after) = update(before) {
                    match self.0.compare_exchange(before, after, set, fetch) {
                        Ok(_) => return Ok(before),
                        Err(found) => before = found,
                    }
                }
                Err(before)
            }
        }

        impl std::ops::Deref for AtomicU32 {
            type Target = shuttle::sync::atomic::AtomicU32;

            fn deref(&self) -> &Self::Target {
                &self.0
            }
        }
    }

    pub(crate) mod cache_line {
        #[derive(Debug, Default)]
        pub(crate) struct CacheLine<T>(pub(crate) T);

        impl<T> std::ops::Deref for CacheLine<T> {
            type Target = T;

            fn deref(&self) -> &T {
                &self.0
            }
        }
    }
}

#[allow(dead_code, reason = "the program has more uses for slots")]
mod cluster;
