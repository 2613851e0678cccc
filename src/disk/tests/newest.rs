//! A file is that of the newest object of its variant, or absent.

use super::*;
use std::collections::HashMap;

/// Objects that are not written leave no file of their predecessors, in this process or a later one.
#[test]
fn an_object_that_is_not_written_removes_the_file_of_its_predecessor() {
    type Replace = fn(&Store);
    let table: [(&str, bool, Replace); 4] = [
        ("the disk has failed", true, |store| {
            store.tier().expect("a tier").counts.failed.store(1, SeqCst);
            put(store, "a", "en", b"new");
        }),
        ("too large for the folder", true, |store| put(store, "a", "en", &[0; 300_000])),
        ("a head too large for a file", true, |store| {
            let text = "x".repeat(5 << 20);
            let lines = [("Cache-Control", "max-age=600"), ("Vary", "X-Language"), ("X-Long", &*text)];
            insert(store, "a", made("a", "en", b"new", &lines));
        }),
        // What it contradicts is stale, with all variants.
        ("a part", false, put_part),
    ];
    for (name, others_stay, replace) in table {
        let folder = Folder::new("replaced");
        let old = folder.open(1 << 20);
        put(&old, "a", "en", b"old");
        put(&old, "a", "de", b"alt");
        put(&old, "b", "en", b"other");
        settle(&old);
        replace(&old);
        settle(&old);
        assert_eq!(folder.files().len(), 1 + usize::from(others_stay), "{name}");
        let new = restart(&folder, &old, 1 << 20);
        let found =
            [("a", "en"), ("a", "de"), ("b", "en")].map(|(host, language)| load(&new, host, language).is_some());
        assert_eq!(found, [false, others_stay, true], "{name}");
        // The same for one that is on the disk alone.
        replace(&new);
        settle(&new);
        let newest = restart(&folder, &new, 1 << 20);
        assert_eq!(load(&newest, "a", "en"), None, "{name}");
    }
}

fn insert(store: &Store, host: &str, object: Object) {
    let options = Options { is_enabled: true, ..Options::default() };
    store.insert(host.as_bytes(), object, store.ticket(), &options).expect("stored");
}

/// Stores the first four of ten bytes.
fn put_part(store: &Store) {
    let asked = [Header { name: "X-Language", value: b"en" }, Header { name: "Range", value: b"bytes=0-3" }];
    let lines = [
        ("Cache-Control", "max-age=600"),
        ("Vary", "X-Language"),
        ("ETag", "\"new\""),
        ("Content-Range", "bytes 0-3/10"),
    ];
    let lines = lines.map(|(name, value)| Header { name, value: value.as_bytes() });
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_788_566_400);
    let response = CacheResponse {
        status: 206,
        phrase: "Partial Content",
        fields: Fields(&lines),
        body: BodyLength::Sized(4),
        times: Times { requested_at: now, received_at: now, received_at_wall: now },
    };
    let options = Options { is_enabled: true, ..Options::default() };
    let mut pending = admit(&request("a", &asked), &response, &options).expect("a part");
    pending.push(b"0123", Moment::ZERO).expect("room");
    let part = pending.finish().expect("whole");
    let _ = store.insert_part(&b"a"[..], part, store.ticket(), (&options, false));
}

/// The folder is another's while an object is stored, which is not written then.
#[test]
fn an_object_that_is_stored_before_the_folder_is_taken_over_is_the_newer_one() {
    let folder = Folder::new("superseded");
    let old = folder.open(64 << 20);
    ["a", "b"].iter().for_each(|host| put(&old, host, "en", b"old"));
    settle(&old);
    let new = folder.open(64 << 20);
    put(&new, "a", "en", b"new");
    wait_until(|| count(&new, "skipped") == 1, "the thread has the order while the folder is another's");
    old.tier().expect("a tier").end();
    settle(&new);
    assert_eq!(found(&new, "a", "en").as_deref(), Some(&b"new"[..]));
    assert_eq!(folder.files().len(), 1);
    let newest = restart(&folder, &new, 64 << 20);
    assert_eq!((load(&newest, "a", "en"), load(&newest, "b", "en").is_some()), (None, true));
}

/// Purges of a process that has ended before the folder belonged to it are not lost.
#[test]
fn a_process_that_never_had_the_folder_leaves_nothing_that_it_purged() {
    let folder = Folder::new("marked");
    let old = folder.open(64 << 20);
    ["a", "b"].iter().for_each(|host| put(&old, host, "en", b"text"));
    settle(&old);
    let waiting = folder.open(64 << 20);
    waiting.invalidate(b"a");
    assert!(!waiting.settle(Duration::from_millis(300)), "the folder is another's");
    waiting.tier().expect("a tier").end();
    assert!(waiting.settle(PATIENCE));
    let new = restart(&folder, &old, 64 << 20);
    assert_eq!(["a", "b"].map(|host| load(&new, host, "en")), [None, None]);
    put(&new, "b", "en", b"newer");
    settle(&new);
    let newest = restart(&folder, &new, 64 << 20);
    assert!(load(&newest, "b", "en").is_some(), "that was said once");
}

/// If a request selects several variants, the newest one counts, whichever was read first.
#[test]
fn the_newest_variant_is_served_after_a_restart() {
    let dated = |host: &str, vary: &str, text: &str, second: u32| {
        let date = format!("Sat, 05 Sep 2026 00:00:{second:02} GMT");
        made(host, "en", text.as_bytes(), &[("Cache-Control", "max-age=600"), ("Vary", vary), ("Date", &*date)])
    };
    for (first, second) in [("X-Language", "Accept"), ("Accept", "X-Language")] {
        for is_late in [false, true] {
            let folder = Folder::new("newest");
            let old = folder.open(64 << 20);
            insert(&old, "a", dated("a", first, "older", 1));
            if !is_late {
                insert(&old, "a", dated("a", second, "newer", 2));
            }
            settle(&old);
            let new = restart(&folder, &old, 64 << 20);
            if is_late {
                insert(&new, "a", dated("a", second, "newer", 2));
            }
            assert_eq!(load(&new, "a", "en").as_deref(), Some(&b"newer"[..]), "{first} {second} {is_late}");
            settle(&new);
            assert_eq!(folder.files().len(), 2, "both are kept");
        }
    }
}

#[test]
fn loaded_objects_count_in_the_quota_of_their_frontend() {
    let folder = Folder::new("quota");
    let old = folder.open(64 << 20);
    let hosts: Vec<String> = (0..10).map(|number| format!("h{number}")).collect();
    hosts.iter().for_each(|host| put(&old, host, "en", &[0; 20_000]));
    put(&old, "large", "en", &[0; 60_000]);
    settle(&old);
    let new = restart(&folder, &old, 64 << 20);
    for host in &hosts {
        load_within(&new, host, 50_000);
        assert!(found(&new, host, "en").is_some(), "{host}: the newest stays");
        assert!((20_000..=50_000).contains(&new.bytes_of("f")), "{} bytes", new.bytes_of("f"));
    }
    assert_eq!(folder.files().len(), 11, "evicted from memory alone");
    // One that memory never takes is not read again and again.
    load_within(&new, "large", 50_000);
    assert_eq!((found(&new, "large", "en"), folder.files().len()), (None, 10));
    assert!(!new.tier().expect("a tier").has(b"large"));
}

/// Stores, drops, purges, loads, evictions and restarts in any order: a fresh object is always the one that was stored last.
#[test]
fn no_older_version_is_served_whatever_happens() {
    for seed in 0..8 {
        let mut play = Play::new(seed);
        for turn in 0..120 {
            play.turn();
            play.check(turn);
        }
        settle(&play.store);
        for host in HOSTS {
            load_within(&play.store, host, 0);
        }
        play.check(120);
    }
}

const HOSTS: [&str; 3] = ["a", "b", "c"];
const LANGUAGES: [&str; 2] = ["en", "de"];

struct Play {
    seed: u64,
    random: fastrand::Rng,
    folder: Folder,
    store: Arc<Store>,
    version: u32,
    /// The version that may be served of each variant.
    newest: HashMap<(&'static str, &'static str), u32>,
    loads: Vec<Receiver<FillEnd>>,
}

impl Play {
    fn new(seed: u64) -> Self {
        let folder = Folder::new(&format!("play-{seed}"));
        let store = Self::open(&folder);
        let (random, newest) = (fastrand::Rng::with_seed(seed), HashMap::new());
        Self { seed, random, folder, store, version: 0, newest, loads: Vec::new() }
    }

    /// Memory has room for a few objects.
    fn open(folder: &Folder) -> Arc<Store> {
        super::super::store(1 << 20, Some(&Settings { path: folder.0.clone(), bytes: 1 << 20 }))
    }

    fn turn(&mut self) {
        let host = *self.random.choice(&HOSTS).expect("a host");
        let language = *self.random.choice(&LANGUAGES).expect("a language");
        match self.random.u8(..16) {
            0 => {
                self.store.invalidate(host.as_bytes());
                self.forget(|known| known.0 == host);
            }
            1 => {
                self.store.make_stale(host.as_bytes());
                self.forget(|known| known.0 == host);
            }
            2 => {
                let mode = if self.random.bool() { PurgeMode::Soft } else { PurgeMode::Hard };
                self.store.purge(&Selector::Host(host.as_bytes().into()), mode);
                self.forget(|known| known.0 == host);
            }
            3 => {
                if let Some(object) = self.object(host, language) {
                    self.store.drop_object(host.as_bytes(), &object);
                    self.forget(|known| *known == (host, language));
                }
            }
            4 => {
                if let Some(object) = self.object(host, language) {
                    self.store.make_object_stale(host.as_bytes(), &object);
                    self.forget(|known| *known == (host, language));
                }
            }
            5 if self.random.u8(..4) == 0 => {
                self.store.tier().expect("a tier").end();
                self.store = Self::open(&self.folder);
                if self.random.bool() {
                    settle(&self.store);
                }
            }
            6..=9 => self.loads.push(order_load(&self.store, host, 0)),
            10 => self.crowd(),
            _ => self.put(host, language),
        }
    }

    /// Some versions are too large for a file.
    fn put(&mut self, host: &'static str, language: &'static str) {
        self.version += 1;
        let padding = if self.random.u8(..4) == 0 { 270_000 - 20_000 } else { 0 };
        let text = format!("{}{}", self.version, " ".repeat(padding + self.random.usize(..10_000)));
        let options = Options { is_enabled: true, ..Options::default() };
        let object = object(host, language, text.as_bytes());
        let stored = self.store.insert(host.as_bytes(), object, self.store.ticket(), &options);
        match stored.map_err(|refused| refused.reason) {
            Ok(_) | Err(InsertError::Evicted) => drop(self.newest.insert((host, language), self.version)),
            Err(InsertError::TooLarge) => {}
            Err(reason) => panic!("seed {}: {reason:?}", self.seed),
        }
    }

    /// Objects of other hosts push all others out of memory.
    fn crowd(&mut self) {
        for number in 0..14 {
            insert_any(&self.store, &format!("other{}", number + self.random.u32(..1000)));
        }
    }

    fn forget(&mut self, goes: impl Fn(&(&'static str, &'static str)) -> bool) {
        self.newest.retain(|known, _| !goes(known));
    }

    fn object(&self, host: &str, language: &str) -> Option<Arc<Object>> {
        let asked = [Header { name: "X-Language", value: language.as_bytes() }];
        self.store.get(host.as_bytes(), &mut RequestValues::of(Fields(&asked))).object
    }

    fn check(&self, turn: u32) {
        for host in HOSTS {
            for language in LANGUAGES {
                let Some(object) = self.object(host, language).filter(|object| !object.is_purged()) else { continue };
                let text: Vec<u8> = object.body.slices(0..object.body.len()).flatten().copied().collect();
                let version: u32 = String::from_utf8_lossy(&text).trim().parse().expect("a version");
                let newest = self.newest.get(&(host, language));
                assert_eq!(Some(&version), newest, "seed {} turn {turn}: {host} {language}", self.seed);
            }
        }
    }
}

fn insert_any(store: &Store, host: &str) {
    let options = Options { is_enabled: true, ..Options::default() };
    let _ = store.insert(host.as_bytes(), object(host, "en", &[b'x'; 60_000]), store.ticket(), &options);
}
