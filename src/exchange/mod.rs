//! One request from head to last byte, as an enum of states. No I/O and no clock.
//!
//! The owner passes an [`Input`] to [`Exchange::step`], performs what it then finds in [`Output`] (first the effects in
//! order, then the bytes, by [`Exchange::flush`], or by itself with a report to [`Exchange::note_sent`]), and reads
//! from a side only while [`Exchange::wants`] says so. The loop is in [`drive`]. Everything else, up to the meaning of
//! a reset in the middle of a retry, is decided here, so a test can play every order of events.
//!
//! ```text
//! ReadingHead ─► ResolvingRoute ─► Connecting ─► AwaitingResponse ─► ForwardingResponse ─► FlushingResponse ─► Done
//!    │             │  ▲   │        ▲    │  ▲               │  └──► Tunnel ──────────────────▲
//!    │             │  │   └ Queued ┘    │  └───────────────┘ (retry)                        │
//!    │             │  └─────────────────┘                                                   │
//!    └─────────────┴───── a response of this node ─────────────────────────────────────────┘
//! ```

// Input of untrusted peers passes here, and none of it may stop a core.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::todo,
    clippy::unimplemented
)]
#![deny(clippy::indexing_slicing, clippy::string_slice)]

mod affinity;
mod awaiting_disk;
mod awaiting_fill;
mod awaiting_response;
mod background_refresh;
mod body_forwarder;
mod cache_events;
mod cache_lookup;
mod cache_response;
mod cache_view;
mod caching;
mod choosing;
mod classes;
mod compressor;
mod connecting;
pub mod drive;
mod elsewhere;
mod ended_by;
mod events;
mod fetch;
mod flushing_response;
mod forwarding_response;
mod gathering_part;
mod head_field;
mod local_reply;
mod local_service;
mod log_fields;
mod min_rate;
mod origin;
mod outcome;
mod output_queue;
mod pacing;
mod patience;
mod portable;
mod queued;
mod reading_head;
mod refresh_seed;
mod refreshing;
mod request;
mod request_context;
mod request_stats;
mod resolving_route;
mod response_head;
mod rules;
mod service;
mod serving_cached;
mod serving_live;
mod settings;
mod state;
mod step_context;
mod store_request;
mod transition;
mod transitions;
mod tunnel;
mod worker_context;

pub use events::{Disposition, Effect, Effects, Input, Side};
pub use origin::Origin;
pub use output_queue::{Flushed, OutputQueue, PendingWrite};
pub use portable::{PORTABLE_VERSION, PortableBytes, PortableExchange};
pub use refresh_seed::RefreshSeed;
pub use request::Request;
pub use request_context::RequestPool;
pub use request_stats::RequestStats;
pub use service::{RuledPage, ServiceBody, ServiceRequest, ServiceResponse, ServiceStream, StreamWatch};
pub use settings::{KeepAlive, OnClientAbort, Redirect, Settings};
pub use store_request::StoreRequest;
pub use worker_context::{Output, WorkerContext};

use crate::base::buffer::{BufferPool, BufferUsage};
use crate::base::clock::Moment;
use crate::cluster::{GrantSink, Joined, Mark, Permit, Route, Ticket};
use crate::haproxy::serve::Evaluation;
use crate::wire::forwarded::Peer;
use output_queue::write_all;
use state::State;
use std::io::{self, IoSlice};
use std::num::NonZeroU16;
use std::sync::Arc;
use step_context::{ClientKind, CommonState, StepContext};
use transition::ResponseEnd;

/// The greatest number of response bytes kept for a slow client because other requests wait for the cache fill.
const MOST_READ_AHEAD: usize = 4 << 20;

/// One request in progress.
#[derive(Debug)]
pub struct Exchange {
    state: State,
    common: CommonState,
}

impl Exchange {
    /// An exchange with a client that is about to send, or has sent, the first byte of a head.
    pub fn new(peer: Peer, now: Moment, settings: &Settings) -> Self {
        let mut common = CommonState::new(RequestStats::new(now), peer.secure);
        common.deadline = now + settings.head_timeout;
        Self { state: State::ReadingHead(reading_head::ReadingHead::new(peer)), common }
    }

    /// Makes it the last exchange on its client's connection.
    pub fn make_last(&mut self) {
        self.common.is_last = true;
    }

    /// Marks its client as one of this node's service: the request has no route ([`Effect::AskService`]).
    pub fn make_for_service(&mut self) {
        self.common.client = ClientKind::Service;
    }

    /// Marks its client as one of a HAProxy frontend: its rules decide, not the host.
    pub fn set_rules(&mut self, rules: Box<Evaluation>, now: Moment) {
        if let Some(timeout) = rules.head_timeout() {
            self.common.deadline = now + timeout;
        }
        self.common.rules = Some(rules);
    }

    /// The rules of its frontend, if any.
    pub fn rules(&self) -> Option<&Evaluation> {
        self.common.rules.as_deref()
    }

    /// Returns the rules after the exchange is over.
    pub fn take_rules(&mut self) -> Option<Box<Evaluation>> {
        self.common.rules.take()
    }

    /// Whether its client is one of this node's service.
    pub fn is_for_service(&self) -> bool {
        self.common.is_for_service()
    }

    /// Whether its response is a stream of this node's service, which has no end of its own.
    pub fn is_service_stream(&self) -> bool {
        matches!(&self.state, State::LocalService(state) if state.is_stream())
    }

    /// The request for this node's service, once: with [`Effect::AskService`].
    pub fn take_service_request(&mut self) -> Option<ServiceRequest> {
        match &mut self.state {
            State::LocalService(state) => state.take_request(),
            _ => None,
        }
    }

    /// Passes an input to the exchange. For an [`Input::Bytes`] it returns the number of consumed bytes: the others
    /// have to be offered again, at once if some were consumed, otherwise when more have arrived. `offset` is the
    /// position of the bytes in the buffer later passed to [`Exchange::flush`] or [`Exchange::note_sent`].
    pub fn step(&mut self, input: Input<'_>, offset: usize, core: &mut WorkerContext) -> usize {
        let mut input = input;
        if matches!(input, Input::Deadline) && self.pause_end().is_some() {
            self.end_pauses(core);
            let is_from_cache = matches!(self.state, State::ServingCached(_) | State::ServingLive(_));
            if !is_from_cache || self.common.is_paused(Side::Upstream) {
                return 0;
            }
            // The state continues where it stopped.
            input = Input::Drained(Side::Client);
        }
        let source = if let Input::Bytes(side, _) = input { Some(side) } else { None };
        core.output.client.set_offset(offset);
        core.output.upstream.set_offset(offset);
        let mut cx = StepContext { core, common: &mut self.common, consumed: 0 };
        let state = std::mem::replace(&mut self.state, State::Done(None)).step(input, &mut cx);
        // The placeholder owns nothing, so its destructor is skipped.
        std::mem::forget(std::mem::replace(&mut self.state, state));
        let consumed = cx.consumed;
        if source == Some(Side::Client)
            && let Some(context) = self.state.context_mut()
        {
            context.received_bytes += consumed as u64;
        }
        if self.common.pacing.is_some()
            && let Some(side) = source
        {
            self.common.count_paced(side, consumed, core.now);
        }
        consumed
    }

    /// Sends the bytes of this turn for `side`, and keeps those that `write` does not accept. A short write means that
    /// the socket is full.
    pub fn flush(
        &mut self,
        side: Side,
        input: &[u8],
        core: &mut WorkerContext,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> Flushed {
        let queue = core.output.queue(side);
        if queue.is_empty() {
            return Flushed::Nothing;
        }
        let is_free = self.common.pending_write(side).is_empty();
        let (sent, flushed) = if is_free { queue.write(input, &mut write) } else { (0, Flushed::Blocked) };
        self.note_sent(side, sent, flushed, input, core);
        flushed
    }

    /// Reports the result of sending this turn's bytes for `side`: `sent` bytes were sent, none if bytes of earlier
    /// turns were pending. The others are kept. `core` holds the bytes as made by the steps, and `input` is the buffer
    /// they refer to.
    pub fn note_sent(&mut self, side: Side, sent: usize, flushed: Flushed, input: &[u8], core: &mut WorkerContext) {
        debug_assert!(sent == 0 || self.common.pending_write(side).is_empty(), "the bytes have overtaken others");
        match flushed {
            Flushed::Blocked => {
                if matches!(self.state, State::ForwardingResponse(_)) {
                    self.common.deadline = core.now + self.common.body_timeout(&core.settings);
                }
                let queue = core.output.queue(side);
                self.common.pending_write_mut(side).keep(queue, input, sent, core.now, &mut core.buffers);
                match (side, self.state.context_mut()) {
                    // From now on the exchange waits for the client to read, or for the backend, and not for the client
                    // to send.
                    (Side::Client, Some(context)) => {
                        context.download_rate.start(core.now);
                        if let Some(caching) = &mut context.caching {
                            let kept = self.common.to_client.len();
                            let of_all = core.buffers.grown();
                            caching.client_is_slow(kept < MOST_READ_AHEAD && of_all < core.most_read_ahead);
                        }
                    }
                    (Side::Upstream, Some(context)) => context.upload_rate.pause(core.now),
                    (_, None) => {}
                }
            }
            // Pending bytes could never be sent, and would keep the other side from being read.
            Flushed::Broken => self.common.pending_write_mut(side).discard(&mut core.buffers),
            Flushed::All | Flushed::Nothing => {}
        }
        core.output.queue(side).clear();
        // The step that made the bytes has just set the deadline for what comes next.
        self.count_sent(side, sent);
    }

    /// Sends pending bytes of earlier turns for `side`, now that its socket accepts bytes again.
    pub fn flush_pending_write(
        &mut self,
        side: Side,
        core: &mut WorkerContext,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> Flushed {
        let pending_write = self.common.pending_write_mut(side);
        if pending_write.is_empty() {
            return Flushed::Nothing;
        }
        let (sent, result) = write_all(&mut std::iter::once(pending_write.pending()), &mut write);
        match result {
            Flushed::Broken => pending_write.discard(&mut core.buffers),
            _ => pending_write.advance(sent, &mut core.buffers),
        }
        self.count_sent(side, sent);
        if sent > 0 {
            self.extend_patience(side, core);
        }
        let is_response = match &self.state {
            State::LocalService(state) => state.is_sending(),
            State::ServingCached(_) | State::ServingLive(_) => true,
            state => matches!(state, State::ForwardingResponse(_) | State::FlushingResponse(_)),
        };
        let Some(context) = self.state.context_mut() else { return result };
        match (side, result) {
            (Side::Client, Flushed::Blocked) if is_response && !context.download_keeps_up(core.now, &core.settings) => {
                self.common.deadline = core.now;
            }
            // The rate is checked when the state is notified.
            (Side::Client, Flushed::All) => context.download_rate.pause(core.now),
            (Side::Upstream, Flushed::All) => context.upload_rate.start(core.now),
            _ => {}
        }
        result
    }

    fn count_sent(&mut self, side: Side, sent: usize) {
        if side == Side::Client {
            self.common.stats.bytes_to_client += sent as u64;
            if let Some(context) = self.state.context_mut() {
                context.download_rate.count(sent);
            }
        }
    }

    /// Whether bytes from `side` are wanted: the state can use them, and the other side has accepted all bytes sent to
    /// it. So an exchange holds at most one read for each side.
    pub fn wants(&self, side: Side) -> bool {
        (self.common.pending_write(side.other()).is_empty() || self.reads_ahead(side))
            && !self.common.is_paused(side)
            && self.has_use_for(side)
    }

    /// Whether the state can use bytes from `side`.
    fn has_use_for(&self, side: Side) -> bool {
        match &self.state {
            State::ReadingHead(_) => side == Side::Client,
            State::AwaitingResponse(state) => state.wants(side),
            State::ForwardingResponse(state) => state.wants(side),
            State::GatheringPart(_) => side == Side::Upstream,
            State::Tunnel(state) => state.wants(side),
            State::LocalService(state) => state.wants(side),
            State::ResolvingRoute(_)
            | State::Queued(_)
            | State::Connecting(_)
            | State::AwaitingDisk(_)
            | State::AwaitingFill(_)
            | State::ServingCached(_)
            | State::ServingLive(_)
            | State::FlushingResponse(_)
            | State::Done(_) => false,
        }
    }

    /// Whether bytes from `side` are read although the client has bytes to read: requests wait for the cache fill,
    /// independently of its client.
    fn reads_ahead(&self, side: Side) -> bool {
        let State::ForwardingResponse(state) = &self.state else { return false };
        let is_awaited = || state.context.caching.as_ref().is_some_and(|caching| caching.is_awaited());
        side == Side::Upstream && is_awaited()
    }

    /// Whether the client's stream ends as soon as the bytes queued for it are sent.
    pub fn ends_behind_response(&self) -> bool {
        matches!(&self.state, State::FlushingResponse(state) if !state.is_kept() && state.end != ResponseEnd::Truncated)
    }

    /// Whether the end of the client's stream has to be reported with [`Input::End`] although no bytes of it are
    /// wanted: the exchange waits for a backend, perhaps for a client that is gone.
    pub fn heeds_client_end(&self) -> bool {
        self.state.awaits_backend() && !self.common.client_left
    }

    /// Whether [`Input::Broken`] of the client would change anything.
    pub fn heeds_client_break(&self) -> bool {
        match &self.state {
            State::ForwardingResponse(state) => !state.is_for_readers(),
            state => !(state.awaits_backend() && self.common.client_left),
        }
    }

    /// Whether [`Input::Drained`] of this side would change anything.
    pub fn waits_for_drain(&self, side: Side) -> bool {
        match &self.state {
            State::ForwardingResponse(_) => true,
            State::Tunnel(state) => state.is_ending(),
            State::FlushingResponse(_) | State::LocalService(_) | State::ServingCached(_) | State::ServingLive(_) => {
                side == Side::Client
            }
            _ => false,
        }
    }

    /// Whether the end of the upstream connection has to be reported with [`Input::UpstreamClosedUnacked`], if it
    /// applies.
    pub fn wants_ack_check(&self) -> bool {
        matches!(&self.state, State::AwaitingResponse(state) if state.wants_ack_check())
    }

    /// Whether part of the request is still to arrive when a connection to its backend is requested.
    /// [`Effect::Uploaded`] reports the end of that.
    pub fn is_uploading(&self) -> bool {
        matches!(&self.state, State::Connecting(state) if state.context.is_uploading())
    }

    /// Number of upstream connections that the request has asked for; it wraps.
    pub fn connections(&self) -> u8 {
        self.state.context().map_or(0, |context| context.connections)
    }

    /// Bytes that a side's socket has not accepted yet.
    pub fn pending_write(&self, side: Side) -> &PendingWrite {
        self.common.pending_write(side)
    }

    /// Seconds for which the backend keeps its idle connection, if its response stated it.
    pub fn upstream_idle_seconds(&self) -> Option<NonZeroU16> {
        self.common.upstream_idle_seconds
    }

    /// The statistics so far.
    pub fn stats(&self) -> &RequestStats {
        &self.common.stats
    }

    /// The request, once its head is complete. A tunnel has none: it keeps only the fields for the log.
    pub fn request(&self) -> Option<&Request> {
        self.state.context().map(|context| &context.request)
    }

    /// The route of the request's host, once known.
    pub fn route(&self) -> Option<&Arc<Route>> {
        self.common.route()
    }

    /// The permit of the current or last member.
    pub fn permit(&self) -> Option<&Permit> {
        self.common.permit.as_ref()
    }

    /// The host's dead mark of that member; `None` for a member that joined the cluster later.
    pub fn mark(&self) -> Option<&Arc<Mark>> {
        self.common.mark()
    }

    /// The name of the request's bucket, if its cluster has buckets.
    pub fn bucket(&self) -> Option<&str> {
        self.common.bucket_name()
    }

    /// Makes the request join the queue of its bucket or its cluster, if it has to. Grants go to `exchange` at `sink`.
    pub fn join_queue(&self, sink: Arc<dyn GrantSink>, exchange: u64, core: &WorkerContext) -> Option<Joined> {
        match (&self.state, self.common.route()) {
            (State::Queued(state), Some(route)) => Some(state.join_queue(route, &self.common, sink, exchange, core)),
            _ => None,
        }
    }

    /// Whether a slot or a token granted to this ticket is still needed.
    pub fn waits_with(&self, ticket: Ticket) -> bool {
        matches!(&self.state, State::Queued(state) if state.waits_with(ticket))
    }

    /// The buffers of its core that a tunnel or a response under way holds.
    pub fn buffer_usage(&self) -> BufferUsage {
        let of_request = self.request().map_or_else(BufferUsage::default, Request::lent);
        self.common.to_client.lent().and(self.common.to_upstream.lent()).and(of_request)
    }

    /// Bytes kept because a side is slow, or sends much at once.
    pub fn buffered_bytes(&self) -> usize {
        let of_service = if let State::LocalService(state) = &self.state { state.bytes_left() } else { 0 };
        let in_buffers = self.common.to_client.len() + self.common.to_upstream.len();
        in_buffers + self.request().map_or(0, Request::buffered_bytes) + of_service
    }

    /// The number of bytes from `side` that can belong to the current read; bytes beyond them wait.
    pub fn expects(&self, side: Side) -> usize {
        match &self.state {
            State::ReadingHead(_) => 0,
            State::AwaitingResponse(state) if side == Side::Client => state.context.upload.share_of(usize::MAX),
            State::ForwardingResponse(state) if side == Side::Client => state.upload_left(),
            State::LocalService(state) if side == Side::Client => state.context.upload.share_of(usize::MAX),
            _ => usize::MAX,
        }
    }

    /// The framing bytes added to `size` bytes of a body from `side`: one chunk's, if the body is sent chunked.
    pub fn framing(&self, side: Side, size: usize) -> usize {
        self.state.context().map_or(0, |context| context.body_from(side).framing(size))
    }

    /// Returns buffers and boxes. The exchange is over, or has no owner any more.
    pub fn recycle(&mut self, buffers: &mut BufferPool, request_pool: &mut RequestPool) {
        for pending_write in [&mut self.common.to_client, &mut self.common.to_upstream] {
            pending_write.discard(buffers);
        }
        if let Some(context) = std::mem::replace(&mut self.state, State::Done(None)).into_context(buffers) {
            request_pool.take_back(context, buffers);
        }
    }
}
