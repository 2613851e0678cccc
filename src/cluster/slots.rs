//! The slots of a member or a cluster: how many requests hold one, and how many may.

use super::history::History;
use crate::base::cache_line::CacheLine;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};

/// Each thread counts for itself.
const APART: u32 = 0;

/// There is no limit, but all count together.
const UNLIMITED: u32 = u32::MAX;

/// The slots of a member or a cluster.
///
/// Where their number is limited, or compared with others at each request, all threads count together. Elsewhere each counts
/// for itself, which costs a request no contended write.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// The greatest number that may be held, or [`APART`] or [`UNLIMITED`].
    limit: AtomicU32,
    /// Some that were taken apart are still held though all count together now.
    has_apart: AtomicBool,
    history: History,
    /// Those that were counted together.
    together: CacheLine<Together>,
}

#[derive(Debug, Default)]
struct Together {
    held: AtomicU32,
    /// The most that were held.
    peak: AtomicU32,
}

/// How slots are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// By each thread for itself.
    Apart,
    /// By all together, for comparisons.
    None,
    /// By all together, and there are no more than these.
    Most(NonZeroU32),
}

/// How a slot that is held was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    Apart,
    Together,
}

impl Slots {
    /// Sets the limit for every list. A thread that takes a slot apart in this very moment may be missed until it gives it
    /// back.
    pub(super) fn set_limit(&self, limit: Limit) {
        let new = match limit {
            Limit::Apart => APART,
            Limit::None => UNLIMITED,
            Limit::Most(most) => most.get(),
        };
        if new != APART {
            self.has_apart.store(self.history.apart() > 0, Ordering::SeqCst);
        }
        self.limit.store(new, Ordering::SeqCst);
    }

    /// The greatest number; `None` for any.
    pub(super) fn limit(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.limit.load(Ordering::SeqCst)).filter(|limit| limit.get() != UNLIMITED)
    }

    /// Takes one, where fewer than `usable` and than the limit are held.
    #[inline]
    pub(super) fn take(&self, usable: u32) -> Option<Counted> {
        if self.limit.load(Ordering::SeqCst) == APART {
            self.history.enter();
            return Some(Counted::Apart);
        }
        self.take_together(usable)
    }

    fn take_together(&self, usable: u32) -> Option<Counted> {
        let more = |held: u32| {
            let limit = self.limit().map_or(u32::MAX, NonZeroU32::get).min(usable);
            (limit == u32::MAX || held.saturating_add(self.apart()) < limit).then_some(held + 1)
        };
        let before = self.together.held.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        // A load that hardly ever becomes a store, of a line that this core has written to just now.
        if before >= self.together.peak.load(Ordering::Relaxed) {
            self.together.peak.fetch_max(before + 1, Ordering::Relaxed);
        }
        Some(Counted::Together)
    }

    /// Gives one back. Then it is to be seen whether a request waits for it.
    #[inline]
    pub(super) fn give_back(&self, counted: Counted) {
        match counted {
            Counted::Apart => {
                self.history.leave();
                if self.limit.load(Ordering::SeqCst) != APART {
                    self.note_apart();
                }
            }
            Counted::Together => {
                let before = self.together.held.fetch_sub(1, Ordering::SeqCst);
                debug_assert!(before > 0, "a slot was given back twice");
            }
        }
    }

    /// A slot taken before there was a limit has become free.
    #[cold]
    fn note_apart(&self) {
        // The plain write before has to be seen by a request that joins the queue.
        fence(Ordering::SeqCst);
        if self.history.apart() == 0 {
            self.has_apart.store(false, Ordering::SeqCst);
        }
    }

    /// Those that are held.
    pub(super) fn held(&self) -> u32 {
        let apart = match self.limit.load(Ordering::SeqCst) {
            APART => self.history.apart(),
            _ => self.apart(),
        };
        self.together.held.load(Ordering::SeqCst).saturating_add(apart)
    }

    fn apart(&self) -> u32 {
        if self.has_apart() { self.history.apart() } else { 0 }
    }

    /// The most that were held at once; where each thread counts for itself, the sum of what each has held.
    pub(super) fn peak(&self) -> u32 {
        self.together.peak.load(Ordering::Relaxed).max(self.history.peak())
    }

    /// Whether some are still held that were taken before there was a limit.
    pub(super) fn has_apart(&self) -> bool {
        self.has_apart.load(Ordering::SeqCst)
    }

    /// Requests and failures of the last minute.
    pub(super) fn history(&self) -> &History {
        &self.history
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_counts_those_of_before() {
        let slots = Slots::default();
        let held = [(); 2].map(|()| slots.take(u32::MAX).expect("no limit"));
        assert_eq!((held, slots.held()), ([Counted::Apart; 2], 2));
        slots.set_limit(Limit::Most(NonZeroU32::MIN));
        assert_eq!((slots.take(u32::MAX), slots.held()), (None, 2));
        slots.give_back(held[0]);
        assert_eq!(slots.take(u32::MAX), None);
        slots.give_back(held[1]);
        assert!(!slots.has_apart());
        assert_eq!((slots.take(0), slots.take(u32::MAX)), (None, Some(Counted::Together)));
        slots.set_limit(Limit::None);
        assert_eq!((slots.take(u32::MAX), slots.held()), (Some(Counted::Together), 2));
        slots.set_limit(Limit::Apart);
        assert_eq!((slots.take(0), slots.held()), (Some(Counted::Apart), 3));
        slots.give_back(Counted::Together);
        slots.give_back(Counted::Apart);
        assert_eq!((slots.held(), slots.peak()), (1, 2));
    }

    #[test]
    fn a_slot_that_another_thread_gives_back_is_free() {
        let slots = Slots::default();
        let held = slots.take(u32::MAX).expect("no limit");
        std::thread::scope(|scope| _ = scope.spawn(|| slots.give_back(held)));
        assert_eq!(slots.held(), 0);
    }

    #[test]
    fn flags_that_all_read_stand_apart_from_what_is_written() {
        let slots = Slots::default();
        let line = |address: usize| address / 64;
        let written = line(std::ptr::from_ref(&slots.together.held).addr());
        assert_ne!(line(std::ptr::from_ref(&slots.limit).addr()), written);
        assert_ne!(line(std::ptr::from_ref(&slots.has_apart).addr()), written);
    }
}
