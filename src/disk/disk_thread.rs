//! The thread of the disk tier. No other thread touches the files.

use super::Settings;
use super::file::{self, Fault, FileName};
use super::index::Index;
use crate::cache::object::Object;
use crate::cache::portable::Change;
use crate::cache::purge::{PurgeMode, Selector, Ticket};
use crate::cache::store::Store;
use crate::cache::tier::{self, Order, Settling, Tier};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Memory limit of the index, in bytes: beyond it the least recently used files are removed.
const INDEX_BYTES: usize = 64 << 20;

/// The interval in which a folder of another process is checked.
const RETRY: Duration = Duration::from_millis(50);

/// The greatest number of changes that are stored until the folder belongs to this process and was read. Beyond it,
/// nothing in the folder is kept.
const MOST_REMEMBERED: usize = 4096;

/// The file whose lock marks the owner of the folder.
const LOCK: &str = "sluice-cache.lock";

/// Serves the tier until another process takes over.
pub(super) fn run(settings: &Settings, store: &Store, tier: &Tier, orders: &Receiver<Order>) {
    let mut waiting = Waiting::default();
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
        waiting: Some(waiting),
    };
    if thread.scan(orders) {
        thread.work(orders);
    }
    drop(lock);
}

/// Orders that wait until the folder belongs to this process and was read.
#[derive(Default)]
struct Waiting {
    changes: Vec<Change>,
    settling: Vec<Settling>,
    /// The epoch of the last change.
    epoch: u64,
}

impl Waiting {
    fn remember(&mut self, change: Change) {
        if self.changes.len() == MOST_REMEMBERED {
            self.changes = vec![Change::Purge(Selector::All, PurgeMode::Hard)];
        }
        self.changes.push(change);
    }

    fn takes(&self, key: &[u8], object: &Object) -> bool {
        self.changes.iter().any(|change| match change {
            Change::Drop(dropped) | Change::Stale(dropped) => **dropped == *key,
            Change::Purge(selector, _) => selector.has(object),
        })
    }
}

/// Takes the folder as soon as no other process owns it. `None` if it is no longer wanted.
fn open(
    settings: &Settings,
    tier: &Tier,
    orders: &Receiver<Order>,
    waiting: &mut Waiting,
) -> io::Result<Option<Flock<File>>> {
    fs::create_dir_all(&settings.path)?;
    let mut file = File::options().create(true).truncate(false).write(true).open(settings.path.join(LOCK))?;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err((file, nix::errno::Errno::EWOULDBLOCK)) => file,
            Err((_, error)) => return Err(error.into()),
        };
        match orders.recv_timeout(RETRY) {
            Ok(order) => {
                tier.taken(&order);
                match order {
                    Order::Load { settling, .. } => drop(settling),
                    Order::Keep { .. } => drop(tier.counts.skipped.fetch_add(1, Relaxed)),
                    Order::Change(epoch, change) => {
                        waiting.remember(change);
                        waiting.epoch = epoch;
                    }
                    Order::Settle(settling) => waiting.settling.push(settling),
                    Order::End => return Ok(None),
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
    /// The epoch of the last applied change. Objects that were removed later are in no file that is read.
    epoch: u64,
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
            Order::Keep { key, object, ticket } => self.keep(&key, &object, ticket),
            Order::Load { key, settling } => self.load(&key, settling),
            Order::Change(epoch, change) => {
                self.change(change);
                self.epoch = self.epoch.max(epoch);
            }
            Order::Settle(settling) => match &mut self.waiting {
                Some(waiting) => waiting.settling.push(settling),
                None => drop(settling),
            },
            Order::End => return false,
        }
        self.count();
        true
    }

    fn count(&self) {
        self.tier.counts.bytes.store(self.index.bytes(), Relaxed);
        self.tier.counts.files.store(self.index.files(), Relaxed);
    }

    fn keep(&mut self, key: &Arc<[u8]>, object: &Arc<Object>, ticket: Ticket) {
        let has_failed = self.tier.counts.failed.load(Relaxed) > 0;
        // An object that was purged while it waited is not written.
        if has_failed || object.size() > self.settings.bytes / 4 || self.store.is_outdated(key, object, ticket) {
            return;
        }
        let name = FileName::of(tier::hash(key), object);
        match file::write(&self.settings.path, name, key, object) {
            Ok(Some(len)) => {
                self.insert(name, object, len);
                self.tier.set_known(name.key, true);
                self.tier.counts.written.fetch_add(1, Relaxed);
                self.make_room();
            }
            Ok(None) => {}
            Err(error) => {
                self.tier.counts.failed.store(1, Relaxed);
                // Otherwise the file of an older object would be served in its place.
                self.remove(name);
                log::error!(
                    "server.cacheDisk: writing to {}: {error}; nothing more is written until the next start",
                    self.settings.path.display()
                );
            }
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
            files.iter().for_each(|name| self.unlink(*name));
        }
    }

    /// Puts the objects of a key into the store.
    fn load(&mut self, key: &Arc<[u8]>, settling: Settling) {
        for name in self.index.of_use(tier::hash(key)) {
            // Requests for one key may wait together: what an earlier load brought is not read again.
            if self.store.has(key, |object| FileName::of(name.key, object) == name) {
                continue;
            }
            match file::read(&name.path(&self.settings.path), key, self.store) {
                Ok(object) => {
                    let ticket = Ticket::at(self.epoch);
                    let is_there = self.store.take_over(key, object, ticket).is_ok();
                    self.tier.counts.hits.fetch_add(u64::from(is_there), Relaxed);
                }
                Err(Fault::NoRoom) => {}
                Err(Fault::Corrupt) => {
                    self.tier.counts.corrupt.fetch_add(1, Relaxed);
                    log::warn!(
                        "server.cacheDisk: {}: it is not what was written; removed",
                        name.path(&self.settings.path).display()
                    );
                    self.remove(name);
                }
                Err(Fault::Io(error)) => {
                    log::warn!("server.cacheDisk: reading {}: {error}", name.path(&self.settings.path).display());
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

    fn unlink(&self, name: FileName) {
        let path = name.path(&self.settings.path);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log::error!("server.cacheDisk: removing {}: {error}; please remove it", path.display());
            }
            _ => {}
        }
    }

    /// Reads the names and heads of all files, and performs orders meanwhile. Returns whether more orders may follow.
    fn scan(&mut self, orders: &Receiver<Order>) -> bool {
        for number in 0..=u8::MAX {
            let folder = self.settings.path.join(format!("{number:02x}"));
            for path in files_of(&folder) {
                while let Ok(order) = orders.try_recv() {
                    if !self.perform(order) {
                        return false;
                    }
                }
                self.scan_file(&path);
            }
        }
        self.count();
        self.tier.set_read();
        // Waiters are notified.
        self.waiting = None;
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
        if self.index.of_use(name.key).contains(&name) {
            return;
        }
        let is_taken_away =
            |key: &[u8], object| self.waiting.as_ref().is_some_and(|waiting| waiting.takes(key, object));
        match file::read_head(path) {
            Ok((object, len)) if !is_taken_away(&object.key, object.head()) => {
                self.insert(name, object.head(), len);
                self.tier.set_known(name.key, true);
                self.make_room();
            }
            Ok(_) => self.unlink(name),
            Err(Fault::Corrupt | Fault::NoRoom) => {
                self.tier.counts.corrupt.fetch_add(1, Relaxed);
                self.unlink(name);
            }
            Err(Fault::Io(error)) => log::warn!("server.cacheDisk: reading {}: {error}", path.display()),
        }
    }
}

fn files_of(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}
