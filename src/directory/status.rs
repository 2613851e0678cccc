//! How the source of routes is, for metrics: written by the directory's thread, read by anybody.

use crate::base::clock::Moment;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// Good from the start for a source that cannot be away.
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
    /// Routes are known, of a file or a snapshot, or can be asked for.
    pub(super) fn warm(&self) {
        self.warm.store(true, Ordering::Relaxed);
    }

    /// Whether requests can be routed: not before a source that may be away was there once, or a snapshot of it was read.
    pub fn is_warm(&self) -> bool {
        self.warm.load(Ordering::Relaxed)
    }

    /// The source is there.
    pub(super) fn connected(&self, means: u8) {
        self.warm();
        self.means.store(means, Ordering::Relaxed);
        self.lost_at.store(u64::MAX, Ordering::Relaxed);
    }

    /// The source is away since now.
    pub(super) fn lost(&self, now: Moment) {
        self.means.store(0, Ordering::Relaxed);
        self.lost_at.store(now.as_micros(), Ordering::Relaxed);
        self.losses.fetch_add(1, Ordering::Relaxed);
    }

    /// How changes become known: 3 by client tracking, 2 by keyspace notifications, 1 by reading again, 0 not at all.
    pub fn means(&self) -> u8 {
        self.means.load(Ordering::Relaxed)
    }

    /// How old what is known may be; zero while the source is there.
    pub fn age(&self, now: Moment) -> Duration {
        now.since(Moment::from_micros(self.lost_at.load(Ordering::Relaxed)))
    }

    /// So many hosts were held until now.
    pub(super) fn set_held(&self, hosts: u64) {
        self.held.store(hosts, Ordering::Relaxed);
    }

    /// How many hosts served on that the source lacked when it came back with other or older data, in all.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// How often the source was lost.
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }
}
