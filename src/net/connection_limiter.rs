//! A limit of connections for each client address, over all cores.

use crate::base::client_network::network_of;
use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Addresses are spread over this many tables, so cores seldom contend for one.
const TABLES: u64 = 64;

/// Limits the connections of each address. The limit is exact, because connections on all workers are counted in one
/// place. That takes a lock when a client connects and when it closes, never between.
#[derive(Debug)]
pub struct ConnectionLimiter {
    limit: NonZeroU32,
    hasher: RandomState,
    tables: [Mutex<HashMap<IpAddr, u32>>; TABLES as usize],
}

/// The share of one connection in the limit of its address. Dropping it returns the share.
#[derive(Debug)]
pub struct ConnectionPermit {
    limiter: Arc<ConnectionLimiter>,
    address: IpAddr,
}

/// The address has reached its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

impl ConnectionLimiter {
    /// Allows `limit` connections for each IPv4 address, and for each IPv6 network of 64 bits.
    pub fn new(limit: NonZeroU32) -> Self {
        Self { limit, hasher: RandomState::new(), tables: std::array::from_fn(|_| Mutex::default()) }
    }

    /// A permit for one more connection of `address`, unless its limit is reached.
    pub fn acquire(self: &Arc<Self>, address: IpAddr) -> Result<ConnectionPermit, Exhausted> {
        let address = network_of(address);
        let mut table = self.table(address);
        let held = table.entry(address).or_insert(0);
        if *held >= self.limit.get() {
            return Err(Exhausted);
        }
        *held += 1;
        drop(table);
        Ok(ConnectionPermit { limiter: Arc::clone(self), address })
    }

    fn table(&self, address: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        let table = &self.tables[(self.hasher.hash_one(address) % TABLES) as usize];
        table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if let Entry::Occupied(mut held) = self.limiter.table(self.address).entry(self.address) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn limiter(limit: u32) -> Arc<ConnectionLimiter> {
        Arc::new(ConnectionLimiter::new(NonZeroU32::new(limit).expect("a limit")))
    }

    fn addresses(limiter: &ConnectionLimiter) -> usize {
        limiter.tables.iter().map(|table| table.lock().expect("no panic").len()).sum()
    }

    #[test]
    fn an_address_gets_what_it_may_have_and_no_more() {
        let limiter = limiter(2);
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let (one, _two) = (limiter.acquire(ip("10.0.0.1")), limiter.acquire(ip("::ffff:10.0.0.1")));
        assert!(limiter.acquire(ip("10.0.0.1")).is_err(), "however it is written");
        assert!(limiter.acquire(ip("10.0.0.2")).is_ok());
        let _six = ["2001:db8::1", "2001:db8::ffff:0:0:1"].map(|text| limiter.acquire(ip(text)).expect("room"));
        assert!(limiter.acquire(ip("2001:db8::3")).is_err(), "the network counts");
        assert!(limiter.acquire(ip("2001:db8:0:1::3")).is_ok(), "another network");
        drop(one);
        assert!(limiter.acquire(ip("10.0.0.1")).is_ok());
        assert_eq!(addresses(&limiter), 2, "nothing is kept of closed connections");
    }

    #[test]
    fn it_is_exact_whatever_the_cores_do() {
        let limiter = limiter(7);
        let address = IpAddr::from([10, 0, 0, 1]);
        thread::scope(|scope| {
            for seed in 0..4 {
                let limiter = &limiter;
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(seed);
                    let mut held = Vec::new();
                    for _ in 0..5000 {
                        if rng.bool() {
                            held.extend(limiter.acquire(address));
                        } else {
                            held.pop();
                        }
                        let all = limiter.table(address).get(&address).copied().unwrap_or_default();
                        assert!(all <= 7 && all as usize >= held.len(), "{all} of 7, {} here", held.len());
                    }
                });
            }
        });
        assert_eq!(addresses(&limiter), 0);
    }
}
