//! The store shared by all cores: bounded in bytes, with admission, quotas and purges.
//!
//! A hit takes no lock of this room ([`super::variants`]). All writes take one mutex; each of them belongs to a request
//! that was sent to a backend.

use super::body::BodyBudget;
use super::epochs::Epochs;
use super::fill::SharedFills;
use super::object::Object;
use super::options::Options;
use super::parts;
use super::portable::Change;
use super::purge::{PurgeMode, Selector, Ticket};
use super::tier::Tier;
use super::variants::{VariantMap, Variants};
use super::vary::RequestValues;
use super::writes::Writes;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The greatest number of variants of one key; a further one replaces the oldest.
pub const MOST_VARIANTS: usize = 32;

/// The store.
#[derive(Debug)]
pub struct Store {
    map: VariantMap,
    budget: Arc<BodyBudget>,
    fills: Arc<SharedFills>,
    epochs: Epochs,
    writes: Mutex<Writes>,
    /// The tier that keeps objects on a disk.
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

/// The effect of a new object on the one that is stored for the same variant.
#[derive(Clone, Copy)]
enum Known<'a> {
    IsReplaced,
    /// It is newer than one of another process.
    Stays,
    /// It is newer than one of the disk, and so is anything that was stored since the disk was told of changes.
    IsLoaded,
    /// It is joined with the new one, which is a part; and whether the part is of no use alone.
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
        let map = VariantMap::new(bytes);
        Self {
            budget: Arc::new(BodyBudget::new(map.capacity() / 4 * 5)),
            fills: Arc::default(),
            map,
            epochs: Epochs::new(tier.is_some()),
            writes: Mutex::default(),
            tier,
        }
    }

    /// The disk tier.
    pub fn tier(&self) -> Option<&Arc<Tier>> {
        self.tier.as_ref()
    }

    /// Waits until the disk tier, if there is one, has performed all earlier orders. Returns whether it has, and no file of a
    /// removed object is left. It is for another thread than a worker's.
    pub fn settle(&self, timeout: Duration) -> bool {
        let Some(tier) = &self.tier else { return true };
        // Without a thread no file belongs to this process.
        tier.settle_thread().recv_timeout(timeout) != Err(RecvTimeoutError::Timeout) && !tier.has_leftovers()
    }

    /// The fills in progress.
    pub fn fills(&self) -> &Arc<SharedFills> {
        &self.fills
    }

    /// The bytes in use.
    pub fn bytes(&self) -> u64 {
        self.map.bytes()
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
        self.map.capacity()
    }

    /// The greatest size of an object that is stored, in bytes.
    pub fn largest(&self) -> u64 {
        self.map.largest()
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.map.len() == 0
    }

    /// Looks up a key. If the request selects several variants, the newest one counts (RFC 9111 section 4).
    pub fn get(&self, key: &[u8], request: &mut RequestValues<'_>) -> Found {
        let Some(variants) = self.map.get(key) else { return Found::default() };
        let object = variants.iter().rev().find(|object| object.variant.is_selected_by(request)).cloned();
        let other = if object.is_none() { variants.last().cloned() } else { None };
        Found { object, other }
    }

    /// Whether an object of this key is one of those that are meant. That counts as no use of the key.
    pub fn has(&self, key: &[u8], is_meant: impl Fn(&Object) -> bool) -> bool {
        self.map.peek(key).is_some_and(|variants| variants.iter().any(|object| is_meant(object)))
    }

    /// Marks the beginning of a fill.
    pub fn ticket(&self) -> Ticket {
        self.epochs.ticket()
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

    /// Stores an object of the disk, with a frontend's quota of this many bytes. The ticket is the newest epoch that the disk has
    /// followed: what was removed, replaced or stored since is newer.
    pub fn load(
        &self,
        key: &Arc<[u8]>,
        object: Object,
        ticket: Ticket,
        max_bytes: u64,
    ) -> Result<Arc<Object>, NotStored> {
        self.insert_one(Arc::clone(key), object, ticket, max_bytes, Known::IsLoaded)
    }

    fn insert_one(
        &self,
        key: Arc<[u8]>,
        object: Object,
        ticket: Ticket,
        max_bytes: u64,
        rule: Known<'_>,
    ) -> Result<Arc<Object>, NotStored> {
        let is_known = matches!(rule, Known::Stays | Known::IsLoaded);
        let mut writes = self.writes();
        let is_superseded = matches!(rule, Known::IsLoaded) && self.epochs.was_superseded(&key, ticket);
        if is_superseded || self.was_purged(&writes, &key, &object, ticket) {
            return Err(NotStored::new(InsertError::Purged, object));
        }
        let before = self.map.peek(&key);
        let same = before.as_ref().and_then(|known| known.iter().find(|known| known.variant == object.variant));
        let mut object = match (same, rule) {
            (Some(_), Known::Stays | Known::IsLoaded) => return Err(NotStored::new(InsertError::Present, object)),
            (same, Known::IsJoined(options, only_joins)) => {
                self.join(&writes, &key, same, (object, only_joins), options)?
            }
            (..) => object,
        };
        let size = object.size() + key.len() as u64;
        if size > self.largest() || (max_bytes > 0 && size > max_bytes) {
            return Err(NotStored::new(InsertError::TooLarge, object));
        }
        let quota = writes.quota(&object.origin.frontend);
        let charge = quota.charge(&key, size);
        object.charge = Some(Arc::clone(&charge));
        let object = Arc::new(object);
        let variants = self.with_variant(&key, before, &object, is_known);
        self.map.put(Arc::clone(&key), variants);
        while max_bytes > 0
            && quota.used() > max_bytes
            && let Some((key, oldest)) = quota.take_oldest(&charge)
        {
            self.map.remove(&key, |known| known.charge.as_ref().is_some_and(|charge| Arc::ptr_eq(charge, &oldest)));
        }
        let stored = self.map.peek(&key);
        let has_stayed = stored.is_some_and(|variants| variants.iter().any(|known| Arc::ptr_eq(known, &object)));
        if let Some(tier) = self.tier.as_ref().filter(|_| !is_known) {
            tier.stored(self.epochs.supersede(&key), &key, &object, ticket);
        }
        if has_stayed { Ok(object) } else { Err(NotStored { reason: InsertError::Evicted, object }) }
    }

    /// The variants of a key with an object in place of the one of its variant. It is the newest one, unless it was known before:
    /// then its date decides.
    fn with_variant(&self, key: &[u8], before: Option<Variants>, object: &Arc<Object>, is_known: bool) -> Variants {
        let Some(before) = before else { return Arc::new([Arc::clone(object)]) };
        let mut variants: Vec<_> = before.iter().filter(|known| known.variant != object.variant).cloned().collect();
        let is_older = |known: &Arc<Object>| known.date <= object.date;
        let place = if is_known { variants.iter().rposition(is_older).map_or(0, |at| at + 1) } else { variants.len() };
        variants.insert(place, Arc::clone(object));
        self.drop_surplus(key, &mut variants);
        variants.into()
    }

    /// What is stored of a part, beside the object of its variant.
    fn join(
        &self,
        writes: &Writes,
        key: &[u8],
        known: Option<&Arc<Object>>,
        (part, only_joins): (Object, bool),
        options: &Options,
    ) -> Result<Object, NotStored> {
        match known {
            Some(known) if parts::are_alike(&(&**known).into(), &(&part).into()) => {
                parts::join(known, part, &self.budget, options)
                    .map_err(|part| NotStored::new(InsertError::TooLarge, *part))
            }
            known => {
                // It is not what the backend has now.
                known.iter().for_each(|known| self.soft_purge(writes, key, known));
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
            size <= self.largest()
        };
        let kept = variants.iter().rev().take(MOST_VARIANTS).take_while(is_within).count();
        variants.drain(..variants.len() - kept);
    }

    /// The bytes that a frontend's objects take in the store.
    pub fn bytes_of(&self, frontend: &str) -> u64 {
        self.writes().bytes_of(frontend)
    }

    /// Drops all variants of a key, and prevents fills of it in progress from being stored: the target was changed (RFC
    /// 9111 section 4.4). Returns whether there was a variant.
    pub fn invalidate(&self, key: &[u8]) -> bool {
        let writes = self.writes();
        let epoch = self.epochs.invalidate(key);
        self.tell(&writes, epoch, || Change::Drop(key.into()));
        self.map.take_out(key)
    }

    /// Makes all variants of a key stale at once, and prevents fills of it in progress from being stored. Returns
    /// whether there was a variant.
    pub fn make_stale(&self, key: &[u8]) -> bool {
        let writes = self.writes();
        let epoch = self.epochs.invalidate(key);
        self.tell(&writes, epoch, || Change::Stale(key.into()));
        let variants = self.map.peek(key);
        variants.inspect(|variants| variants.iter().for_each(|object| object.soft_purge())).is_some()
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
        self.tell(&writes, self.epochs.supersede(key), || Change::Drop(key.into()));
        self.map.remove(key, |known| Arc::ptr_eq(known, object));
    }

    /// Makes one object stale at once.
    pub fn make_object_stale(&self, key: &[u8], object: &Object) {
        self.soft_purge(&self.writes(), key, object);
    }

    fn soft_purge(&self, writes: &Writes, key: &[u8], object: &Object) {
        self.tell(writes, self.epochs.supersede(key), || Change::Stale(key.into()));
        object.soft_purge();
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
        self.map.iter().flat_map(move |(key, list)| variants(list).map(move |object| (Arc::clone(&key), object)))
    }

    /// Purges objects and returns their number. It visits the whole store, with a read lock of one shard at a time, so
    /// it is for an administrator and not for the request path.
    pub fn purge(&self, selector: &Selector, mode: PurgeMode) -> usize {
        let mut writes = self.writes();
        let epoch = self.epochs.begin();
        writes.remember(epoch, selector);
        self.tell(&writes, epoch, || Change::Purge(selector.clone(), mode));
        drop(writes);
        self.map.iter().map(|(key, _)| self.purge_key(&key, selector, mode)).sum()
    }

    fn purge_key(&self, key: &[u8], selector: &Selector, mode: PurgeMode) -> usize {
        match mode {
            PurgeMode::Soft => {
                let variants = self.map.peek(key);
                let objects = variants.iter().flat_map(|variants| variants.iter());
                objects.filter(|object| selector.has(object)).map(|object| object.soft_purge()).count()
            }
            PurgeMode::Hard => {
                let _writes = self.writes();
                self.map.remove(key, |object| selector.has(object))
            }
        }
    }

    /// Evicts a key.
    #[cfg(test)]
    pub(super) fn evict(&self, key: &[u8]) {
        self.map.take_out(key);
    }

    fn was_purged(&self, writes: &Writes, key: &[u8], object: &Object, ticket: Ticket) -> bool {
        self.epochs.was_invalidated(key, ticket) || writes.was_purged(object, ticket)
    }

    fn writes(&self) -> MutexGuard<'_, Writes> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
