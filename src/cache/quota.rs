//! The share of the cache that one frontend may have.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The bytes of one frontend, and the order in which its objects came.
#[derive(Debug, Default)]
pub struct Quota {
    used: AtomicU64,
    /// Keys and charges, oldest first. Only inserts look at them.
    order: Mutex<VecDeque<Entry>>,
}

type Entry = (Arc<[u8]>, Weak<Charge>);

/// Bytes that an object takes of a quota. They are given back when the object is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    quota: Arc<Quota>,
    bytes: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.quota.used.fetch_sub(self.bytes, Relaxed);
    }
}

impl Quota {
    /// The bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Takes bytes for the object of this key.
    pub(super) fn charge(self: &Arc<Self>, key: &Arc<[u8]>, bytes: u64) -> Arc<Charge> {
        self.used.fetch_add(bytes, Relaxed);
        let charge = Arc::new(Charge { quota: Arc::clone(self), bytes });
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        // Objects that left are dropped from the order whenever it is about to grow.
        if order.len() == order.capacity() {
            order.retain(|(_, charge)| charge.strong_count() > 0);
        }
        order.push_back((Arc::clone(key), Arc::downgrade(&charge)));
        charge
    }

    /// The key and the charge of the oldest object that is alive, taken from the order.
    pub(super) fn take_oldest(&self) -> Option<(Arc<[u8]>, Arc<Charge>)> {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((key, charge)) = order.pop_front() {
            if let Some(charge) = charge.upgrade() {
                return Some((key, charge));
            }
        }
        None
    }
}
