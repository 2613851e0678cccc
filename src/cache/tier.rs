//! The tier behind the store: objects on a disk. A thread of its own writes and reads them (the room `disk`); this is
//! the interface for the store and for requests, and the data that they can read without a wait.
//!
//! Orders are performed one after the other. Objects that are stored or removed are ordered under the lock of the store's
//! writes, so they are in the order of the store's epochs: the last performed order bounds the epoch of any object on
//! disk. A file is that of the newest object of its variant, or absent: an object that is not written
//! removes the file of its predecessor.

use super::fill::{FillEnd, FillWaiter};
use super::object::Object;
use super::portable::Change;
use super::purge::Ticket;
use crate::base::hash::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};
use std::sync::{Arc, PoisonError, RwLock};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Limit of the bytes of objects that wait to be written. Further objects are not written.
const MOST_WAITING_BYTES: u64 = 64 << 20;

/// Limit of requests that wait for the disk. Further requests go to a backend at once.
const MOST_WAITING: u64 = 1024;

/// Limit of all orders. If removals exceed it, the disk cannot follow: all its objects are dropped.
const MOST_ORDERS: u64 = 100_000;

/// The hash of a key on the disk. Two keys with the same hash only replace each other.
pub fn hash(key: &[u8]) -> u128 {
    xxh3_128(key)
}

/// The name of an object on the disk: the hashes of its key and of its variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileName {
    /// The hash of its key.
    pub key: u128,
    /// The hash of its variant.
    pub variant: u64,
}

impl FileName {
    /// The name of an object with this key.
    pub fn of(key: &[u8], object: &Object) -> Self {
        Self { key: hash(key), variant: xxh3_64(&object.variant.to_bytes()) }
    }
}

/// The tier, as all threads see it.
#[derive(Debug)]
pub struct Tier {
    orders: Sender<Order>,
    /// The hashes of the keys on the disk.
    known: RwLock<HashSet<u128>>,
    /// Whether `known` is complete.
    is_read: AtomicBool,
    waiting_bytes: AtomicU64,
    waiting: AtomicU64,
    queued: AtomicU64,
    is_lost: AtomicBool,
    /// The counters of the thread.
    pub counts: TierCounts,
}

/// Counters of objects and files.
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
    /// Objects not written, because too many waited.
    pub skipped: AtomicU64,
    /// Files evicted to make room.
    pub evicted: AtomicU64,
    /// Corrupt files, which are removed.
    pub corrupt: AtomicU64,
    /// 1 once a write has failed: no further writes follow.
    pub failed: AtomicU64,
    /// Files of removed objects that could not be removed. A later process would serve them.
    pub leftovers: AtomicU64,
}

/// An order for the thread.
#[derive(Debug)]
pub enum Order {
    /// An object was stored, at this epoch.
    Keep {
        /// The epoch.
        epoch: u64,
        /// Its key.
        key: Arc<[u8]>,
        /// The object.
        object: Arc<Object>,
        /// The start of its fill.
        ticket: Ticket,
    },
    /// An object was stored at this epoch that is not written: the file of its predecessor is removed.
    Forget(u64, FileName),
    /// A request needs the objects of a key. [`FillEnd::Loaded`] is sent to it once they are in the store.
    Load {
        /// The key.
        key: Arc<[u8]>,
        /// The quota of its frontend in bytes; 0 for no limit.
        max_bytes: u64,
        /// The request.
        settling: Settling,
    },
    /// Objects were removed, at this epoch.
    Change(u64, Change),
    /// A thread waits until all earlier orders are done.
    Settle(Settling),
    /// Another process takes over the disk.
    End,
}

/// A waiter for all earlier orders. Dropping it notifies the waiter, so an order that a thread has not performed blocks
/// no one.
#[derive(Debug)]
pub struct Settling(Waiting);

#[derive(Debug)]
enum Waiting {
    /// A request, which gets [`FillEnd::Loaded`].
    Request(FillWaiter),
    Thread(SyncSender<()>),
}

impl Drop for Settling {
    fn drop(&mut self) {
        match &self.0 {
            Waiting::Request(waiter) => waiter.sink.tell(waiter.exchange, FillEnd::Loaded),
            // A thread that no longer waits needs no notice.
            Waiting::Thread(sender) => drop(sender.try_send(())),
        }
    }
}

impl Tier {
    /// A tier, and the receiver of the orders for its thread.
    pub fn new() -> (Arc<Self>, Receiver<Order>) {
        let (orders, receiver) = channel();
        let [waiting_bytes, waiting, queued] = [(); 3].map(|()| AtomicU64::new(0));
        let (known, is_lost, counts) = (RwLock::default(), AtomicBool::new(false), TierCounts::default());
        let is_read = AtomicBool::new(false);
        (Arc::new(Self { orders, known, is_read, waiting_bytes, waiting, queued, is_lost, counts }), receiver)
    }

    /// Whether the disk may have objects of this key.
    pub fn has(&self, key: &[u8]) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).contains(&hash(key))
    }

    /// Whether the disk may have objects of this key, or was not read yet.
    pub fn may_have(&self, key: &[u8]) -> bool {
        !self.is_read.load(Relaxed) || self.has(key)
    }

    /// Records that the disk was read.
    pub fn set_read(&self) {
        self.is_read.store(true, Relaxed);
    }

    /// Records whether the disk has objects of the key with this hash.
    pub fn set_known(&self, hash: u128, is_known: bool) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if is_known {
            known.insert(hash)
        } else {
            known.remove(&hash)
        };
    }

    /// An object was stored at this epoch: its write is ordered, if it is complete and the queue has room, and the removal of its
    /// predecessor otherwise. The writes of the store are locked.
    pub(super) fn stored(&self, epoch: u64, key: &Arc<[u8]>, object: &Arc<Object>, ticket: Ticket) {
        match self.takes(object) {
            true => self.order(Order::Keep { epoch, key: Arc::clone(key), object: Arc::clone(object), ticket }),
            false => self.order_removal(Order::Forget(epoch, FileName::of(key, object))),
        }
    }

    /// Whether an object is to be written. Its bytes are counted then.
    fn takes(&self, object: &Object) -> bool {
        if !object.body.is_whole() || self.counts.failed.load(Relaxed) > 0 {
            return false;
        }
        let size = object.size();
        let has_room = self.waiting_bytes.fetch_add(size, Relaxed).saturating_add(size) <= MOST_WAITING_BYTES;
        if !has_room {
            self.waiting_bytes.fetch_sub(size, Relaxed);
            self.counts.skipped.fetch_add(1, Relaxed);
        }
        has_room
    }

    /// Orders the load of a key into the store, with a frontend's quota of this many bytes. Returns whether the request gets a
    /// notice at the end.
    pub fn load(&self, key: Arc<[u8]>, max_bytes: u64, waiter: FillWaiter) -> bool {
        if self.waiting.fetch_add(1, Relaxed) >= MOST_WAITING {
            self.waiting.fetch_sub(1, Relaxed);
            return false;
        }
        self.order(Order::Load { key, max_bytes, settling: Settling(Waiting::Request(waiter)) });
        true
    }

    /// Notifies a request once all earlier orders are done; at once without a thread, because no file belongs to this
    /// process then.
    pub fn settle_request(&self, waiter: FillWaiter) {
        self.order(Order::Settle(Settling(Waiting::Request(waiter))));
    }

    /// The same for a thread.
    pub fn settle_thread(&self) -> Receiver<()> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.order(Order::Settle(Settling(Waiting::Thread(sender))));
        receiver
    }

    /// Objects were removed. The writes of the store are locked.
    pub(super) fn change(&self, epoch: u64, change: Change) {
        self.order_removal(Order::Change(epoch, change));
    }

    fn order_removal(&self, order: Order) {
        if self.queued.load(Relaxed) < MOST_ORDERS {
            self.order(order);
        } else {
            self.is_lost.store(true, Relaxed);
        }
    }

    /// Whether files of removed objects are left, because they could not be removed.
    pub fn has_leftovers(&self) -> bool {
        self.counts.leftovers.load(Relaxed) > 0
    }

    /// Another process takes over the disk, once all earlier orders are done.
    pub fn end(&self) {
        self.order(Order::End);
    }

    fn order(&self, order: Order) {
        self.queued.fetch_add(1, Relaxed);
        // Without a thread an order is dropped, which notifies its waiter.
        let _ = self.orders.send(order);
    }

    /// An order was performed: it no longer waits.
    pub fn taken(&self, order: &Order) {
        self.queued.fetch_sub(1, Relaxed);
        match order {
            Order::Keep { object, .. } => drop(self.waiting_bytes.fetch_sub(object.size(), Relaxed)),
            Order::Load { .. } => drop(self.waiting.fetch_sub(1, Relaxed)),
            Order::Forget(..) | Order::Change(..) | Order::Settle(_) | Order::End => {}
        }
    }

    /// Whether removals were lost, so that no file may be served. It is reported once.
    pub fn take_lost(&self) -> bool {
        self.is_lost.swap(false, Relaxed)
    }
}
