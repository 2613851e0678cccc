//! Number of requests of each client at a frontend, over all cores.

use super::Admission;
use crate::base::client_network::network_of;
use crate::base::hash::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Requests and tunnels of each client. Only frontends with `maxRequestsPerClient` take the lock.
#[derive(Debug, Default)]
pub(super) struct Clients(Mutex<HashMap<IpAddr, u32>>);

/// The share of one request in its client's limit. Dropping it returns the share.
#[derive(Debug)]
pub struct ClientSlot {
    admission: Arc<Admission>,
    client: IpAddr,
}

impl ClientSlot {
    /// The client, or its network.
    pub fn client(&self) -> IpAddr {
        self.client
    }
}

impl Clients {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admission {
    /// Takes a share of this client's limit, if any is left. An IPv6 network of 64 bits counts as one client.
    pub fn take_client(self: &Arc<Self>, client: IpAddr, limit: NonZeroU32) -> Option<ClientSlot> {
        let client = network_of(client);
        let mut table = self.rates.clients.lock();
        let held = table.entry(client).or_insert(0);
        if *held >= limit.get() {
            return None;
        }
        *held += 1;
        drop(table);
        Some(ClientSlot { admission: Arc::clone(self), client })
    }
}

impl Drop for ClientSlot {
    fn drop(&mut self) {
        if let Entry::Occupied(mut held) = self.admission.rates.clients.lock().entry(self.client) {
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

    #[test]
    fn each_client_has_its_own_part_and_leaves_nothing_behind() {
        let admission = Arc::<Admission>::default();
        let two = NonZeroU32::new(2).expect("a limit");
        let take = |client: &str| admission.take_client(client.parse().expect("an address"), two);
        let held = [take("192.0.2.1"), take("::ffff:192.0.2.1"), take("2001:db8::1"), take("2001:db8::2")];
        assert!(held.iter().all(Option::is_some));
        for (client, has_room) in
            [("192.0.2.1", false), ("192.0.2.2", true), ("2001:db8::3", false), ("2001:db8:0:1::", true)]
        {
            assert_eq!(take(client).is_some(), has_room, "{client}");
        }
        drop(held);
        assert!(admission.rates.clients.lock().is_empty());
        assert!(take("192.0.2.1").is_some());
    }
}
