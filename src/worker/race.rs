//! Several addresses of one backend: each has a head start, and the first one established wins (RFC 8305).

use super::Worker;
use super::connection::{BufferedConnection, Upstream};
use super::upstreams::reason_of;
use crate::base::clock::Moment;
use crate::base::gen_slab::SlotKey;
use crate::base::reason::FailureReason;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The time an address is tried alone before the next one is tried beside it (RFC 8305 section 5). A lost SYN is sent
/// again after a second (RFC 6298), but another address of the backend is likely to connect sooner.
const HEAD_START: Duration = Duration::from_millis(250);

/// The time for which an address that did not respond is tried last.
const SILENT_FOR: Duration = Duration::from_secs(60);

impl Worker {
    /// While there are more addresses to try, this one has a head start only: a silent address must not use up the time
    /// of the others.
    pub(super) fn limit_try(&mut self, key: SlotKey) {
        let Some(Upstream { dial: Some(dial), timer, .. }) = self.upstreams.get_mut(key) else { return };
        if dial.tried < dial.addresses.len() {
            self.timers.set(timer, self.core.now + HEAD_START);
        }
    }

    /// A connection was in the pool for long enough, or an address was tried alone for long enough.
    #[cold]
    pub(super) fn upstream_due(&mut self, key: SlotKey) {
        match self.upstreams.get(key) {
            Some(upstream) if upstream.dial.is_some() => self.dial_beside(key),
            // An exchange has got it since the deadline passed.
            Some(upstream) if upstream.job.is_some() => {}
            _ => self.close_upstream(key),
        }
    }

    /// Tries the next address besides the silent one.
    fn dial_beside(&mut self, key: SlotKey) {
        let dial = self.upstreams.get_mut(key).and_then(|upstream| upstream.dial.take());
        let Some(mut dial) = dial else { return };
        // The TLS handshake has its own time: the address has responded.
        let is_there = self.upstreams.get(key).is_some_and(|upstream| upstream.stream.transport.is_there());
        let address = dial.address;
        let next = if is_there { None } else { self.next_transport(&mut dial).ok() };
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        let is_new = next.is_some();
        if let (Some(transport), Some(address)) = (next, address) {
            let before = std::mem::replace(&mut upstream.stream, BufferedConnection::new(transport));
            dial.earlier.push((address, before.transport));
        } else {
            dial.address = address;
        }
        upstream.dial = Some(dial);
        if is_new {
            self.watch(key);
        }
    }

    /// The poll has reported an event of a connection that is being opened.
    #[cold]
    pub(super) fn dial_progress(&mut self, key: SlotKey) {
        self.settle_race(key);
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        let Some(job) = upstream.job else { return };
        let preface = upstream.dial.as_ref().map_or(&[][..], |dial| &dial.preface);
        match upstream.stream.transport.connected(preface, &mut self.tls_scratch) {
            None => {}
            Some(Ok(())) => {
                self.note_winner(key);
                self.attach(job, key, false);
                self.resume_exchange(job);
            }
            Some(Err(error)) => {
                if error.kind() == io::ErrorKind::InvalidData {
                    let url = upstream.backend.endpoint().clone();
                    self.warn(format_args!("{url}: TLS handshake: {error}"));
                }
                self.dial_next(key, reason_of(&error));
            }
        }
        self.note_winner(key);
    }

    /// Among the addresses tried at the same time the first one established wins, and failed ones are dropped.
    fn settle_race(&mut self, key: SlotKey) {
        let Some(Upstream { dial: Some(dial), stream, .. }) = self.upstreams.get_mut(key) else { return };
        if dial.earlier.is_empty() || stream.transport.is_there() {
            return;
        }
        dial.earlier.retain(|(_, transport)| !transport.has_failed());
        if let Some(first) = dial.earlier.iter().position(|(_, transport)| transport.is_there()) {
            let (address, mut transport) = dial.earlier.swap_remove(first);
            // The poll noted its event at the other connection.
            transport.expect_bytes();
            let other = std::mem::replace(stream, BufferedConnection::new(transport));
            if let Some(tried) = dial.address.replace(address) {
                dial.earlier.push((tried, other.transport));
            }
        }
    }

    /// The address being tried has responded: the earlier ones that have not are recorded as silent.
    fn note_winner(&mut self, key: SlotKey) {
        let Some(Upstream { dial: Some(dial), stream, backend, .. }) = self.upstreams.get_mut(key) else { return };
        if dial.earlier.is_empty() || !stream.transport.is_there() {
            return;
        }
        let places = |address: &SocketAddr| dial.addresses.iter().position(|known| known == address);
        let place = dial.address.as_ref().and_then(places);
        let earlier = std::mem::take(&mut dial.earlier);
        let backend = Arc::clone(backend);
        // The addresses tried after the winner had less than their head start.
        let is_late = |address: &SocketAddr| dial.addresses.iter().position(|known| known == address) < place;
        let late: Vec<SocketAddr> = earlier.iter().map(|(address, _)| *address).filter(is_late).collect();
        for address in late {
            if backend.note_silent(address, self.core.now + SILENT_FOR) {
                let (url, millis, seconds) = (backend.endpoint(), HEAD_START.as_millis(), SILENT_FOR.as_secs());
                self.warn(format_args!(
                    "{url}: {address} does not accept a connection within {millis} ms; for {seconds} s it is tried last"
                ));
            }
        }
    }

    /// An address has failed for this reason: tries the next one, or waits for the pending ones.
    fn dial_next(&mut self, key: SlotKey, failure: FailureReason) {
        let dial = self.upstreams.get_mut(key).and_then(|upstream| upstream.dial.take());
        let Some(mut dial) = dial else { return };
        let next = self.next_transport(&mut dial);
        let is_new = next.is_ok();
        let transport = next.ok().or_else(|| {
            let (address, transport) = dial.earlier.pop()?;
            dial.address = Some(address);
            Some(transport)
        });
        match (transport, self.upstreams.get_mut(key)) {
            (Some(transport), Some(upstream)) => {
                upstream.dial = Some(dial);
                upstream.stream = BufferedConnection::new(transport);
                self.timers.set(&mut upstream.timer, Moment::NEVER);
                if is_new {
                    self.watch(key);
                }
            }
            _ => self.dial_failed(key, failure),
        }
    }
}
