//! The limit of a cluster with unknown capacity, which follows the latency of responses (`adaptive.enabled`).

use crate::base::clock::Moment;
use crate::shaper::{Bounds, Gradient};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};

/// No limit: the option is off.
const OFF: u32 = u32::MAX;

/// The limit, shared by all cores.
#[derive(Debug)]
pub(super) struct AdaptiveLimit {
    limit: AtomicU32,
    /// The number of requests that the members and `maxRequests` allow.
    capacity: AtomicU32,
    gradient: Mutex<Option<Gradient>>,
}

impl AdaptiveLimit {
    pub(super) fn new() -> Self {
        Self { limit: AtomicU32::new(OFF), capacity: AtomicU32::new(u32::MAX), gradient: Mutex::new(None) }
    }

    /// Sets the bounds; `None` ends the limit.
    pub(super) fn set_bounds(&self, bounds: Option<Bounds>, now: Moment) {
        let mut gradient = self.gradient.lock().unwrap_or_else(PoisonError::into_inner);
        match (bounds, &mut *gradient) {
            (Some(bounds), Some(gradient)) => gradient.set_bounds(bounds),
            (Some(bounds), None) => *gradient = Some(Gradient::new(bounds, now)),
            (None, _) => *gradient = None,
        }
        self.limit.store(gradient.as_ref().map_or(OFF, Gradient::limit), Ordering::Relaxed);
    }

    /// Sets the number of requests that may be in flight whatever their latency is: requests never use more.
    pub(super) fn set_capacity(&self, capacity: u32) {
        self.capacity.store(capacity, Ordering::Relaxed);
    }

    /// The current limit; `u32::MAX` if there is none.
    pub(super) fn get(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    pub(super) fn is_on(&self) -> bool {
        self.get() != OFF
    }

    /// Records a response, with the number of requests in flight at that time. Returns whether the limit has changed.
    /// It never waits: a response is skipped while another core has the lock.
    pub(super) fn note_response(&self, in_flight: u32, now: Moment) -> bool {
        let mut gradient = match self.gradient.try_lock() {
            Ok(gradient) => gradient,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        let Some(gradient) = gradient.as_mut() else { return false };
        gradient.set_capacity(self.capacity.load(Ordering::Relaxed), now);
        gradient.note_response(in_flight, now);
        let limit = gradient.limit();
        self.limit.swap(limit, Ordering::Relaxed) != limit
    }
}
