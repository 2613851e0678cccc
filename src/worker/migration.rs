//! Clients that move between cores: those that are idle, with a tunnel, or with a response under way go from a worker that
//! ends to its successor.
//!
//! Closing an idle connection would race with its client's next request, so it moves: the socket, its TLS session, and
//! a few words of state travel by mail. Tunnels and responses under way move too. An encrypted connection moves to another
//! process only where the kernel takes its session over. A request whose response has not begun ends here, or moves once it
//! has.

use super::commands::DrainTarget;
use super::connection::{ActiveExchange, Admitted, BufferedConnection, Client, ClosingSides, Upstream, UpstreamState};
use super::departure::{DepartingBatch, Departure, Home};
use super::handoff::{ForeignExchange, MigratingConnection, MigratingExchange, OwnExchange, RunningBytes};
use super::haproxy::Entry;
use super::read_size::ClientReadSize;
use super::{Deferred, Kind, Owner, Worker, WorkerCommand};
use crate::base::clock::Moment;
use crate::base::counters::Counter;
use crate::base::gen_slab::SlotKey;
use crate::base::reason::FailureReason;
use crate::base::wheel::Timer;
use crate::cluster::{Backend, BackendUrl};
use crate::exchange::{Exchange, Input, PortableBytes, Side};
use crate::net::transport::Transport;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The limit of a batch of clients for another process, and the number of bytes that completes it earlier: about a
/// millisecond's work.
const BATCH: usize = 32;
const BATCH_BYTES: usize = 1 << 20;

impl Worker {
    /// Sends the clients that have become ready to move in this turn to the drain target.
    pub(super) fn send_migrating(&mut self) {
        let Some(drain) = &mut self.drain else { return };
        let Some(drain_target) = drain.drain_target.clone() else { return };
        let (mut connections, movers) = (Vec::new(), std::mem::take(&mut drain.movers));
        for key in movers {
            if let Some(job) = self.clients.get(key).and_then(|client| client.job)
                && matches!(drain_target, DrainTarget::Outside(_))
            {
                self.note_running(job);
                continue;
            }
            match self.export(key, &drain_target) {
                Some(migrating) => connections.push(migrating),
                None => self.retry_start_request(key),
            }
        }
        if !connections.is_empty()
            && let Err(connections) = drain_target.send(connections)
        {
            log::warn!("worker {}: the drain target is gone; its clients stay until they have ended", self.number);
            self.import(connections);
            return self.begin_drain(None);
        }
        self.send_running(&drain_target);
    }

    /// Whether a client's next request is its last one here. Such a client pipelines: it sent this request before the
    /// previous response, so it may never be idle, and another process takes idle clients only.
    pub(super) fn is_last_here(&self, client: SlotKey) -> bool {
        let drain_target = self.drain.as_ref().and_then(|drain| drain.drain_target.as_ref());
        let is_ahead = || self.clients.get(client).is_some_and(|client| !client.stream.unread.is_empty());
        matches!(drain_target, Some(DrainTarget::Outside(_))) && is_ahead()
    }

    /// Called after a step of an exchange: its client may be ready to leave.
    #[cold]
    pub(super) fn note_running(&mut self, job_key: SlotKey) {
        let (Some(job), Some(drain)) = (self.jobs.get(job_key), &mut self.drain) else { return };
        if let Some(DrainTarget::Worker(..)) = drain.drain_target {
            if job.exchange.is_movable() {
                drain.movers.push(job.client);
            }
        } else if drain.takes_running() && job.exchange.is_portable() && !drain.running.refused.contains(&job.client) {
            drain.running.waiting.insert(job.client);
        }
    }

    /// Sends the next clients with an exchange to another process. Nothing is read from them or sent to them meanwhile, so a
    /// batch is small.
    fn send_running(&mut self, drain_target: &DrainTarget) {
        let DrainTarget::Outside(outside) = drain_target else { return };
        let (mut clients, mut bytes) = (Vec::new(), 0);
        while clients.len() < BATCH && bytes < BATCH_BYTES {
            let Some(drain) = &mut self.drain else { return };
            if drain.running.in_transit.load(Ordering::Acquire) {
                return;
            }
            let Some(key) = drain.running.waiting.pop_first() else { break };
            if let Some(client) = self.export(key, drain_target) {
                bytes += client.running_bytes();
                clients.push(client);
            }
        }
        if clients.is_empty() {
            return;
        }
        let Some(drain) = &mut self.drain else { return };
        drain.running.is_away = true;
        let in_transit = Arc::clone(&drain.running.in_transit);
        in_transit.store(true, Ordering::Release);
        let commands = self.own_commands.clone();
        let wake = Box::new(move || _ = commands.send(WorkerCommand::Arrivals));
        let home = Home { handoff: self.handoff.clone(), in_transit, clock: self.clock, wake };
        // If the channel is closed, the batch is dropped, and returns.
        drop(outside.sender.send(Departure::Running(DepartingBatch::new(clients, home))));
    }

    /// Removes a client from this worker, if it can move now.
    fn export(&mut self, key: SlotKey, drain_target: &DrainTarget) -> Option<MigratingConnection> {
        let client = self.clients.get(key)?;
        let is_waiting = client.stream.transport.wanted_name().is_some() || client.is_lingering;
        if is_waiting || client.is_for_service || !drain_target.takes(client) {
            return None;
        }
        let is_leaving = matches!(drain_target, DrainTarget::Outside(_));
        if is_leaving && !client.stream.transport.prepare_to_leave() {
            return None;
        }
        let exchange = match client.job {
            None => None,
            Some(job) => Some(self.export_exchange(job, drain_target)?),
        };
        let mut client = self.clients.remove(key)?;
        self.tally.sessions -= usize::from(client.has_session);
        if client.is_registered {
            self.unwatch(&mut client.stream);
        }
        let due = client.timer.deadline();
        self.timers.remove(&mut client.timer);
        if client.is_shaking_hands {
            self.remove_handshake();
        }
        let Client { stream, peer, entry, served, admitted, is_shaking_hands, awaits_header, told, .. } = client;
        let mut migrating = MigratingConnection {
            stream,
            peer,
            entry: Some(entry),
            served,
            admitted,
            is_shaking_hands,
            awaits_header,
            told,
            due: Some(due),
            exchange,
            is_refused: false,
        };
        self.core.buffers.export_usage(migrating.buffer_usage());
        if is_leaving && let Err(error) = migrating.leave() {
            log::warn!("worker {}: handing a TLS session to the kernel: {error}; it is closed", self.number);
        }
        Some(migrating)
    }

    /// Removes an exchange that can move now, with its connection to the backend.
    fn export_exchange(&mut self, job_key: SlotKey, drain_target: &DrainTarget) -> Option<MigratingExchange> {
        let job = self.jobs.get(job_key)?;
        let UpstreamState::Upstream(key) = job.upstream_state else { return None };
        let upstream = self.upstreams.get(key).filter(|upstream| upstream.dial.is_none())?;
        let portable = match drain_target {
            DrainTarget::Outside(_) => {
                Some(job.exchange.to_portable(self.core.now).filter(|_| upstream.stream.transport.prepare_to_leave())?)
            }
            DrainTarget::Worker(..) if job.exchange.is_movable() => None,
            DrainTarget::Worker(..) => return None,
        };
        self.end_upload(job_key);
        let Upstream { mut stream, backend, mut timer, is_uncounted, is_tunnel, .. } = self.upstreams.remove(key)?;
        self.timers.remove(&mut timer);
        self.tally.sessions -= usize::from(stream.transport.is_encrypted());
        self.tally.tunnels -= usize::from(is_tunnel);
        if !is_uncounted {
            self.return_permit(backend.id());
        }
        self.unwatch(&mut stream);
        let ActiveExchange { exchange, closing, .. } = self.jobs.remove(job_key)?;
        let retire_at = self.tunnel_drain.forget(job_key);
        Some(MigratingExchange::Own(Box::new(OwnExchange {
            exchange,
            closing,
            upstream: stream,
            backend,
            retire_at,
            portable,
        })))
    }

    fn unwatch(&self, stream: &mut BufferedConnection) {
        if let Err(error) = stream.transport.deregister(self.poll.registry()) {
            log::warn!("worker {}: leaving a connection to another worker: {error}", self.number);
        }
    }

    /// Imports the clients that have arrived; a worker with a drain target leaves them to it.
    #[cold]
    pub(super) fn receive_arrivals(&mut self) {
        if self.handoff.is_empty() {
            return;
        }
        if let Some(DrainTarget::Worker(_, commands)) =
            self.drain.as_ref().and_then(|drain| drain.drain_target.as_ref())
        {
            let _ = commands.send(WorkerCommand::Arrivals);
            return;
        }
        while let Some(connections) = self.handoff.receive() {
            self.import(connections);
        }
    }

    /// Imports clients of another worker, or of another process.
    fn import(&mut self, connections: Vec<MigratingConnection>) {
        for mut migrating in connections {
            self.counters.count(Counter::MigratedConnections);
            self.core.buffers.import_usage(migrating.buffer_usage());
            let exchange = match migrating.exchange.take() {
                Some(MigratingExchange::Own(own)) => Some(*own),
                Some(MigratingExchange::Foreign(foreign)) => match self.take_up(*foreign, &mut migrating.stream) {
                    Some(exchange) => Some(exchange),
                    None => continue,
                },
                None => None,
            };
            let (is_shaking_hands, is_refused) = (migrating.is_shaking_hands, migrating.is_refused);
            let key = self.insert_arrival(migrating);
            if is_shaking_hands {
                self.add_handshake(key);
            }
            if let Some(drain) = self.drain.as_mut().filter(|_| is_refused) {
                drain.running.refused.insert(key);
            }
            let job = exchange.map(|exchange| self.import_exchange(key, exchange));
            self.register_client(key);
            match job {
                Some(job) => {
                    self.settle(job);
                    self.look_up_moved(job);
                }
                // Bytes that were read before the move raise no event.
                None => {
                    self.deferred.push(Deferred::ReadRequest(key));
                    self.note_idle(key);
                }
            }
            self.drain_client(key);
        }
    }

    /// Inserts an arrived client, without its exchange.
    fn insert_arrival(&mut self, migrating: MigratingConnection) -> SlotKey {
        let MigratingConnection {
            stream,
            peer,
            entry,
            served,
            admitted,
            is_shaking_hands,
            awaits_header,
            told,
            due,
            ..
        } = migrating;
        let entry = entry.unwrap_or_else(|| self.entry_of(&stream));
        // A client of another process has a permit there; here it is accepted even if none is left. A client without a
        // permit in this process is not limited.
        let admitted = match admitted {
            None if due.is_none() => {
                Admitted::new(self.admit(peer.address).ok().flatten(), self.visit(entry.frontend()))
            }
            admitted => admitted,
        };
        let has_session = stream.transport.is_encrypted();
        self.tally.sessions += usize::from(has_session);
        let timers = &mut self.timers;
        let due = due.unwrap_or(self.core.now + self.settings.idle_timeout);
        let key = self.clients.insert_with(|key| Client {
            stream,
            peer,
            timer: timers.insert(Owner::Client(key)),
            job: None,
            idle_since: Moment::NEVER,
            served,
            read_size: ClientReadSize::default(),
            admitted,
            entry,
            is_shaking_hands,
            awaits_header,
            is_for_service: false,
            is_registered: false,
            is_lingering: false,
            has_session,
            told,
        });
        if let Some(client) = self.clients.get_mut(key) {
            self.timers.set(&mut client.timer, due);
        }
        key
    }

    /// Converts the exchange of another process. `client` gets the bytes that were read from it.
    fn take_up(&mut self, foreign: ForeignExchange, client: &mut BufferedConnection) -> Option<OwnExchange> {
        let ForeignExchange { upstream, upstream_session, state, closing, bytes } = foreign;
        let [client_closes, upstream_closes] = closing;
        let RunningBytes { log_fields, client_unread, upstream_unread, to_client, to_upstream } = bytes;
        let bytes = PortableBytes { log_fields, to_client, to_upstream };
        let mut exchange = Exchange::from_portable(state, bytes, &mut self.core);
        let Some(url) = exchange.origin().and_then(|origin| BackendUrl::parse(origin.endpoint()).ok()) else {
            exchange.recycle(&mut self.core.buffers, &mut self.core.request_pool);
            return None;
        };
        let upstream = Transport::arrived(mio::net::TcpStream::from_std(upstream), upstream_session);
        let mut upstream = BufferedConnection::new(upstream);
        for (stream, unread) in [(client, client_unread), (&mut upstream, upstream_unread)] {
            if !unread.is_empty() {
                stream.unread.fill(&unread, &mut self.core.buffers);
            }
        }
        let mut closing = ClosingSides::default();
        for (side, closes) in [(Side::Client, client_closes), (Side::Upstream, upstream_closes)] {
            if closes {
                closing.add(side);
            }
        }
        let backend = Arc::new(Backend::stand_in(url.endpoint().clone()));
        Some(OwnExchange { exchange, closing, upstream, backend, retire_at: None, portable: None })
    }

    /// The listener of a client from another process.
    fn entry_of(&self, stream: &BufferedConnection) -> Entry {
        if self.frontends.is_empty() {
            return Entry::default();
        }
        Entry::of_frontend(stream.transport.ends().map_or(0, |(_, local)| self.frontend_of(local)))
    }

    fn import_exchange(&mut self, client_key: SlotKey, own: OwnExchange) -> SlotKey {
        let OwnExchange { exchange, closing, upstream: stream, backend, retire_at, portable: _ } = own;
        let is_tunnel = exchange.is_tunnel();
        self.tally.tunnels += usize::from(is_tunnel);
        let job = ActiveExchange::new(exchange, client_key, ClientReadSize::default().into());
        let job = self.jobs.insert(ActiveExchange { closing, ..job });
        if let Some(client) = self.clients.get_mut(client_key) {
            client.job = Some(job);
        }
        let sent_before = stream.transport.sent();
        self.tally.sessions += usize::from(stream.transport.is_encrypted());
        let upstream = self.upstreams.insert(Upstream {
            address_changes: backend.address_changes(),
            idle_seconds: None,
            stream,
            backend,
            job: Some(job),
            idle_since: Moment::NEVER,
            timer: Timer::DEAD,
            dial: None,
            sent_before,
            is_uncounted: true,
            is_tunnel,
        });
        if let Some(job) = self.jobs.get_mut(job) {
            job.upstream_state = UpstreamState::Upstream(upstream);
        }
        if let Some(moment) = retire_at {
            self.tunnel_drain.expect(job, moment);
        }
        // The message of a removed backend may have arrived during the move.
        self.schedule_tunnel_scan();
        let token = Kind::Upstream.token(upstream.pack());
        let registry = self.poll.registry();
        let watched =
            self.upstreams.get_mut(upstream).map(|upstream| upstream.stream.transport.register(registry, token));
        if let Some(Err(error)) = watched {
            log::warn!("worker {}: watching a connection: {error}", self.number);
            self.dispatch(job, Input::Abort(FailureReason::SocketsExhausted));
        }
        job
    }
}
