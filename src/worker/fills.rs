//! A worker's part in the object cache that all workers share.

use super::Worker;
use super::connection::{ActiveExchange, ClosingSides, UpstreamState};
use super::read_size::ClientReadSize;
use crate::base::clock::{Clock, Moment};
use crate::base::counters::Counter;
use crate::base::gen_slab::SlotKey;
use crate::cache::fill::{FillEnd, FillStart, FillWaiter};
use crate::cache::store::Store;
use crate::exchange::{self, Exchange, Input, StoreRequest, WorkerContext};
use crate::page::Pages;
use std::sync::Arc;

/// The greatest number of refreshes without a client at a time. Beyond it, a client that finds a stale object waits for its
/// refresh.
const MOST_REFRESHES: usize = 64;

/// The exchanges that refresh objects without a client. They end with their worker.
#[derive(Debug, Default)]
pub(super) struct Refreshes(Vec<SlotKey>);

/// State that the exchanges of a worker share, the object cache included.
pub(super) fn context(
    now: Moment,
    settings: exchange::Settings,
    pages: Arc<Pages>,
    cache: Option<Arc<Store>>,
    (clock, most_read_ahead): (Clock, usize),
) -> WorkerContext {
    let mut core = WorkerContext::new(now, settings, pages, fastrand::Rng::new());
    (core.cache, core.most_read_ahead) = (cache, most_read_ahead);
    (core.wall_origin, core.steady_origin) = (clock.wall(Moment::ZERO), clock.steady(Moment::ZERO));
    core
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

    /// Begins the refreshes that requests of this turn have left behind.
    pub(super) fn start_refreshes(&mut self) {
        while let Some(seed) = self.core.refreshes.pop() {
            self.counters.count(Counter::CacheRefreshes);
            let job = self.jobs.insert(ActiveExchange {
                exchange: Exchange::refresh(seed, &self.core),
                client: SlotKey::NONE,
                upstream_state: UpstreamState::None,
                closing: ClosingSides::default(),
                read_size: ClientReadSize::default().into(),
                upload_to: None,
                is_staged: false,
            });
            self.refreshes.0.push(job);
            self.ask_store(job);
            self.resume_exchange(job);
        }
        let Self { refreshes, jobs, core, .. } = self;
        refreshes.0.retain(|key| jobs.get(*key).is_some());
        core.most_refreshes = MOST_REFRESHES.saturating_sub(refreshes.0.len());
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
