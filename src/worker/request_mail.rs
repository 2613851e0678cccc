//! Slots of members, and tokens of buckets, granted by mail to requests that wait for one.

use super::Worker;
use crate::base::gen_slab::SlotKey;
use crate::cluster::{GrantSink, Granted, Notice, Ticket};
use crate::exchange::Input;
use crate::net::mailbox::{MailboxReceiver, MailboxSender, unbounded_mailbox};
use mio::Waker;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// News for a request that waits.
#[derive(Debug)]
struct Message {
    exchange: SlotKey,
    ticket: Ticket,
    news: News,
}

#[derive(Debug)]
enum News {
    Granted(Granted),
    Notice(Notice),
}

/// The grants for one worker.
#[derive(Debug)]
pub(super) struct Grants {
    messages: Arc<MailboxReceiver<Message>>,
    mail: Arc<GrantMail>,
}

/// The way of grants to a worker.
#[derive(Debug)]
pub struct GrantMail {
    sender: MailboxSender<Message>,
    /// The messages that the worker has not read; they end with it.
    unread: Weak<MailboxReceiver<Message>>,
    is_given_up: AtomicBool,
}

impl Grants {
    /// An empty mailbox that wakes a worker.
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        let (sender, messages) = unbounded_mailbox(waker);
        let messages = Arc::new(messages);
        let unread = Arc::downgrade(&messages);
        Self { messages, mail: Arc::new(GrantMail { sender, unread, is_given_up: AtomicBool::new(false) }) }
    }

    /// Where grants for this worker's requests are sent.
    pub(super) fn sink(&self) -> Arc<dyn GrantSink> {
        Arc::clone(&self.mail) as Arc<dyn GrantSink>
    }
}

impl GrantMail {
    /// Sends the worker no more grants, and gives those that it has not read to other requests: it makes no progress.
    pub fn give_up(&self) {
        self.is_given_up.store(true, Ordering::SeqCst);
        self.return_unread();
    }

    /// The worker makes progress again.
    pub fn resume(&self) {
        self.is_given_up.store(false, Ordering::SeqCst);
    }

    fn return_unread(&self) {
        let Some(unread) = self.unread.upgrade() else { return };
        while unread.receive().is_some() {}
    }

    fn send(&self, exchange: u64, ticket: Ticket, news: News) -> Result<(), News> {
        if self.is_given_up.load(Ordering::SeqCst) {
            return Err(news);
        }
        let message = Message { exchange: SlotKey::unpack(exchange), ticket, news };
        self.sender.deliver(message).map_err(|message| message.news)?;
        // It may have been given up since.
        if self.is_given_up.load(Ordering::SeqCst) {
            self.return_unread();
        }
        Ok(())
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
    /// The way of grants to this worker.
    pub fn grant_mail(&self) -> Arc<GrantMail> {
        Arc::clone(&self.grants.mail)
    }

    /// Hands what is granted to the requests that wait for it. What a request no longer waits for goes to the next one when
    /// it is dropped.
    pub(super) fn read_grants(&mut self) {
        while let Some(Message { exchange, ticket, news }) = self.grants.messages.receive() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Moment;
    use crate::cluster::{
        Backend, BackendId, BackendUrl, Cluster, ClusterSpec, Joined, Options, Permit, Route, Waiter,
    };
    use mio::{Poll, Token};

    fn grants() -> (Poll, Grants) {
        let poll = Poll::new().expect("a poll");
        let waker = Arc::new(Waker::new(poll.registry(), Token(1)).expect("a waker"));
        (poll, Grants::new(waker))
    }

    #[test]
    fn a_worker_that_is_given_up_swallows_no_slot() {
        let url = BackendUrl::parse("http://10.0.0.1#capacity=1").expect("a good URL");
        let backend = Arc::new(Backend::new(BackendId::new(1), url.endpoint().clone()));
        let spec = ClusterSpec { key: "a", id: "x", entries: vec![(&url, backend)], options: &Options::none() };
        let route = Arc::new(Route::new("a", Cluster::edit(None, spec, Moment::ZERO)));
        let hold = || route.cluster.take(0, Moment::ZERO).map(|slot| Permit::of_route(Arc::clone(&route), slot));
        let [(_poll, stuck), (_other_poll, well)] = [(); 2].map(|()| grants());
        let join = |grants: &Grants, exchange| {
            let waiter = Waiter {
                sink: grants.sink(),
                exchange,
                route: Arc::clone(&route),
                tried: [].into(),
                named: None,
                pick: crate::balance::pick,
                key: 0,
                session: None,
                has_token: false,
            };
            let joined = route.cluster.join(waiter, None, Moment::ZERO);
            assert!(matches!(joined, Joined::Waiting { .. }), "{joined:?}");
        };
        let receives = |grants: &Grants| grants.messages.receive().map(|message| message.news);
        let held = hold().expect("room");
        join(&stuck, 1);
        join(&well, 2);
        drop(held);
        stuck.mail.give_up();
        let granted = receives(&well).expect("the slot that the stuck one has not read");
        assert!(receives(&stuck).is_none());
        join(&stuck, 3);
        join(&well, 4);
        drop(granted);
        let granted = receives(&well).expect("the slot goes past the stuck one");
        stuck.mail.resume();
        join(&stuck, 5);
        drop(granted);
        assert!(receives(&stuck).is_some(), "it makes progress again");
    }
}
