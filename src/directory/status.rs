//! The state of the source of routes, for metrics: the directory's thread writes it, any thread reads it.

use crate::base::clock::Moment;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// The initial state suits a source that cannot be away.
#[derive(Debug)]
pub struct Status {
    means: AtomicU8,
    lost_at: AtomicU64,
    losses: AtomicU64,
    warm: AtomicBool,
    held: AtomicU64,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            means: AtomicU8::new(0),
            lost_at: AtomicU64::new(u64::MAX),
            losses: AtomicU64::new(0),
            warm: AtomicBool::new(false),
            held: AtomicU64::new(0),
        }
    }
}

impl Status {
    /// The state of a source that routes can be looked up in at once, or not yet.
    pub(super) fn new(is_warm: bool) -> Arc<Self> {
        Arc::new(Self { warm: AtomicBool::new(is_warm), ..Self::default() })
    }

    /// Records that routes are known, from a file or a snapshot, or can be looked up.
    pub(super) fn warm(&self) {
        self.warm.store(true, Ordering::Relaxed);
    }

    /// Whether requests can be routed: a source that may be away has been reached once, or a snapshot of it was read.
    pub fn is_warm(&self) -> bool {
        self.warm.load(Ordering::Relaxed)
    }

    /// Records that the source is connected.
    pub(super) fn connected(&self, means: u8) {
        self.warm();
        self.means.store(means, Ordering::Relaxed);
        self.lost_at.store(u64::MAX, Ordering::Relaxed);
    }

    /// Records that the source is away from now on.
    pub(super) fn lost(&self, now: Moment) {
        self.means.store(0, Ordering::Relaxed);
        self.lost_at.store(now.as_micros(), Ordering::Relaxed);
        self.losses.fetch_add(1, Ordering::Relaxed);
    }

    /// Records whether a part of the source is away while the rest is connected.
    pub(super) fn set_partial(&self, is_partial: bool, now: Moment) {
        let lost_at = if is_partial { now.as_micros() } else { u64::MAX };
        if self.means() != 0 {
            self.lost_at.store(lost_at, Ordering::Relaxed);
            self.losses.fetch_add(u64::from(is_partial), Ordering::Relaxed);
        }
    }

    /// How changes are noticed: 3 by client tracking, 2 by keyspace notifications, 1 by polling, 0 not at all.
    pub fn means(&self) -> u8 {
        self.means.load(Ordering::Relaxed)
    }

    /// The greatest possible age of the known data; zero while the source is connected.
    pub fn age(&self, now: Moment) -> Duration {
        now.since(Moment::from_micros(self.lost_at.load(Ordering::Relaxed)))
    }

    /// Sets the total number of held hosts.
    pub(super) fn set_held(&self, hosts: u64) {
        self.held.store(hosts, Ordering::Relaxed);
    }

    /// Total number of hosts that stayed in service although the source lacked them when it came back with other or
    /// older data.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Number of times that the source was lost.
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }
}
