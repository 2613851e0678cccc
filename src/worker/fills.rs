//! A worker's part in the object cache that all workers share.

use super::Worker;
use crate::base::clock::{Clock, Moment};
use crate::base::gen_slab::SlotKey;
use crate::cache::fill::{FillStart, FillWaiter};
use crate::cache::store::Store;
use crate::exchange::{self, FillRequest, Input, WorkerContext};
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
    (core.cache, core.wall_origin, core.most_read_ahead) = (cache, clock.wall(Moment::ZERO), most_read_ahead);
    core
}

impl Worker {
    /// Adds a request to the waiters for the fill of its object.
    pub(super) fn join_fill(&mut self, job_key: SlotKey) {
        let Some(request) = self.jobs.get(job_key).and_then(|job| job.exchange.fill_request()) else { return };
        let waiter = FillWaiter { sink: self.request_mail.fills(), exchange: job_key.pack() };
        let start = match &self.core.cache {
            Some(store) => {
                let FillRequest { key, may_lead, timeout } = request;
                store.fills().join(&key, waiter, may_lead, timeout, self.core.now)
            }
            None => FillStart::Pass,
        };
        self.step_only(job_key, Input::Fill(start));
    }
}
