//! A worker's part in the object cache that all workers share.

use super::Worker;
use crate::base::clock::{Clock, Moment};
use crate::base::gen_slab::SlotKey;
use crate::cache::fill::{FillEnd, FillStart, FillWaiter};
use crate::cache::store::Store;
use crate::exchange::{self, Input, StoreRequest, WorkerContext};
use crate::page::Pages;
use std::sync::Arc;

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
}
