//! What the poll tells in one turn is done in stages: some bytes of each connection are received, then all of them are
//! understood, then what comes of it is sent, then what has been sent is noted.
//!
//! A request passes through little code that runs long: each line of it runs about once, and the system's way of a
//! packet, in between, is long enough to drive it out of the processor's cache. In stages it is fetched once for all who
//! are in one batch. What is remembered of a connection is fetched once for each stage, and while bytes are sent next to
//! nothing of it. Whatever is not bytes for an exchange ends the batch first, so nothing else happens in its midst; but
//! the alarm, which changes nothing.

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

/// How many arrivals a batch has at the most: the first one's answer waits for the last one's arrival.
pub(super) const MOST: usize = 32;

/// How many bytes a batch has before it ends: more would be out of the processor's cache before they are sent.
const ENOUGH_BYTES: usize = 32 * 1024;

/// What is received stands in a buffer of this size: the last one of a batch may be as large as any.
pub(super) const SCRATCH_BYTES: usize = ENOUGH_BYTES + LARGEST_READ;

/// What has arrived and was not given to its exchange yet. No job is in it twice.
#[derive(Debug, Default)]
pub(super) struct Batch {
    arrivals: Vec<StagedRead>,
    /// How much of the worker's scratch buffer they take.
    used: usize,
    /// What comes of each, in boxes that change places with the core's.
    #[expect(clippy::vec_box, reason = "it is the boxes that change places")]
    outputs: Vec<Box<Output>>,
}

/// What one read has brought for an exchange.
#[derive(Debug)]
struct StagedRead {
    job: SlotKey,
    source: Endpoint,
    received: Received,
    /// Where the bytes stand in the scratch buffer.
    place: Range<usize>,
    /// Whom the bytes that come of it are for, if they can be sent at once.
    addressee: Option<Endpoint>,
    /// How many of them have left, and why no more.
    sent: Option<(usize, Flushed)>,
}

impl Batch {
    /// The memory that its outputs have taken, in bytes.
    pub(super) fn room(&self) -> usize {
        self.outputs.iter().map(|output| output.room()).sum()
    }

    /// Gives room back that a large turn has taken.
    pub(super) fn trim(&mut self) {
        self.outputs.iter_mut().for_each(|output| output.trim());
    }

    /// How many arrivals wait in it.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.arrivals.len()
    }

    /// How many arrivals the largest one so far had.
    #[cfg(test)]
    pub(super) fn largest(&self) -> usize {
        self.outputs.len()
    }
}

impl Worker {
    /// Does what the poll tells, some of it later: [`Worker::finish_batch`] is to follow.
    pub(super) fn take_event(&mut self, event: &Event) {
        let (kind, word) = Kind::of(event.token());
        let is_staged = match kind {
            Kind::Client => self.stage_client(SlotKey::unpack(word), event),
            Kind::Upstream => self.stage_upstream(SlotKey::unpack(word), event),
            Kind::Waker | Kind::Listener | Kind::WakeupTimer => false,
        };
        if !is_staged {
            if kind != Kind::WakeupTimer {
                self.finish_batch();
            }
            self.handle(event);
        } else if self.batch.arrivals.len() >= MOST || self.batch.used >= ENOUGH_BYTES {
            self.finish_batch();
        }
    }

    /// Whether all that the poll has told of a client is bytes, and they were received.
    fn stage_client(&mut self, key: SlotKey, event: &Event) -> bool {
        let Some(client) = self.clients.get_mut(key) else { return true };
        client.stream.transport.note(event);
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

    /// The same, of a connection to a backend.
    fn stage_upstream(&mut self, key: SlotKey, event: &Event) -> bool {
        let Some(upstream) = self.upstreams.get_mut(key) else { return true };
        if upstream.dial.as_ref().is_none_or(|dial| dial.earlier.is_empty()) {
            upstream.stream.transport.note(event);
        }
        match upstream.job {
            Some(job) if upstream.dial.is_none() => self.stage(job, Endpoint::Upstream(key)),
            _ => false,
        }
    }

    /// Receives for an exchange, if there is nothing else to be done.
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

    /// Gives everything that has arrived to its exchange, and sends what comes of it.
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
