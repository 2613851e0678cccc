//! Clients are registered with the poll late: most clients that come for one request have sent it before they are
//! accepted, get their response soon and close, and their events are never needed.
//!
//! A client is registered as soon as its exchange waits for it: for its bytes, or for room in its socket. A client
//! whose exchange waits for the backend is registered after [`PATIENCE`], so that its end is noticed.

use super::Worker;
use super::{Deferred, Kind, connection::Client};
use crate::base::clock::Moment;
use crate::base::gen_slab::SlotKey;
use crate::base::reason::FailureReason;
use crate::exchange::{Exchange, Input, Side};
use crate::net::transport::Transport;
use std::collections::VecDeque;
use std::time::Duration;

/// The time a backend may take to respond before the client is registered.
const PATIENCE: Duration = Duration::from_millis(20);

/// New clients whose exchanges wait for a backend, and when to register them, soonest first. Some are gone or
/// registered by then.
#[derive(Debug, Default)]
pub(super) struct PendingRegistration(VecDeque<(SlotKey, Moment)>);

impl PendingRegistration {
    /// The moment of the next registration; [`Moment::NEVER`] for none.
    pub(super) fn next(&self) -> Moment {
        self.0.front().map_or(Moment::NEVER, |(_, moment)| *moment)
    }

    fn take_due(&mut self, now: Moment) -> Option<SlotKey> {
        if self.next() <= now { self.0.pop_front().map(|(key, _)| key) } else { None }
    }
}

/// The event that ends an exchange which reads nothing from its client: the client has left.
pub(super) fn departure(exchange: &Exchange, client: &Transport) -> Option<Input<'static>> {
    if client.is_broken() && exchange.heeds_client_break() {
        Some(Input::Broken(Side::Client))
    } else if client.has_hung_up() && exchange.heeds_client_end() {
        Some(Input::End(Side::Client))
    } else {
        None
    }
}

impl Worker {
    /// Reads a client again later: with TLS the socket may be readable while the next record is still incomplete.
    pub(super) fn retry_start_request(&mut self, key: SlotKey) {
        if self.clients.get(key).is_some_and(|client| client.stream.has_more()) {
            self.deferred.push(Deferred::ReadRequest(key));
        }
    }

    /// Reads the bytes that a new client has sent already.
    pub(super) fn read_at_once(&mut self, key: SlotKey) {
        if let Some(client) = self.clients.get_mut(key) {
            client.stream.transport.expect_bytes();
        }
        self.try_start_request(key);
        match self.clients.get(key) {
            Some(Client { job: None, .. }) => self.register_client(key),
            Some(Client { is_registered: false, .. }) => {
                self.pending_registration.0.push_back((key, self.core.now + PATIENCE))
            }
            _ => {}
        }
    }

    /// Registers the clients whose backends are slow. A lingering client is checked without registration.
    pub(super) fn register_late(&mut self) {
        while let Some(key) = self.pending_registration.take_due(self.core.now) {
            if self.clients.get(key).is_some_and(|client| !client.is_lingering) {
                self.register_client(key);
            }
        }
    }

    /// Registers a client that its exchange waits for.
    pub(super) fn register_if_waited_for(&mut self, job: SlotKey) {
        let Some(job) = self.jobs.get(job) else { return };
        let is_waited_for = job.exchange.wants(Side::Client) || !job.exchange.pending_write(Side::Client).is_empty();
        if is_waited_for {
            self.register_client(job.client);
        }
    }

    /// Registers a client's connection with the poll, unless it is registered.
    pub(super) fn register_client(&mut self, key: SlotKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if std::mem::replace(&mut client.is_registered, true) {
            return;
        }
        let token = Kind::Client.token(key.pack());
        if let Err(error) = client.stream.transport.register(self.poll.registry(), token) {
            // If the connection is kept nevertheless, registration is tried once more.
            client.is_registered = false;
            let job = client.job;
            self.warn_throttled("watching a connection", &error);
            match job {
                Some(job) => self.dispatch(job, Input::Abort(FailureReason::SocketsExhausted)),
                None => self.close_client(key),
            }
        }
    }
}
