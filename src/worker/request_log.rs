//! The end of an exchange: its counters and its log line.

use super::{Worker, connection::ActiveExchange};
use crate::access_log::LogRecord;
use crate::base::counters::Counter;
use crate::base::histogram::Phase;
use crate::base::reason::FailureReason;
use crate::base::secret::redact_url;
use crate::cluster::{Permit, Route};
use crate::exchange::{Exchange, Origin, Request, RequestStats};
use crate::net::transport::Transport;
use crate::wire::forwarded::{Policy, client_of};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

impl Worker {
    pub(super) fn record(&mut self, job: &ActiveExchange) {
        // The client is there until its exchange is over.
        let Some(peer) = self.clients.get(job.client).map(|client| &client.peer) else { return };
        let (client, is_secure) = (peer.address, peer.secure);
        // Requests of the service are no traffic.
        if job.exchange.is_for_service() {
            return;
        }
        let (stats, request) = (job.exchange.stats(), job.exchange.request());
        if request.is_some() {
            job.exchange.count(self.core.now);
            self.counters.count(Counter::Requests);
        }
        self.counters.add(Counter::BytesToClients, stats.bytes_to_client);
        if let Some(counter) = stats.cache {
            self.counters.count(counter);
            self.counters.add(Counter::CacheMisses, (counter == Counter::CacheFills).into());
        }
        self.measure(stats, job.exchange.elapsed_elsewhere());
        if let Some(reason) = stats.reason {
            self.counters.count_reason(reason);
            let host = request.map_or("-", Request::host);
            log::debug!(host = host, reason = reason.name(), client:% = client; "{host}: {reason} for {client}");
            self.failures.failed(host, &job.exchange, reason, (&self.core.settings, self.core.now));
        }
        // A client that leaves before its first byte is no request.
        let was_request = request.is_some() || stats.status != 0;
        if self.log.is_on() && was_request && self.has_line(&job.exchange) {
            self.log_line(job, client, is_secure);
        }
    }

    /// Whether a request is logged. A frontend may disable the log; with sampling, every failed request is logged.
    fn has_line(&mut self, exchange: &Exchange) -> bool {
        let is_off = |route: &Arc<Route>| route.cluster.options.access_log == Some(false);
        let stats = exchange.stats();
        let is_notable = stats.reason.is_some() || stats.status >= 500;
        !exchange.route().is_some_and(is_off) && (is_notable || self.log.samples(&mut self.core.rng))
    }

    /// Counts the status and the phases of a request.
    fn measure(&self, stats: &RequestStats, elsewhere: Duration) {
        self.counters.count_status(stats.status);
        for phase in Phase::ALL {
            // The duration of a tunnel is up to its user.
            if (phase != Phase::Total || stats.status >= 200)
                && let Some(duration) = stats.phase(phase, self.core.now)
            {
                let before = if phase == Phase::Total { elsewhere } else { Duration::ZERO };
                self.counters.record_latency(phase, duration + before);
            }
        }
    }

    #[inline(never)]
    fn log_line(&self, job: &ActiveExchange, client: IpAddr, is_secure: bool) {
        let exchange = &job.exchange;
        let is_detailed = self.log.is_detailed();
        let transport = self.clients.get(job.client).filter(|_| is_detailed).map(|client| &client.stream.transport);
        let (stats, request, now) = (exchange.stats(), exchange.request(), self.core.now);
        let permit = exchange.permit();
        let (origin, elsewhere) = (exchange.origin(), exchange.elapsed_elsewhere());
        let frontend_id =
            permit.map(|permit| &*permit.cluster().id).or(origin.map(Origin::frontend_id)).map(str::as_bytes);
        let (policy, passed) = (&self.core.settings.forwarded, exchange.received_and_retries());
        let client =
            if policy.accepts_values_from(client) { forwarded_client(request, policy, client) } else { client };
        let status = match stats.status {
            0 => stats.reason.map_or(0, FailureReason::status),
            status => status,
        };
        let member = permit.map(Permit::member).filter(|_| is_detailed);
        let url = member.map(|member| redact_url(member.url.as_str()));
        let url = url.as_deref().or(origin.filter(|_| is_detailed).map(Origin::backend_url));
        let pattern = exchange.route().map(|route| &*route.cluster.key).or(origin.map(Origin::pattern));
        self.log.write(&LogRecord {
            ended: now,
            client,
            method: request.map_or(b"", Request::method),
            target: request.map_or(b"", Request::target),
            minor_version: u8::from(request.is_none_or(Request::is_http11)),
            status,
            sent_bytes: stats.bytes_to_client,
            referer: request.and_then(Request::referer),
            user_agent: request.and_then(Request::user_agent),
            frontend_id,
            total: stats.total(now) + elsewhere,
            backend: stats.backend(now).map(|time| time + elsewhere),
            host: request.map(|request| request.host().as_bytes()),
            pattern: pattern.map(str::as_bytes),
            backend_url: url,
            bucket: exchange.bucket().or(origin.and_then(Origin::bucket)).filter(|_| is_detailed),
            reason: stats.reason.map(FailureReason::name),
            is_secure,
            queue: stats.phase(Phase::Queue, now),
            connect: stats.phase(Phase::Connect, now),
            first_byte: stats.phase(Phase::FirstByte, now),
            request_id: request.and_then(Request::request_id),
            tls: transport.and_then(Transport::agreed_tls),
            forwarded_for: request.filter(|_| is_detailed).map(Request::forwarded_for),
            received_bytes: passed.map(|(received, _)| received),
            retries: passed.map(|(_, retries)| retries),
        });
    }
}

/// The client as the trusted proxies in front of this node name it.
#[cold]
fn forwarded_client(request: Option<&Request>, policy: &Policy, peer: IpAddr) -> IpAddr {
    request.map_or(peer, |request| client_of(request.forwarded_for(), policy, peer))
}
