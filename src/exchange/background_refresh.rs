//! A refresh of a stale response for which no client waits: an exchange without a client.
//!
//! It begins as a copy of the request whose client gets the stale response, fills the cache as that request would, and
//! ends with the response of the backend, or with a failure. Its owner takes it from [`WorkerContext::refreshes`], has
//! it ask the store ([`Exchange::store_request`]), and then drives it like any other; bytes for its client are dropped.

use super::awaiting_fill::AwaitingFill;
use super::refresh_seed::RefreshSeed;
use super::request_stats::RequestStats;
use super::state::State;
use super::step_context::{ClientKind, CommonState};
use super::{Exchange, WorkerContext};

impl Exchange {
    /// The exchange of a refresh. It has yet to ask the store.
    pub fn refresh(seed: RefreshSeed, core: &WorkerContext) -> Self {
        let RefreshSeed { context, caching, route } = seed;
        let mut common = CommonState::new(RequestStats::new(core.now), false);
        common.deadline = core.now + route.cluster.options.cache.update_lock_timeout;
        (common.client, common.held_route) = (ClientKind::None, Some(route.clone()));
        Self { state: State::AwaitingFill(Box::new(AwaitingFill::new(context, caching, route))), common }
    }
}
