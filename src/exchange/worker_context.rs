//! What the exchanges of a core share.

use super::compressor::Compressors;
use super::events::{Effects, Side};
use super::output_queue::OutputQueue;
use super::request_context::RequestPool;
use super::settings::Settings;
use crate::base::buffer::BufferPool;
use crate::base::clock::Moment;
use crate::cache::store::Store;
use crate::haproxy::serve::Workspace;
use crate::page::Pages;
use std::sync::Arc;
use std::time::SystemTime;

/// The results of steps: a core has one and uses it again and again.
#[derive(Debug, Default)]
pub struct Output {
    pub(super) client: OutputQueue,
    pub(super) upstream: OutputQueue,
    /// What is to be done.
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

    /// The memory that it has taken for bytes.
    pub fn room(&self) -> usize {
        self.client.room() + self.upstream.room()
    }

    /// Gives room back that a large turn has taken, where there are no bytes now.
    pub fn trim(&mut self) {
        self.client.trim();
        self.upstream.trim();
    }
}

/// What the steps of all exchanges of a core share.
#[derive(Debug)]
pub struct WorkerContext {
    /// The present moment.
    pub now: Moment,
    /// The settings.
    pub settings: Settings,
    /// The pages of this node.
    pub pages: Arc<Pages>,
    /// The buffers.
    pub buffers: BufferPool,
    /// The boxes of requests.
    pub request_pool: RequestPool,
    /// The dice.
    pub rng: fastrand::Rng,
    /// The object cache that all cores share; `None` where there is none.
    pub cache: Option<Arc<Store>>,
    /// The memory of rules.
    pub rules: Workspace,
    /// What compresses responses for them.
    pub(super) compressors: Compressors,
    /// The key that is being made.
    pub(super) cache_key: Vec<u8>,
    /// How many bytes the buffers may have grown by when a fill of the cache is read faster than its client takes it.
    pub most_read_ahead: usize,
    /// The wall-clock time of [`Moment::ZERO`].
    pub wall_origin: SystemTime,
    /// Where the results go. It is boxed as an owner may have several, and change them.
    pub output: Box<Output>,
}

impl WorkerContext {
    /// A core at this moment, with nothing in stock.
    pub fn new(now: Moment, settings: Settings, pages: Arc<Pages>, rng: fastrand::Rng) -> Self {
        let (buffers, request_pool, output) = (BufferPool::default(), RequestPool::default(), Box::default());
        let (cache, cache_key, wall_origin) = (None, Vec::new(), SystemTime::UNIX_EPOCH);
        let (rules, most_read_ahead) = (Workspace::default(), 16 << 20);
        Self {
            now,
            settings,
            pages,
            buffers,
            request_pool,
            rng,
            cache,
            rules,
            compressors: Compressors::default(),
            cache_key,
            most_read_ahead,
            wall_origin,
            output,
        }
    }

    /// The present wall-clock time.
    pub(super) fn wall_time(&self) -> SystemTime {
        self.wall_origin + self.now.since(Moment::ZERO)
    }
}
