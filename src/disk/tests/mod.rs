//! The tier with real files, in folders of its own.

mod files;
mod newest;

use super::file::{self, Fault};
use super::{Settings, store};
use crate::base::clock::{Clock, Moment};
use crate::cache::fields::Fields;
use crate::cache::fill::{FillEnd, FillSink, FillWaiter};
use crate::cache::freshness::Times;
use crate::cache::live::Wake;
use crate::cache::object::Object;
use crate::cache::options::Options;
use crate::cache::purge::{PurgeMode, Selector};
use crate::cache::request::CacheRequest;
use crate::cache::storability::{CacheResponse, admit};
use crate::cache::store::{InsertError, Store};
use crate::cache::tier::{self, FileName};
use crate::cache::vary::RequestValues;
use crate::wire::body::BodyLength;
use httparse::Header;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime};

const PATIENCE: Duration = Duration::from_secs(20);

/// A folder that is removed when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sluice-disk-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn open(&self, bytes: u64) -> Arc<Store> {
        store(64 << 20, Some(&Settings { path: self.0.clone(), bytes }))
    }

    /// Its files, but for the lock.
    fn files(&self) -> Vec<PathBuf> {
        let folders = fs::read_dir(&self.0).expect("a folder").flatten().map(|entry| entry.path());
        let files =
            folders.filter(|path| path.is_dir()).flat_map(|path| fs::read_dir(path).expect("a folder").flatten());
        files.map(|entry| entry.path()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn request<'a>(host: &'a str, fields: &'a [Header<'a>]) -> CacheRequest<'a> {
    CacheRequest::get(host, "/t", fields)
}

fn object(host: &str, language: &str, body: &[u8]) -> Object {
    let lines = [("Cache-Control", "max-age=600"), ("Vary", "X-Language"), ("Cache-Tag", "red")];
    made(host, language, body, &lines)
}

fn made(host: &str, language: &str, body: &[u8], lines: &[(&str, &str)]) -> Object {
    let asked = [Header { name: "X-Language", value: language.as_bytes() }];
    let lines: Vec<_> = lines.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_788_566_400);
    let response = CacheResponse {
        status: 200,
        phrase: "OK",
        fields: Fields(&lines),
        body: BodyLength::Sized(body.len() as u64),
        times: Times { requested_at: now, received_at: now, received_at_wall: now },
    };
    let options = Options { is_enabled: true, max_object_bytes: 0, ..Options::default() };
    let mut pending = admit(&request(host, &asked), &response, &options).expect("cacheable");
    pending.push(body, Moment::ZERO).expect("room");
    pending.finish().expect("whole")
}

fn put(store: &Store, host: &str, language: &str, body: &[u8]) {
    let options = Options { is_enabled: true, ..Options::default() };
    store.insert(host.as_bytes(), object(host, language, body), store.ticket(), &options).expect("stored");
}

fn settle(store: &Store) {
    assert!(store.settle(PATIENCE), "the thread is through with it");
}

fn wait_until(is_reached: impl Fn() -> bool, what: &str) {
    let clock = Clock::new();
    while !is_reached() {
        assert!(clock.now() < Moment::ZERO + PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

fn found(store: &Store, host: &str, language: &str) -> Option<Vec<u8>> {
    let asked = [Header { name: "X-Language", value: language.as_bytes() }];
    let object = store.get(host.as_bytes(), &mut RequestValues::of(Fields(&asked))).object?;
    Some(object.body.slices(0..object.body.len()).flatten().copied().collect())
}

#[derive(Debug)]
struct Mail(Sender<FillEnd>);

impl Wake for Mail {
    fn wake(&self, _: u64) {}
}

impl FillSink for Mail {
    fn tell(&self, _: u64, end: FillEnd) {
        // A test may have ceased to wait.
        let _ = self.0.send(end);
    }
}

/// The result of a request that asks the disk because memory has no object.
fn load(store: &Store, host: &str, language: &str) -> Option<Vec<u8>> {
    load_within(store, host, 0);
    found(store, host, language)
}

/// Loads all objects of a host, with a quota of this many bytes.
fn load_within(store: &Store, host: &str, max_bytes: u64) {
    if store.tier().expect("a tier").has(host.as_bytes()) {
        let told = order_load(store, host, max_bytes);
        assert!(matches!(told.recv_timeout(PATIENCE), Ok(FillEnd::Loaded)));
    }
}

fn order_load(store: &Store, host: &str, max_bytes: u64) -> Receiver<FillEnd> {
    let (sender, told) = channel();
    let waiter = FillWaiter { sink: Arc::new(Mail(sender)), exchange: 0 };
    assert!(store.tier().expect("a tier").load(host.as_bytes().into(), max_bytes, waiter));
    told
}

fn count(store: &Store, name: &str) -> u64 {
    let counts = &store.tier().expect("a tier").counts;
    let all = [
        ("bytes", &counts.bytes),
        ("files", &counts.files),
        ("hits", &counts.hits),
        ("written", &counts.written),
        ("evicted", &counts.evicted),
        ("corrupt", &counts.corrupt),
        ("failed", &counts.failed),
        ("skipped", &counts.skipped),
    ];
    all.iter().find(|(known, _)| *known == name).expect("a count").1.load(SeqCst)
}

/// Ends the thread, as at an upgrade, and starts it again in the same folder.
fn restart(folder: &Folder, old: &Store, bytes: u64) -> Arc<Store> {
    old.tier().expect("a tier").end();
    let new = folder.open(bytes);
    settle(&new);
    new
}

#[test]
fn objects_are_there_after_a_restart() {
    let folder = Folder::new("restart");
    let old = folder.open(64 << 20);
    let large: Vec<u8> = (0..300_000_u32).map(|number| number as u8).collect();
    put(&old, "a", "en", &large);
    put(&old, "a", "de", b"hallo");
    put(&old, "b", "en", b"");
    settle(&old);
    assert_eq!((count(&old, "written"), count(&old, "files")), (3, 3));
    let new = restart(&folder, &old, 64 << 20);
    assert_eq!((found(&new, "a", "en"), count(&new, "files")), (None, 3), "what is not asked for stays on the disk");
    assert_eq!(load(&new, "a", "en"), Some(large));
    assert_eq!(found(&new, "a", "de").as_deref(), Some(&b"hallo"[..]), "all variants come at once");
    assert_eq!(load(&new, "b", "en").as_deref(), Some(&b""[..]));
    assert_eq!(load(&new, "c", "en"), None);
    assert_eq!((count(&new, "hits"), count(&new, "corrupt")), (3, 0));
    settle(&new);
    assert_eq!(count(&new, "written"), 0, "what comes from the disk is not written to it");
}

/// Every removal of an object removes its file before the caller continues, and the object is absent after a restart.
#[test]
fn purges_reach_the_disk() {
    type Purge = fn(&Store) -> usize;
    let table: [(&str, Purge); 6] = [
        ("key", |store| store.invalidate(b"a").into()),
        ("stale", |store| store.make_stale(b"a").into()),
        ("host", |store| store.purge(&Selector::Host(b"a"[..].into()), PurgeMode::Soft)),
        ("tag", |store| store.purge(&Selector::Tag { frontend: None, tag: b"red"[..].into() }, PurgeMode::Hard)),
        ("frontend", |store| store.purge(&Selector::Frontend("f".into()), PurgeMode::Soft)),
        ("all", |store| store.purge(&Selector::All, PurgeMode::Hard)),
    ];
    for (name, purge) in table {
        let folder = Folder::new(&format!("purge-{name}"));
        let old = folder.open(64 << 20);
        put(&old, "a", "en", b"x");
        put(&old, "b", "en", b"y");
        assert!(purge(&old) > 0, "{name}");
        settle(&old);
        let only_a = matches!(name, "key" | "stale" | "host");
        let rest = if only_a { 1 } else { 0 };
        assert_eq!((folder.files().len(), count(&old, "files")), (rest, rest as u64), "{name}");
        let new = restart(&folder, &old, 64 << 20);
        assert_eq!(load(&new, "a", "en"), None, "{name}");
        assert_eq!(load(&new, "b", "en").is_some(), only_a, "{name}");
        // Objects that are only on the disk are purged too, and one that is being loaded meanwhile does not come back.
        purge_unloaded(&folder, &new, purge, name);
    }
}

fn purge_unloaded(folder: &Folder, store: &Store, purge: fn(&Store) -> usize, name: &str) {
    put(store, "a", "en", b"x");
    settle(store);
    let new = restart(folder, store, 64 << 20);
    assert_eq!(purge(&new), 0, "{name}: memory has nothing");
    assert_eq!(load(&new, "a", "en"), None, "{name}");
    settle(&new);
    assert!(folder.files().iter().all(|path| !path.to_string_lossy().contains(&format!("{:032x}", tier::hash(b"a")))));
}

#[test]
fn a_folder_belongs_to_one_process_and_purges_wait_for_it() {
    let folder = Folder::new("lock");
    let old = folder.open(64 << 20);
    put(&old, "a", "en", b"x");
    put(&old, "b", "en", b"y");
    settle(&old);
    let new = folder.open(64 << 20);
    assert!(!new.settle(Duration::from_millis(300)), "the folder is another's yet");
    assert_eq!(load(&new, "b", "en"), None);
    new.invalidate(b"a");
    old.tier().expect("a tier").end();
    settle(&new);
    assert_eq!((load(&new, "a", "en"), load(&new, "b", "en").as_deref()), (None, Some(&b"y"[..])));
    assert!(old.settle(PATIENCE), "no wait for a thread that has ended");
}

#[test]
fn a_file_that_was_changed_is_dropped_and_counted() {
    let folder = Folder::new("corrupt");
    let old = folder.open(64 << 20);
    for host in ["a", "b", "c", "d"] {
        put(&old, host, "en", b"0123456789");
    }
    settle(&old);
    let path_of = |host: &str| {
        let name = format!("{:032x}", tier::hash(host.as_bytes()));
        folder.files().into_iter().find(|path| path.to_string_lossy().contains(&name)).expect("its file")
    };
    let edit = |host: &str, edit: &dyn Fn(&mut Vec<u8>)| {
        let path = path_of(host);
        let mut bytes = fs::read(&path).expect("a file");
        edit(&mut bytes);
        fs::write(&path, bytes).expect("a file");
    };
    edit("a", &|bytes| *bytes.last_mut().expect("bytes") ^= 1);
    edit("b", &|bytes| bytes.truncate(bytes.len() - 1));
    edit("c", &|bytes| bytes.push(0));
    let new = restart(&folder, &old, 64 << 20);
    assert_eq!(["a", "b", "c", "d"].map(|host| load(&new, host, "en").is_some()), [false, false, false, true]);
    assert_eq!((count(&new, "corrupt"), folder.files().len()), (3, 1));
    assert!(!new.tier().expect("a tier").has(b"a"));
}

/// Faulty files never give an object other than the written one.
#[test]
fn no_byte_of_a_file_can_be_changed_unnoticed() {
    let folder = Folder::new("bytes");
    let (key, object) = (b"a", object("a", "en", b"0123456789"));
    let name = FileName::of(key, &object);
    file::write(&folder.0, name, key, &object).expect("written").expect("a form as a file");
    let path = name.path(&folder.0);
    let whole = fs::read(&path).expect("a file");
    let store = Store::new(64 << 20);
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).expect("a file");
        file::read(&path, key, &store)
    };
    assert_eq!(read(&whole).expect("an object").body.len(), 10);
    for place in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x55;
        assert!(matches!(read(&bytes), Err(Fault::Corrupt | Fault::NoRoom)), "byte {place}");
        assert!(matches!(read(&whole[..place]), Err(Fault::Corrupt)), "the first {place} bytes");
    }
    assert!(matches!(file::read(&path, b"another", &store), Err(Fault::Corrupt)));
    assert!(matches!(file::read(Path::new("/nowhere"), key, &store), Err(Fault::Io(_))));
}

#[test]
fn what_is_not_ours_is_left_alone_and_what_is_unfinished_goes() {
    let folder = Folder::new("foreign");
    let old = folder.open(64 << 20);
    put(&old, "a", "en", b"x");
    settle(&old);
    let ours = folder.files().pop().expect("a file");
    let beside = ours.parent().expect("its folder");
    let unfinished = ours.with_extension("tmp");
    let foreign = [folder.0.join("notes.txt"), beside.join("notes.txt"), beside.join("deadbeef-1")];
    fs::write(&unfinished, "half").expect("a file");
    foreign.iter().for_each(|path| fs::write(path, "foreign").expect("a file"));
    let new = restart(&folder, &old, 64 << 20);
    new.purge(&Selector::All, PurgeMode::Hard);
    settle(&new);
    assert!(!unfinished.exists() && !ours.exists());
    assert!(foreign.iter().all(|path| fs::read(path).expect("still there") == b"foreign"));
}

#[test]
fn the_folder_keeps_to_its_size_and_the_oldest_go_first() {
    let folder = Folder::new("size");
    let store = folder.open(1 << 20);
    for number in 0..100 {
        put(&store, &format!("h{number}"), "en", &[0; 20_000]);
        // It is used all the time.
        settle(&store);
        load(&store, "h0", "en");
        assert!(count(&store, "bytes") <= 1 << 20);
    }
    settle(&store);
    // A file of 20,000 bytes and its head takes five blocks.
    let most = (1 << 20) / (5 * 4096);
    assert_eq!((count(&store, "files"), count(&store, "evicted")), (most, 100 - most));
    let tier = store.tier().expect("a tier");
    assert!(tier.has(b"h0") && tier.has(b"h99") && !tier.has(b"h1"));
    let on_disk: u64 = folder.files().iter().map(|path| fs::metadata(path).expect("a file").len()).sum();
    assert!(folder.files().len() as u64 == most && on_disk <= 1 << 20);
    // After a restart with less room some are evicted.
    let smaller = restart(&folder, &store, 100_000);
    assert_eq!((count(&smaller, "files"), folder.files().len()), (4, 4));
}

#[test]
fn a_key_has_as_many_files_as_variants_in_memory() {
    let folder = Folder::new("variants");
    let store = folder.open(64 << 20);
    put(&store, "other", "en", b"other");
    (0..100).for_each(|number| put(&store, "h", &format!("l{number}"), b"text"));
    settle(&store);
    assert_eq!((count(&store, "files"), folder.files().len()), (33, 33));
    let new = restart(&folder, &store, 64 << 20);
    assert_eq!(load(&new, "h", "l99").as_deref(), Some(&b"text"[..]), "the newest");
    assert_eq!(load(&new, "h", "l0"), None, "the oldest");
    assert!(load(&new, "other", "en").is_some(), "another key is not evicted");
}

#[test]
fn what_an_earlier_load_brought_is_not_read_again() {
    let folder = Folder::new("together");
    let old = folder.open(64 << 20);
    put(&old, "a", "en", b"text");
    settle(&old);
    let new = restart(&folder, &old, 64 << 20);
    assert!(load(&new, "a", "en").is_some());
    // Read again it would be found out.
    fs::write(&folder.files()[0], b"other").expect("a file");
    assert_eq!(load(&new, "a", "en").as_deref(), Some(&b"text"[..]));
    assert_eq!((count(&new, "hits"), count(&new, "corrupt")), (1, 0));
}

/// A disk that refuses files: objects are served from memory, and the failure is logged once.
#[test]
fn a_disk_that_refuses_a_file_is_left_alone() {
    let folder = Folder::new("full");
    let store = folder.open(64 << 20);
    put(&store, "a", "en", b"x");
    settle(&store);
    let first = tier::hash(b"b") >> 120;
    assert_ne!(first, tier::hash(b"a") >> 120);
    // There is no folder at the place of the file.
    fs::write(folder.0.join(format!("{first:02x}")), "in the way").expect("a file");
    put(&store, "b", "en", b"y");
    put(&store, "c", "en", b"z");
    settle(&store);
    assert_eq!((count(&store, "failed"), count(&store, "written")), (1, 1));
    assert_eq!(["a", "b", "c"].map(|host| found(&store, host, "en").is_some()), [true; 3]);
    // Purges are still applied.
    store.purge(&Selector::All, PurgeMode::Hard);
    settle(&store);
    assert_eq!(folder.files().len(), 0);
    let nowhere = super::store(64 << 20, Some(&Settings { path: "/dev/null/x".into(), bytes: 1 << 20 }));
    put(&nowhere, "a", "en", b"x");
    settle(&nowhere);
    assert_eq!((count(&nowhere, "failed"), load(&nowhere, "a", "en").is_some()), (1, true));
}
