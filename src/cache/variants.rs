//! The map of the store: the variants of each key, bounded in bytes.
//!
//! A look-up takes no lock of this room: the map is `quick_cache`, whose shards are read under a shared lock for the
//! time of one probe. The charges of the quotas follow the lists that are in the map.

use super::object::Object;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};
use std::sync::Arc;

/// The least size of a shard in bytes. The greatest object takes a quarter of one.
const LEAST_SHARD: u64 = 32 << 20;

/// The greatest number of shards.
const MOST_SHARDS: u64 = 64;

/// The mean size of an object, for the initial size of the map.
const TYPICAL_OBJECT: u64 = 64 << 10;

/// The variants of one key, oldest first.
pub(super) type Variants = Arc<[Arc<Object>]>;

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
        leave_all(&variants);
        left.push((key, variants));
    }
}

/// The map. Only one thread at a time may write.
#[derive(Debug)]
pub(super) struct VariantMap(Cache<Arc<[u8]>, Variants, BySize, DefaultHashBuilder, OnLeave>);

impl VariantMap {
    /// A map of this many bytes, keys and objects included.
    pub(super) fn new(bytes: u64) -> Self {
        let shards = (bytes / LEAST_SHARD).clamp(1, MOST_SHARDS);
        // `quick_cache` takes the next power of two.
        let shards = if shards.is_power_of_two() { shards } else { shards.next_power_of_two() / 2 };
        let narrow = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let mut builder = OptionsBuilder::new();
        builder.estimated_items_capacity(narrow(bytes / TYPICAL_OBJECT).max(16)).weight_capacity(bytes);
        builder.shards(narrow(shards));
        let hasher = DefaultHashBuilder::default();
        // The builder needs only these two numbers.
        Self(match builder.build() {
            Ok(options) => Cache::with_options(options, BySize, hasher, OnLeave),
            Err(_) => Cache::with(16, bytes, BySize, hasher, OnLeave),
        })
    }

    /// The variants of a key, which is a use of it.
    pub(super) fn get(&self, key: &[u8]) -> Option<Variants> {
        self.0.get(key)
    }

    /// The same without a use.
    pub(super) fn peek(&self, key: &[u8]) -> Option<Variants> {
        self.0.peek(key)
    }

    /// All keys and their variants, with a read lock of one shard at a time.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Arc<[u8]>, Variants)> {
        self.0.iter()
    }

    /// Replaces the list of variants of a key.
    pub(super) fn put(&self, key: Arc<[u8]>, variants: Variants) {
        enter_all(&variants);
        self.0.insert(key, variants);
    }

    /// Removes all variants of a key. Returns whether there were any.
    pub(super) fn take_out(&self, key: &[u8]) -> bool {
        let removed = self.0.remove(key);
        removed.inspect(|(_, variants)| leave_all(variants)).is_some()
    }

    /// Removes some variants of a key, and returns their number.
    pub(super) fn remove(&self, key: &[u8], goes: impl Fn(&Arc<Object>) -> bool) -> usize {
        let Some(before) = self.peek(key) else { return 0 };
        let after: Vec<_> = before.iter().filter(|object| !goes(object)).cloned().collect();
        let removed = before.len() - after.len();
        match (removed, after.is_empty()) {
            (0, _) => {}
            (_, true) => drop(self.take_out(key)),
            (_, false) => self.put(key.into(), after.into()),
        }
        removed
    }

    /// The bytes in use.
    pub(super) fn bytes(&self) -> u64 {
        self.0.weight()
    }

    /// The bytes that may be in use.
    pub(super) fn capacity(&self) -> u64 {
        self.0.capacity()
    }

    /// The greatest size of the variants of a key.
    pub(super) fn largest(&self) -> u64 {
        self.0.shard_capacity() / 4
    }

    /// The number of keys.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Charges the objects of a list that is about to be stored.
fn enter_all(variants: &[Arc<Object>]) {
    variants.iter().filter_map(|object| object.charge.as_ref()).for_each(|charge| charge.enter());
}

/// Returns the charges of a list that has left the store.
fn leave_all(variants: &[Arc<Object>]) {
    variants.iter().filter_map(|object| object.charge.as_ref()).for_each(|charge| charge.leave());
}
