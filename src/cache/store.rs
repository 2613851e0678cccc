//! The store shared by all cores: bounded in bytes, with admission, quotas and purges.
//!
//! A hit takes no lock of this room: the map is `quick_cache`, whose shards are read under a shared lock for the time
//! of one probe. All writes take one mutex; each of them belongs to a request that was sent to a backend.

use super::body::BodyBudget;
use super::fill::SharedFills;
use super::object::Object;
use super::options::Options;
use super::portable::Change;
use super::purge::{PurgeMode, Selector, Ticket};
use super::quota::{self, Quota};
use super::vary::RequestValues;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The greatest number of variants of one key; a further one replaces the oldest.
const MOST_VARIANTS: usize = 32;

/// The number of purges that are kept for fills in progress. A fill that began before the oldest of them is not stored.
const REMEMBERED_PURGES: usize = 256;

/// Number of cells with the time at which a key was last invalidated. Keys that share a cell can only lose a fill to
/// each other.
const INVALIDATION_CELLS: usize = 4096;

/// The least size of a shard in bytes. The greatest object takes a quarter of one.
const LEAST_SHARD: u64 = 32 << 20;

/// The greatest number of shards.
const MOST_SHARDS: u64 = 64;

/// The number of quotas that are kept even if their frontends have no objects.
const LEAST_QUOTAS: usize = 64;

/// The mean size of an object, for the initial size of the map.
const TYPICAL_OBJECT: u64 = 64 << 10;

/// The variants of one key, oldest first.
type Variants = Arc<[Arc<Object>]>;

#[derive(Clone, Debug)]
struct BySize;

impl Weighter<Arc<[u8]>, Variants> for BySize {
    fn weight(&self, key: &Arc<[u8]>, variants: &Variants) -> u64 {
        key.len() as u64 + variants.iter().map(|object| object.size()).sum::<u64>()
    }
}

/// Returns the charges of entries that leave, and drops them once the shard is unlocked.
#[derive(Clone, Debug, Default)]
struct OnLeave;

impl Lifecycle<Arc<[u8]>, Variants> for OnLeave {
    type RequestState = Vec<(Arc<[u8]>, Variants)>;

    fn on_evict(&self, left: &mut Self::RequestState, key: Arc<[u8]>, variants: Variants) {
        quota::leave_all(&variants);
        left.push((key, variants));
    }
}

/// The store.
#[derive(Debug)]
pub struct Store {
    cache: Cache<Arc<[u8]>, Variants, BySize, DefaultHashBuilder, OnLeave>,
    largest: u64,
    budget: Arc<BodyBudget>,
    fills: Arc<SharedFills>,
    /// Number of purges and invalidations.
    epoch: AtomicU64,
    hasher: DefaultHashBuilder,
    invalidations: Box<[AtomicU64]>,
    writes: Mutex<Writes>,
}

#[derive(Debug, Default)]
struct Writes {
    quotas: HashMap<Arc<str>, Arc<Quota>>,
    /// At this number of quotas, those of frontends without objects are dropped.
    most_quotas: usize,
    purges: VecDeque<(u64, Selector)>,
    /// The epoch of the newest purge that is no longer kept.
    forgotten: u64,
    /// The receiver of changes.
    follower: Option<Sender<Change>>,
}

/// The result of a look-up.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The response of the selected variant.
    pub object: Option<Arc<Object>>,
    /// The newest response of another variant. Its `Vary` names the selecting fields.
    pub other: Option<Arc<Object>>,
}

/// Why an object was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// It is larger than a quarter of a shard, or than the frontend's quota.
    TooLarge,
    /// It was purged or invalidated while it was filled.
    Purged,
    /// The store has evicted it at once.
    Evicted,
    /// An object of its variant is stored already.
    Present,
}

impl Store {
    /// A store of this many bytes, heads, keys and overhead included.
    pub fn new(bytes: u64) -> Self {
        let shards = (bytes / LEAST_SHARD).clamp(1, MOST_SHARDS);
        // `quick_cache` takes the next power of two.
        let shards = if shards.is_power_of_two() { shards } else { shards.next_power_of_two() / 2 };
        let narrow = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let mut builder = OptionsBuilder::new();
        builder.estimated_items_capacity(narrow(bytes / TYPICAL_OBJECT).max(16)).weight_capacity(bytes);
        builder.shards(narrow(shards));
        let hasher = DefaultHashBuilder::default();
        // The builder needs only these two numbers.
        let cache = match builder.build() {
            Ok(options) => Cache::with_options(options, BySize, hasher.clone(), OnLeave),
            Err(_) => Cache::with(16, bytes, BySize, hasher.clone(), OnLeave),
        };
        Self {
            largest: cache.shard_capacity() / 4,
            budget: Arc::new(BodyBudget::new(cache.capacity() / 4 * 5)),
            fills: Arc::default(),
            cache,
            epoch: AtomicU64::new(1),
            hasher,
            invalidations: (0..INVALIDATION_CELLS).map(|_| AtomicU64::new(0)).collect(),
            writes: Mutex::default(),
        }
    }

    /// The fills in progress.
    pub fn fills(&self) -> &Arc<SharedFills> {
        &self.fills
    }

    /// The bytes in use.
    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }

    /// The memory of all bodies, including those being filled and those that left the store and are still being sent:
    /// at most a quarter more than the store's.
    pub fn budget(&self) -> &Arc<BodyBudget> {
        &self.budget
    }

    /// Approximate memory of the cache in bytes.
    pub fn memory(&self) -> u64 {
        self.bytes().max(self.budget.used())
    }

    /// The greatest memory of the cache in bytes.
    pub fn most_memory(&self) -> u64 {
        self.budget.limit()
    }

    /// The number of bytes that may be in use.
    pub fn capacity(&self) -> u64 {
        self.cache.capacity()
    }

    /// The greatest size of an object that is stored, in bytes.
    pub fn largest(&self) -> u64 {
        self.largest
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    /// Looks up a key. If the request selects several variants, the newest one counts (RFC 9111 section 4).
    pub fn get(&self, key: &[u8], request: &mut RequestValues<'_>) -> Found {
        let Some(variants) = self.cache.get(key) else { return Found::default() };
        let object = variants.iter().rev().find(|object| object.variant.is_selected_by(request)).cloned();
        let other = if object.is_none() { variants.last().cloned() } else { None };
        Found { object, other }
    }

    /// Marks the beginning of a fill.
    pub fn ticket(&self) -> Ticket {
        Ticket(self.epoch.load(SeqCst))
    }

    /// Whether an object was purged or invalidated since its fill began.
    pub fn is_outdated(&self, key: &[u8], object: &Object, ticket: Ticket) -> bool {
        self.was_purged(&self.writes(), key, object, ticket)
    }

    /// Stores an object, replacing one of its variant.
    pub fn insert(
        &self,
        key: &[u8],
        object: Object,
        ticket: Ticket,
        options: &Options,
    ) -> Result<Arc<Object>, InsertError> {
        self.insert_one(key, object, ticket, options.max_bytes, true)
    }

    /// Stores an object of another process's store, unless this store has one of its variant, which is newer. The
    /// frontend's quota is enforced with its next object.
    pub fn take_over(&self, key: &[u8], object: Object, ticket: Ticket) -> Result<Arc<Object>, InsertError> {
        self.insert_one(key, object, ticket, 0, false)
    }

    fn insert_one(
        &self,
        key: &[u8],
        mut object: Object,
        ticket: Ticket,
        max_bytes: u64,
        replaces: bool,
    ) -> Result<Arc<Object>, InsertError> {
        let size = object.size() + key.len() as u64;
        let is_too_large = size > self.largest || (max_bytes > 0 && size > max_bytes);
        if is_too_large {
            return Err(InsertError::TooLarge);
        }
        let mut writes = self.writes();
        if self.was_purged(&writes, key, &object, ticket) {
            return Err(InsertError::Purged);
        }
        let before = self.cache.peek(key);
        let is_same = |known: &Arc<Object>| known.variant == object.variant;
        if !replaces && before.as_ref().is_some_and(|variants| variants.iter().any(is_same)) {
            return Err(InsertError::Present);
        }
        let key: Arc<[u8]> = key.into();
        let quota = writes.quota(&object.origin.frontend);
        let charge = quota.charge(&key, size);
        object.charge = Some(Arc::clone(&charge));
        let object = Arc::new(object);
        let others = before.iter().flat_map(|variants| variants.iter());
        let mut variants: Vec<_> = others.filter(|known| known.variant != object.variant).cloned().collect();
        drop(before);
        variants.push(Arc::clone(&object));
        self.drop_surplus(&key, &mut variants);
        self.put(Arc::clone(&key), variants);
        while max_bytes > 0
            && quota.used() > max_bytes
            && let Some((key, oldest)) = quota.take_oldest(&charge)
        {
            self.remove(&key, |known| known.charge.as_ref().is_some_and(|charge| Arc::ptr_eq(charge, &oldest)));
        }
        let stored = self.cache.peek(&key);
        let has_stayed = stored.is_some_and(|variants| variants.iter().any(|known| Arc::ptr_eq(known, &object)));
        if has_stayed { Ok(object) } else { Err(InsertError::Evicted) }
    }

    /// Drops the oldest variants of a key beyond the limit of one key: a key must not fill a shard and so empty it.
    fn drop_surplus(&self, key: &[u8], variants: &mut Vec<Arc<Object>>) {
        let mut size = key.len() as u64;
        let is_within = |object: &&Arc<Object>| {
            size += object.size();
            size <= self.largest
        };
        let kept = variants.iter().rev().take(MOST_VARIANTS).take_while(is_within).count();
        variants.drain(..variants.len() - kept);
    }

    /// Replaces the list of variants of a key.
    fn put(&self, key: Arc<[u8]>, variants: Vec<Arc<Object>>) {
        quota::enter_all(&variants);
        self.cache.insert(key, variants.into());
    }

    /// Removes all variants of a key. Returns whether there were any.
    fn take_out(&self, key: &[u8]) -> bool {
        let removed = self.cache.remove(key);
        removed.inspect(|(_, variants)| quota::leave_all(variants)).is_some()
    }

    /// The bytes that a frontend's objects take in the store.
    pub fn bytes_of(&self, frontend: &str) -> u64 {
        self.writes().quotas.get(frontend).map_or(0, |quota| quota.used())
    }

    /// Drops all variants of a key, and prevents fills of it in progress from being stored: the target was changed (RFC
    /// 9111 section 4.4). Returns whether there was a variant.
    pub fn invalidate(&self, key: &[u8]) -> bool {
        self.keep_fills_out(key);
        let writes = self.writes();
        writes.tell(|| Change::Drop(key.into()));
        self.take_out(key)
    }

    /// Makes all variants of a key stale at once, and prevents fills of it in progress from being stored. Returns
    /// whether there was a variant.
    pub fn make_stale(&self, key: &[u8]) -> bool {
        self.keep_fills_out(key);
        let writes = self.writes();
        writes.tell(|| Change::Stale(key.into()));
        let variants = self.cache.peek(key);
        variants.inspect(|variants| variants.iter().for_each(|object| object.soft_purge())).is_some()
    }

    /// Requests of clients, however many, mark only their own key here.
    fn keep_fills_out(&self, key: &[u8]) {
        if let Some(cell) = self.cell(key) {
            cell.fetch_max(self.epoch.fetch_add(1, SeqCst) + 1, SeqCst);
        }
    }

    /// Drops one object, if it is still stored.
    pub fn drop_object(&self, key: &[u8], object: &Arc<Object>) {
        let writes = self.writes();
        writes.tell(|| Change::Drop(key.into()));
        self.remove(key, |known| Arc::ptr_eq(known, object));
    }

    /// Repeats a change of another process's store.
    pub fn follow(&self, change: &Change) {
        match change {
            Change::Drop(key) => drop(self.invalidate(key)),
            Change::Stale(key) => drop(self.make_stale(key)),
            Change::Purge(selector, mode) => drop(self.purge(selector, *mode)),
        }
    }

    /// Reports all changes that remove objects from now on, until [`Store::end_changes`].
    pub fn changes(&self) -> Receiver<Change> {
        let (sender, changes) = channel();
        self.writes().follower = Some(sender);
        changes
    }

    /// Ends the reports.
    pub fn end_changes(&self) {
        self.writes().follower = None;
    }

    /// The stored objects, keys and variants, the oldest variant first. It takes a read lock of one shard at a time,
    /// and is not meant for a worker.
    pub fn objects(&self) -> impl Iterator<Item = (Arc<[u8]>, Arc<Object>)> {
        let variants = |variants: Variants| (0..variants.len()).filter_map(move |place| variants.get(place).cloned());
        self.cache.iter().flat_map(move |(key, list)| variants(list).map(move |object| (Arc::clone(&key), object)))
    }

    /// Purges objects and returns their number. It visits the whole store, with a read lock of one shard at a time, so
    /// it is for an administrator and not for the request path.
    pub fn purge(&self, selector: &Selector, mode: PurgeMode) -> usize {
        let mut writes = self.writes();
        writes.remember(self.epoch.fetch_add(1, SeqCst) + 1, selector);
        writes.tell(|| Change::Purge(selector.clone(), mode));
        drop(writes);
        self.cache.iter().map(|(key, _)| self.purge_key(&key, selector, mode)).sum()
    }

    fn purge_key(&self, key: &[u8], selector: &Selector, mode: PurgeMode) -> usize {
        match mode {
            PurgeMode::Soft => {
                let variants = self.cache.peek(key);
                let objects = variants.iter().flat_map(|variants| variants.iter());
                objects.filter(|object| selector.has(object)).map(|object| object.soft_purge()).count()
            }
            PurgeMode::Hard => {
                let _writes = self.writes();
                self.remove(key, |object| selector.has(object))
            }
        }
    }

    /// Removes variants of a key. The caller holds the lock of writes.
    fn remove(&self, key: &[u8], goes: impl Fn(&Arc<Object>) -> bool) -> usize {
        let Some(before) = self.cache.peek(key) else { return 0 };
        let after: Vec<_> = before.iter().filter(|object| !goes(object)).cloned().collect();
        let removed = before.len() - after.len();
        match (removed, after.is_empty()) {
            (0, _) => {}
            (_, true) => drop(self.take_out(key)),
            (_, false) => self.put(key.into(), after),
        }
        removed
    }

    fn was_purged(&self, writes: &Writes, key: &[u8], object: &Object, ticket: Ticket) -> bool {
        let is_invalid = self.cell(key).is_some_and(|cell| cell.load(SeqCst) > ticket.0);
        let mut later = writes.purges.iter().filter(|(epoch, _)| *epoch > ticket.0);
        is_invalid || writes.forgotten > ticket.0 || later.any(|(_, selector)| selector.has(object))
    }

    fn cell(&self, key: &[u8]) -> Option<&AtomicU64> {
        let [low, high, ..] = self.hasher.hash_one(key).to_le_bytes();
        self.invalidations.get(usize::from(u16::from_le_bytes([low, high])) % INVALIDATION_CELLS)
    }

    fn writes(&self) -> MutexGuard<'_, Writes> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writes {
    fn quota(&mut self, frontend: &Arc<str>) -> Arc<Quota> {
        if self.quotas.len() >= self.most_quotas {
            self.quotas.retain(|_, quota| !quota.is_idle());
            self.most_quotas = 2 * self.quotas.len().max(LEAST_QUOTAS);
        }
        Arc::clone(self.quotas.entry(Arc::clone(frontend)).or_default())
    }

    fn tell(&self, change: impl FnOnce() -> Change) {
        if let Some(follower) = &self.follower {
            // A receiver that has ended need not be notified.
            let _ = follower.send(change());
        }
    }

    fn remember(&mut self, epoch: u64, selector: &Selector) {
        if self.purges.len() == REMEMBERED_PURGES
            && let Some((epoch, _)) = self.purges.pop_front()
        {
            self.forgotten = epoch;
        }
        self.purges.push_back((epoch, selector.clone()));
    }
}
