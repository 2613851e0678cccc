//! The store shared by all cores: bounded in bytes, with admission, quotas and purges.
//!
//! A hit takes no lock of this room: the map is `quick_cache`, whose shards are read under a shared lock for the time
//! of one probe. All writes take one mutex; each of them belongs to a request that was sent to a backend.

use super::body::BodyBudget;
use super::fill::SharedFills;
use super::object::Object;
use super::options::Options;
use super::parts;
use super::portable::Change;
use super::purge::{PurgeMode, Selector, Ticket};
use super::quota;
use super::tier::Tier;
use super::vary::RequestValues;
use super::writes::Writes;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The greatest number of variants of one key; a further one replaces the oldest.
pub const MOST_VARIANTS: usize = 32;

/// Number of cells with the time at which a key was last invalidated. Keys that share a cell can only lose a fill to
/// each other.
const INVALIDATION_CELLS: usize = 65_536;

/// The least size of a shard in bytes. The greatest object takes a quarter of one.
const LEAST_SHARD: u64 = 32 << 20;

/// The greatest number of shards.
const MOST_SHARDS: u64 = 64;

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
    /// What keeps objects on a disk.
    tier: Option<Arc<Tier>>,
}

/// The result of a look-up.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The response of the selected variant.
    pub object: Option<Arc<Object>>,
    /// The newest response of another variant. Its `Vary` names the selecting fields.
    pub other: Option<Arc<Object>>,
}

/// An object that was not stored, and the reason.
#[derive(Debug)]
pub struct NotStored {
    /// The reason.
    pub reason: InsertError,
    /// The object, for the request that has brought it.
    pub object: Arc<Object>,
}

impl NotStored {
    fn new(reason: InsertError, object: Object) -> Self {
        Self { reason, object: Arc::new(object) }
    }
}

/// What becomes of the object that is stored for the same variant.
#[derive(Clone, Copy)]
enum Known<'a> {
    IsReplaced,
    /// It is newer.
    Stays,
    /// It is joined with the new one, which is a part; whether that is good for nothing else.
    IsJoined(&'a Options, bool),
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
    /// There is one of its variant already, or none that it could be joined with.
    Present,
}

impl Store {
    /// A store of this many bytes, heads, keys and overhead included.
    pub fn new(bytes: u64) -> Self {
        Self::with_tier(bytes, None)
    }

    /// The same with a disk tier behind it.
    pub fn with_tier(bytes: u64, tier: Option<Arc<Tier>>) -> Self {
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
            tier,
        }
    }

    /// The disk tier.
    pub fn tier(&self) -> Option<&Arc<Tier>> {
        self.tier.as_ref()
    }

    /// Waits until the disk tier, where there is one, has done what was ordered before. Whether it has. It is for another thread
    /// than a worker's.
    pub fn settle(&self, timeout: Duration) -> bool {
        let Some(tier) = &self.tier else { return true };
        // Without a thread nothing on the disk is this process's.
        tier.settle_thread().recv_timeout(timeout) != Err(RecvTimeoutError::Timeout)
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

    /// Whether an object of this key is one of those that are meant. That counts as no use of the key.
    pub fn has(&self, key: &[u8], is_meant: impl Fn(&Object) -> bool) -> bool {
        self.cache.peek(key).is_some_and(|variants| variants.iter().any(|object| is_meant(object)))
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
        key: impl Into<Arc<[u8]>>,
        object: Object,
        ticket: Ticket,
        options: &Options,
    ) -> Result<Arc<Object>, NotStored> {
        self.insert_one(key.into(), object, ticket, options.max_bytes, Known::IsReplaced)
    }

    /// Stores a part of a response, together with what is stored of it. A whole response of another representation stays, and is
    /// stale from now on; parts of another one are replaced, unless the new part `only_joins`.
    pub fn insert_part(
        &self,
        key: impl Into<Arc<[u8]>>,
        part: Object,
        ticket: Ticket,
        (options, only_joins): (&Options, bool),
    ) -> Result<Arc<Object>, NotStored> {
        self.insert_one(key.into(), part, ticket, options.max_bytes, Known::IsJoined(options, only_joins))
    }

    /// Stores an object of another process's store, unless this store has one of its variant, which is newer. The
    /// frontend's quota is enforced with its next object.
    pub fn take_over(&self, key: &[u8], object: Object, ticket: Ticket) -> Result<Arc<Object>, NotStored> {
        self.insert_one(key.into(), object, ticket, 0, Known::Stays)
    }

    fn insert_one(
        &self,
        key: Arc<[u8]>,
        object: Object,
        ticket: Ticket,
        max_bytes: u64,
        rule: Known<'_>,
    ) -> Result<Arc<Object>, NotStored> {
        let is_new = !matches!(rule, Known::Stays);
        let mut writes = self.writes();
        if self.was_purged(&writes, &key, &object, ticket) {
            return Err(NotStored::new(InsertError::Purged, object));
        }
        let before = self.cache.peek(&*key);
        let same = before.as_ref().and_then(|known| known.iter().find(|known| known.variant == object.variant));
        let mut object = match (same, rule) {
            (Some(_), Known::Stays) => return Err(NotStored::new(InsertError::Present, object)),
            (same, Known::IsJoined(options, only_joins)) => self.join(same, object, options, only_joins)?,
            (_, Known::IsReplaced | Known::Stays) => object,
        };
        let size = object.size() + key.len() as u64;
        if size > self.largest || (max_bytes > 0 && size > max_bytes) {
            return Err(NotStored::new(InsertError::TooLarge, object));
        }
        let quota = writes.quota(&object.origin.frontend);
        let charge = quota.charge(&key, size);
        object.charge = Some(Arc::clone(&charge));
        let object = Arc::new(object);
        let variants: Variants = match before {
            None => Arc::new([Arc::clone(&object)]),
            Some(before) => {
                let others = before.iter().filter(|known| known.variant != object.variant);
                let mut variants: Vec<_> = others.chain([&object]).cloned().collect();
                self.drop_surplus(&key, &mut variants);
                variants.into()
            }
        };
        self.put(Arc::clone(&key), variants);
        while max_bytes > 0
            && quota.used() > max_bytes
            && let Some((key, oldest)) = quota.take_oldest(&charge)
        {
            self.remove(&key, |known| known.charge.as_ref().is_some_and(|charge| Arc::ptr_eq(charge, &oldest)));
        }
        let stored = self.cache.peek(&key);
        let has_stayed = stored.is_some_and(|variants| variants.iter().any(|known| Arc::ptr_eq(known, &object)));
        if let Some(tier) = self.tier.as_ref().filter(|_| is_new) {
            tier.keep(&key, &object, ticket);
        }
        if has_stayed { Ok(object) } else { Err(NotStored { reason: InsertError::Evicted, object }) }
    }

    /// What is stored of a part, beside the object of its variant.
    fn join(
        &self,
        known: Option<&Arc<Object>>,
        part: Object,
        options: &Options,
        only_joins: bool,
    ) -> Result<Object, NotStored> {
        match known {
            Some(known) if parts::are_alike(&(&**known).into(), &(&part).into()) => {
                parts::join(known, part, &self.budget, options)
                    .map_err(|part| NotStored::new(InsertError::TooLarge, *part))
            }
            known => {
                // It is not what the backend has now.
                known.iter().for_each(|known| known.soft_purge());
                let is_good = !only_joins && known.is_none_or(|known| !known.body.is_whole());
                if is_good { Ok(part) } else { Err(NotStored::new(InsertError::Present, part)) }
            }
        }
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
    fn put(&self, key: Arc<[u8]>, variants: Variants) {
        quota::enter_all(&variants);
        self.cache.insert(key, variants);
    }

    /// Removes all variants of a key. Returns whether there were any.
    fn take_out(&self, key: &[u8]) -> bool {
        let removed = self.cache.remove(key);
        removed.inspect(|(_, variants)| quota::leave_all(variants)).is_some()
    }

    /// The bytes that a frontend's objects take in the store.
    pub fn bytes_of(&self, frontend: &str) -> u64 {
        self.writes().bytes_of(frontend)
    }

    /// Drops all variants of a key, and prevents fills of it in progress from being stored: the target was changed (RFC
    /// 9111 section 4.4). Returns whether there was a variant.
    pub fn invalidate(&self, key: &[u8]) -> bool {
        let writes = self.writes();
        let epoch = self.keep_fills_out(key);
        self.tell(&writes, epoch, || Change::Drop(key.into()));
        self.take_out(key)
    }

    /// Makes all variants of a key stale at once, and prevents fills of it in progress from being stored. Returns
    /// whether there was a variant.
    pub fn make_stale(&self, key: &[u8]) -> bool {
        let writes = self.writes();
        let epoch = self.keep_fills_out(key);
        self.tell(&writes, epoch, || Change::Stale(key.into()));
        let variants = self.cache.peek(key);
        variants.inspect(|variants| variants.iter().for_each(|object| object.soft_purge())).is_some()
    }

    /// Requests of clients, however many, mark only their own key here.
    fn keep_fills_out(&self, key: &[u8]) -> u64 {
        let epoch = self.epoch.fetch_add(1, SeqCst) + 1;
        if let Some(cell) = self.cell(key) {
            cell.fetch_max(epoch, SeqCst);
        }
        epoch
    }

    /// Tells of a change at this epoch. The writes are locked, so changes are told in their order.
    fn tell(&self, writes: &Writes, epoch: u64, change: impl Fn() -> Change) {
        writes.tell(&change);
        if let Some(tier) = &self.tier {
            tier.change(epoch, change());
        }
    }

    /// Drops one object, if it is still stored.
    pub fn drop_object(&self, key: &[u8], object: &Arc<Object>) {
        let writes = self.writes();
        self.tell(&writes, self.epoch.load(SeqCst), || Change::Drop(key.into()));
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
        self.writes().follow(Some(sender));
        changes
    }

    /// Ends the reports.
    pub fn end_changes(&self) {
        self.writes().follow(None);
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
        let epoch = self.epoch.fetch_add(1, SeqCst) + 1;
        writes.remember(epoch, selector);
        self.tell(&writes, epoch, || Change::Purge(selector.clone(), mode));
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
            (_, false) => self.put(key.into(), after.into()),
        }
        removed
    }

    fn was_purged(&self, writes: &Writes, key: &[u8], object: &Object, ticket: Ticket) -> bool {
        self.cell(key).is_some_and(|cell| cell.load(SeqCst) > ticket.0) || writes.was_purged(object, ticket)
    }

    fn cell(&self, key: &[u8]) -> Option<&AtomicU64> {
        let [low, high, ..] = self.hasher.hash_one(key).to_le_bytes();
        self.invalidations.get(usize::from(u16::from_le_bytes([low, high])) % INVALIDATION_CELLS)
    }

    fn writes(&self) -> MutexGuard<'_, Writes> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
