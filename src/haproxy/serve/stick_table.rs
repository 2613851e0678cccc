//! Stick tables: counters for a key such as the client's address, and the server that the key sticks to.
//!
//! A table is shared by all workers. It is divided into parts with a lock each, and a lock is held for one look-up or
//! one count, so workers rarely wait for each other. Files without a table never use this code.
//!
//! Entries expire `expire` after their last use, and all entries of a table have the same `expire`: so the least
//! recently used entry expires next, and is evicted from a full table. Entries tracked by a request or a connection
//! stay. Source of the rules: configuration.txt, `stick-table`; rates are those of HAProxy's `freq_ctr`.

use crate::haproxy::model::StickTable as Definition;
use crate::haproxy::program::{RequestView, Scratch, Value};
use crate::haproxy::rules::{Counter, CounterOperation, Sample};
use lru::LruCache;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The greatest number of parts of a table.
const MOST_PARTS: u64 = 64;

/// The number of entries for each part.
const ENTRIES_A_PART: u64 = 1024;

/// The default length of a text key without `len` (configuration.txt).
const KEY_LEN: u32 = 32;

/// A stick table.
#[derive(Debug)]
pub(in super::super) struct StickTable {
    definition: Definition,
    /// The counters, with the period of a rate in milliseconds.
    kinds: Box<[(Counter, u64)]>,
    parts: Box<[Mutex<LruCache<Key, Entry>>]>,
    most_in_part: usize,
    /// Milliseconds until an entry expires; `None` for never.
    expire: Option<u64>,
    seed: RandomState,
}

/// The key of an entry. Texts are on the heap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Address(IpAddr),
    Number(u32),
    Text(Box<[u8]>),
}

#[derive(Debug)]
struct Entry {
    /// The time of its last use, in milliseconds.
    used: u64,
    /// Number of requests and connections that track it.
    connections: u32,
    /// The counters in the order of the table's definition.
    cells: Box<[Cell]>,
    /// The server that the key sticks to.
    server: Option<Box<str>>,
}

/// A count, or a rate over a period that began at a given time.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    count: u64,
    previous: u64,
    began: u64,
}

impl Cell {
    fn add(&mut self, count: u64, period: u64, now: u64) {
        if period > 0 {
            let age = now.saturating_sub(self.began);
            if age >= period * 2 {
                *self = Self { count: 0, previous: 0, began: now };
            } else if age >= period {
                *self = Self { count: 0, previous: self.count, began: self.began + period };
            }
        }
        self.count = self.count.saturating_add(count);
    }

    fn read(&self, period: u64, now: u64) -> u64 {
        if period == 0 {
            return self.count;
        }
        let age = now.saturating_sub(self.began);
        let (count, previous, left) = match age {
            _ if age < period => (self.count, self.previous, period - age),
            _ if age < period * 2 => (0, self.count, period * 2 - age),
            _ => return 0,
        };
        // At very low rates the past period counts in full, so that the result is stable.
        if count == 0 && previous <= 1 {
            return previous;
        }
        count + previous * left / period
    }
}

/// An entry that a request or a connection tracks, for the life of this value.
#[derive(Debug)]
pub(super) struct Tracked {
    table: Arc<StickTable>,
    key: Key,
}

impl Tracked {
    /// Increments those of the counters that the table stores.
    pub(super) fn count(&self, counters: &[Counter], now: u64) {
        self.table.with_entry(&self.key, now, |table, entry| {
            counters.iter().for_each(|counter| table.add(entry, *counter, now))
        });
    }

    /// A counter of the entry, or of the entry with the same key in another table.
    pub(super) fn counter(
        &self,
        other: Option<&StickTable>,
        (counter, operation): (Counter, CounterOperation),
        now: u64,
    ) -> Option<u64> {
        other.unwrap_or(&self.table).counter(&self.key, (counter, operation), now)
    }

    /// Sets a counter to a number.
    pub(super) fn set(&self, counter: Counter, value: u64, now: u64) {
        self.table.with_entry(&self.key, now, |table, entry| {
            if let Some((cell, _)) = table.cell(entry, counter) {
                cell.count = value;
            }
        });
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        if let Some(mut part) = self.table.part(&self.key)
            && let Some(entry) = part.peek_mut(&self.key)
        {
            entry.connections = entry.connections.saturating_sub(1);
        }
    }
}

impl StickTable {
    pub(in super::super) fn new(definition: &Definition) -> Self {
        let parts = (definition.size / ENTRIES_A_PART).clamp(1, MOST_PARTS);
        let kinds = definition.store.iter().filter_map(|(name, period)| {
            let millis = period.map_or(0, |period| u64::try_from(period.as_millis()).unwrap_or(u64::MAX / 4).max(1));
            Some((Counter::of_stored(name)?, millis))
        });
        Self {
            definition: definition.clone(),
            kinds: kinds.collect(),
            parts: (0..parts).map(|_| Mutex::new(LruCache::unbounded())).collect(),
            most_in_part: usize::try_from(definition.size.div_ceil(parts)).unwrap_or(usize::MAX),
            expire: definition.expire.map(|expire| u64::try_from(expire.as_millis()).unwrap_or(u64::MAX)),
            seed: RandomState::new(),
        }
    }

    /// Whether a line defines the same table, whose entries are then kept.
    pub(super) fn is_defined_by(&self, definition: &Definition) -> bool {
        self.definition == *definition
    }

    pub(super) fn definition(&self) -> &Definition {
        &self.definition
    }

    /// The key of a request: the value of a sample, converted to the type of the table.
    pub(super) fn key(&self, sample: &Sample, view: &dyn RequestView, scratch: &mut Scratch) -> Option<Key> {
        let mut key = None;
        sample.each(view, scratch, &mut |value| key = self.key_of(value));
        key
    }

    /// The key of a value.
    pub(super) fn key_of(&self, value: Value<'_>) -> Option<Key> {
        let len = self.definition.key_len.unwrap_or(KEY_LEN) as usize;
        match self.definition.key.as_str() {
            "ip" | "ipv4" | "ipv6" => value.ip().map(|ip| Key::Address(ip.to_canonical())),
            "integer" => value.number().and_then(|number| u32::try_from(number).ok()).map(Key::Number),
            _ => value.with_text(|text| {
                (!text.is_empty()).then(|| Key::Text(text.get(..text.len().min(len)).unwrap_or_default().into()))
            }),
        }
    }

    fn part(&self, key: &Key) -> Option<MutexGuard<'_, LruCache<Key, Entry>>> {
        let number = self.seed.hash_one(key) % self.parts.len().max(1) as u64;
        let part = self.parts.get(usize::try_from(number).ok()?)?;
        Some(part.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_over(&self, entry: &Entry, now: u64) -> bool {
        entry.connections == 0 && self.expire.is_some_and(|expire| now.saturating_sub(entry.used) >= expire)
    }

    /// Runs `act` on the entry of a key, which is created if missing. `None` if the table is full.
    fn with_entry<T>(&self, key: &Key, now: u64, act: impl FnOnce(&Self, &mut Entry) -> T) -> Option<T> {
        let mut part = self.part(key)?;
        if part.peek(key).is_none_or(|entry| self.is_over(entry, now)) {
            part.pop(key);
            self.make_room(&mut part, now)?;
            let cells = vec![Cell { began: now, ..Cell::default() }; self.kinds.len()].into();
            part.put(key.clone(), Entry { used: now, connections: 0, cells, server: None });
        }
        let entry = part.get_mut(key)?;
        entry.used = now;
        Some(act(self, entry))
    }

    /// Removes expired entries, and if the part is full the least recently used one. Tracked entries move to the other
    /// end.
    fn make_room(&self, part: &mut LruCache<Key, Entry>, now: u64) -> Option<()> {
        let mut tries = 0;
        while let Some((_, oldest)) = part.peek_lru() {
            let is_full = part.len() >= self.most_in_part;
            let may_go = self.is_over(oldest, now) || (is_full && oldest.connections == 0 && !self.definition.nopurge);
            if may_go {
                part.pop_lru();
            } else if is_full && oldest.connections > 0 && tries < 16 {
                tries += 1;
                let key = oldest_key(part)?;
                part.promote(&key);
            } else {
                return (!is_full).then_some(());
            }
        }
        (self.most_in_part > 0).then_some(())
    }

    /// Tracks the entry of a key, and counts a connection for it. `None` if the table is full.
    pub(super) fn track(self: &Arc<Self>, key: Key, counters: &[Counter], now: u64) -> Option<Tracked> {
        self.with_entry(&key, now, |table, entry| {
            entry.connections += 1;
            counters.iter().for_each(|counter| table.add(entry, *counter, now));
        })?;
        Some(Tracked { table: Arc::clone(self), key })
    }

    fn cell<'e>(&self, entry: &'e mut Entry, counter: Counter) -> Option<(&'e mut Cell, u64)> {
        let place = self.kinds.iter().position(|(kind, _)| *kind == counter)?;
        Some((entry.cells.get_mut(place)?, self.kinds.get(place)?.1))
    }

    fn add(&self, entry: &mut Entry, counter: Counter, now: u64) {
        if let Some((cell, period)) = self.cell(entry, counter) {
            cell.add(1, period, now);
        }
    }

    /// A counter of a key; `None` if the table does not store it. A missing entry counts 0.
    pub(super) fn counter(
        &self,
        key: &Key,
        (counter, operation): (Counter, CounterOperation),
        now: u64,
    ) -> Option<u64> {
        if operation != CounterOperation::Read {
            return self.change(key, (counter, operation), now);
        }
        let place = self.kinds.iter().position(|(kind, _)| *kind == counter)?;
        let period = self.kinds.get(place)?.1;
        let part = self.part(key)?;
        let entry = part.peek(key).filter(|entry| !self.is_over(entry, now));
        Some(match entry {
            None => 0,
            Some(entry) if counter == Counter::ConnCur => entry.connections.into(),
            Some(entry) => entry.cells.get(place).map_or(0, |cell| cell.read(period, now)),
        })
    }

    /// Increments a general counter and returns its new value, or clears it and returns its old value.
    fn change(&self, key: &Key, (counter, operation): (Counter, CounterOperation), now: u64) -> Option<u64> {
        self.with_entry(key, now, |table, entry| {
            if operation == CounterOperation::Increment {
                let rate = if counter == Counter::Gpc1 { Counter::Gpc1Rate } else { Counter::Gpc0Rate };
                table.add(entry, rate, now);
                table.add(entry, counter, now);
                return table.cell(entry, counter).map(|(cell, _)| cell.count);
            }
            table.cell(entry, counter).map(|(cell, _)| std::mem::take(&mut cell.count))
        })?
    }

    /// Calls `see` with the server that a key sticks to.
    pub(super) fn with_server<T>(&self, key: &Key, now: u64, see: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let mut part = self.part(key)?;
        let entry = part.get_mut(key).filter(|entry| !self.is_over(entry, now))?;
        entry.used = now;
        see(entry.server.as_deref()?)
    }

    /// Makes a key stick to a server from now on.
    pub(super) fn stick(&self, key: &Key, server: &str, now: u64) {
        self.with_entry(key, now, |_, entry| {
            if entry.server.as_deref() != Some(server) {
                entry.server = Some(server.into());
            }
        });
    }
}

fn oldest_key(part: &LruCache<Key, Entry>) -> Option<Key> {
    part.peek_lru().map(|(key, _)| key.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const READ: CounterOperation = CounterOperation::Read;

    fn table(size: u64, store: &[(&str, u64)]) -> Arc<StickTable> {
        let period = |millis: &u64| (*millis > 0).then(|| Duration::from_millis(*millis));
        Arc::new(StickTable::new(&Definition {
            key: "ip".into(),
            key_len: None,
            size,
            expire: Some(Duration::from_secs(30)),
            nopurge: false,
            store: store.iter().map(|(name, millis)| ((*name).to_owned(), period(millis))).collect(),
        }))
    }

    fn address(last: u8) -> Key {
        Key::Address([192, 0, 2, last].into())
    }

    #[test]
    fn rates_follow_their_period() {
        let mut cell = Cell { began: 1000, ..Cell::default() };
        (0..10).for_each(|step| cell.add(1, 1000, 1000 + step * 50));
        assert_eq!(cell.read(1000, 1500), 10);
        assert_eq!(cell.read(1000, 2000), 10, "the whole period has just passed");
        assert_eq!(cell.read(1000, 2500), 5, "half of it counts");
        assert_eq!(cell.read(1000, 3000), 0);
        cell.add(1, 1000, 2500);
        assert_eq!(cell.read(1000, 2500), 6);
        let mut low = Cell { began: 0, count: 1, previous: 0 };
        assert_eq!(low.read(1000, 1900), 1, "a single one does not waver");
        low.add(0, 1000, 5000);
        assert_eq!(low.read(1000, 5000), 0);
    }

    #[test]
    fn entries_end_and_the_oldest_makes_room() {
        let table = table(3, &[("http_req_cnt", 0), ("conn_cur", 0)]);
        let count = |last: u8, now| table.counter(&address(last), (Counter::HttpReqCnt, READ), now);
        let request = |last: u8, now| table.track(address(last), &[Counter::HttpReqCnt], now);
        drop((request(1, 0), request(2, 1000), request(3, 2000)));
        assert_eq!((count(1, 2000), count(3, 2000), count(4, 2000)), (Some(1), Some(1), Some(0)));
        drop(request(1, 3000));
        drop(request(4, 4000));
        assert_eq!((count(2, 4000), count(1, 4000), count(4, 4000)), (Some(0), Some(2), Some(1)), "2 was the oldest");
        assert_eq!((count(1, 32_999), count(1, 33_000)), (Some(2), Some(0)), "30 s after it was used last");
        let held = request(5, 40_000).expect("room");
        let current = |now| table.counter(&address(5), (Counter::ConnCur, READ), now);
        drop((request(6, 41_000), request(7, 42_000), request(8, 43_000)));
        assert_eq!((current(90_000), count(5, 90_000)), (Some(1), Some(1)), "what is tracked stays");
        drop(held);
        assert_eq!(current(90_000), Some(0));
        assert_eq!(table.counter(&address(1), (Counter::HttpErrCnt, READ), 0), None, "it is not stored");
    }

    #[test]
    fn general_counters_change_and_servers_stick() {
        let table = table(100_000, &[("gpc0", 0), ("gpc0_rate", 1000), ("gpt0", 0)]);
        let gpc = |operation| table.counter(&address(1), (Counter::Gpc0, operation), 0);
        assert_eq!((gpc(CounterOperation::Increment), gpc(CounterOperation::Increment)), (Some(1), Some(2)));
        assert_eq!(table.counter(&address(1), (Counter::Gpc0Rate, READ), 0), Some(2));
        assert_eq!((gpc(CounterOperation::Clear), gpc(READ)), (Some(2), Some(0)));
        let tracked = table.track(address(1), &[], 0).expect("room");
        tracked.set(Counter::Gpt0, 7, 0);
        assert_eq!(tracked.counter(None, (Counter::Gpt0, READ), 0), Some(7));
        table.stick(&address(2), "a", 0);
        table.stick(&address(2), "b", 0);
        let server = |last, now| table.with_server(&address(last), now, |server| Some(server.to_owned()));
        assert_eq!((server(2, 1000), server(3, 1000), server(2, 60_000)), (Some("b".into()), None, None));
    }

    #[test]
    fn keys_are_what_the_table_wants() {
        let of = |key: &str, value: Value<'_>| {
            let definition = Definition { key: key.into(), key_len: Some(3), ..table(1, &[]).definition.clone() };
            StickTable::new(&definition).key_of(value)
        };
        let ip: IpAddr = [192, 0, 2, 1].into();
        assert_eq!(of("ip", Value::Text(b"192.0.2.1")), Some(Key::Address(ip)));
        assert_eq!(of("ipv6", Value::Ip("::ffff:192.0.2.1".parse().expect("an address"))), Some(Key::Address(ip)));
        assert_eq!(of("ip", Value::Text(b"x")), None);
        assert_eq!(of("integer", Value::Text(b"7")), Some(Key::Number(7)));
        assert_eq!(of("string", Value::Text(b"abcd")), Some(Key::Text(b"abc"[..].into())));
        assert_eq!(of("string", Value::Text(b"")), None);
    }
}
