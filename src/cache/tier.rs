//! The tier behind the store: objects that are kept on a disk. A thread of its own writes and reads them (the room `disk`); here
//! is how the store and requests speak to it, and what they know of it without asking.
//!
//! Orders are done one after the other. What takes objects away is ordered under the lock of the store's writes, so it stands in
//! the order of the store's epochs: the thread knows by the last change that it has done which fills and purges an object of the
//! disk may be older than.

use super::fill::{FillEnd, FillWaiter};
use super::object::Object;
use super::portable::Change;
use super::purge::Ticket;
use crate::base::hash::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};
use std::sync::{Arc, PoisonError, RwLock};
use xxhash_rust::xxh3::xxh3_128;

/// The most bytes of objects that wait to be written. Others are not kept.
const MOST_WAITING_BYTES: u64 = 64 << 20;

/// The most requests that wait for the disk. Others ask a backend at once.
const MOST_WAITING: u64 = 1024;

/// The most orders altogether. Where changes would be more, the disk cannot follow: all that it has is dropped.
const MOST_ORDERS: u64 = 100_000;

/// What a key is known by on the disk. Two keys of one hash only take each other's place.
pub fn hash(key: &[u8]) -> u128 {
    xxh3_128(key)
}

/// The tier, as all threads see it.
#[derive(Debug)]
pub struct Tier {
    orders: Sender<Order>,
    /// The hashes of the keys that the disk has.
    known: RwLock<HashSet<u128>>,
    /// It is known of all that the disk has.
    is_read: AtomicBool,
    waiting_bytes: AtomicU64,
    waiting: AtomicU64,
    queued: AtomicU64,
    is_lost: AtomicBool,
    /// What the thread has done.
    pub counts: TierCounts,
}

/// What has become of objects.
#[derive(Debug, Default)]
pub struct TierCounts {
    /// Bytes on the disk.
    pub bytes: AtomicU64,
    /// Files on the disk.
    pub files: AtomicU64,
    /// Look-ups that found an object.
    pub hits: AtomicU64,
    /// Objects written.
    pub written: AtomicU64,
    /// Objects not written, as too many waited to be.
    pub skipped: AtomicU64,
    /// Files removed to make room.
    pub evicted: AtomicU64,
    /// Files that were not what had been written; they are removed.
    pub corrupt: AtomicU64,
    /// 1 once the disk has refused a file: nothing is written any more.
    pub failed: AtomicU64,
}

/// What the thread is to do.
#[derive(Debug)]
pub enum Order {
    /// An object was stored.
    Keep {
        /// Its key.
        key: Arc<[u8]>,
        /// The object.
        object: Arc<Object>,
        /// When its fill began.
        ticket: Ticket,
    },
    /// A request wants what the disk has of a key. It is told [`FillEnd::Loaded`] once that is in the store.
    Load {
        /// The key.
        key: Arc<[u8]>,
        /// The request.
        settling: Settling,
    },
    /// Objects were taken away, at this epoch.
    Change(u64, Change),
    /// A thread waits until all earlier orders are done.
    Settle(Settling),
    /// Another process has the disk from now on.
    End,
}

/// Somebody who waits until the disk has done what was ordered. They are told when it is dropped: nobody waits for an order that
/// a thread has left behind.
#[derive(Debug)]
pub struct Settling(Waiting);

#[derive(Debug)]
enum Waiting {
    /// A request; it is told [`FillEnd::Loaded`].
    Request(FillWaiter),
    Thread(SyncSender<()>),
}

impl Drop for Settling {
    fn drop(&mut self) {
        match &self.0 {
            Waiting::Request(waiter) => waiter.sink.tell(waiter.exchange, FillEnd::Loaded),
            // A thread that waits no longer need not know.
            Waiting::Thread(sender) => drop(sender.try_send(())),
        }
    }
}

impl Tier {
    /// A tier, and the orders for its thread.
    pub fn new() -> (Arc<Self>, Receiver<Order>) {
        let (orders, receiver) = channel();
        let [waiting_bytes, waiting, queued] = [(); 3].map(|()| AtomicU64::new(0));
        let (known, is_lost, counts) = (RwLock::default(), AtomicBool::new(false), TierCounts::default());
        let is_read = AtomicBool::new(false);
        (Arc::new(Self { orders, known, is_read, waiting_bytes, waiting, queued, is_lost, counts }), receiver)
    }

    /// Whether the disk may have something of this key.
    pub fn has(&self, key: &[u8]) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).contains(&hash(key))
    }

    /// Whether the disk may have something of this key, or has yet to be read.
    pub fn may_have(&self, key: &[u8]) -> bool {
        !self.is_read.load(Relaxed) || self.has(key)
    }

    /// Says that the disk was read.
    pub fn set_read(&self) {
        self.is_read.store(true, Relaxed);
    }

    /// Says whether the disk has something of the key of this hash.
    pub fn set_known(&self, hash: u128, is_known: bool) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if is_known {
            known.insert(hash)
        } else {
            known.remove(&hash)
        };
    }

    /// Has an object kept, if it is whole and there is room for it to wait.
    pub(super) fn keep(&self, key: &Arc<[u8]>, object: &Arc<Object>, ticket: Ticket) {
        if !object.body.is_whole() || self.counts.failed.load(Relaxed) > 0 {
            return;
        }
        let size = object.size();
        if self.waiting_bytes.fetch_add(size, Relaxed).saturating_add(size) > MOST_WAITING_BYTES {
            self.waiting_bytes.fetch_sub(size, Relaxed);
            self.counts.skipped.fetch_add(1, Relaxed);
            return;
        }
        self.order(Order::Keep { key: Arc::clone(key), object: Arc::clone(object), ticket });
    }

    /// Has what the disk has of a key put into the store. Whether the request is told of the end of that.
    pub fn load(&self, key: Arc<[u8]>, waiter: FillWaiter) -> bool {
        if self.waiting.fetch_add(1, Relaxed) >= MOST_WAITING {
            self.waiting.fetch_sub(1, Relaxed);
            return false;
        }
        self.order(Order::Load { key, settling: Settling(Waiting::Request(waiter)) });
        true
    }

    /// Has a request told once all that was ordered is done; at once where there is no thread, as nothing on the disk is this
    /// process's then.
    pub fn settle_request(&self, waiter: FillWaiter) {
        self.order(Order::Settle(Settling(Waiting::Request(waiter))));
    }

    /// The same for a thread.
    pub fn settle_thread(&self) -> Receiver<()> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.order(Order::Settle(Settling(Waiting::Thread(sender))));
        receiver
    }

    /// Objects were taken away. The writes of the store are locked.
    pub(super) fn change(&self, epoch: u64, change: Change) {
        if self.queued.load(Relaxed) < MOST_ORDERS {
            self.order(Order::Change(epoch, change));
        } else {
            self.is_lost.store(true, Relaxed);
        }
    }

    /// Another process is to have the disk, once all that was ordered is done.
    pub fn end(&self) {
        self.order(Order::End);
    }

    fn order(&self, order: Order) {
        self.queued.fetch_add(1, Relaxed);
        // Without a thread, an order is dropped, and with it who waits for it is told.
        let _ = self.orders.send(order);
    }

    /// An order was taken: it no longer waits.
    pub fn taken(&self, order: &Order) {
        self.queued.fetch_sub(1, Relaxed);
        match order {
            Order::Keep { object, .. } => drop(self.waiting_bytes.fetch_sub(object.size(), Relaxed)),
            Order::Load { .. } => drop(self.waiting.fetch_sub(1, Relaxed)),
            Order::Change(..) | Order::Settle(_) | Order::End => {}
        }
    }

    /// Whether changes were left out, so that nothing on the disk may be served. It is said once.
    pub fn take_lost(&self) -> bool {
        self.is_lost.swap(false, Relaxed)
    }
}
