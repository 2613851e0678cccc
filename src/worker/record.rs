//! What is said of an exchange when it is over: its counters and its log line.

use super::{Worker, connection::Job};
use crate::access_log::Record;
use crate::base::counters::Counter;
use crate::base::reason::Reason;
use crate::exchange::{Exchange, Request};
use std::net::IpAddr;

impl Worker {
    pub(super) fn record(&self, job: &Job) {
        // Until its job is over it is there.
        let Some(client) = self.clients.get(job.client).map(|client| client.peer.address) else { return };
        let (ledger, request) = (job.exchange.ledger(), job.exchange.request());
        if request.is_some() {
            self.counters.count(Counter::Requests);
        }
        self.counters.add(Counter::BytesToClients, ledger.bytes_to_client);
        if let Some(reason) = ledger.reason {
            self.counters.count_reason(reason);
            let host = request.map_or("-", Request::host);
            log::debug!("{host}: {reason} for {client}");
        }
        // A client that leaves before it has said anything is no request.
        let was_request = request.is_some() || ledger.status != 0;
        if self.log.is_on() && was_request {
            self.log_line(&job.exchange, client);
        }
    }

    #[inline(never)]
    fn log_line(&self, exchange: &Exchange, client: IpAddr) {
        let (ledger, request, now) = (exchange.ledger(), exchange.request(), self.core.now);
        let frontend = exchange.target().map(|(frontend, _)| frontend);
        let status = match ledger.status {
            0 => ledger.reason.map_or(0, Reason::status),
            status => status,
        };
        self.log.write(&Record {
            ended: now,
            client,
            method: request.map_or(b"", Request::method),
            target: request.map_or(b"", Request::target),
            minor_version: u8::from(request.is_none_or(Request::is_http11)),
            status,
            sent_bytes: ledger.bytes_to_client,
            referer: request.and_then(Request::referer),
            user_agent: request.and_then(Request::user_agent),
            frontend_id: frontend.map(|frontend| frontend.id.as_bytes()),
            total: ledger.total(now),
            backend: ledger.backend(now),
        });
    }
}
