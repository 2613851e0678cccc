use super::*;
use crate::cache::purge::{PurgeMode, Selector};
use crate::cache::store::{InsertError, Store};
use std::sync::Arc;

const MIB: u64 = 1 << 20;

struct Item<'a> {
    frontend: &'a str,
    target: &'a str,
    request: &'a str,
    lines: &'a str,
    len: usize,
}

impl Default for Item<'_> {
    fn default() -> Self {
        Self { frontend: "f", target: "/", request: "", lines: "Cache-Control: max-age=60", len: 10 }
    }
}

impl Item<'_> {
    fn object(&self) -> Object {
        let (request, lines) = (parse(self.request), parse(self.lines));
        let request = CacheRequest { frontend: self.frontend, ..get(self.target, &request) };
        let mut pending = admit(&request, &response(200, &lines, self.len), &options()).expect("cacheable");
        pending.push(&vec![b'x'; self.len]).expect("room");
        pending.finish().expect("whole")
    }

    fn key(&self) -> Vec<u8> {
        let mut key = Vec::new();
        options().key.write(&CacheRequest { frontend: self.frontend, ..get(self.target, &[]) }, &mut key);
        key
    }

    fn put(&self, store: &Store, options: &Options) -> Result<Arc<Object>, InsertError> {
        store.insert(&self.key(), self.object(), store.ticket(), options)
    }

    fn is_in(&self, store: &Store) -> bool {
        store.get(&self.key(), Fields(&parse(self.request))).object.is_some()
    }
}

#[test]
fn variants_of_one_key() {
    let store = Store::new(64 * MIB);
    let variant = |request| Item { request, lines: "Cache-Control: max-age=60\nVary: X-A", ..Item::default() };
    let (one, two) = (variant("X-A: 1"), variant("X-A: 2"));
    let first = one.put(&store, &options()).expect("stored");
    two.put(&store, &options()).expect("stored");
    assert!(one.is_in(&store) && two.is_in(&store) && !variant("X-A: 3").is_in(&store));
    let found = store.get(&one.key(), Fields::default());
    assert!(found.object.is_none() && found.other.is_some());
    // The same variant again takes the place of the first.
    let second = one.put(&store, &options()).expect("stored");
    let found = store.get(&one.key(), Fields(&parse("X-A: 1"))).object.expect("stored");
    assert!(Arc::ptr_eq(&found, &second) && !Arc::ptr_eq(&found, &first));
    store.drop_object(&one.key(), &second);
    assert!(!one.is_in(&store) && two.is_in(&store));
    let many: Vec<String> = (0..100).map(|number| format!("X-A: {number}")).collect();
    many.iter().for_each(|request| drop(variant(request).put(&store, &options()).expect("stored")));
    let kept = many.iter().filter(|request| variant(request).is_in(&store)).count();
    assert_eq!(kept, 32);
}

#[test]
fn gigabytes_through_a_small_store_hold_memory() {
    let store = Store::new(16 * MIB);
    let mut random = fastrand::Rng::with_seed(3);
    let mut through = 0_u64;
    // Bodies above a quarter of a shard are refused.
    while through < 2 << 30 {
        let target = format!("/{}", random.u32(..));
        let item = Item { target: &target, len: random.usize(0..3_000_000), ..Item::default() };
        through += item.len as u64;
        let stored = item.put(&store, &options());
        assert!(stored.is_ok() || item.len as u64 + 4096 > store.capacity() / 4, "{} {stored:?}", item.len);
        assert!(store.bytes() <= store.capacity() && store.capacity() <= 16 * MIB + 64);
    }
    assert!(store.bytes() > 8 * MIB, "{} bytes are in use", store.bytes());
}

#[test]
fn a_frontend_keeps_to_its_quota_and_others_keep_theirs() {
    let store = Store::new(64 * MIB);
    let limited = Options { max_bytes: MIB, ..options() };
    let other = Item { frontend: "g", ..Item::default() };
    other.put(&store, &options()).expect("stored");
    for number in 0..1000 {
        let target = format!("/{number}");
        let item = Item { target: &target, len: 20_000, ..Item::default() };
        drop(item.put(&store, &limited).expect("stored"));
        assert!(store.bytes_of("f") <= MIB, "{}", store.bytes_of("f"));
        assert!(item.is_in(&store), "the newest stays");
    }
    assert!(store.bytes_of("f") > MIB / 2);
    assert!(other.is_in(&store));
    let large = Item { len: 2 << 20, ..Item::default() };
    assert_eq!(large.put(&store, &limited).err(), Some(InsertError::TooLarge));
    // Bytes that left the store are counted as long as a response holds them.
    let held = store.get(&other.key(), Fields::default()).object.expect("stored");
    store.purge(&Selector::All, PurgeMode::Hard);
    assert_eq!((store.len(), store.bytes_of("f")), (0, 0));
    assert!(store.bytes_of("g") > 0);
    drop(held);
    assert_eq!(store.bytes_of("g"), 0);
}

#[test]
fn purges_take_what_they_select() {
    let a = Item { target: "/a/1", lines: "Cache-Control: max-age=60\nSurrogate-Key: red blue", ..Item::default() };
    let b = Item { target: "/a/2", lines: "Cache-Control: max-age=60\nCache-Tag: blue, green", ..Item::default() };
    let c = Item { target: "/c", frontend: "g", ..Item::default() };
    let all = [&a, &b, &c];
    let tag = |tag: &str, frontend: Option<&str>| Selector::Tag {
        frontend: frontend.map(Into::into),
        tag: tag.as_bytes().into(),
    };
    let prefix = |host: &str| Selector::Prefix { host: host.as_bytes().into(), prefix: b"/a/"[..].into() };
    let table = [
        (Selector::Key(a.key().into()), [false, true, true]),
        (Selector::Host(b"h"[..].into()), [false, false, false]),
        (Selector::Host(b"other"[..].into()), [true, true, true]),
        (prefix("h"), [false, false, true]),
        (prefix("other"), [true, true, true]),
        (tag("blue", None), [false, false, true]),
        (tag("red", Some("f")), [false, true, true]),
        (tag("red", Some("g")), [true, true, true]),
        (tag("gre", None), [true, true, true]),
        (Selector::Frontend("g".into()), [true, true, false]),
        (Selector::All, [false, false, false]),
    ];
    for (selector, stay) in table {
        let store = Store::new(64 * MIB);
        all.iter().for_each(|item| drop(item.put(&store, &options()).expect("stored")));
        let gone = stay.iter().filter(|stays| !**stays).count();
        assert_eq!(store.purge(&selector, PurgeMode::Soft), gone, "{selector:?}");
        for (item, stays) in all.iter().zip(stay) {
            let object = store.get(&item.key(), Fields::default()).object.expect("a shadow");
            assert_eq!(object.is_fresh(at(1)), stays, "{selector:?} {}", item.target);
        }
        assert_eq!(store.purge(&selector, PurgeMode::Hard), gone, "{selector:?}");
        assert_eq!(all.map(|item| item.is_in(&store)), stay, "{selector:?}");
    }
}

#[test]
fn a_fill_that_began_before_a_purge_is_not_stored() {
    let store = Store::new(64 * MIB);
    let item = Item::default();
    let other = Item { target: "/other", ..Item::default() };
    let insert = |item: &Item<'_>, ticket| store.insert(&item.key(), item.object(), ticket, &options()).err();
    let ticket = store.ticket();
    store.purge(&Selector::Key(item.key().into()), PurgeMode::Hard);
    assert_eq!((insert(&item, ticket), insert(&other, ticket)), (Some(InsertError::Purged), None));
    assert_eq!(insert(&item, store.ticket()), None);
    let ticket = store.ticket();
    assert!(store.invalidate(&item.key()));
    assert_eq!((insert(&item, ticket), item.is_in(&store)), (Some(InsertError::Purged), false));
    // A fill that is older than what is remembered is not trusted.
    let ticket = store.ticket();
    let selector = Selector::Host(b"elsewhere"[..].into());
    for _ in 0..256 {
        assert_eq!(store.purge(&selector, PurgeMode::Hard), 0);
    }
    assert_eq!(insert(&item, ticket), None);
    store.purge(&selector, PurgeMode::Hard);
    assert_eq!(insert(&item, ticket), Some(InsertError::Purged));
}

/// Threads fill and purge. After its purge has returned, no version that was older is ever served.
#[test]
fn no_old_version_outlives_its_purge() {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    let store = Store::new(8 * MIB);
    let (version, purged) = (AtomicU64::new(1), AtomicU64::new(0));
    let key = Item::default().key();
    let stop = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while stop.load(SeqCst) == 0 {
                    let ticket = store.ticket();
                    let lines = format!("Cache-Control: max-age=60\nX-Version: {}", version.load(SeqCst));
                    let object = Item { lines: &lines, ..Item::default() }.object();
                    let _ = store.insert(&key, object, ticket, &options());
                    let least = purged.load(SeqCst);
                    if let Some(object) = store.get(&key, Fields::default()).object {
                        let text = String::from_utf8_lossy(&object.fields).into_owned();
                        let number = text.split("X-Version: ").nth(1).and_then(|rest| rest.split('\r').next());
                        let found: u64 = number.and_then(|number| number.parse().ok()).expect("a version");
                        assert!(found > least, "version {found} after {least} was purged");
                    }
                }
            });
        }
        for number in 1..2000 {
            version.store(number + 1, SeqCst);
            match number % 3 {
                0 => drop(store.purge(&Selector::Key(key.clone().into()), PurgeMode::Hard)),
                1 => drop(store.purge(&Selector::All, PurgeMode::Hard)),
                _ => drop(store.invalidate(&key)),
            }
            purged.store(number, SeqCst);
        }
        stop.store(1, SeqCst);
    });
}
