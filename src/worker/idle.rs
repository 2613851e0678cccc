//! Idle connections, ordered by idle time only when one has to be evicted.
//!
//! A connection that becomes idle stores the moment, and requests pay for nothing more. When connections run short, one
//! scan collects and sorts the idle ones. From then on every new idle connection is added, until no eviction has been
//! needed for a while. An entry counts only while its connection still stores the same moment.

use super::connection::{Client, Upstream};
use crate::base::clock::Moment;
use crate::base::gen_slab::{GenSlab, SlotKey};
use std::collections::VecDeque;
use std::time::Duration;

/// The time for which a client without any response is protected from eviction.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// The same for a client that has had a response.
pub(super) const REST: Duration = Duration::from_millis(100);

/// The idle connections of a core, each kind in the order in which they became idle.
#[derive(Debug, Default)]
pub(super) struct Idle {
    is_kept: bool,
    /// An eviction was needed since the last [`Idle::trim`].
    is_wanted: bool,
    /// Clients that have not had a response.
    fresh: IdleQueue,
    /// Clients that have.
    served: IdleQueue,
    /// Connections to backends.
    pooled: IdleQueue,
}

impl Idle {
    /// Collects and sorts the idle connections, unless that is done.
    pub(super) fn keep(&mut self, clients: &GenSlab<Client>, upstreams: &GenSlab<Upstream>) {
        self.is_wanted = true;
        if !std::mem::replace(&mut self.is_kept, true) {
            let with_moment = |key| clients.get(key).map(|client| (client.idle_since, client.served, key));
            for (moment, served, key) in clients.keys().filter_map(with_moment) {
                self.clients_like(served).0.push_back((moment, key));
            }
            let with_moment = |key| upstreams.get(key).map(|upstream| (upstream.idle_since, key));
            self.pooled.0.extend(upstreams.keys().filter_map(with_moment));
            for line in [&mut self.fresh, &mut self.served, &mut self.pooled] {
                line.0.retain(|(moment, _)| *moment != Moment::NEVER);
                line.0.make_contiguous().sort_unstable();
            }
        }
    }

    /// Drops the order, if it was not used since the last call.
    pub(super) fn trim(&mut self) {
        if !std::mem::take(&mut self.is_wanted) && self.is_kept {
            *self = Self::default();
        }
    }

    /// A client with this many responses is idle from now on.
    pub(super) fn add_client(&mut self, key: SlotKey, served: u32, now: Moment, clients: &GenSlab<Client>) {
        if self.is_kept {
            self.clients_like(served).add(key, now, |key| client_since(key, clients), clients.len());
        }
    }

    /// A connection to a backend is idle from now on.
    pub(super) fn add_upstream(&mut self, key: SlotKey, now: Moment, upstreams: &GenSlab<Upstream>) {
        if self.is_kept {
            self.pooled.add(key, now, |key| upstream_since(key, upstreams), upstreams.len());
        }
    }

    /// The client that has been idle the longest, and its moment. One that has had a response is protected for `rest`.
    pub(super) fn oldest_client(
        &mut self,
        clients: &GenSlab<Client>,
        now: Moment,
        rest: Duration,
    ) -> Option<(SlotKey, Moment)> {
        let served = self.served.first(|key| client_since(key, clients)).filter(|(_, since)| *since + rest <= now);
        let fresh = self.fresh.first(|key| client_since(key, clients)).filter(|(_, since)| *since + GRACE <= now);
        served.into_iter().chain(fresh).min_by_key(|(_, since)| *since)
    }

    /// The connection to a backend that has been idle the longest, and its moment.
    pub(super) fn oldest_upstream(&mut self, upstreams: &GenSlab<Upstream>) -> Option<(SlotKey, Moment)> {
        self.pooled.first(|key| upstream_since(key, upstreams))
    }

    /// When the first idle client stops being protected.
    pub(super) fn next_to_go(&mut self, clients: &GenSlab<Client>) -> Moment {
        let served = self.served.first(|key| client_since(key, clients)).map(|(_, since)| since + REST);
        let fresh = self.fresh.first(|key| client_since(key, clients)).map(|(_, since)| since + GRACE);
        served.into_iter().chain(fresh).min().unwrap_or(Moment::NEVER)
    }

    /// Upper bound for the number of idle clients.
    pub(super) fn clients(&self) -> usize {
        self.served.0.len() + self.fresh.0.len()
    }

    fn clients_like(&mut self, served: u32) -> &mut IdleQueue {
        if served == 0 { &mut self.fresh } else { &mut self.served }
    }
}

fn client_since(key: SlotKey, clients: &GenSlab<Client>) -> Option<Moment> {
    clients.get(key).map(|client| client.idle_since)
}

fn upstream_since(key: SlotKey, upstreams: &GenSlab<Upstream>) -> Option<Moment> {
    upstreams.get(key).map(|upstream| upstream.idle_since)
}

/// Connections in the order in which they became idle. Some of them are no longer idle.
#[derive(Debug, Default)]
struct IdleQueue(VecDeque<(Moment, SlotKey)>);

impl IdleQueue {
    /// Adds one at the end. `since` gives the start of a connection's idle time, and `most` the number that may be
    /// idle.
    fn add(&mut self, key: SlotKey, now: Moment, since: impl Fn(SlotKey) -> Option<Moment>, most: usize) {
        // Stale entries are removed once they are more than half.
        if self.0.len() >= 2 * most + 64 {
            self.0.retain(|(moment, key)| since(*key) == Some(*moment));
        }
        self.0.push_back((now, key));
    }

    /// The first valid entry.
    fn first(&mut self, since: impl Fn(SlotKey) -> Option<Moment>) -> Option<(SlotKey, Moment)> {
        while let Some((moment, key)) = self.0.front().copied() {
            if since(key) == Some(moment) {
                return Some((key, moment));
            }
            self.0.pop_front();
        }
        None
    }
}
