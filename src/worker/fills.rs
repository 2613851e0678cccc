//! Requests that wait for another one's fill of the cache, which may be another worker's.

use super::Worker;
use crate::base::clock::{Clock, Moment};
use crate::base::gen_slab::SlotKey;
use crate::cache::fill::{FillEnd, FillSink, FillStart, FillWaiter};
use crate::cache::live::Wake;
use crate::cache::store::Store;
use crate::exchange::{self, FillRequest, Input, WorkerContext};
use crate::net::mailbox::{MailboxReceiver, MailboxSender, unbounded_mailbox};
use crate::page::Pages;
use mio::Waker;
use std::sync::Arc;

/// The end of a fill, for a request that waits for it.
#[derive(Debug)]
struct FillNews {
    exchange: SlotKey,
    end: FillEnd,
}

/// The mail of fills to one worker.
#[derive(Debug)]
pub(super) struct WorkerFills {
    sink: Arc<dyn FillSink>,
    news: MailboxReceiver<FillNews>,
}

impl WorkerFills {
    /// An empty mailbox that wakes a worker.
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        let (sender, news) = unbounded_mailbox(waker);
        Self { sink: Arc::new(FillMail(sender)), news }
    }
}

#[derive(Debug)]
struct FillMail(MailboxSender<FillNews>);

impl Wake for FillMail {
    fn wake(&self, exchange: u64) {
        self.tell(exchange, FillEnd::More);
    }
}

impl FillSink for FillMail {
    fn tell(&self, exchange: u64, end: FillEnd) {
        // What a worker that has ended does not take is dropped.
        drop(self.0.deliver(FillNews { exchange: SlotKey::unpack(exchange), end }));
    }
}

/// What the exchanges of a worker share, the object cache included.
pub(super) fn context(
    now: Moment,
    settings: exchange::Settings,
    pages: Arc<Pages>,
    cache: Option<Arc<Store>>,
    (clock, most_read_ahead): (Clock, usize),
) -> WorkerContext {
    let mut core = WorkerContext::new(now, settings, pages, fastrand::Rng::new());
    (core.cache, core.wall_origin, core.most_read_ahead) = (cache, clock.wall(Moment::ZERO), most_read_ahead);
    core
}

impl Worker {
    /// Has a request join the fill of its object.
    pub(super) fn join_fill(&mut self, job_key: SlotKey) {
        let Some(request) = self.jobs.get(job_key).and_then(|job| job.exchange.fill_request()) else { return };
        let sink = Arc::clone(&self.fills.sink);
        let waiter = FillWaiter { sink, exchange: job_key.pack() };
        let start = match &self.core.cache {
            Some(store) => {
                let FillRequest { key, may_lead, timeout } = request;
                store.fills().join(&key, waiter, may_lead, timeout, self.core.now)
            }
            None => FillStart::Pass,
        };
        self.step_only(job_key, Input::Fill(start));
    }

    /// Tells requests what has become of the fills that they wait for.
    pub(super) fn read_fill_news(&mut self) {
        while let Some(FillNews { exchange, end }) = self.fills.news.receive() {
            // A right to fill that comes for a request which no longer waits goes to the next one when it is dropped.
            if self.jobs.get(exchange).is_some_and(|job| job.exchange.heeds_fill()) {
                self.dispatch(exchange, Input::FillEnded(end));
            }
        }
    }
}
