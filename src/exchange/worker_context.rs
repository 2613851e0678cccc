//! Data shared by the exchanges of a core.

use super::compressor::Compressors;
use super::events::{Effects, Side};
use super::output_queue::OutputQueue;
use super::refresh_seed::RefreshSeed;
use super::request_context::RequestPool;
use super::settings::Settings;
use crate::base::buffer::BufferPool;
use crate::base::clock::Moment;
use crate::cache::store::Store;
use crate::cluster::Tenants;
use crate::haproxy::serve::Workspace;
use crate::page::Pages;
use std::sync::Arc;
use std::time::SystemTime;

/// The output of steps. A core has one and reuses it.
#[derive(Debug, Default)]
pub struct Output {
    pub(super) client: OutputQueue,
    pub(super) upstream: OutputQueue,
    /// Effects to perform.
    pub effects: Effects,
}

impl Output {
    /// The bytes for a side.
    pub fn queue(&mut self, side: Side) -> &mut OutputQueue {
        match side {
            Side::Client => &mut self.client,
            Side::Upstream => &mut self.upstream,
        }
    }

    /// Whether there are bytes to send.
    pub fn has_bytes(&self) -> bool {
        !(self.client.is_empty() && self.upstream.is_empty())
    }

    /// Drops all bytes.
    pub fn clear(&mut self) {
        self.client.clear();
        self.upstream.clear();
    }

    /// Memory allocated for bytes.
    pub fn room(&self) -> usize {
        self.client.room() + self.upstream.room()
    }

    /// Frees memory that a large turn has allocated, if there are no bytes now.
    pub fn trim(&mut self) {
        self.client.trim();
        self.upstream.trim();
    }
}

/// Data shared by the steps of all exchanges of a core.
#[derive(Debug)]
pub struct WorkerContext {
    /// The present moment.
    pub now: Moment,
    /// The settings.
    pub settings: Settings,
    /// The error pages of this node.
    pub pages: Arc<Pages>,
    /// The buffer pool.
    pub buffers: BufferPool,
    /// The pool of request boxes.
    pub request_pool: RequestPool,
    /// The random number generator.
    pub rng: fastrand::Rng,
    /// The object cache shared by all cores; `None` if there is none.
    pub cache: Option<Arc<Store>>,
    /// The tenants that share this node; `None` where requests in flight have no limit for all.
    pub tenants: Option<Arc<Tenants>>,
    /// Working memory of rules.
    pub rules: Workspace,
    /// The compressors of responses, for rules.
    pub(super) compressors: Compressors,
    /// Refreshes of the cache without a client, which the owner has yet to begin.
    pub refreshes: Vec<RefreshSeed>,
    /// The number of refreshes that the owner may begin; 0 if it has no exchanges without a client.
    pub most_refreshes: usize,
    /// The buffer for cache keys.
    pub(super) cache_key: Vec<u8>,
    /// Bytes by which the buffers may have grown while a cache fill is read faster than its client reads it.
    pub most_read_ahead: usize,
    /// Another process has replaced this one: clients whose connections end here may reconnect at once.
    pub is_replaced: bool,
    /// The wall-clock time of [`Moment::ZERO`], as the system's clock is set now.
    pub wall_origin: SystemTime,
    /// The same as the system's clock was set at the start: ages in the cache do not depend on what was set since.
    pub steady_origin: SystemTime,
    /// The output. It is boxed because an owner may have several and swap them.
    pub output: Box<Output>,
}

impl WorkerContext {
    /// A context at this moment, without pooled objects.
    pub fn new(now: Moment, settings: Settings, pages: Arc<Pages>, rng: fastrand::Rng) -> Self {
        let (buffers, request_pool, output) = (BufferPool::default(), RequestPool::default(), Box::default());
        let (cache, tenants, cache_key) = (None, None, Vec::new());
        let (wall_origin, steady_origin) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH);
        let (rules, most_read_ahead) = (Workspace::default(), 16 << 20);
        Self {
            now,
            settings,
            pages,
            buffers,
            request_pool,
            rng,
            cache,
            tenants,
            rules,
            compressors: Compressors::default(),
            refreshes: Vec::new(),
            most_refreshes: 0,
            cache_key,
            most_read_ahead,
            is_replaced: false,
            wall_origin,
            steady_origin,
            output,
        }
    }

    /// The present wall-clock time.
    pub(super) fn wall_time(&self) -> SystemTime {
        self.wall_origin + self.now.since(Moment::ZERO)
    }

    /// The present time of a wall clock that is never set.
    pub(super) fn steady_time(&self) -> SystemTime {
        self.steady_origin + self.now.since(Moment::ZERO)
    }
}
