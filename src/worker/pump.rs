//! Bytes: from a socket to an exchange, and from the exchange to the other socket.

use super::connection::{ActiveExchange, Endpoint, UpstreamState};
use super::lazy_registration::departure;
use super::read_size::SMALLEST_READ;
use super::{Deferred, Worker};
use crate::base::clock::Moment;
use crate::base::counters::Counter;
use crate::base::gen_slab::SlotKey;
use crate::base::slice_ext::SliceExt;
use crate::exchange::drive::{self, Driver};
use crate::exchange::{Effect, Exchange, Flushed, Input, Output, Side, WorkerContext};
use crate::net::transport::Received;
use crate::wire::is_blank;

/// A worker that drives one of its exchanges.
struct JobDriver<'w> {
    worker: &'w mut Worker,
    job: SlotKey,
}

impl Driver for JobDriver<'_> {
    fn exchange(&mut self) -> Option<(&mut Exchange, &mut WorkerContext)> {
        let Worker { jobs, core, .. } = &mut *self.worker;
        Some((&mut jobs.get_mut(self.job)?.exchange, core))
    }

    fn output(&mut self) -> &mut Output {
        &mut self.worker.core.output
    }

    fn perform(&mut self, effect: Effect) {
        self.worker.perform(self.job, effect);
    }

    fn send(&mut self, side: Side, input: &[u8]) -> Option<Flushed> {
        self.worker.send_to(self.job, side, input)
    }

    fn note_flushed(&mut self, side: Side, flushed: Flushed) {
        self.worker.note_flushed(self.job, side, flushed);
    }

    fn puts_off_drained(&mut self, side: Side) -> bool {
        side == Side::Client && self.worker.puts_off_service(self.job)
    }
}

impl Worker {
    /// Handles a client's event that is not bytes alone. The event is noted already.
    pub(super) fn client_ready(&mut self, key: SlotKey, is_writable: bool) {
        let Some(client) = self.clients.get(key) else { return };
        let Some(job) = client.job else { return self.try_start_request(key) };
        if is_writable {
            self.resume(job, Side::Client);
        }
        self.pump(job, Side::Client);
    }

    /// The same, for a connection to a backend.
    pub(super) fn upstream_ready(&mut self, key: SlotKey, is_writable: bool) {
        if self.upstreams.get(key).is_some_and(|upstream| upstream.dial.is_some()) {
            self.dial_progress(key);
        }
        let Some(upstream) = self.upstreams.get(key) else { return };
        let (job, is_open) = (upstream.job, upstream.dial.is_none());
        match job {
            None if upstream.stream.transport.is_readable() => self.check_idle(key),
            Some(job) if is_open && self.jobs.get(job).is_some_and(|job| job.is_tied_to(Endpoint::Upstream(key))) => {
                if is_writable {
                    self.resume(job, Side::Upstream);
                }
                self.pump(job, Side::Upstream);
            }
            // The connection is assigned to an exchange that has waited; the exchange will read the noted event.
            _ => {}
        }
    }

    /// An idle connection to a backend is readable: its end, or bytes without a request.
    #[cold]
    pub(super) fn check_idle(&mut self, key: SlotKey) {
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        if upstream.stream.transport.receive(self.scratch.limit(1), &mut self.tls_scratch) != Received::Nothing {
            self.close_upstream(key);
        }
    }

    /// A client without a request may have sent one.
    pub(super) fn try_start_request(&mut self, key: SlotKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.is_lingering {
            return self.discard(key);
        }
        if client.job.is_some()
            || !client.stream.has_more()
            || (client.awaits_header.is_some() && !self.read_header(key))
        {
            return;
        }
        let Some(client) = self.clients.get_mut(key) else { return };
        if is_blank(client.stream.unread.bytes()) {
            client.stream.unread.discard(&mut self.core.buffers);
        }
        if !client.stream.unread.is_empty() {
            let Some(job) = self.open_job(key) else { return };
            return self.pump(job, Side::Client);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        // Bytes behind a head may be requests that have to wait: the limit is that of a slow body.
        let received = client.stream.transport.receive(scratch.limit(SMALLEST_READ), &mut self.tls_scratch);
        if client.is_shaking_hands && !client.stream.transport.is_handshaking() {
            self.on_handshake_done(key);
        }
        match received {
            Received::Bytes(count) if !is_blank(scratch.prefix(count)) => {
                if let Some(job) = self.open_job(key) {
                    self.pass_on(job, Endpoint::Client(key), received, scratch.prefix(count));
                }
            }
            Received::Plain(count) => {
                if let Some(job) = self.open_job(key) {
                    self.dispatch(job, Input::PlaintextOnTlsPort(scratch.prefix(count)));
                }
            }
            received => self.on_first_bytes(key, received),
        }
        self.scratch = scratch;
        if received == Received::Hello {
            self.on_client_hello(key);
        }
    }

    /// A client without a request has sent bytes that are not a request, or has left.
    pub(super) fn on_first_bytes(&mut self, key: SlotKey, received: Received) {
        match received {
            Received::Bytes(_) | Received::Nothing => self.retry_start_request(key),
            // An alert may be waiting to be sent.
            Received::Broken if self.has_failed(key) => self.start_lingering_close(key, true),
            Received::End | Received::Broken => self.close_client(key),
            Received::Hello | Received::Plain(_) => {}
        }
    }

    /// Whether TLS has failed on a client's connection.
    fn has_failed(&self, key: SlotKey) -> bool {
        self.clients.get(key).is_some_and(|client| client.stream.transport.fault().is_some())
    }

    /// Begins an exchange with a client, if the client is still there.
    pub(super) fn open_job(&mut self, client_key: SlotKey) -> Option<SlotKey> {
        let is_last_here = self.is_last_here(client_key);
        let client = self.clients.get_mut(client_key)?;
        let mut exchange = Exchange::new(client.peer.clone(), self.core.now, &self.core.settings);
        if self.settings.max_requests.is_some_and(|most| client.served >= most.get() - 1) {
            self.counters.count(Counter::RequestLimits);
            exchange.make_last();
        } else if is_last_here {
            exchange.make_last();
        }
        if client.is_for_service {
            exchange.make_for_service();
        }
        let (frontend, read_size) = (client.entry.frontend(), client.read_size.into());
        if frontend != 0 {
            self.set_rules(client_key, frontend, &mut exchange);
        }
        let job = self.jobs.insert(ActiveExchange::new(exchange, client_key, read_size));
        let client = self.clients.get_mut(client_key)?;
        client.job = Some(job);
        client.idle_since = Moment::NEVER;
        client.stream.unread.set_starved(false);
        Some(job)
    }

    /// Reads once from a side and steps the exchange. If the exchange reads nothing from a client, only the client's
    /// end is reported.
    pub(super) fn pump(&mut self, job_key: SlotKey, side: Side) {
        let Some(job) = self.jobs.get(job_key) else { return };
        if !job.exchange.wants(side) {
            let client = self.clients.get(job.client).filter(|_| side == Side::Client);
            if let Some(input) = client.and_then(|client| departure(&job.exchange, &client.stream.transport)) {
                self.dispatch(job_key, input);
            }
            return;
        }
        let limit = self.read_size(job, side);
        let Some(source) = job.endpoint(side) else { return };
        let mut scratch = std::mem::take(&mut self.scratch);
        let stream = source.stream(&mut self.clients, &mut self.upstreams);
        if let Some(stream) = stream.filter(|stream| stream.has_more()) {
            if stream.unread.has_usable() {
                self.take_in_unread(job_key, source);
            } else {
                match stream.transport.receive(scratch.limit(limit), &mut self.tls_scratch) {
                    Received::Bytes(count) if !stream.unread.is_empty() => {
                        stream.unread.append(scratch.prefix(count), &mut self.core.buffers);
                        self.take_in_unread(job_key, source);
                    }
                    received => {
                        self.note_read(job_key, side, received, limit);
                        self.pass_on(job_key, source, received, scratch.prefix(received.count()));
                    }
                }
            }
        }
        self.scratch = scratch;
    }

    /// Size of one read. Bytes behind a client's message must not fill the memory.
    pub(super) fn read_size(&self, job: &ActiveExchange, side: Side) -> usize {
        let framing = |size| job.exchange.framing(side, size);
        let is_small = job.exchange.is_paced() || self.is_short_of_buffers();
        let limit = if is_small { SMALLEST_READ } else { job.read_size.of(side, framing) };
        match side {
            Side::Client => limit.min(job.exchange.expects(side).saturating_add(SMALLEST_READ)),
            Side::Upstream => limit,
        }
    }

    /// A read that has brought its full size is followed by more, so its size fills whole packets. TLS comes in
    /// records, and part of a record has to be kept.
    pub(super) fn note_read(&mut self, job_key: SlotKey, side: Side, received: Received, limit: usize) {
        if received != Received::Bytes(limit) {
            return;
        }
        let Some(job) = self.jobs.get_mut(job_key) else { return };
        let source = job.transport(side, &mut self.clients, &mut self.upstreams);
        let is_plain = source.is_some_and(|transport| !transport.is_encrypted());
        let addressee = job.transport(side.other(), &mut self.clients, &mut self.upstreams);
        let segment = addressee.filter(|_| is_plain).and_then(|transport| transport.segment());
        job.read_size.fit(side, segment);
    }

    /// Whether the connection ended before the backend can have read anything of this exchange.
    fn is_closed_unacked(&self, job: SlotKey, source: Endpoint) -> bool {
        let Endpoint::Upstream(key) = source else { return false };
        let asks = self.jobs.get(job).is_some_and(|job| job.exchange.wants_ack_check());
        let upstream = self.upstreams.get(key).filter(|_| asks);
        upstream.is_some_and(|upstream| !upstream.stream.transport.acked_beyond(upstream.sent_before))
    }

    /// Steps an exchange with the bytes received just now, and sends the output.
    fn pass_on(&mut self, job: SlotKey, source: Endpoint, received: Received, bytes: &[u8]) {
        self.take_in(job, source, received, bytes);
        self.flush(job, bytes);
        self.settle(job);
    }

    /// Steps an exchange with the bytes received just now, and keeps the bytes that are left over. The output has yet
    /// to be sent.
    pub(super) fn take_in(&mut self, job: SlotKey, source: Endpoint, received: Received, bytes: &[u8]) {
        let input = match received {
            Received::Bytes(_) => {
                let (used, starved) = drive::offer(&mut self.driver(job), source.side(), bytes);
                let rest = bytes.suffix(used);
                if !rest.is_empty()
                    && let Some(stream) = source.stream(&mut self.clients, &mut self.upstreams)
                {
                    stream.unread.fill(rest, &mut self.core.buffers);
                    stream.unread.set_starved(starved);
                }
                return;
            }
            // With TLS the socket may be readable while the next record is still incomplete.
            Received::Nothing | Received::Hello | Received::Plain(_) => return,
            Received::End | Received::Broken if self.is_closed_unacked(job, source) => Input::UpstreamClosedUnacked,
            Received::End => Input::End(source.side()),
            Received::Broken => Input::Broken(source.side()),
        };
        drive::step(&mut self.driver(job), input, 0);
    }

    /// The same with kept bytes. They do not move: one read may leave many requests.
    #[cold]
    fn take_in_unread(&mut self, job: SlotKey, source: Endpoint) {
        let Some(stream) = source.stream(&mut self.clients, &mut self.upstreams) else { return };
        let (buffer, start) = stream.unread.borrow();
        let bytes = buffer.suffix(start);
        let (used, starved) = drive::offer(&mut self.driver(job), source.side(), bytes);
        if let Some(stream) = source.stream(&mut self.clients, &mut self.upstreams) {
            stream.unread.set_left(bytes.len() - used);
            stream.unread.set_starved(starved);
        }
        self.flush(job, bytes);
        match source.stream(&mut self.clients, &mut self.upstreams) {
            Some(stream) => stream.unread.put_back(buffer, &mut self.core.buffers),
            None => self.core.buffers.give(buffer),
        }
        self.settle(job);
    }

    fn driver(&mut self, job: SlotKey) -> JobDriver<'_> {
        JobDriver { worker: self, job }
    }

    /// Steps an exchange with an event, performs its effects, sends the output.
    pub(super) fn dispatch(&mut self, job: SlotKey, input: Input<'_>) {
        drive::tell(&mut self.driver(job), input);
        self.settle(job);
    }

    /// Performs the effects of an exchange that was stepped outside its own effects.
    pub(super) fn resume_exchange(&mut self, job: SlotKey) {
        drive::perform(&mut self.driver(job));
        self.flush(job, &[]);
        self.settle(job);
    }

    /// Sends the output of this turn's steps, or passes on bytes of `input`.
    pub(super) fn flush(&mut self, job: SlotKey, input: &[u8]) {
        drive::flush(&mut self.driver(job), input);
    }

    /// The side that receives the bytes, if they are for one side only and nothing is queued before them. Its socket
    /// learns whether they are the last.
    pub(super) fn addressee(&mut self, job_key: SlotKey) -> Option<Endpoint> {
        let side = match [Side::Upstream, Side::Client].map(|side| self.core.output.queue(side).is_empty()) {
            [false, true] => Side::Upstream,
            [true, false] => Side::Client,
            _ => return None,
        };
        let job = self.jobs.get(job_key).filter(|job| job.exchange.pending_write(side).is_empty())?;
        job.announce_end(side, &mut self.clients, &mut self.upstreams);
        job.endpoint(side)
    }

    /// Sends an exchange's bytes to a side, if that still belongs to it; returns how many were sent.
    /// [`Worker::note_sent`] reports to the exchange, whose state is not touched here.
    pub(super) fn send(
        &mut self,
        job: SlotKey,
        addressee: Endpoint,
        output: &mut Output,
        input: &[u8],
    ) -> Option<(usize, Flushed)> {
        let stream = addressee.stream_for(job, &mut self.clients, &mut self.upstreams)?;
        let tls_scratch = &mut self.tls_scratch;
        Some(output.queue(addressee.side()).write(input, &mut |slices| stream.transport.send(slices, tls_scratch)))
    }

    /// Reports the result of a send to an exchange, whose unsent bytes are in the worker's output now, and performs the
    /// effects.
    pub(super) fn note_sent(&mut self, job_key: SlotKey, side: Side, (sent, flushed): (usize, Flushed), input: &[u8]) {
        let Some(job) = self.jobs.get_mut(job_key) else { return };
        job.exchange.note_sent(side, sent, flushed, input, &mut self.core);
        drive::after_flush(&mut self.driver(job_key), side, flushed);
    }

    fn send_to(&mut self, job_key: SlotKey, side: Side, input: &[u8]) -> Option<Flushed> {
        let job = self.jobs.get_mut(job_key)?;
        job.announce_end(side, &mut self.clients, &mut self.upstreams);
        let Some(transport) = job.transport(side, &mut self.clients, &mut self.upstreams) else {
            self.core.output.queue(side).clear();
            return None;
        };
        let tls_scratch = &mut self.tls_scratch;
        Some(job.exchange.flush(side, input, &mut self.core, |slices| transport.send(slices, tls_scratch)))
    }

    /// A socket is writable again.
    #[cold]
    fn resume(&mut self, job_key: SlotKey, side: Side) {
        let Some(job) = self.jobs.get_mut(job_key) else { return };
        let Some(transport) = job.transport(side, &mut self.clients, &mut self.upstreams) else { return };
        let tls_scratch = &mut self.tls_scratch;
        let flushed =
            job.exchange.flush_pending_write(side, &mut self.core, |slices| transport.send(slices, tls_scratch));
        if flushed == Flushed::All {
            self.count_records(job_key, side);
        }
        if flushed != Flushed::Nothing {
            drive::after_flush(&mut self.driver(job_key), side, flushed);
            self.flush(job_key, &[]);
            self.settle(job_key);
        }
    }

    fn note_flushed(&mut self, job_key: SlotKey, side: Side, flushed: Flushed) {
        let Some(job) = self.jobs.get_mut(job_key) else { return };
        match flushed {
            Flushed::Nothing => {}
            Flushed::All => {
                job.read_size.widen();
                if job.closing.take(side) {
                    self.shut_down(job_key, side);
                }
            }
            Flushed::Blocked => {
                job.read_size.narrow();
                self.count_records(job_key, side);
            }
            Flushed::Broken => {
                // Bytes that the backend sent before it closed can still be read.
                if side == Side::Upstream
                    && let UpstreamState::Upstream(key) = job.upstream_state
                    && let Some(upstream) = self.upstreams.get_mut(key)
                {
                    upstream.stream.transport.expect_bytes();
                }
            }
        }
    }

    /// Sets the exchange's timer, and steps the exchange again while it wants to read bytes that are available.
    pub(super) fn settle(&mut self, job_key: SlotKey) {
        let Some(job) = self.jobs.get(job_key) else { return };
        let mut is_registered = true;
        if let Some(client) = self.clients.get_mut(job.client) {
            is_registered = client.is_registered;
            self.timers.set(&mut client.timer, job.exchange.deadline());
            // An end or a reset after bytes came in the same event as they did, and reading stops if those bytes were
            // all that was wanted.
            if client.stream.has_more()
                && (job.exchange.wants(Side::Client) || departure(&job.exchange, &client.stream.transport).is_some())
            {
                self.deferred.push(Deferred::Pump(job_key, Side::Client));
            }
        }
        if let UpstreamState::Upstream(key) = job.upstream_state
            && let Some(upstream) = self.upstreams.get(key)
            && upstream.stream.has_more()
            && job.exchange.wants(Side::Upstream)
        {
            self.deferred.push(Deferred::Pump(job_key, Side::Upstream));
        }
        if !is_registered {
            self.register_if_waited_for(job_key);
        }
        if self.drain.is_some() {
            self.note_running(job_key);
        }
    }

    pub(super) fn job_due(&mut self, job_key: SlotKey) {
        let Some(job) = self.jobs.get(job_key) else { return };
        if job.exchange.deadline() <= self.core.now {
            self.dispatch(job_key, Input::Deadline);
        } else {
            self.settle(job_key);
        }
    }
}
