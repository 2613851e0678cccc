//! The owners of timers.

use super::connection::{Client, Upstream};
use crate::base::gen_slab::{GenSlab, SlotKey};
use crate::base::wheel::{Owners, Timer};

/// Owner of a deadline.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owner {
    Client(SlotKey),
    Upstream(SlotKey),
}

/// The timers of all owners.
pub(super) struct TimerOwners<'w> {
    pub(super) clients: &'w mut GenSlab<Client>,
    pub(super) upstreams: &'w mut GenSlab<Upstream>,
}

impl Owners<Owner> for TimerOwners<'_> {
    fn timer_of(&mut self, owner: Owner) -> Option<&mut Timer> {
        match owner {
            Owner::Client(key) => self.clients.get_mut(key).map(|client| &mut client.timer),
            Owner::Upstream(key) => self.upstreams.get_mut(key).map(|upstream| &mut upstream.timer),
        }
    }
}
