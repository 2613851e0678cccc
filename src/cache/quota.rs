//! The limit of the cache's bytes for one frontend.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The least number of entries that justifies a search for entries of removed objects.
const LEAST_ENTRIES: usize = 64;

/// The stored bytes of one frontend, and the order in which its objects were stored.
#[derive(Debug, Default)]
pub struct Quota {
    used: AtomicU64,
    objects: AtomicUsize,
    /// Keys and charges, oldest first. Only inserts access them.
    order: Mutex<VecDeque<Entry>>,
}

type Entry = (Arc<[u8]>, Weak<Charge>);

/// Bytes of a quota that an object takes while it is stored. A response that still sends it after it left the store
/// takes nothing.
#[derive(Debug)]
pub(super) struct Charge {
    quota: Arc<Quota>,
    bytes: u64,
    /// Number of lists of variants that contain it: while one list replaces another, there are two.
    lists: AtomicUsize,
}

impl Charge {
    /// The object is in a list of variants that is stored.
    pub(super) fn enter(&self) {
        if self.lists.fetch_add(1, Relaxed) == 0 {
            self.quota.used.fetch_add(self.bytes, Relaxed);
            self.quota.objects.fetch_add(1, Relaxed);
        }
    }

    /// A list of variants with the object has left the store.
    pub(super) fn leave(&self) {
        if self.lists.fetch_sub(1, Relaxed) == 1 {
            self.quota.used.fetch_sub(self.bytes, Relaxed);
            self.quota.objects.fetch_sub(1, Relaxed);
        }
    }

    fn is_stored(&self) -> bool {
        self.lists.load(Relaxed) > 0
    }
}

impl Quota {
    /// The bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// The charge of an object with this key, which is about to be stored.
    pub(super) fn charge(self: &Arc<Self>, key: &Arc<[u8]>, bytes: u64) -> Arc<Charge> {
        let charge = Arc::new(Charge { quota: Arc::clone(self), bytes, lists: AtomicUsize::new(0) });
        let mut order = self.order();
        // Entries of removed objects are dropped once they are half of all.
        if order.len() >= LEAST_ENTRIES.max(2 * self.objects.load(Relaxed)) {
            order.retain(|(_, charge)| charge.upgrade().is_some_and(|charge| charge.is_stored()));
            let room = 2 * LEAST_ENTRIES.max(order.len());
            order.shrink_to(room);
        }
        order.push_back((Arc::clone(key), Arc::downgrade(&charge)));
        charge
    }

    /// Removes the oldest stored object from the order and returns its key and charge, unless it is `newest`.
    pub(super) fn take_oldest(&self, newest: &Arc<Charge>) -> Option<(Arc<[u8]>, Arc<Charge>)> {
        let mut order = self.order();
        while let Some((_, charge)) = order.front() {
            let charge = charge.upgrade().filter(|charge| charge.is_stored());
            if charge.as_ref().is_some_and(|charge| Arc::ptr_eq(charge, newest)) {
                return None;
            }
            let key = order.pop_front().map(|(key, _)| key);
            if let (Some(key), Some(charge)) = (key, charge) {
                return Some((key, charge));
            }
        }
        None
    }

    /// Whether the frontend has no objects.
    pub(super) fn is_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1
    }

    fn order(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
