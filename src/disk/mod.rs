//! The disk tier of the object cache: a thread of its own writes what is stored to files, and reads them for requests that find
//! nothing in memory, in this process and in the next one. Cores never wait for it: they speak to it by [`crate::cache::tier`].
//!
//! One process has a folder at a time. At an upgrade the new process waits for the old one to be through with it.
//!
//! * [`file`] – an object as a file, with its checksum.
//! * [`index`] – which files there are, which one was of use last, and which ones a purge takes. Pure.
//! * [`disk_thread`] – the thread.

mod disk_thread;
mod file;
mod index;
#[cfg(test)]
mod tests;

use crate::cache::store::Store;
use crate::cache::tier::Tier;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

/// Settings of the disk tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The folder (`server.cacheDisk.path`). Files in it that are not of the cache are left alone.
    pub path: PathBuf,
    /// The bytes that its files may take, each rounded up to 4 KiB (`server.cacheDisk.bytes`).
    pub bytes: u64,
}

/// A store of this many bytes of memory, with a disk tier behind it where there are settings of one.
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
