//! The request waits for the disk tier of the object cache: to load a key that memory lacks, or to finish a purge. No core waits
//! for it.

use super::cache_lookup;
use super::events::{Effect, Input};
use super::request_context::RequestContext;
use super::step_context::StepContext;
use super::store_request::{DiskWish, StoreRequest};
use super::transition::{Next, Step};
use crate::cache::fill::FillEnd;
use crate::cluster::Route;
use std::sync::Arc;
use std::time::Duration;

/// How long a purge may take. Then the client is told that it is not known whether it is done.
const PURGE_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct AwaitingDisk {
    pub(super) context: Box<RequestContext>,
    route: Arc<Route>,
    wish: DiskWish,
}

impl AwaitingDisk {
    /// Asks.
    #[cold]
    pub(super) fn start(
        context: Box<RequestContext>,
        route: Arc<Route>,
        wish: DiskWish,
        cx: &mut StepContext<'_>,
    ) -> Self {
        cx.effect(Effect::AskStore);
        cx.deadline_in(match wish {
            DiskWish::Load(_) => route.cluster.options.cache.update_lock_timeout,
            DiskWish::Settle(_) => PURGE_TIMEOUT,
        });
        Self { context, route, wish }
    }

    pub(super) fn step(self, input: Input<'_>, cx: &mut StepContext<'_>) -> Step<Box<Self>> {
        let is_late = matches!(input, Input::Deadline);
        if !is_late && !matches!(input, Input::FillEnded(FillEnd::Loaded)) {
            return Ok(Next::Stay(Box::new(self)));
        }
        let Self { mut context, route, wish } = self;
        match wish {
            DiskWish::Load(_) => {
                context.asked_disk = true;
                Ok(cache_lookup::start(context, route, cx)?.into())
            }
            DiskWish::Settle(status) => {
                let tier = cx.core.cache.as_ref().and_then(|store| store.tier());
                let status = match is_late {
                    true => 504,
                    // A later process would serve the object.
                    false if tier.is_some_and(|tier| tier.has_leftovers()) => 500,
                    false => status,
                };
                Ok(cache_lookup::give(context, status, cx).into())
            }
        }
    }

    pub(super) fn request(&self) -> StoreRequest {
        match &self.wish {
            DiskWish::Load(key) => {
                let max_bytes = self.route.cluster.options.cache.max_bytes;
                StoreRequest::Load { key: Arc::clone(key), max_bytes }
            }
            DiskWish::Settle(_) => StoreRequest::Settle,
        }
    }
}
