//! Clients are watched late: most of those who come for one request have sent it before they are let in, are answered
//! soon and closed, and the poll never needs to hear of them.
//!
//! A client is watched as soon as somebody waits for it: for its bytes, or for room in its socket. One whose backend is
//! waited for is watched after [`PATIENCE`], so that it is noticed if it goes away.

use super::Worker;
use super::{Kind, connection::Client};
use crate::base::clock::Moment;
use crate::base::reason::Reason;
use crate::base::slots::Key;
use crate::exchange::{Input, Side};
use std::collections::VecDeque;
use std::time::Duration;

/// How long a backend may take to answer before its client is watched.
const PATIENCE: Duration = Duration::from_millis(20);

/// New clients whose backends are waited for, and when they are to be watched, soonest first. Some are gone by then, or
/// watched already.
#[derive(Debug, Default)]
pub(super) struct Unwatched(VecDeque<(Key, Moment)>);

impl Unwatched {
    /// When the next one is to be watched; [`Moment::NEVER`] where there is none.
    pub(super) fn next(&self) -> Moment {
        self.0.front().map_or(Moment::NEVER, |(_, moment)| *moment)
    }

    fn take_due(&mut self, now: Moment) -> Option<Key> {
        if self.next() <= now { self.0.pop_front().map(|(key, _)| key) } else { None }
    }
}

impl Worker {
    /// Reads what a new client has sent already.
    pub(super) fn hear_at_once(&mut self, key: Key) {
        if let Some(client) = self.clients.get_mut(key) {
            client.stream.transport.expect_bytes();
        }
        self.greet(key);
        match self.clients.get(key) {
            Some(Client { job: None, .. }) => self.watch_client(key),
            Some(Client { is_watched: false, .. }) => self.unwatched.0.push_back((key, self.core.now + PATIENCE)),
            _ => {}
        }
    }

    /// Watches those whose backends have taken their time.
    pub(super) fn watch_late(&mut self) {
        while let Some(key) = self.unwatched.take_due(self.core.now) {
            self.watch_client(key);
        }
    }

    /// Watches a client that its exchange waits for.
    pub(super) fn watch_if_waited_for(&mut self, job: Key) {
        let Some(job) = self.jobs.get(job) else { return };
        let is_waited_for = job.exchange.wants(Side::Client) || !job.exchange.backlog(Side::Client).is_empty();
        if is_waited_for {
            self.watch_client(job.client);
        }
    }

    /// Has the poll watch a client's connection, if it does not yet.
    pub(super) fn watch_client(&mut self, key: Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if std::mem::replace(&mut client.is_watched, true) {
            return;
        }
        let token = Kind::Client.token(key.pack());
        if let Err(error) = client.stream.transport.register(self.poll.registry(), token) {
            // Should it be kept all the same, it is tried once more.
            client.is_watched = false;
            let job = client.job;
            self.complain("watching a connection", &error);
            match job {
                Some(job) => self.tell(job, Input::Abort(Reason::NoSocket)),
                None => self.close_client(key),
            }
        }
    }
}
