//! The upstream connection of an exchange: claimed, opened, assigned, returned.

use super::connection::{BufferedConnection, Dial, Upstream, UpstreamState};
use super::overload::{Need, is_shortage};
use super::{Deferred, Kind, Owner, Worker};
use crate::base::clock::Moment;
use crate::base::counters::Counter;
use crate::base::gen_slab::SlotKey;
use crate::base::reason::FailureReason;
use crate::cluster::{Addresses, Backend, BackendId};
use crate::exchange::Input;
use crate::net::transport::{Received, Transport};
use crate::upstream::{Claim, Want};
use std::collections::hash_map::Entry;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The time by which a pooled connection is closed before its backend closes it, where the backend has announced that:
/// the packets under way in both directions, and a timer that is not exact.
const EARLIER: Duration = Duration::from_secs(1);

impl Worker {
    /// Gets the exchange a connection to the backend of its target.
    pub(super) fn connect(&mut self, job_key: SlotKey, fresh: bool) {
        let Some(job) = self.jobs.get_mut(job_key) else { return };
        let Some(backend) = job.exchange.permit().map(|permit| permit.member().backend.id()) else { return };
        let uploads = job.exchange.is_uploading();
        job.upload_to = uploads.then_some(backend);
        match self.pool.claim(backend, job_key, Want { fresh, uploads }) {
            Claim::Reuse(connection) => self.attach(job_key, connection, true),
            Claim::Dial => self.dial(job_key),
            Claim::Wait => {
                self.counters.count(Counter::Queued);
                self.set_upstream_state(job_key, UpstreamState::Queued(backend));
                self.step_only(job_key, Input::Queued);
            }
            Claim::Full => self.step_only(job_key, Input::ConnectFailed(FailureReason::QueueFull)),
        }
    }

    fn set_upstream_state(&mut self, job: SlotKey, upstream_state: UpstreamState) {
        if let Some(job) = self.jobs.get_mut(job) {
            debug_assert_eq!(job.upstream_state, UpstreamState::None, "an exchange holds one connection");
            job.upstream_state = upstream_state;
        }
    }

    pub(super) fn attach(&mut self, job: SlotKey, connection: SlotKey, reused: bool) {
        let Some(upstream) = self.upstreams.get_mut(connection) else { return };
        upstream.job = Some(job);
        upstream.sent_before = upstream.stream.transport.sent();
        upstream.dial = None;
        upstream.idle_since = Moment::NEVER;
        self.timers.set(&mut upstream.timer, Moment::NEVER);
        if reused {
            self.counters.count(Counter::ReusedUpstreams);
            self.set_upstream_state(job, UpstreamState::Upstream(connection));
        }
        self.step_only(job, Input::Connected { reused });
    }

    /// Opens a connection, with a permission of the pool.
    #[cold]
    fn dial(&mut self, job: SlotKey) {
        let permit = self.jobs.get(job).and_then(|job| job.exchange.permit());
        let Some(backend) = permit.map(|permit| Arc::clone(&permit.member().backend)) else { return };
        // A change after this is noticed when the connection is returned.
        let address_changes = backend.address_changes();
        match backend.next_addresses(self.core.now) {
            Addresses::Known(addresses) => {
                self.counters.count(Counter::Dials);
                let endpoint = backend.endpoint();
                let preface = endpoint.proxy_header().map_or_else(Box::default, |version| self.preface(job, version));
                let tls = endpoint
                    .is_secure()
                    .then(|| self.backend_tls.as_ref()?.to(endpoint.server_name(), backend.trust()?));
                match tls {
                    Some(None) => {
                        self.return_permit(backend.id());
                        self.step_only(job, Input::ConnectFailed(FailureReason::TlsFailed));
                    }
                    tls => {
                        let tls = tls.flatten();
                        let (earlier, address) = (Vec::new(), None);
                        let dial = Dial { addresses, address_changes, tried: 0, address, earlier, preface, tls };
                        self.dial_addresses(job, backend, Box::new(dial));
                    }
                }
            }
            Addresses::Pending => {
                self.awaiting_dns.entry(backend.id()).or_default().push(job);
                self.set_upstream_state(job, UpstreamState::ResolvingDns(backend.id()));
            }
            Addresses::NotFound => {
                self.return_permit(backend.id());
                self.step_only(job, Input::ConnectFailed(FailureReason::NameNotResolved));
            }
        }
    }

    fn dial_addresses(&mut self, job: SlotKey, backend: Arc<Backend>, mut dial: Box<Dial>) {
        match self.next_transport(&mut dial) {
            Ok(transport) => {
                self.tally.sessions += usize::from(transport.is_encrypted());
                let (upstreams, timers) = (&mut self.upstreams, &mut self.timers);
                let key = upstreams.insert_with(|key| Upstream {
                    stream: BufferedConnection::new(transport),
                    backend,
                    address_changes: dial.address_changes,
                    job: Some(job),
                    idle_since: Moment::NEVER,
                    timer: timers.insert(Owner::Upstream(key)),
                    dial: Some(dial),
                    idle_seconds: None,
                    sent_before: 0,
                    is_uncounted: false,
                    is_tunnel: false,
                });
                self.set_upstream_state(job, UpstreamState::Upstream(key));
                self.watch(key);
            }
            Err(error) => {
                self.return_permit(backend.id());
                self.step_only(job, Input::ConnectFailed(reason_of(&error)));
            }
        }
    }

    /// Begins to connect to the next address for which a dial can start.
    pub(super) fn next_transport(&mut self, dial: &mut Dial) -> io::Result<Transport> {
        let mut result = Err(io::ErrorKind::AddrNotAvailable.into());
        while let Some(address) = dial.next_address() {
            let options = self.socket_options;
            result = Transport::connect(address, options, dial.tls.as_ref());
            if let Err(error) = &result
                && is_shortage(error)
                && self.shed_idle(Need::Backend, error)
            {
                result = Transport::connect(address, options, dial.tls.as_ref());
            }
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Registers a connection that is being opened with the poll.
    pub(super) fn watch(&mut self, key: SlotKey) {
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        let token = Kind::Upstream.token(key.pack());
        if let Err(error) = upstream.stream.transport.register(self.poll.registry(), token) {
            self.warn_throttled("watching a connection", &error);
            return self.dial_failed(key, FailureReason::SocketsExhausted);
        }
        self.limit_try(key);
    }

    pub(super) fn dial_failed(&mut self, key: SlotKey, reason: FailureReason) {
        let Some(job) = self.upstreams.get(key).and_then(|upstream| upstream.job) else { return };
        self.set_free(job);
        self.close_upstream(key);
        self.dispatch(job, Input::ConnectFailed(reason));
    }

    fn set_free(&mut self, job: SlotKey) {
        if let Some(job) = self.jobs.get_mut(job) {
            job.upstream_state = UpstreamState::None;
        }
    }

    /// The name of a backend is resolved, or does not exist.
    #[cold]
    pub(super) fn on_dns_result(&mut self, backend: BackendId) {
        for connection in self.pool.idle(backend) {
            if !self.has_present_address(connection) {
                self.close_upstream(connection);
            }
        }
        for job in self.awaiting_dns.remove(&backend).unwrap_or_default() {
            let waits =
                self.jobs.get(job).is_some_and(|job| job.upstream_state == UpstreamState::ResolvingDns(backend));
            if waits {
                self.set_free(job);
                self.redial(job);
            }
        }
    }

    /// An exchange that has waited may open a connection.
    #[cold]
    pub(super) fn use_permit(&mut self, job: SlotKey, backend: BackendId) {
        let waits = self.jobs.get(job).is_some_and(|job| job.upstream_state == UpstreamState::Queued(backend));
        if waits {
            self.dial_after_queue(job);
        } else {
            self.return_permit(backend);
        }
    }

    fn dial_after_queue(&mut self, job: SlotKey) {
        self.set_free(job);
        self.step_only(job, Input::Dialling);
        self.redial(job);
    }

    fn redial(&mut self, job: SlotKey) {
        self.dial(job);
        self.resume_exchange(job);
    }

    /// An exchange that has waited gets a connection that another one has returned, if both are still usable.
    #[cold]
    pub(super) fn hand_over(&mut self, job: SlotKey, connection: SlotKey) {
        let Some(upstream) = self.upstreams.get(connection) else { return };
        let backend = upstream.backend.id();
        let waits = self.jobs.get(job).is_some_and(|job| job.upstream_state == UpstreamState::Queued(backend));
        match (waits, self.is_reusable(connection)) {
            (true, true) => {
                self.set_free(job);
                self.attach(job, connection, true);
                self.resume_exchange(job);
            }
            (true, false) => {
                // The place of the connection in the pool becomes the permission to open another.
                self.remove_upstream(connection);
                self.dial_after_queue(job);
            }
            (false, true) => self.check_in(connection),
            (false, false) => self.close_upstream(connection),
        }
    }

    /// The exchange no longer needs its connection or its claim to one.
    pub(super) fn release(&mut self, job_key: SlotKey, reuse: bool) {
        let Some(job) = self.jobs.get_mut(job_key) else { return };
        let idle_seconds = job.exchange.upstream_idle_seconds();
        match std::mem::take(&mut job.upstream_state) {
            UpstreamState::None => {}
            UpstreamState::Queued(backend) => self.pool.stop_waiting(backend, job_key),
            UpstreamState::ResolvingDns(backend) => {
                if let Entry::Occupied(mut jobs) = self.awaiting_dns.entry(backend) {
                    jobs.get_mut().retain(|waiting| *waiting != job_key);
                    if jobs.get().is_empty() {
                        jobs.remove();
                    }
                }
                self.return_permit(backend);
            }
            UpstreamState::Upstream(key) if reuse && self.is_reusable(key) => {
                if let Some(upstream) = self.upstreams.get_mut(key) {
                    upstream.idle_seconds = idle_seconds;
                }
                self.check_in(key);
            }
            UpstreamState::Upstream(key) => self.close_upstream(key),
        }
        self.end_upload(job_key);
    }

    /// The rest of the exchange's request is complete, or not for the backend: another exchange may upload.
    pub(super) fn end_upload(&mut self, job: SlotKey) {
        let Some(backend) = self.jobs.get_mut(job).and_then(|job| job.upload_to.take()) else { return };
        match self.pool.upload_ended(backend, job) {
            Some((job, Some(connection))) => {
                let Some(upstream) = self.upstreams.get_mut(connection) else { return };
                upstream.job = Some(job);
                upstream.idle_since = Moment::NEVER;
                self.timers.set(&mut upstream.timer, Moment::NEVER);
                self.deferred.push(Deferred::AssignConnection { job, connection });
            }
            Some((job, None)) => self.deferred.push(Deferred::Dial { job, backend }),
            None => {}
        }
    }

    /// Whether its address is still one of its backend: a host that has moved gets no more requests.
    fn has_present_address(&mut self, key: SlotKey) -> bool {
        let Some(upstream) = self.upstreams.get_mut(key) else { return false };
        let changes = upstream.backend.address_changes();
        if upstream.address_changes == changes {
            return true;
        }
        let ends = upstream.stream.transport.ends();
        let is_present = ends.is_ok_and(|(peer, _)| upstream.backend.leads_to(peer));
        if is_present {
            upstream.address_changes = changes;
        }
        is_present
    }

    /// Whether a list still names its backend, its address is one of it, it has no unread bytes, and its backend got no PROXY
    /// header: after a header, all bytes belong to that client. If the last read filled its buffer, another read decides.
    fn is_reusable(&mut self, key: SlotKey) -> bool {
        if !self.has_present_address(key) {
            return false;
        }
        let Some(upstream) = self.upstreams.get_mut(key) else { return false };
        let transport = &mut upstream.stream.transport;
        !upstream.is_uncounted
            && upstream.stream.unread.is_empty()
            && !upstream.backend.is_unreferenced()
            && upstream.backend.endpoint().proxy_header().is_none()
            && (!transport.is_readable() || transport.receive(&mut [0], &mut self.tls_scratch) == Received::Nothing)
    }

    fn check_in(&mut self, key: SlotKey) {
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        upstream.job = self.pool.check_in(&upstream.backend, key);
        match upstream.job {
            Some(job) => self.deferred.push(Deferred::AssignConnection { job, connection: key }),
            None => {
                upstream.idle_since = self.core.now;
                // It is closed before the backend closes it, so that the next request does not meet the close.
                let idle = upstream.idle_seconds.map_or(self.pool.idle_timeout(), |seconds| {
                    let seconds = Duration::from_secs(seconds.get().into());
                    self.pool.idle_timeout().min(seconds.saturating_sub(EARLIER).max(seconds / 2))
                });
                self.timers.set(&mut upstream.timer, self.core.now + idle);
                self.idle.add_upstream(key, self.core.now, &self.upstreams);
            }
        }
    }

    #[cold]
    pub(super) fn become_tunnel(&mut self, job: SlotKey) {
        self.counters.count(Counter::Tunnels);
        let Some(UpstreamState::Upstream(key)) = self.jobs.get(job).map(|job| job.upstream_state) else { return };
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        self.tally.tunnels += usize::from(!std::mem::replace(&mut upstream.is_tunnel, true));
        upstream.is_uncounted = true;
        // The client's timer detects a tunnel that has been idle for too long.
        self.timers.remove(&mut upstream.timer);
        let backend = upstream.backend.id();
        self.return_permit(backend);
        if let Some(client) = self.jobs.get(job).map(|job| job.client) {
            self.may_move(client);
        }
    }

    /// Closes a connection to a backend, idle or not.
    pub(super) fn close_upstream(&mut self, key: SlotKey) {
        let Some(upstream) = self.remove_upstream(key) else { return };
        let backend = upstream.backend.id();
        match upstream.job {
            _ if upstream.is_uncounted => {}
            None => self.pool.forget_idle(backend, key),
            Some(_) => self.return_permit(backend),
        }
    }

    /// Closes a connection to a backend. Its place in the pool stays taken.
    fn remove_upstream(&mut self, key: SlotKey) -> Option<Upstream> {
        let mut upstream = self.upstreams.remove(key)?;
        self.timers.remove(&mut upstream.timer);
        self.tally.sessions -= usize::from(upstream.stream.transport.is_encrypted());
        self.tally.tunnels -= usize::from(upstream.is_tunnel);
        upstream.stream.close(&mut self.core.buffers);
        Some(upstream)
    }

    /// A connection no longer counts: the next exchange in the queue may open one.
    pub(super) fn return_permit(&mut self, backend: BackendId) {
        if let Some(job) = self.pool.forget(backend) {
            self.deferred.push(Deferred::Dial { job, backend });
        }
    }
}

/// The reason of a failed connect: the backend, or this node.
pub(super) fn reason_of(error: &io::Error) -> FailureReason {
    use nix::errno::Errno;
    if error.kind() == io::ErrorKind::InvalidData {
        return FailureReason::TlsFailed;
    }
    if is_shortage(error) {
        return FailureReason::SocketsExhausted;
    }
    let errno = error.raw_os_error().map(Errno::from_raw);
    match errno {
        // `connect` returns this when all ports to the address are in use.
        Some(Errno::EADDRNOTAVAIL) => FailureReason::PortsExhausted,
        Some(Errno::ETIMEDOUT) => FailureReason::ConnectTimeout,
        _ => FailureReason::ConnectFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;

    #[test]
    fn shortages_of_this_node_are_distinguished_from_failures_of_a_backend() {
        let table = [
            (Errno::EMFILE, FailureReason::SocketsExhausted),
            (Errno::ENFILE, FailureReason::SocketsExhausted),
            (Errno::ENOBUFS, FailureReason::SocketsExhausted),
            (Errno::ENOMEM, FailureReason::SocketsExhausted),
            (Errno::EADDRNOTAVAIL, FailureReason::PortsExhausted),
            (Errno::ETIMEDOUT, FailureReason::ConnectTimeout),
            (Errno::ECONNREFUSED, FailureReason::ConnectFailed),
            (Errno::EHOSTUNREACH, FailureReason::ConnectFailed),
        ];
        for (errno, expected) in table {
            assert_eq!(reason_of(&errno.into()), expected, "{errno}");
        }
    }
}
