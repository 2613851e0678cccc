//! The index of the files: the variants of each key by their dates, the properties by which a purge selects them, and the
//! order of use.

use super::file::taken;
use crate::cache::object::{Object, Origin};
use crate::cache::purge::Selector;
use crate::cache::store::MOST_VARIANTS;
use crate::cache::tier::FileName;
use lru::LruCache;
use std::time::SystemTime;

/// Approximate memory of a file besides its texts, in bytes.
const OVERHEAD: usize = 200;

/// A file.
#[derive(Debug)]
struct Entry {
    variant: u64,
    /// Its disk space.
    bytes: u64,
    /// `Date` of the response.
    date: SystemTime,
    origin: Origin,
    tags: Box<[Box<[u8]>]>,
}

impl Entry {
    /// Its memory.
    fn memory(&self) -> usize {
        let tags: usize = self.tags.iter().map(|tag| 16 + tag.len()).sum();
        OVERHEAD + tags + self.origin.frontend.len() + self.origin.host.len() + self.origin.target.len()
    }
}

/// The files of a folder.
#[derive(Debug)]
pub(super) struct Index {
    keys: LruCache<u128, Vec<Entry>>,
    bytes: u64,
    files: u64,
    memory: usize,
}

impl Default for Index {
    fn default() -> Self {
        Self { keys: LruCache::unbounded(), bytes: 0, files: 0, memory: 0 }
    }
}

impl Index {
    /// The disk space of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of files.
    pub(super) fn files(&self) -> u64 {
        self.files
    }

    /// Approximate memory of the index, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    /// Whether there are files of a key.
    pub(super) fn has(&self, key: u128) -> bool {
        self.keys.contains(&key)
    }

    /// Whether there is a file of this name.
    pub(super) fn has_file(&self, name: FileName) -> bool {
        self.keys.peek(&name.key).is_some_and(|entries| entries.iter().any(|entry| entry.variant == name.variant))
    }

    /// Records a file of this length, in place of the file with its name. Its key is the most recently used one.
    pub(super) fn insert(&mut self, name: FileName, object: &Object, len: u64) {
        self.remove(name);
        let (origin, tags) = (object.origin.clone(), object.tags.clone());
        let entry = Entry { variant: name.variant, bytes: taken(len), date: object.date, origin, tags };
        self.bytes += entry.bytes;
        self.files += 1;
        self.memory += entry.memory();
        let entries = self.keys.get_or_insert_mut(name.key, Vec::new);
        let place = entries.partition_point(|known| known.date <= entry.date);
        entries.insert(place, entry);
    }

    /// The oldest file of a key that has more than an object may have variants.
    pub(super) fn surplus(&self, key: u128) -> Option<FileName> {
        let entries = self.keys.peek(&key).filter(|entries| entries.len() > MOST_VARIANTS)?;
        entries.first().map(|entry| FileName { key, variant: entry.variant })
    }

    /// The files of a key, oldest first. The key becomes the most recently used one.
    pub(super) fn of_use(&mut self, key: u128) -> Vec<FileName> {
        let entries = self.keys.get(&key);
        entries.into_iter().flatten().map(|entry| FileName { key, variant: entry.variant }).collect()
    }

    /// Removes a file. Returns whether it was there.
    pub(super) fn remove(&mut self, name: FileName) -> bool {
        let Some(entries) = self.keys.peek_mut(&name.key) else { return false };
        let Some(place) = entries.iter().position(|entry| entry.variant == name.variant) else { return false };
        let entry = entries.remove(place);
        if entries.is_empty() {
            self.keys.pop(&name.key);
        }
        self.forget(&entry);
        true
    }

    /// Removes the least recently used key, and returns its files.
    pub(super) fn pop_oldest(&mut self) -> Option<(u128, Vec<FileName>)> {
        let (key, entries) = self.keys.pop_lru()?;
        entries.iter().for_each(|entry| self.forget(entry));
        Some((key, entries.iter().map(|entry| FileName { key, variant: entry.variant }).collect()))
    }

    fn forget(&mut self, entry: &Entry) {
        self.bytes -= entry.bytes;
        self.files -= 1;
        self.memory -= entry.memory();
    }

    /// The files that a purge selects.
    pub(super) fn select(&self, selector: &Selector) -> Vec<FileName> {
        let of_key = |(key, entries): (&u128, &Vec<Entry>)| {
            let taken = entries.iter().filter(|entry| selector.selects(&entry.origin, &entry.tags));
            taken.map(|entry| FileName { key: *key, variant: entry.variant }).collect::<Vec<_>>()
        };
        self.keys.iter().flat_map(of_key).collect()
    }
}
