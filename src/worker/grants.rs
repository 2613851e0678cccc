//! Slots of members, and tokens of buckets, granted by mail to requests that wait for one.

use super::Worker;
use crate::base::gen_slab::SlotKey;
use crate::cluster::{GrantSink, Granted, Ticket};
use crate::exchange::Input;
use crate::net::mailbox::MailboxSender;

/// A slot or a token for a request that waits.
#[derive(Debug)]
pub(super) struct Grant {
    exchange: SlotKey,
    ticket: Ticket,
    granted: Granted,
}

/// The way of grants to a worker.
#[derive(Debug)]
pub(super) struct GrantMail(pub(super) MailboxSender<Grant>);

impl GrantSink for GrantMail {
    fn grant(&self, exchange: u64, ticket: Ticket, granted: Granted) -> Result<(), Granted> {
        self.0.deliver(Grant { exchange: SlotKey::unpack(exchange), ticket, granted }).map_err(|grant| grant.granted)
    }
}

impl Worker {
    /// Hands what is granted to the requests that wait for it. What a request no longer waits for goes to the next one when
    /// it is dropped.
    pub(super) fn read_grants(&mut self) {
        while let Some(Grant { exchange, ticket, granted }) = self.grants.receive() {
            if self.jobs.get(exchange).is_some_and(|job| job.exchange.waits_with(ticket)) {
                let input = match granted {
                    Granted::Slot(permit) => Input::Granted(permit),
                    Granted::Token(token) => Input::GrantedToken(token),
                };
                self.dispatch(exchange, input);
            }
        }
    }
}
