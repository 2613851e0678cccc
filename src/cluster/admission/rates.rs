//! What a cluster may do a second, over all cores: requests, and bytes in each direction. It outlives edits.

use super::Admission;
use super::clients::Clients;
use crate::base::clock::Moment;
use crate::base::pacer::Pacer;
use crate::base::turns::{Turn, Turns};
use crate::cluster::options::{Options, Queue};
use std::sync::atomic::Ordering;

/// The rates of the newest options.
#[derive(Debug, Default)]
pub struct Rates {
    /// Bytes that clients send (`bytesPerSecond.in`).
    pub bytes_in: Pacer,
    /// Bytes that backends send (`bytesPerSecond.out`).
    pub bytes_out: Pacer,
    /// Requests (`requestsPerSecond`).
    requests: Turns,
    /// Requests of each client (`maxRequestsPerClient`).
    pub(super) clients: Clients,
}

impl Rates {
    pub(super) fn set(&self, options: &Options) {
        self.bytes_in.set_rate(options.bytes_per_second_in);
        self.bytes_out.set_rate(options.bytes_per_second_out);
        self.requests.set_rate(options.requests_per_second);
    }
}

impl Admission {
    /// Takes the turn of a request, where there are only so many a second. It waits as others do in the queue: no longer, and
    /// no more of them.
    pub fn take_turn(&self, queue: &Queue, now: Moment) -> Turn {
        let turn = self.rates.requests.take(queue.limit, queue.timeout, now);
        match turn {
            Turn::Now => {}
            Turn::At(_) => _ = self.queued.fetch_add(1, Ordering::Relaxed),
            Turn::Refused => _ = self.dropped.fetch_add(1, Ordering::Relaxed),
        }
        turn
    }
}
