//! The thread of the disk tier. No other thread touches the files.

use super::Settings;
use super::file::{self, Fault};
use super::index::Index;
use super::waiting::{self, Waiting};
use crate::base::hash::HashSet;
use crate::cache::object::Object;
use crate::cache::portable::Change;
use crate::cache::purge::{PurgeMode, Selector, Ticket};
use crate::cache::store::{InsertError, Store};
use crate::cache::tier::{self, FileName, Order, Settling, Tier};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Memory limit of the index, in bytes: beyond it the least recently used files are removed.
const INDEX_BYTES: usize = 64 << 20;

/// The interval in which a folder of another process is checked.
const RETRY: Duration = Duration::from_millis(50);

/// The file whose lock marks the owner of the folder.
const LOCK: &str = "sluice-cache.lock";

/// Serves the tier until another process takes over.
pub(super) fn run(settings: &Settings, store: &Store, tier: &Tier, orders: &Receiver<Order>) {
    let mut waiting = Waiting::new(&settings.path);
    let lock = match open(settings, tier, orders, &mut waiting) {
        Ok(Some(lock)) => lock,
        Ok(None) => return,
        Err(error) => {
            tier.counts.failed.store(1, Relaxed);
            log::error!(
                "server.cacheDisk: {}: {error}; objects are kept in memory alone until the next start",
                settings.path.display()
            );
            tier.set_read();
            drop(waiting);
            return idle(tier, orders);
        }
    };
    let mut thread = DiskThread {
        settings,
        store,
        tier,
        index: Index::default(),
        epoch: waiting.epoch.max(1),
        leftovers: HashSet::default(),
        waiting: None,
    };
    waiting.take_superseded().for_each(|name| thread.unlink(name));
    // Another process had changes for the folder that it has not applied.
    let marks = waiting::marks(&settings.path);
    if marks.iter().any(|mark| !waiting.is_own(mark)) {
        log::warn!("server.cacheDisk: purges of an earlier process were not applied; all files are dropped");
        waiting.remember(Change::Purge(Selector::All, PurgeMode::Hard));
    }
    thread.waiting = Some(waiting);
    if thread.scan(orders) {
        marks.iter().for_each(|mark| drop(fs::remove_file(mark)));
        thread.work(orders);
    }
    drop(lock);
}

/// Takes the folder as soon as no other process owns it. `None` if it is no longer wanted.
fn open(
    settings: &Settings,
    tier: &Tier,
    orders: &Receiver<Order>,
    waiting: &mut Waiting,
) -> io::Result<Option<Flock<File>>> {
    file::create_folder(&settings.path)?;
    let mut file = file::open_lock(&settings.path.join(LOCK))?;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err((file, nix::errno::Errno::EWOULDBLOCK)) => file,
            Err((_, error)) => return Err(error.into()),
        };
        match orders.recv_timeout(RETRY) {
            Ok(order) => {
                if !waiting.perform(order, tier) {
                    return Ok(None);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}

/// There is no disk: orders are dropped, which notifies their waiters.
fn idle(tier: &Tier, orders: &Receiver<Order>) {
    for order in orders {
        tier.taken(&order);
        if matches!(order, Order::End) {
            return;
        }
    }
}

struct DiskThread<'a> {
    settings: &'a Settings,
    store: &'a Store,
    tier: &'a Tier,
    index: Index,
    /// The epoch of the last performed order. Objects that were stored or removed later are newer than any file.
    epoch: u64,
    /// Removed objects whose files could not be removed.
    leftovers: HashSet<FileName>,
    /// The folder was not read yet.
    waiting: Option<Waiting>,
}

impl DiskThread<'_> {
    /// Performs the orders.
    fn work(&mut self, orders: &Receiver<Order>) {
        for order in orders {
            if !self.perform(order) {
                return;
            }
        }
    }

    /// Performs one order. Returns whether more may follow.
    fn perform(&mut self, order: Order) -> bool {
        self.tier.taken(&order);
        if self.tier.take_lost() {
            log::warn!("server.cacheDisk: more was changed than could be followed; all files are dropped");
            let epoch = self.store.ticket().epoch();
            self.change(Change::Purge(Selector::All, PurgeMode::Hard));
            self.epoch = epoch;
        }
        match order {
            Order::Keep { epoch, key, object, ticket } => {
                self.keep(&key, &object, ticket);
                self.epoch = self.epoch.max(epoch);
            }
            Order::Forget(epoch, name) => {
                self.forget(name);
                self.epoch = self.epoch.max(epoch);
            }
            Order::Load { key, max_bytes, settling } => self.load(&key, max_bytes, settling),
            Order::Change(epoch, change) => {
                self.change(change);
                self.epoch = self.epoch.max(epoch);
            }
            Order::Settle(settling) => self.settle(settling),
            Order::End => return false,
        }
        self.count();
        true
    }

    /// Notifies a waiter, once the folder was read. Files that could not be removed are tried again first.
    fn settle(&mut self, settling: Settling) {
        match &mut self.waiting {
            Some(waiting) => waiting.settle(settling),
            None => {
                std::mem::take(&mut self.leftovers).into_iter().for_each(|name| self.unlink(name));
                self.count();
                drop(settling);
            }
        }
    }

    fn count(&self) {
        self.tier.counts.bytes.store(self.index.bytes(), Relaxed);
        self.tier.counts.files.store(self.index.files(), Relaxed);
        self.tier.counts.leftovers.store(self.leftovers.len() as u64, Relaxed);
    }

    fn keep(&mut self, key: &Arc<[u8]>, object: &Arc<Object>, ticket: Ticket) {
        let name = FileName::of(key, object);
        let has_failed = self.tier.counts.failed.load(Relaxed) > 0;
        // An object that was purged while it waited is not written.
        if has_failed || object.size() > self.settings.bytes / 4 || self.store.is_outdated(key, object, ticket) {
            return self.forget(name);
        }
        match file::write(&self.settings.path, name, key, object) {
            Ok(Some(len)) => {
                self.leftovers.remove(&name);
                self.insert(name, object, len);
                self.tier.set_known(name.key, true);
                self.tier.counts.written.fetch_add(1, Relaxed);
                self.make_room();
            }
            Ok(None) => self.forget(name),
            Err(error) => {
                self.tier.counts.failed.store(1, Relaxed);
                self.forget(name);
                log::error!(
                    "server.cacheDisk: writing to {}: {error}; nothing more is written until the next start",
                    self.settings.path.display()
                );
            }
        }
    }

    /// An object is not written: the file of an older one would be served in its place.
    fn forget(&mut self, name: FileName) {
        if self.waiting.is_some() || self.index.has_file(name) {
            self.remove(name);
        }
    }

    /// Records a file. A key has as many variants as in memory: a further one replaces the oldest.
    fn insert(&mut self, name: FileName, object: &Object, len: u64) {
        self.index.insert(name, object, len);
        while let Some(oldest) = self.index.surplus(name.key) {
            self.remove(oldest);
            self.tier.counts.evicted.fetch_add(1, Relaxed);
        }
    }

    fn make_room(&mut self) {
        while self.index.bytes() > self.settings.bytes || self.index.memory() > INDEX_BYTES {
            let Some((key, files)) = self.index.pop_oldest() else { return };
            self.tier.set_known(key, false);
            self.tier.counts.evicted.fetch_add(files.len() as u64, Relaxed);
            for path in files.iter().map(|name| name.path(&self.settings.path)) {
                if let Err(error) = file::remove(&path) {
                    log::error!("server.cacheDisk: removing {}: {error}; please remove it", path.display());
                }
            }
        }
    }

    /// Puts the objects of a key into the store, the newest one last.
    fn load(&mut self, key: &Arc<[u8]>, max_bytes: u64, settling: Settling) {
        for name in self.index.of_use(tier::hash(key)) {
            // Requests for one key may wait together: an object that an earlier load has brought is not read again.
            if self.store.has(key, |object| FileName::of(key, object) == name) {
                continue;
            }
            let loaded = file::read(&name.path(&self.settings.path), key, self.store).and_then(|object| {
                match self.store.load(key, object, Ticket::at(self.epoch), max_bytes) {
                    Ok(_) => Ok(true),
                    Err(refused) if refused.reason == InsertError::TooLarge => Err(Fault::TooLarge),
                    Err(_) => Ok(false),
                }
            });
            let path = || name.path(&self.settings.path);
            match loaded {
                Ok(is_there) => drop(self.tier.counts.hits.fetch_add(u64::from(is_there), Relaxed)),
                Err(Fault::NoRoom) => {}
                Err(Fault::TooLarge) => {
                    self.tier.counts.evicted.fetch_add(1, Relaxed);
                    self.remove(name);
                }
                Err(Fault::Corrupt) => {
                    self.tier.counts.corrupt.fetch_add(1, Relaxed);
                    log::warn!("server.cacheDisk: {}: it is not what was written; removed", path().display());
                    self.remove(name);
                }
                Err(Fault::Io(error)) => {
                    log::warn!("server.cacheDisk: reading {}: {error}", path().display());
                    self.remove(name);
                }
            }
        }
        drop(settling);
    }

    /// Removes objects that were removed in memory. A soft purge removes files too: stale objects are kept in memory
    /// only.
    fn change(&mut self, change: Change) {
        let files = match &change {
            Change::Drop(key) | Change::Stale(key) => self.index.of_use(tier::hash(key)),
            Change::Purge(selector, _) => self.index.select(selector),
        };
        files.into_iter().for_each(|name| self.remove(name));
        if let Some(waiting) = &mut self.waiting {
            waiting.remember(change);
        }
    }

    fn remove(&mut self, name: FileName) {
        self.index.remove(name);
        self.tier.set_known(name.key, self.index.has(name.key));
        self.unlink(name);
    }

    /// Removes the file of a removed object. One that stays is tried again, and reported to all who purge.
    fn unlink(&mut self, name: FileName) {
        let path = name.path(&self.settings.path);
        if let Err(error) = file::remove(&path) {
            log::error!(
                "server.cacheDisk: removing {}: {error}; please remove it: the next process would serve it",
                path.display()
            );
            self.leftovers.insert(name);
        }
    }

    /// Reads the names and heads of all files, and performs orders meanwhile. Returns whether more orders may follow.
    fn scan(&mut self, orders: &Receiver<Order>) -> bool {
        for number in 0..=u8::MAX {
            let folder = self.settings.path.join(format!("{number:02x}"));
            for path in file::paths_in(&folder) {
                while let Ok(order) = orders.try_recv() {
                    if !self.perform(order) {
                        return false;
                    }
                }
                self.scan_file(&path);
            }
        }
        self.tier.set_read();
        let settling = self.waiting.take().map(Waiting::end);
        settling.into_iter().flatten().for_each(|settling| self.settle(settling));
        self.count();
        log::info!(
            "server.cacheDisk: {} files of {} bytes in {}",
            self.index.files(),
            self.index.bytes(),
            self.settings.path.display()
        );
        true
    }

    /// Adds a file, if it belongs to the cache and its object was not removed meanwhile.
    fn scan_file(&mut self, path: &Path) {
        let name = path.file_name().and_then(|name| FileName::parse(name.to_str()?));
        let Some((name, is_unfinished)) = name.filter(|(name, is_unfinished)| {
            // A file in another folder does not belong to the cache.
            *is_unfinished || name.path(&self.settings.path) == path
        }) else {
            return;
        };
        if is_unfinished {
            let _ = fs::remove_file(path);
            return;
        }
        // A file that was written meanwhile is in the index.
        if self.index.has_file(name) || self.leftovers.contains(&name) {
            return;
        }
        let is_taken_away =
            |key: &[u8], object| self.waiting.as_ref().is_some_and(|waiting| waiting.takes(key, object));
        match file::read_head(path) {
            // A file under the name of another object.
            Ok((object, _)) if FileName::of(&object.key, object.head()) != name => {
                self.tier.counts.corrupt.fetch_add(1, Relaxed);
                self.unlink(name);
            }
            Ok((object, len)) if !is_taken_away(&object.key, object.head()) => {
                self.insert(name, object.head(), len);
                self.tier.set_known(name.key, true);
                self.make_room();
            }
            Ok(_) => self.unlink(name),
            Err(Fault::Corrupt | Fault::NoRoom | Fault::TooLarge) => {
                self.tier.counts.corrupt.fetch_add(1, Relaxed);
                self.unlink(name);
            }
            Err(Fault::Io(error)) => log::warn!("server.cacheDisk: reading {}: {error}", path.display()),
        }
    }
}
