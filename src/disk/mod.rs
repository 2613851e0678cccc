//! The disk tier of the object cache: a thread writes stored objects to files, and reads them for requests without an
//! object in memory, in this process and in the next one. Cores never wait for it: they use it through
//! [`crate::cache::tier`].
//!
//! One process owns a folder at a time. At an upgrade the new process waits until the old one has completed its writes.
//!
//! * [`mod@file`] – an object as a file, with its checksum.
//! * [`index`] – the index of the files, their order of use, and their selection by purges. Pure.
//! * [`waiting`] – orders until the folder belongs to this process and was read.
//! * [`disk_thread`] – the thread.

mod disk_thread;
mod file;
mod index;
#[cfg(test)]
mod tests;
mod waiting;

use crate::cache::store::Store;
use crate::cache::tier::Tier;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

/// Settings of the disk tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The folder (`server.cacheDisk.path`). Files in it that do not belong to the cache are not touched.
    pub path: PathBuf,
    /// The disk space of its files, in bytes, each rounded up to 4 KiB (`server.cacheDisk.bytes`).
    pub bytes: u64,
}

/// A store of this many bytes of memory, with a disk tier if there are settings of one.
pub fn store(bytes: u64, settings: Option<&Settings>) -> Arc<Store> {
    let Some(settings) = settings.cloned() else { return Arc::new(Store::new(bytes)) };
    let (tier, orders) = Tier::new();
    let store = Arc::new(Store::with_tier(bytes, Some(Arc::clone(&tier))));
    let path = settings.path.clone();
    let run = {
        let store = Arc::clone(&store);
        move || disk_thread::run(&settings, &store, &tier, &orders)
    };
    if let Err(error) = thread::Builder::new().name("cache-disk".into()).spawn(run) {
        log::error!(
            "server.cacheDisk: starting a thread for {}: {error}; objects stay in memory alone",
            path.display()
        );
    }
    store
}
