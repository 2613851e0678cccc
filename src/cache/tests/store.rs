use super::*;
use crate::cache::portable::Change;
use crate::cache::purge::{PurgeMode, Selector};
use crate::cache::store::{Found, InsertError, Store};
use crate::cache::tier::{FileName, Order, Tier};
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
        pending.push(&vec![b'x'; self.len], Moment::ZERO).expect("room");
        pending.finish().expect("whole")
    }

    fn key(&self) -> Vec<u8> {
        let mut key = Vec::new();
        options().key.write(&CacheRequest { frontend: self.frontend, ..get(self.target, &[]) }, &mut key);
        key
    }

    fn put(&self, store: &Store, options: &Options) -> Result<Arc<Object>, InsertError> {
        store.insert(self.key(), self.object(), store.ticket(), options).map_err(|refused| refused.reason)
    }

    fn is_in(&self, store: &Store) -> bool {
        find(store, self, self.request).object.is_some()
    }
}

fn find(store: &Store, item: &Item<'_>, request: &str) -> Found {
    let fields = parse(request);
    store.get(&item.key(), &mut RequestValues::of(Fields(&fields)))
}

#[test]
fn variants_of_one_key() {
    let store = Store::new(64 * MIB);
    let variant = |request| Item { request, lines: "Cache-Control: max-age=60\nVary: X-A", ..Item::default() };
    let (one, two) = (variant("X-A: 1"), variant("X-A: 2"));
    let first = one.put(&store, &options()).expect("stored");
    two.put(&store, &options()).expect("stored");
    assert!(one.is_in(&store) && two.is_in(&store) && !variant("X-A: 3").is_in(&store));
    let found = find(&store, &one, "");
    assert!(found.object.is_none() && found.other.is_some());
    // The same variant replaces the first one.
    let second = one.put(&store, &options()).expect("stored");
    let found = find(&store, &one, "X-A: 1").object.expect("stored");
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
    // Bytes that left the store count in no quota, even if a response still holds them.
    let held = find(&store, &other, "").object.expect("stored");
    assert!(store.bytes_of("g") > 0);
    store.purge(&Selector::All, PurgeMode::Hard);
    assert_eq!((store.len(), store.bytes_of("f"), store.bytes_of("g")), (0, 0, 0));
    drop(held);
    assert_eq!(store.bytes_of("g"), 0);
}

/// Whatever is stored, replaced, evicted and purged: a quota counts the content of the store, and the newest object of
/// a frontend is never evicted for its quota.
#[test]
fn quotas_count_what_is_stored() {
    let store = Store::new(2 * MIB);
    let limited = Options { max_bytes: MIB, ..options() };
    let mut random = fastrand::Rng::with_seed(5);
    let mut held = Vec::new();
    for turn in 0..5000 {
        let (target, request) = (format!("/{}", random.u8(..40)), format!("X-A: {}", random.u8(..4)));
        let lines = "Cache-Control: max-age=60\nVary: X-A";
        let frontend = if random.bool() { "f" } else { "g" };
        let item = Item { frontend, target: &target, request: &request, lines, len: random.usize(..120_000) };
        match random.u8(..8) {
            0 => drop(store.invalidate(&item.key())),
            1 => held.extend(find(&store, &item, &request).object),
            2 if random.u8(..20) == 0 => drop(store.purge(&Selector::Frontend(frontend.into()), PurgeMode::Hard)),
            _ => {
                let stored = item.put(&store, &limited);
                assert_eq!(stored.is_ok(), item.is_in(&store), "turn {turn}: {stored:?}");
            }
        }
        let (f, g) = (store.bytes_of("f"), store.bytes_of("g"));
        assert!(f <= MIB && g <= MIB && f + g <= 2 * MIB, "turn {turn}: {f} and {g}");
    }
    store.purge(&Selector::All, PurgeMode::Hard);
    assert_eq!((store.bytes_of("f"), store.bytes_of("g"), store.len()), (0, 0, 0), "{} are held", held.len());
}

/// A key never takes more than the limit of one object, so its variants cannot empty a shard.
#[test]
fn the_variants_of_a_key_share_the_room_of_one_object() {
    let store = Store::new(16 * MIB);
    let others: Vec<String> = (0..40).map(|number| format!("/{number}")).collect();
    let item = |target| Item { target, len: 100_000, ..Item::default() };
    others.iter().for_each(|target| drop(item(target).put(&store, &options()).expect("stored")));
    let requests: Vec<String> = (0..32).map(|number| format!("X-A: {number}")).collect();
    let lines = "Cache-Control: max-age=60\nVary: X-A";
    let variant = |request| Item { request, lines, len: 1_500_000, ..Item::default() };
    for request in &requests {
        variant(request).put(&store, &options()).expect("stored");
        assert!(variant(request).is_in(&store), "the newest stays");
    }
    assert_eq!(requests.iter().filter(|request| variant(request).is_in(&store)).count(), 2);
    assert!(others.iter().all(|target| item(target).is_in(&store)));
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
            let object = find(&store, item, "").object.expect("a shadow");
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
    let insert = |item: &Item<'_>, ticket| {
        store.insert(item.key(), item.object(), ticket, &options()).err().map(|refused| refused.reason)
    };
    let ticket = store.ticket();
    assert!(!store.make_stale(&item.key()));
    assert_eq!((insert(&item, ticket), insert(&other, ticket)), (Some(InsertError::Purged), None));
    assert_eq!(insert(&item, store.ticket()), None);
    let ticket = store.ticket();
    assert!(store.invalidate(&item.key()));
    assert_eq!((insert(&item, ticket), item.is_in(&store)), (Some(InsertError::Purged), false));
    // Whatever clients purge, and however often, fills of other keys are stored.
    let ticket = store.ticket();
    assert_eq!(insert(&item, ticket), None);
    let purged: Vec<String> = (0..2000).map(|number| format!("/{number}")).collect();
    for target in &purged {
        store.make_stale(&Item { target, ..Item::default() }.key());
    }
    let kept = (0..100).map(|number| format!("/kept/{number}")).filter(|target| {
        let target = Item { target, ..Item::default() };
        insert(&target, ticket).is_none()
    });
    assert!(kept.count() > 30);
    assert!(store.make_stale(&item.key()));
    assert!(find(&store, &item, "").object.is_some_and(|object| object.is_purged()));
    // A fill that began before the oldest kept purge is not stored.
    let ticket = store.ticket();
    let selector = Selector::Host(b"elsewhere"[..].into());
    for _ in 0..256 {
        assert_eq!(store.purge(&selector, PurgeMode::Hard), 0);
    }
    assert_eq!(insert(&item, ticket), None);
    store.purge(&selector, PurgeMode::Hard);
    assert_eq!(insert(&item, ticket), Some(InsertError::Purged));
}

/// Threads fill and purge. After a purge has returned, no older version is served.
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
                    let _ = store.insert(&key[..], object, ticket, &options());
                    let least = purged.load(SeqCst);
                    if let Some(object) = store.get(&key, &mut RequestValues::of(Fields::default())).object {
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
                0 => drop(store.purge(&Selector::Host(b"h"[..].into()), PurgeMode::Hard)),
                1 => drop(store.purge(&Selector::All, PurgeMode::Hard)),
                _ => drop(store.invalidate(&key)),
            }
            purged.store(number, SeqCst);
        }
        stop.store(1, SeqCst);
    });
}

/// What the disk has is older than every object that was stored or dropped since the disk was told.
#[test]
fn nothing_older_is_loaded_than_what_was_stored_or_dropped() {
    type Happens = fn(&Store, &Item<'_>);
    let table: [(&str, Happens); 6] = [
        ("stored", |store, item| drop(item.put(store, &options()))),
        ("dropped", |store, item| store.drop_object(&item.key(), &find(store, item, "").object.expect("stored"))),
        ("made stale", |store, item| {
            store.make_object_stale(&item.key(), &find(store, item, "").object.expect("stored"))
        }),
        ("invalidated", |store, item| assert!(store.invalidate(&item.key()))),
        ("purged", |store, item| assert!(store.make_stale(&item.key()))),
        ("purged by its host", |store, _| {
            assert_eq!(store.purge(&Selector::Host(b"h"[..].into()), PurgeMode::Hard), 1)
        }),
    ];
    for (name, change) in table {
        let (tier, orders) = Tier::new();
        let store = Store::with_tier(16 * MIB, Some(tier));
        let item = Item::default();
        item.put(&store, &options()).expect("stored");
        let load = |ticket| store.load(&item.key().into(), item.object(), ticket, 0).map_err(|refused| refused.reason);
        let before = store.ticket();
        assert_eq!(load(before).err(), Some(InsertError::Present), "{name}");
        change(&store, &item);
        // Memory has evicted what it had.
        store.evict(&item.key());
        assert_eq!(load(before).err(), Some(InsertError::Purged), "{name}");
        // The disk was told.
        assert!(load(store.ticket()).is_ok(), "{name}");
        let told: Vec<_> = orders.try_iter().collect();
        assert!(matches!(&told[..], [Order::Keep { .. }, Order::Keep { .. } | Order::Change(..)]), "{name}: {told:?}");
    }
}

/// A new object that is not written has the file of its predecessor removed.
#[test]
fn the_disk_is_told_of_objects_that_it_does_not_get() {
    let (tier, orders) = Tier::new();
    let store = Store::with_tier(512 * MIB, Some(tier));
    let item = Item { len: 3 << 20, ..Item::default() };
    // Nothing takes the orders, so they wait.
    for _ in 0..30 {
        item.put(&store, &options()).expect("stored");
    }
    let told: Vec<_> = orders.try_iter().collect();
    let kept = told.iter().filter(|order| matches!(order, Order::Keep { .. })).count();
    assert_eq!((kept, told.len()), (21, 30), "64 MiB wait at most");
    let name = FileName::of(&item.key(), &item.object());
    assert!(told[kept..].iter().all(|order| matches!(order, Order::Forget(_, forgotten) if *forgotten == name)));
}

/// A part of another representation makes the stored whole stale, on the disk and in a successor too.
#[test]
fn what_a_part_contradicts_is_stale_everywhere() {
    let (tier, orders) = Tier::new();
    let store = Store::with_tier(16 * MIB, Some(tier));
    let item = Item { lines: "Cache-Control: max-age=60\nETag: \"a\"", ..Item::default() };
    item.put(&store, &options()).expect("stored");
    let changes = store.changes();
    let request = parse("Range: bytes=0-3");
    let lines = parse("Cache-Control: max-age=60\nETag: \"b\"\nContent-Range: bytes 0-3/10");
    let response = CacheResponse { status: 206, ..response(206, &lines, 4) };
    let mut pending = admit(&get("/", &request), &response, &options()).expect("a part");
    pending.push(b"0123", Moment::ZERO).expect("room");
    let part = pending.finish().expect("whole");
    let refused = store.insert_part(item.key(), part, store.ticket(), (&options(), false));
    assert_eq!(refused.err().map(|refused| refused.reason), Some(InsertError::Present));
    assert!(find(&store, &item, "").object.is_some_and(|object| object.is_purged()));
    let stale = Change::Stale(item.key().into());
    assert_eq!(changes.try_iter().collect::<Vec<_>>(), std::slice::from_ref(&stale));
    assert!(orders.try_iter().any(|order| matches!(order, Order::Change(_, change) if change == stale)));
}
