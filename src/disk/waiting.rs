//! Orders that wait until the folder belongs to this process and was read.
//!
//! Changes that are not applied yet are marked by a file in the folder: if this process ends before it has applied them,
//! the next owner drops all files.

use crate::base::hash::HashSet;
use crate::cache::object::Object;
use crate::cache::portable::Change;
use crate::cache::purge::{PurgeMode, Selector};
use crate::cache::tier::{FileName, Order, Settling, Tier};
use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

/// The greatest number of changes that are kept. Beyond it, nothing in the folder is kept.
const MOST_REMEMBERED: usize = 4096;

/// The greatest number of objects stored meanwhile whose predecessors may be in the folder. Beyond it, nothing in the folder is
/// kept.
const MOST_SUPERSEDED: usize = 100_000;

/// The beginning of the name of a mark.
const MARK: &str = "sluice-cache.unapplied-";

#[derive(Debug)]
pub(super) struct Waiting {
    changes: Vec<Change>,
    /// The names of objects that were stored meanwhile. They are not written.
    superseded: HashSet<FileName>,
    settling: Vec<Settling>,
    /// The epoch of the last order.
    pub(super) epoch: u64,
    mark: PathBuf,
    is_marked: bool,
}

impl Waiting {
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            changes: Vec::new(),
            superseded: HashSet::default(),
            settling: Vec::new(),
            epoch: 0,
            mark: folder.join(format!("{MARK}{:016x}", fastrand::u64(..))),
            is_marked: false,
        }
    }

    /// Keeps a change for the files that are still to be read.
    pub(super) fn remember(&mut self, change: Change) {
        self.set_mark();
        if self.changes.len() == MOST_REMEMBERED {
            self.changes = vec![Change::Purge(Selector::All, PurgeMode::Hard)];
        }
        self.changes.push(change);
    }

    fn supersede(&mut self, name: FileName) {
        self.set_mark();
        if self.superseded.len() >= MOST_SUPERSEDED {
            self.superseded.clear();
            self.remember(Change::Purge(Selector::All, PurgeMode::Hard));
        }
        self.superseded.insert(name);
    }

    /// Performs an order as far as that is possible without the folder. Returns whether the folder is still wanted.
    pub(super) fn perform(&mut self, order: Order, tier: &Tier) -> bool {
        tier.taken(&order);
        match order {
            Order::Load { settling, .. } => drop(settling),
            Order::Keep { epoch, key, object, .. } => {
                tier.counts.skipped.fetch_add(1, Relaxed);
                self.supersede(FileName::of(&key, &object));
                self.epoch = epoch;
            }
            Order::Forget(epoch, name) => {
                self.supersede(name);
                self.epoch = epoch;
            }
            Order::Change(epoch, change) => {
                self.remember(change);
                self.epoch = epoch;
            }
            Order::Settle(settling) => self.settle(settling),
            Order::End => return false,
        }
        true
    }

    pub(super) fn settle(&mut self, settling: Settling) {
        self.settling.push(settling);
    }

    /// The files to be removed before the folder is read.
    pub(super) fn take_superseded(&mut self) -> impl Iterator<Item = FileName> + use<> {
        std::mem::take(&mut self.superseded).into_iter()
    }

    /// Whether a change removes a file with this object.
    pub(super) fn takes(&self, key: &[u8], object: &Object) -> bool {
        self.changes.iter().any(|change| match change {
            Change::Drop(dropped) | Change::Stale(dropped) => **dropped == *key,
            Change::Purge(selector, _) => selector.has(object),
        })
    }

    /// All files were read, and all changes applied. Returns the waiters.
    pub(super) fn end(self) -> Vec<Settling> {
        if self.is_marked {
            // A mark that stays only costs the files of the next process.
            let _ = fs::remove_file(&self.mark);
        }
        self.settling
    }

    pub(super) fn is_own(&self, mark: &Path) -> bool {
        *mark == *self.mark
    }

    fn set_mark(&mut self) {
        if !std::mem::replace(&mut self.is_marked, true) {
            let made = File::options().write(true).create_new(true).mode(0o600).open(&self.mark);
            if let Err(error) = made {
                log::warn!(
                    "server.cacheDisk: making {}: {error}; a purge may be lost if this process ends at once",
                    self.mark.display()
                );
            }
        }
    }
}

/// The marks in a folder.
pub(super) fn marks(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_mark = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(MARK.as_bytes());
    entries.filter(|entry| is_mark(&entry.file_name())).map(|entry| entry.path()).collect()
}
