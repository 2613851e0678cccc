//! The share of the cache that one frontend may have.

use super::object::Object;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Fewest entries of the order that are worth a walk for those that have left.
const LEAST_ENTRIES: usize = 64;

/// The stored bytes of one frontend, and the order in which its objects came.
#[derive(Debug, Default)]
pub struct Quota {
    used: AtomicU64,
    objects: AtomicUsize,
    /// Keys and charges, oldest first. Only inserts look at them.
    order: Mutex<VecDeque<Entry>>,
}

type Entry = (Arc<[u8]>, Weak<Charge>);

/// Bytes that an object takes of a quota for as long as it is stored. A response that still sends it when it has left the
/// store takes nothing.
#[derive(Debug)]
pub(super) struct Charge {
    quota: Arc<Quota>,
    bytes: u64,
    /// The lists of variants that it stands in: while one replaces another, there are two.
    lists: AtomicUsize,
}

impl Charge {
    /// The object is put into a list of variants that is stored.
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

    /// The charge of an object of this key, which is about to be stored.
    pub(super) fn charge(self: &Arc<Self>, key: &Arc<[u8]>, bytes: u64) -> Arc<Charge> {
        let charge = Arc::new(Charge { quota: Arc::clone(self), bytes, lists: AtomicUsize::new(0) });
        let mut order = self.order();
        // Objects that left are dropped from the order once they are half of it.
        if order.len() >= LEAST_ENTRIES.max(2 * self.objects.load(Relaxed)) {
            order.retain(|(_, charge)| charge.upgrade().is_some_and(|charge| charge.is_stored()));
            let room = 2 * LEAST_ENTRIES.max(order.len());
            order.shrink_to(room);
        }
        order.push_back((Arc::clone(key), Arc::downgrade(&charge)));
        charge
    }

    /// The key and the charge of the oldest object that is stored, taken from the order, unless that is `newest`.
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

    /// Whether no object of the frontend is alive.
    pub(super) fn is_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1
    }

    fn order(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Charges the objects of a list that is about to be stored.
pub(super) fn enter_all(variants: &[Arc<Object>]) {
    variants.iter().filter_map(|object| object.charge.as_ref()).for_each(|charge| charge.enter());
}

/// Takes the charges back of the objects of a list that has left the store.
pub(super) fn leave_all(variants: &[Arc<Object>]) {
    variants.iter().filter_map(|object| object.charge.as_ref()).for_each(|charge| charge.leave());
}
