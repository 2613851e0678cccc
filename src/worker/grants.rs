//! Slots of members, granted by mail to requests that wait for one.

use super::Worker;
use crate::base::gen_slab::SlotKey;
use crate::cluster::{GrantSink, Permit, Ticket};
use crate::exchange::Input;
use crate::net::mailbox::MailboxSender;

/// A slot for a request that waits.
#[derive(Debug)]
pub(super) struct Grant {
    exchange: SlotKey,
    ticket: Ticket,
    permit: Permit,
}

/// The way of grants to a worker.
#[derive(Debug)]
pub(super) struct GrantMail(pub(super) MailboxSender<Grant>);

impl GrantSink for GrantMail {
    fn grant(&self, exchange: u64, ticket: Ticket, permit: Permit) -> Result<(), Permit> {
        self.0.deliver(Grant { exchange: SlotKey::unpack(exchange), ticket, permit }).map_err(|grant| grant.permit)
    }
}

impl Worker {
    /// Hands granted slots to the requests that wait for them. A slot for a request that is gone goes to the next one when
    /// its permit is dropped.
    pub(super) fn read_grants(&mut self) {
        while let Some(Grant { exchange, ticket, permit }) = self.grants.receive() {
            if self.jobs.get(exchange).is_some_and(|job| job.exchange.waits_with(ticket)) {
                self.dispatch(exchange, Input::Granted(permit));
            }
        }
    }
}
