//! The slots of a member or a cluster: the number held, and its limit.

use super::history::History;
use crate::base::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use crate::base::cache_line::CacheLine;
use std::num::NonZeroU32;

/// Threads count separately.
const APART: u32 = 0;

/// There is no limit, but threads share one counter.
const UNLIMITED: u32 = u32::MAX;

/// The slots of a member or a cluster.
///
/// If their number is limited, or compared at each request, all threads share one counter. Otherwise each thread counts
/// separately, which costs a request no contended write.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// The greatest number that may be held, or [`APART`] or [`UNLIMITED`].
    limit: AtomicU32,
    /// Slots that were counted separately are still held, although threads share a counter now.
    has_apart: AtomicBool,
    history: History,
    /// Slots in the shared counter.
    together: CacheLine<Together>,
}

#[derive(Debug, Default)]
struct Together {
    held: AtomicU32,
    /// The greatest number held at once.
    peak: AtomicU32,
}

/// How slots are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// Each thread counts separately.
    Apart,
    /// One shared counter, for comparisons.
    None,
    /// One shared counter with this limit.
    Most(NonZeroU32),
}

/// The counter in which a held slot was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    Apart,
    Together,
}

impl Slots {
    /// Sets the limit for every list. A slot that a thread counts separately at this moment may be missed until it is
    /// returned.
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

    /// The greatest number; `None` for no limit.
    pub(super) fn limit(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.limit.load(Ordering::SeqCst)).filter(|limit| limit.get() != UNLIMITED)
    }

    /// Takes a slot if fewer than `usable`, and fewer than the limit, are held.
    #[inline]
    pub(super) fn take(&self, usable: u32) -> Option<Counted> {
        if self.limit.load(Ordering::SeqCst) == APART {
            self.history.enter();
            return Some(Counted::Apart);
        }
        self.take_together(usable)
    }

    /// Takes one beyond any limit, for a request that is already at its member.
    pub(super) fn take_beyond(&self) -> Counted {
        if self.limit.load(Ordering::SeqCst) == APART {
            self.history.enter();
            return Counted::Apart;
        }
        let before = self.together.held.fetch_add(1, Ordering::SeqCst);
        self.together.peak.fetch_max(before + 1, Ordering::Relaxed);
        Counted::Together
    }

    fn take_together(&self, usable: u32) -> Option<Counted> {
        let more = |held: u32| {
            let limit = self.limit().map_or(u32::MAX, NonZeroU32::get).min(usable);
            (limit == u32::MAX || held.saturating_add(self.apart()) < limit).then_some(held + 1)
        };
        let before = self.together.held.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        // This load rarely leads to a store, and the line was just written by this core.
        if before >= self.together.peak.load(Ordering::Relaxed) {
            self.together.peak.fetch_max(before + 1, Ordering::Relaxed);
        }
        Some(Counted::Together)
    }

    /// Returns a slot. The caller then has to check for waiting requests.
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

    /// A slot taken before a limit existed has become free.
    #[cold]
    fn note_apart(&self) {
        // A request that joins the queue has to see the plain write before.
        fence(Ordering::SeqCst);
        if self.history.apart() == 0 {
            self.has_apart.store(false, Ordering::SeqCst);
        }
    }

    /// Number of slots held.
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

    /// The greatest number held at once; if threads count separately, the sum of their peaks.
    pub(super) fn peak(&self) -> u32 {
        self.together.peak.load(Ordering::Relaxed).max(self.history.peak())
    }

    /// Whether slots taken before a limit existed are still held.
    pub(super) fn has_apart(&self) -> bool {
        self.has_apart.load(Ordering::SeqCst)
    }

    /// Requests and failures of the last minute.
    pub(super) fn history(&self) -> &History {
        &self.history
    }
}

#[cfg(test)]
impl Slots {
    /// The addresses of two flags that all threads read, and of what is written.
    pub(super) fn addresses(&self) -> ([usize; 2], usize) {
        let flags = [std::ptr::from_ref(&self.limit).addr(), std::ptr::from_ref(&self.has_apart).addr()];
        (flags, std::ptr::from_ref(&self.together.held).addr())
    }
}
