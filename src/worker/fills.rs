//! A worker's part in the object cache that all workers share.

use super::Worker;
use super::connection::ActiveExchange;
use super::read_size::ClientReadSize;
use crate::base::clock::Moment;
use crate::base::counters::Counter;
use crate::base::gen_slab::SlotKey;
use crate::cache::fill::{FillEnd, FillStart, FillWaiter};
use crate::cache::store::Store;
use crate::exchange::{Exchange, Input, StoreRequest};
use std::sync::Arc;

/// The greatest number of refreshes without a client at a time. Beyond it, a client that finds a stale object waits for its
/// refresh.
const MOST_REFRESHES: usize = 64;

/// The exchanges that refresh objects without a client. They end with their worker.
#[derive(Debug, Default)]
pub(super) struct Refreshes(Vec<SlotKey>);

impl Refreshes {
    /// Removes a refresh that is over.
    fn remove(&mut self, job: SlotKey) {
        self.0.retain(|known| *known != job);
    }

    /// The number of refreshes that may still begin.
    fn room(&self) -> usize {
        MOST_REFRESHES.saturating_sub(self.0.len())
    }
}

impl Worker {
    /// Performs what a request asks of the store.
    pub(super) fn ask_store(&mut self, job_key: SlotKey) {
        let Some(request) = self.jobs.get(job_key).and_then(|job| job.exchange.store_request()) else { return };
        let waiter = FillWaiter { sink: self.request_mail.fills(), exchange: job_key.pack() };
        let store = self.core.cache.as_ref();
        let tier = store.and_then(|store| store.tier());
        let (input, is_asked) = match request {
            StoreRequest::Join { key, may_lead, timeout } => {
                let join = |store: &Arc<Store>| store.fills().join(&key, waiter, may_lead, timeout, self.core.now);
                (Input::Fill(store.map_or(FillStart::Pass, join)), false)
            }
            StoreRequest::Load { key, max_bytes } => {
                (Input::FillEnded(FillEnd::Loaded), tier.is_some_and(|tier| tier.load(key, max_bytes, waiter)))
            }
            StoreRequest::Settle => {
                (Input::FillEnded(FillEnd::Loaded), tier.map(|tier| tier.settle_request(waiter)).is_some())
            }
        };
        // The disk tier tells the request itself.
        if !is_asked {
            self.step_only(job_key, input);
        }
    }

    /// Sets what the exchanges of a worker share with the object cache.
    pub(super) fn use_cache(&mut self, cache: Option<Arc<Store>>) {
        self.core.cache = cache;
        self.core.most_read_ahead = self.settings.max_buffer_bytes / 8;
        self.core.most_refreshes = self.refreshes.room();
        self.core.steady_origin = self.clock.steady(Moment::ZERO);
    }

    /// Begins the refreshes that requests of this turn have left behind.
    #[cold]
    pub(super) fn start_refreshes(&mut self) {
        while let Some(seed) = self.core.refreshes.pop() {
            self.counters.count(Counter::CacheRefreshes);
            let exchange = Exchange::refresh(seed, &self.core);
            let job = ActiveExchange::new(exchange, SlotKey::NONE, ClientReadSize::default().into());
            let job = self.jobs.insert(job);
            self.refreshes.0.push(job);
            self.ask_store(job);
            self.resume_exchange(job);
        }
        self.core.most_refreshes = self.refreshes.room();
    }

    /// An exchange without a client is over.
    #[cold]
    pub(super) fn end_refresh(&mut self, job: SlotKey) {
        self.refreshes.remove(job);
        self.core.most_refreshes = self.refreshes.room();
    }

    /// The first deadline of a refresh, which has no client's timer.
    pub(super) fn next_refresh_deadline(&self) -> Moment {
        let deadlines = self.refreshes.0.iter().filter_map(|key| self.jobs.get(*key));
        deadlines.map(|job| job.exchange.deadline()).fold(Moment::NEVER, Moment::min)
    }

    /// Handles the refreshes whose deadline has passed.
    pub(super) fn expire_refreshes(&mut self) {
        for place in 0..self.refreshes.0.len() {
            if let Some(job) = self.refreshes.0.get(place).copied() {
                self.job_due(job);
            }
        }
    }
}
