//! Clients that move between cores: idle clients and tunnels go from a worker that ends to its successor.
//!
//! Closing an idle connection would race with its client's next request, so it moves: the socket, its TLS session, and
//! a few words of state travel by mail. Requests do not move while they are under way: they end here, and then their
//! clients move.

use super::commands::DrainTarget;
use super::connection::{ActiveExchange, Admitted, BufferedConnection, Client, Upstream, UpstreamState};
use super::handoff::{MigratingConnection, MigratingTunnel};
use super::haproxy::Entry;
use super::read_size::ClientReadSize;
use super::{Deferred, Kind, Owner, Worker, WorkerCommand};
use crate::base::clock::Moment;
use crate::base::counters::Counter;
use crate::base::gen_slab::SlotKey;
use crate::base::reason::FailureReason;
use crate::base::wheel::Timer;
use crate::exchange::Input;

impl Worker {
    /// Sends the clients that have become ready to move in this turn to the drain target.
    pub(super) fn send_migrating(&mut self) {
        let Some(drain) = &mut self.drain else { return };
        let Some(drain_target) = drain.drain_target.clone() else { return };
        let (mut connections, movers) = (Vec::new(), std::mem::take(&mut drain.movers));
        for key in movers {
            match self.export(key, &drain_target) {
                Some(migrating) => connections.push(migrating),
                None => self.retry_start_request(key),
            }
        }
        if !connections.is_empty()
            && let Err(connections) = drain_target.send(connections)
        {
            log::warn!(
                "worker {}: there is nobody to hand over to; its clients stay until they have ended",
                self.number
            );
            self.import(connections);
            self.begin_drain(None);
        }
    }

    /// Whether a client's next request is its last one here: it was sent before the response to the one before, so that
    /// the client may never be idle, and another process takes idle clients only.
    pub(super) fn is_last_here(&self, client: SlotKey) -> bool {
        let drain_target = self.drain.as_ref().and_then(|drain| drain.drain_target.as_ref());
        let is_ahead = || self.clients.get(client).is_some_and(|client| !client.stream.unread.is_empty());
        matches!(drain_target, Some(DrainTarget::Outside(_))) && is_ahead()
    }

    /// Removes a client from this worker, if it can move now.
    fn export(&mut self, key: SlotKey, drain_target: &DrainTarget) -> Option<MigratingConnection> {
        let client = self.clients.get(key)?;
        let is_waiting = client.stream.transport.wanted_name().is_some() || client.is_lingering;
        if is_waiting
            || !drain_target.takes(client)
            || client.job.is_some_and(|job| self.tunnel_upstream(job).is_none())
        {
            return None;
        }
        let tunnel = client.job.and_then(|job| self.export_tunnel(job));
        let mut client = self.clients.remove(key)?;
        self.unwatch(&mut client.stream);
        let due = client.timer.deadline();
        self.timers.remove(&mut client.timer);
        if client.is_shaking_hands {
            self.remove_handshake();
        }
        let Client { stream, peer, entry, served, admitted, is_shaking_hands, awaits_header, told, .. } = client;
        let due = Some(due);
        let migrating = MigratingConnection {
            stream,
            peer,
            entry: Some(entry),
            served,
            admitted,
            is_shaking_hands,
            awaits_header,
            told,
            due,
            tunnel,
        };
        self.core.buffers.export_usage(migrating.buffer_usage());
        Some(migrating)
    }

    /// The connection to the backend of an exchange that is a tunnel.
    fn tunnel_upstream(&self, job: SlotKey) -> Option<SlotKey> {
        match self.jobs.get(job)?.upstream_state {
            UpstreamState::Upstream(key) => {
                self.upstreams.get(key).is_some_and(|upstream| upstream.is_tunnel).then_some(key)
            }
            _ => None,
        }
    }

    fn export_tunnel(&mut self, job_key: SlotKey) -> Option<Box<MigratingTunnel>> {
        let upstream = self.tunnel_upstream(job_key)?;
        let Upstream { mut stream, backend, .. } = self.upstreams.remove(upstream)?;
        self.unwatch(&mut stream);
        let ActiveExchange { exchange, closing, .. } = self.jobs.remove(job_key)?;
        let retire_at = self.tunnel_drain.forget(job_key);
        Some(Box::new(MigratingTunnel { exchange, closing, upstream: stream, backend, retire_at }))
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

    /// Imports clients of another worker.
    fn import(&mut self, connections: Vec<MigratingConnection>) {
        for migrating in connections {
            self.counters.count(Counter::MigratedConnections);
            self.core.buffers.import_usage(migrating.buffer_usage());
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
                tunnel,
            } = migrating;
            let entry = entry.unwrap_or_else(|| self.entry_of(&stream));
            // A client of another process has a permit there; here it is accepted even where none is left. One without
            // a permit in this process is not limited.
            let admitted = match admitted {
                None if due.is_none() => {
                    Admitted::new(self.admit(peer.address).ok().flatten(), self.visit(entry.frontend()))
                }
                admitted => admitted,
            };
            let timers = &mut self.timers;
            let due = due.unwrap_or(self.core.now + self.settings.idle_timeout);
            let key = self.clients.insert_with(|key| {
                let timer = timers.insert(Owner::Client(key));
                let (job, idle_since) = (None, Moment::NEVER);
                let is_registered = false;
                Client {
                    stream,
                    peer,
                    timer,
                    job,
                    idle_since,
                    served,
                    read_size: ClientReadSize::default(),
                    admitted,
                    entry,
                    is_shaking_hands,
                    awaits_header,
                    is_for_service: false,
                    is_registered,
                    is_lingering: false,
                    told,
                }
            });
            if is_shaking_hands {
                self.add_handshake(key);
            }
            let Some(client) = self.clients.get_mut(key) else { continue };
            self.timers.set(&mut client.timer, due);
            let job = tunnel.map(|tunnel| self.import_tunnel(key, *tunnel));
            self.register_client(key);
            match job {
                Some(job) => self.settle(job),
                // Bytes that were read before the move raise no event.
                None => {
                    self.deferred.push(Deferred::ReadRequest(key));
                    self.note_idle(key);
                }
            }
            self.drain_client(key);
        }
    }

    /// The listener of a client from another process.
    fn entry_of(&self, stream: &BufferedConnection) -> Entry {
        if self.frontends.is_empty() {
            return Entry::default();
        }
        Entry::of_frontend(stream.transport.ends().map_or(0, |(_, local)| self.frontend_of(local)))
    }

    fn import_tunnel(&mut self, client_key: SlotKey, tunnel: MigratingTunnel) -> SlotKey {
        let MigratingTunnel { exchange, closing, upstream: stream, backend, retire_at } = tunnel;
        let job = self.jobs.insert(ActiveExchange {
            exchange,
            client: client_key,
            upstream_state: UpstreamState::None,
            closing,
            read_size: ClientReadSize::default().into(),
            upload_to: None,
            is_staged: false,
        });
        if let Some(client) = self.clients.get_mut(client_key) {
            client.job = Some(job);
        }
        let sent_before = stream.transport.sent();
        let upstream = self.upstreams.insert(Upstream {
            idle_seconds: None,
            stream,
            backend,
            job: Some(job),
            idle_since: Moment::NEVER,
            timer: Timer::DEAD,
            dial: None,
            sent_before,
            is_tunnel: true,
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
