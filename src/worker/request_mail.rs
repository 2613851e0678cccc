//! Messages of other threads to waiting requests of this worker: granted slots of members, granted tokens of buckets,
//! and the ends of cache fills.

use super::Worker;
use crate::base::gen_slab::SlotKey;
use crate::cache::fill::{FillEnd, FillSink};
use crate::cache::live::Wake;
use crate::cluster::{GrantSink, Granted, Notice, Ticket};
use crate::exchange::Input;
use crate::net::mailbox::{MailboxReceiver, MailboxSender, unbounded_mailbox};
use mio::Waker;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// A message for a waiting request.
#[derive(Debug)]
struct Message {
    exchange: SlotKey,
    news: News,
}

#[derive(Debug)]
enum News {
    Granted(Ticket, Granted),
    Notice(Ticket, Notice),
    FillEnded(FillEnd),
}

/// The messages for the requests of one worker.
#[derive(Debug)]
pub(super) struct RequestMailbox {
    messages: Arc<MailboxReceiver<Message>>,
    mail: Arc<RequestMail>,
}

/// The sending side of the messages to the requests of a worker.
#[derive(Debug)]
pub struct RequestMail {
    sender: MailboxSender<Message>,
    /// The messages that the worker has not read; they are dropped with it.
    unread: Weak<MailboxReceiver<Message>>,
    is_given_up: AtomicBool,
}

impl RequestMailbox {
    /// An empty mailbox that wakes a worker.
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        let (sender, messages) = unbounded_mailbox(waker);
        let messages = Arc::new(messages);
        let unread = Arc::downgrade(&messages);
        Self { messages, mail: Arc::new(RequestMail { sender, unread, is_given_up: AtomicBool::new(false) }) }
    }

    /// Where grants for this worker's requests are sent.
    pub(super) fn grants(&self) -> Arc<dyn GrantSink> {
        Arc::clone(&self.mail) as Arc<dyn GrantSink>
    }

    /// Where the ends of fills that this worker's requests wait for are sent.
    pub(super) fn fills(&self) -> Arc<dyn FillSink> {
        Arc::clone(&self.mail) as Arc<dyn FillSink>
    }
}

impl RequestMail {
    /// Stops sending to the worker, which makes no progress, and gives its unread grants to other requests.
    pub fn give_up(&self) {
        self.is_given_up.store(true, Ordering::SeqCst);
        self.return_unread();
    }

    /// The worker makes progress again.
    pub fn resume(&self) {
        self.is_given_up.store(false, Ordering::SeqCst);
    }

    /// Dropping a slot, a token or the right to fill passes it to the next request. Other messages may be lost: each
    /// waiting request has a deadline of its own.
    fn return_unread(&self) {
        let Some(unread) = self.unread.upgrade() else { return };
        while unread.receive().is_some() {}
    }

    fn send(&self, exchange: u64, news: News) -> Result<(), News> {
        if self.is_given_up.load(Ordering::SeqCst) {
            return Err(news);
        }
        let message = Message { exchange: SlotKey::unpack(exchange), news };
        self.sender.deliver(message).map_err(|message| message.news)?;
        // The worker may have stopped making progress since.
        if self.is_given_up.load(Ordering::SeqCst) {
            self.return_unread();
        }
        Ok(())
    }
}

impl GrantSink for RequestMail {
    fn grant(&self, exchange: u64, ticket: Ticket, granted: Granted) -> Result<(), Granted> {
        match self.send(exchange, News::Granted(ticket, granted)) {
            Err(News::Granted(_, granted)) => Err(granted),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn notify(&self, exchange: u64, ticket: Ticket, notice: Notice) {
        // A worker that has ended has no requests.
        drop(self.send(exchange, News::Notice(ticket, notice)));
    }
}

impl Wake for RequestMail {
    fn wake(&self, exchange: u64) {
        self.tell(exchange, FillEnd::More);
    }
}

impl FillSink for RequestMail {
    fn tell(&self, exchange: u64, end: FillEnd) {
        // Messages that an ended worker does not take are dropped.
        drop(self.send(exchange, News::FillEnded(end)));
    }
}

impl Worker {
    /// The sending side for this worker's requests.
    pub fn request_mail(&self) -> Arc<RequestMail> {
        Arc::clone(&self.request_mail.mail)
    }

    /// Hands messages to the requests that wait for them. A grant that its request no longer needs passes to the next
    /// request when it is dropped.
    pub(super) fn read_request_mail(&mut self) {
        while let Some(Message { exchange, news }) = self.request_mail.messages.receive() {
            let Some(job) = self.jobs.get(exchange) else { continue };
            let is_awaited = match &news {
                News::Granted(ticket, _) | News::Notice(ticket, _) => job.exchange.waits_with(*ticket),
                News::FillEnded(_) => job.exchange.heeds_fill(),
            };
            if is_awaited {
                let input = match news {
                    News::Granted(_, Granted::Slot(permit)) => Input::Granted(permit),
                    News::Granted(_, Granted::Token(token)) => Input::GrantedToken(token),
                    News::Notice(_, notice) => Input::Notice(notice),
                    News::FillEnded(end) => Input::FillEnded(end),
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
        Backend, BackendId, BackendUrl, Cluster, ClusterSpec, Joined, Options, Permit, Route, TokenRequest, Waiter,
    };
    use crate::shaper::BucketId;
    use mio::{Poll, Token};

    fn mailbox() -> (Poll, RequestMailbox) {
        let poll = Poll::new().expect("a poll");
        let waker = Arc::new(Waker::new(poll.registry(), Token(1)).expect("a waker"));
        (poll, RequestMailbox::new(waker))
    }

    #[test]
    fn a_worker_that_is_given_up_swallows_no_slot() {
        let url = BackendUrl::parse("http://10.0.0.1#capacity=1").expect("a good URL");
        let backend = Arc::new(Backend::new(BackendId::new(1), url.endpoint().clone()));
        let spec =
            ClusterSpec { created: 0, key: "a", id: "x", entries: vec![(&url, backend)], options: &Options::none() };
        let route = Arc::new(Route::new("a", Cluster::edit(None, spec, Moment::ZERO)));
        let hold = || route.cluster.take(0, Moment::ZERO).map(|slot| Permit::of_route(Arc::clone(&route), slot));
        let [(_poll, stuck), (_other_poll, well)] = [(); 2].map(|()| mailbox());
        let join = |mailbox: &RequestMailbox, exchange| {
            let waiter = Waiter {
                sink: mailbox.grants(),
                exchange,
                arrived: Moment::ZERO,
                route: Arc::clone(&route),
                tried: [].into(),
                named: None,
                wanted: None,
                pick: crate::balance::pick,
                key: 0,
                session: None,
                has_token: false,
            };
            let joined = route.cluster.join(waiter, None, Moment::ZERO);
            assert!(matches!(joined, Joined::Waiting { .. }), "{joined:?}");
        };
        let receives = |mailbox: &RequestMailbox| mailbox.messages.receive().map(|message| message.news);
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

    fn joins_bucket(cluster: &Cluster, mail: &Arc<RequestMail>, exchange: u64) {
        let sink = Arc::clone(mail) as Arc<dyn GrantSink>;
        let request =
            TokenRequest { sink, exchange, bucket: BucketId::UNCLASSIFIED, arrived: Moment::ZERO, demand: None };
        let joined = cluster.join_bucket(request, Moment::ZERO);
        assert!(matches!(joined, Joined::WaitingForToken { .. }), "{joined:?}");
    }

    #[test]
    fn a_token_that_a_lost_worker_has_not_read_goes_to_the_next_request() {
        let url = BackendUrl::parse("http://10.0.0.1#capacity=1").expect("a good URL");
        let (options, errors) = Options::read([("buckets", r#"{"a": "50 %"}"#)], &Options::default());
        assert!(errors.is_empty(), "{errors:?}");
        let options = Arc::new(options);
        for has_crashed in [false, true] {
            let backend = Arc::new(Backend::new(BackendId::new(1), url.endpoint().clone()));
            let spec = ClusterSpec { created: 0, key: "a", id: "x", entries: vec![(&url, backend)], options: &options };
            let cluster = Cluster::edit(None, spec, Moment::ZERO);
            let held = cluster.try_token(BucketId::UNCLASSIFIED, Moment::ZERO).expect("a token");
            let [(_poll, lost), (_other_poll, well)] = [(); 2].map(|()| mailbox());
            let mail = Arc::clone(&lost.mail);
            joins_bucket(&cluster, &mail, 1);
            joins_bucket(&cluster, &well.mail, 2);
            cluster.give_back_token(held);
            assert!(well.messages.receive().is_none(), "the token is in the mail of the other one");
            // One that has crashed is dropped by its thread, one that makes no progress stays.
            let _lost = match has_crashed {
                true => {
                    drop(lost);
                    None
                }
                false => {
                    mail.give_up();
                    Some(lost)
                }
            };
            let granted = well.messages.receive().expect("the token that was not read");
            joins_bucket(&cluster, &mail, 3);
            joins_bucket(&cluster, &well.mail, 4);
            drop(granted);
            let granted = well.messages.receive().expect("the token goes past the lost worker");
            drop(granted);
            let held: Vec<_> = cluster.buckets().iter().map(|bucket| (bucket.held, bucket.queued)).collect();
            assert_eq!(held, [(0, 0), (0, 0)], "crashed: {has_crashed}");
        }
    }
}
