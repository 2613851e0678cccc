//! Actions of operators and the platform: complete and partial edits, options, expiries, and flushes.

use super::super::route_state::ChangedKey;
use super::server::{HOSTS, PATTERNS, Reach};
use super::{Happening, World};
use std::time::Duration;

impl World {
    pub(super) fn give_order(&mut self) {
        let delay = self.about(self.plan.order_every);
        self.after(delay, Happening::Order);
        if self.redis.reach == Reach::Refused {
            return;
        }
        let pattern = self.pattern();
        match self.rng.u32(..100) {
            0..40 => {
                let items = self.items();
                self.order(pattern, &items);
            }
            40..55 => self.write_in_parts(pattern),
            55..72 => self.order(pattern, &[]),
            72..80 => {
                let unrequested = self.process.as_ref().and_then(|process| process.unrequested);
                let pattern = if self.rng.bool() { unrequested.unwrap_or(pattern) } else { pattern };
                self.order_option(pattern);
            }
            80..86 => {
                let items = self.items();
                self.order(pattern, &items);
                let version = self.redis.versions[pattern];
                let delay = self.between(1_000_000, 30_000_000);
                self.after(delay, Happening::Expire(pattern, version));
            }
            86..90 => self.order(pattern, &["x".to_owned(), "nonsense".to_owned()]),
            90..93 => self.redis.saved = self.redis.at.clone(),
            93 => self.order_flush(),
            94..96 => self.announce_move(),
            96..98 => self.write_while_read(),
            _ => {
                let host = HOSTS[self.rng.usize(..HOSTS.len())];
                self.notify(ChangedKey::Dead(host.into()), Duration::ZERO);
            }
        }
    }

    fn pattern(&mut self) -> &'static str {
        PATTERNS[self.rng.usize(..PATTERNS.len())]
    }

    /// An identifier and some backends.
    pub(super) fn items(&mut self) -> Vec<String> {
        let count = self.rng.usize(1..4);
        let mut items = vec!["x".to_owned()];
        items.extend((0..count).map(|_| format!("http://10.0.0.{}", self.rng.u32(1..6))));
        items
    }

    /// Writes the identifier first, then a backend: the list is empty in between.
    fn write_in_parts(&mut self, pattern: &'static str) {
        let items = self.items();
        self.order(pattern, &items[..1]);
        let delay = self.between(1_000, 1_500_000);
        self.after(delay, Happening::Write(pattern, items));
    }

    /// Replaces a list; no items delete it.
    pub(super) fn order(&mut self, pattern: &'static str, items: &[String]) {
        if self.redis.reach == Reach::Refused {
            return;
        }
        *self.redis.versions.entry(pattern).or_default() += 1;
        let bytes = self.rng.u64(30..200);
        self.redis.apply(self.now, bytes, |data| match items {
            [] => drop(data.lists.remove(pattern)),
            items => drop(data.lists.insert(pattern, items.to_vec())),
        });
        self.note(|_| format!("order {pattern} {}", items.join(" ")));
        self.observe(true);
        self.notify(ChangedKey::Route(pattern.into()), Duration::ZERO);
        if self.rng.u32(..3) == 0 {
            self.request_many(pattern);
        }
        if self.rng.u32(..30) == 0 {
            let delay = self.between(0, 60_000);
            self.after(delay, Happening::Cut);
        }
    }

    fn order_option(&mut self, pattern: &'static str) {
        let redirect = [None, Some(true), Some(false)][self.rng.usize(..3)];
        self.redis.apply(self.now, 50, |data| match redirect {
            None => drop(data.redirects.remove(pattern)),
            Some(flag) => drop(data.redirects.insert(pattern, flag)),
        });
        self.note(|_| format!("order options of {pattern}: {redirect:?}"));
        self.observe(true);
        self.notify(ChangedKey::Options(pattern.into()), Duration::ZERO);
    }

    /// A host is about to get a list of its own in place of its wildcard's, while it is being read.
    fn announce_move(&mut self) {
        let host = HOSTS[self.rng.usize(..HOSTS.len())];
        self.notify(ChangedKey::Dead(host.into()), Duration::ZERO);
        let delay = self.between(100, 10_000);
        self.after(delay, Happening::Move(host));
    }

    /// The list of a host without a route is written while a core waits for it; another core asks after the report, and the
    /// connections are lost.
    fn write_while_read(&mut self) {
        let host = HOSTS[self.rng.usize(..HOSTS.len())];
        let items = self.items();
        let Some(pattern) = PATTERNS.iter().find(|pattern| **pattern == host) else { return };
        self.order(pattern, &[]);
        let mut at = self.between(100_000, 200_000);
        self.after(at, Happening::Request(0, host));
        at += self.between(1, 2_000);
        self.after(at, Happening::Write(pattern, items));
        at += self.between(1_000, 20_000);
        self.after(at, Happening::Request(1, host));
        at += self.between(1, 5_000);
        self.after(at, Happening::Cut);
    }

    /// One transaction writes the list of a host and deletes that of its wildcard.
    pub(super) fn move_to_own(&mut self, host: &'static str) {
        let wildcard = self.redis.at.data.key_of(host).filter(|key| key.starts_with('*'));
        let (Some(wildcard), true) = (wildcard, PATTERNS.contains(&host)) else { return };
        if self.redis.reach == Reach::Refused {
            return;
        }
        for pattern in [host, wildcard] {
            *self.redis.versions.entry(pattern).or_default() += 1;
        }
        let items = self.items();
        self.redis.apply(self.now, 200, |data| {
            data.lists.insert(host, items.clone());
            data.lists.remove(wildcard);
        });
        self.note(|_| format!("order {host} {} in place of {wildcard}", items.join(" ")));
        self.observe(true);
        self.notify(ChangedKey::Route(host.into()), Duration::ZERO);
        self.notify(ChangedKey::Route(wildcard.into()), Duration::ZERO);
    }

    fn order_flush(&mut self) {
        self.redis.apply(self.now, 50, |data| *data = super::server::Data::default());
        self.note(|_| "order FLUSHALL".to_owned());
        self.observe(true);
        self.notify(ChangedKey::All, Duration::ZERO);
    }

    /// A list expires. Redis reports it a little later.
    pub(super) fn expire(&mut self, pattern: &'static str, version: u64) {
        if self.redis.versions.get(pattern) != Some(&version) || self.redis.reach == Reach::Refused {
            return;
        }
        self.redis.apply(self.now, 30, |data| drop(data.lists.remove(pattern)));
        self.note(|_| format!("{pattern} expires"));
        self.observe(true);
        let delay = self.between(0, 100_000);
        self.notify(ChangedKey::Route(pattern.into()), delay);
    }

    /// Redis has lost data: the platform writes some of it again, now and then.
    pub(super) fn refill(&mut self) {
        for pattern in PATTERNS {
            let wanted = self.redis.intended.lists.get(pattern).cloned();
            if self.rng.u32(..10) < self.plan.refilled && wanted.as_ref() != self.redis.at.data.lists.get(pattern) {
                let delay = self.between(10_000, 60_000_000);
                let items = wanted.unwrap_or_default();
                if self.rng.bool() && !items.is_empty() {
                    self.after(delay, Happening::Write(pattern, items[..1].to_vec()));
                }
                let delay = delay + self.between(1, 2_000_000);
                self.after(delay, Happening::Write(pattern, items));
            }
        }
    }

    /// Writes all intended data again.
    pub(super) fn refill_all(&mut self) {
        self.heal_all();
        let data = self.redis.intended.clone();
        for pattern in PATTERNS {
            let items = data.lists.get(pattern).cloned().unwrap_or_default();
            self.order(pattern, &items);
            self.redis.apply(self.now, 50, |now| match data.redirects.get(pattern) {
                None => drop(now.redirects.remove(pattern)),
                Some(flag) => drop(now.redirects.insert(pattern, *flag)),
            });
            self.observe(true);
            self.notify(ChangedKey::Options((*pattern).into()), Duration::ZERO);
        }
    }
}
