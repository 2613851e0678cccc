//! Events of one poll are handled in stages: the worker reads some bytes of each connection, then steps every exchange
//! with its bytes, then sends the output, then records how much was sent.
//!
//! The path of a request has few loops: each line runs about once, and the kernel's network path in between is long
//! enough to evict the code from the processor's cache. In stages the code is fetched once for all exchanges of a
//! batch. The state of a connection is fetched once for each stage, and the stage that sends touches next to none of
//! it. Any event other than bytes for an exchange ends the batch first, so nothing else happens inside a batch. The
//! exception is the wakeup timer, which changes nothing.

use super::connection::Endpoint;
use super::read_size::{LARGEST_READ, SMALLEST_READ};
use super::{Kind, Worker};
use crate::base::gen_slab::SlotKey;
use crate::base::slice_ext::SliceExt;
use crate::exchange::{Flushed, Output};
use crate::net::transport::Received;
use crate::wire::is_blank;
use mio::event::Event;
use std::ops::Range;

/// The greatest number of arrivals in a batch: the response of the first one waits for the arrival of the last one.
pub(super) const MOST: usize = 32;

/// The number of bytes that ends a batch: more would leave the processor's cache before they are sent.
const ENOUGH_BYTES: usize = 32 * 1024;

/// Size of the buffer for received bytes: the last read of a batch may be as large as any other.
pub(super) const SCRATCH_BYTES: usize = ENOUGH_BYTES + LARGEST_READ;

/// Bytes that have arrived and have not reached their exchange yet. No exchange is in it twice.
#[derive(Debug, Default)]
pub(super) struct Batch {
    arrivals: Vec<StagedRead>,
    /// Bytes of the worker's scratch buffer that the arrivals use.
    used: usize,
    /// Output of each exchange, in boxes that are swapped with the worker context's.
    #[expect(clippy::vec_box, reason = "the boxes are swapped")]
    outputs: Vec<Box<Output>>,
}

/// The result of one read for an exchange.
#[derive(Debug)]
struct StagedRead {
    job: SlotKey,
    source: Endpoint,
    received: Received,
    /// Range of the bytes in the scratch buffer.
    place: Range<usize>,
    /// Side that receives the output, if the output can be sent at once.
    addressee: Option<Endpoint>,
    /// Number of bytes sent, and why no more were sent.
    sent: Option<(usize, Flushed)>,
}

impl Batch {
    /// Memory that its outputs use, in bytes.
    pub(super) fn room(&self) -> usize {
        self.outputs.iter().map(|output| output.room()).sum()
    }

    /// Frees memory that a large turn has allocated.
    pub(super) fn trim(&mut self) {
        self.outputs.iter_mut().for_each(|output| output.trim());
    }

    /// Number of arrivals in the batch.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.arrivals.len()
    }

    /// Number of arrivals in the largest batch so far.
    #[cfg(test)]
    pub(super) fn largest(&self) -> usize {
        self.outputs.len()
    }
}

impl Worker {
    /// Handles an event of the poll, part of it later: a call of [`Worker::finish_batch`] has to follow.
    pub(super) fn take_event(&mut self, event: &Event) {
        match Endpoint::of(event) {
            Some(source) => {
                self.note_event(source, event);
                self.take_ready(source, event.is_writable());
            }
            None => {
                if Kind::of(event.token()).0 != Kind::WakeupTimer {
                    self.finish_batch();
                }
                self.handle(event);
            }
        }
    }

    /// Has a connection learn of its event.
    #[inline]
    pub(super) fn note_event(&mut self, source: Endpoint, event: &Event) {
        match source {
            Endpoint::Client(key) => {
                if let Some(client) = self.clients.get_mut(key) {
                    client.stream.transport.note(event);
                }
            }
            Endpoint::Upstream(key) => {
                if let Some(upstream) = self.upstreams.get_mut(key)
                    && upstream.dial.as_ref().is_none_or(|dial| dial.earlier.is_empty())
                {
                    upstream.stream.transport.note(event);
                }
            }
        }
    }

    /// Serves a connection whose event was noted, part of it later: a call of [`Worker::finish_batch`] has to follow.
    #[inline]
    pub(super) fn take_ready(&mut self, source: Endpoint, is_writable: bool) {
        let is_staged = match source {
            Endpoint::Client(key) => self.stage_client(key),
            Endpoint::Upstream(key) => self.stage_upstream(key),
        };
        if !is_staged {
            self.finish_batch();
            match source {
                Endpoint::Client(key) => self.client_ready(key, is_writable),
                Endpoint::Upstream(key) => self.upstream_ready(key, is_writable),
            }
        } else if self.batch.arrivals.len() >= MOST || self.batch.used >= ENOUGH_BYTES {
            self.finish_batch();
        }
    }

    /// Whether the event of a client was bytes alone, and the bytes were received.
    fn stage_client(&mut self, key: SlotKey) -> bool {
        let Some(client) = self.clients.get_mut(key) else { return true };
        if let Some(job) = client.job {
            return self.stage(job, Endpoint::Client(key));
        }
        let is_ready = client.stream.has_more() && client.stream.unread.is_empty();
        if client.is_shaking_hands || client.awaits_header.is_some() || client.is_lingering || !is_ready {
            return false;
        }
        let start = self.batch.used;
        let room = self.scratch.get_mut(start..).unwrap_or_default();
        let received = client.stream.transport.receive(room.limit(SMALLEST_READ), &mut self.tls_scratch);
        let place = start..start + received.count();
        if !matches!(received, Received::Bytes(_)) || is_blank(self.scratch.slice(place.clone())) {
            self.finish_batch();
            self.on_first_bytes(key, received);
        } else if let Some(job) = self.open_job(key) {
            self.arrive(job, Endpoint::Client(key), received, place);
        }
        true
    }

    /// The same for a connection to a backend.
    fn stage_upstream(&mut self, key: SlotKey) -> bool {
        let Some(upstream) = self.upstreams.get_mut(key) else { return true };
        match upstream.job {
            Some(job) if upstream.dial.is_none() => self.stage(job, Endpoint::Upstream(key)),
            _ => false,
        }
    }

    /// Receives for an exchange, unless something else has to be done first.
    fn stage(&mut self, job_key: SlotKey, source: Endpoint) -> bool {
        let Some(job) = self.jobs.get(job_key) else { return false };
        let (side, exchange) = (source.side(), &job.exchange);
        let is_free = !job.is_staged && exchange.pending_write(side).is_empty() && exchange.wants(side);
        if !is_free || !job.is_tied_to(source) {
            return false;
        }
        let limit = self.read_size(job, side);
        let Some(stream) = source.stream(&mut self.clients, &mut self.upstreams) else { return false };
        if !stream.transport.is_readable() || !stream.unread.is_empty() {
            return false;
        }
        let start = self.batch.used;
        let room = self.scratch.get_mut(start..).unwrap_or_default();
        let received = stream.transport.receive(room.limit(limit), &mut self.tls_scratch);
        self.note_read(job_key, side, received, limit);
        self.arrive(job_key, source, received, start..start + received.count());
        true
    }

    fn arrive(&mut self, job_key: SlotKey, source: Endpoint, received: Received, place: Range<usize>) {
        if let Some(job) = self.jobs.get_mut(job_key) {
            job.is_staged = true;
        }
        self.batch.used = place.end;
        self.batch.arrivals.push(StagedRead { job: job_key, source, received, place, addressee: None, sent: None });
    }

    /// Steps every exchange with the bytes that have arrived for it, and sends the output.
    pub(super) fn finish_batch(&mut self) {
        if self.batch.arrivals.is_empty() {
            return;
        }
        let (mut batch, scratch) = (std::mem::take(&mut self.batch), std::mem::take(&mut self.scratch));
        let Batch { arrivals, outputs, .. } = &mut batch;
        if outputs.len() < arrivals.len() {
            outputs.resize_with(arrivals.len(), Box::default);
        }
        for (arrival, output) in arrivals.iter_mut().zip(&mut *outputs) {
            let StagedRead { job, source, received, .. } = *arrival;
            if let Some(job) = self.jobs.get_mut(job) {
                job.is_staged = false;
            }
            self.take_in(job, source, received, scratch.slice(arrival.place.clone()));
            arrival.addressee = self.addressee(job);
            std::mem::swap(&mut self.core.output, output);
        }
        for (arrival, output) in arrivals.iter_mut().zip(&mut *outputs) {
            if let Some(addressee) = arrival.addressee {
                arrival.sent = self.send(arrival.job, addressee, output, scratch.slice(arrival.place.clone()));
            }
        }
        for (arrival, output) in arrivals.drain(..).zip(&mut *outputs) {
            std::mem::swap(&mut self.core.output, output);
            let bytes = scratch.slice(arrival.place);
            if let (Some(addressee), Some(sent)) = (arrival.addressee, arrival.sent) {
                self.note_sent(arrival.job, addressee.side(), sent, bytes);
            }
            self.flush(arrival.job, bytes);
            self.settle(arrival.job);
            std::mem::swap(&mut self.core.output, output);
        }
        batch.used = 0;
        (self.batch, self.scratch) = (batch, scratch);
    }
}
