//! Slots of members, and tokens of buckets, granted by mail to requests that wait for one.

use super::Worker;
use crate::base::gen_slab::SlotKey;
use crate::cluster::{GrantSink, Granted, Notice, Ticket};
use crate::exchange::Input;
use crate::net::mailbox::MailboxSender;

/// News for a request that waits.
#[derive(Debug)]
pub(super) struct Grant {
    exchange: SlotKey,
    ticket: Ticket,
    news: News,
}

#[derive(Debug)]
enum News {
    Granted(Granted),
    Notice(Notice),
}

/// The way of grants to a worker.
#[derive(Debug)]
pub(super) struct GrantMail(pub(super) MailboxSender<Grant>);

impl GrantMail {
    fn send(&self, exchange: u64, ticket: Ticket, news: News) -> Result<(), News> {
        self.0.deliver(Grant { exchange: SlotKey::unpack(exchange), ticket, news }).map_err(|grant| grant.news)
    }
}

impl GrantSink for GrantMail {
    fn grant(&self, exchange: u64, ticket: Ticket, granted: Granted) -> Result<(), Granted> {
        match self.send(exchange, ticket, News::Granted(granted)) {
            Err(News::Granted(granted)) => Err(granted),
            Ok(()) | Err(News::Notice(_)) => Ok(()),
        }
    }

    fn notify(&self, exchange: u64, ticket: Ticket, notice: Notice) {
        // A worker that has ended has no requests.
        drop(self.send(exchange, ticket, News::Notice(notice)));
    }
}

impl Worker {
    /// Hands what is granted to the requests that wait for it. What a request no longer waits for goes to the next one when
    /// it is dropped.
    pub(super) fn read_grants(&mut self) {
        while let Some(Grant { exchange, ticket, news }) = self.grants.receive() {
            if self.jobs.get(exchange).is_some_and(|job| job.exchange.waits_with(ticket)) {
                let input = match news {
                    News::Granted(Granted::Slot(permit)) => Input::Granted(permit),
                    News::Granted(Granted::Token(token)) => Input::GrantedToken(token),
                    News::Notice(notice) => Input::Notice(notice),
                };
                self.dispatch(exchange, input);
            }
        }
    }
}
