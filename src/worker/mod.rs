//! One core: accept, pump, the match that performs effects, mail, drain.
//!
//! Three slabs hold the state: clients, exchanges with their connections, and upstream connections. They refer to each
//! other by generational keys only, so an event for a removed entry finds nothing.

// Bytes of untrusted peers pass here: none of them may stop a core.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::todo,
    clippy::unimplemented
)]
#![deny(clippy::indexing_slicing, clippy::string_slice)]

mod batch;
mod commands;
mod connection;
mod departure;
mod drain;
mod effects;
mod failure_log;
mod fair_turns;
mod fills;
mod handoff;
mod haproxy;
mod idle;
mod lazy_registration;
mod lingering;
mod listeners;
mod migration;
mod overload;
mod proxy_protocol;
mod pump;
mod race;
mod read_size;
mod rejoin;
mod request_log;
mod request_mail;
mod routes;
mod service;
mod stats;
mod tenants;
#[cfg(test)]
mod tests;
mod timer_owner;
mod tls_handshakes;
mod token;
mod tunnel_drain;
mod unknown_host_limiter;
mod upstreams;

use crate::access_log::Log;
use crate::base::clock::{Clock, Moment};
use crate::base::counters::Counters;
use crate::base::gen_slab::{GenSlab, SlotKey};
use crate::base::throttle::Throttle;
use crate::base::wheel::{Owners, Wheel};
use crate::cache::store::Store;
use crate::cluster::{BackendId, Route, Tenants};
use crate::directory::{Directory, RouteEvent, SubscriberId};
use crate::exchange::{self, Input, Side, WorkerContext};
use crate::net::connection_limiter::ConnectionLimiter;
use crate::net::liveness::Liveness;
use crate::net::mailbox::{MailboxReceiver, MailboxSender, mailbox};
use crate::net::tls::{BackendTls, TlsScratch, TlsServerContext};
use crate::net::transport::{SocketOptions, usable_receive_buffer};
use crate::net::wakeup_timer::WakeupTimer;
use crate::page::Pages;
use crate::route;
use crate::upstream::{self, Pool};
use connection::{ActiveExchange, Client, Upstream};
use failure_log::FailureLog;
use mio::event::Event;
use mio::{Events, Poll, Waker};
pub use proxy_protocol::{HeaderUse, ProxyNetworks};
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::time::Duration;
use std::{io, net::SocketAddr, sync::Arc};
use timer_owner::{Owner, TimerOwners};
use tls_handshakes::HandshakeTable;
use token::Kind;

/// Number of events that one poll returns.
const EVENTS: usize = 1024;

/// Number of warnings caused by requests that are logged in ten seconds.
const MOST_WARNINGS: u32 = 100;

/// The default limit of client connections of one worker.
pub const DEFAULT_MAX_CONNECTIONS: usize = 100_000;

/// Capacity of a worker's mailbox. An overflow makes the worker drop its routes and look them up again.
const MAILBOX: usize = 32 * 1024;

#[cfg(test)]
pub use commands::TestCommand;
pub use commands::{DrainTarget, OutsideTarget, WorkerCommand};
pub use departure::{DepartingBatch, Departure};
pub use handoff::{ForeignExchange, HandoffQueue, MigratingConnection, PortableClient, RunningBytes, RunningClient};
pub use haproxy::{ServedFrontend, ServedFrontends};
pub use listeners::ListenerSocket;
pub use request_mail::RequestMail;
pub use service::{PartSender, ServiceCall, ServiceSender};
pub use stats::{ResourceUsage, WorkerStats};
pub use tls_handshakes::{DefaultCertificates, Settings as HandshakeSettings};

/// Settings of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The idle time of a client's connection between two requests.
    pub idle_timeout: Duration,
    /// The greatest number of client connections of one worker. At the limit, idle ones make room for new ones.
    pub max_connections: usize,
    /// The number of bytes by which the buffers of one worker may grow (`server.maxBufferBytes`).
    pub max_buffer_bytes: usize,
    /// The greatest number of requests of one connection (`server.maxRequestsPerConnection`); `None` for no limit.
    pub max_requests: Option<NonZeroU32>,
    /// The number of look-ups without a route that one client address may cause in ten seconds; `None` for no limit, if
    /// such look-ups cost nothing (`server.unknownHostRate`).
    pub unknown_host_limit: Option<u32>,
    /// The time limit of requests and tunnels after the order to stop (`server.drainTimeout`).
    pub drain_timeout: Duration,
    /// The time limit of a tunnel after its backend has left the list; `None` for no limit (`server.tunnelDrain`).
    pub tunnel_drain: Option<Duration>,
    /// The addresses at which connections begin with a PROXY header, and the networks that may connect there
    /// (`http.proxyProtocol`, `https.proxyProtocol`).
    pub proxies: BTreeMap<SocketAddr, ProxyNetworks>,
    /// When connections to peers that no longer reply are closed.
    pub liveness: Liveness,
}

/// Parts from which a worker is built.
#[derive(Debug)]
pub struct WorkerConfig {
    /// Its number, from 0.
    pub number: usize,
    /// Its listening sockets.
    pub listeners: Vec<ListenerSocket>,
    /// The frontends of HAProxy's files.
    pub frontends: ServedFrontends,
    /// The handoff queue of clients from other workers; the worker imports pending ones at its start.
    pub handoff: HandoffQueue,
    /// TLS settings and certificates; `None` without a TLS listener.
    pub tls: Option<WorkerTlsConfig>,
    /// TLS settings for backends of `https://`; `None` if they cannot be satisfied.
    pub backend_tls: Option<BackendTls>,
    /// The limit of connections of one client address, shared by all workers. `None` for no limit.
    pub limiter: Option<Arc<ConnectionLimiter>>,
    /// Settings of this room.
    pub settings: Settings,
    /// Settings of exchanges.
    pub exchange: exchange::Settings,
    /// Settings of connections to backends.
    pub upstream: upstream::Settings,
    /// Settings of the route cache.
    pub route: route::Settings,
    /// The channel to the directory.
    pub directory: Directory,
    /// Its access log.
    pub log: Log,
    /// The pages.
    pub pages: Arc<Pages>,
    /// Its counters.
    pub counters: Arc<Counters>,
    /// The reports for the supervisor.
    pub stats: Arc<WorkerStats>,
    /// The tenants of all workers; `None` where connections are served as they come.
    pub tenants: Option<Arc<Tenants>>,
    /// The object cache of all workers.
    pub cache: Option<Arc<Store>>,
    /// The queue of requests for this node; `None` if this node accepts none.
    pub service: Option<ServiceSender>,
    /// The clock.
    pub clock: Clock,
}

/// TLS configuration of a worker with encrypted listeners.
#[derive(Clone, Debug)]
pub struct WorkerTlsConfig {
    /// TLS settings for clients.
    pub tls_server: Arc<TlsServerContext>,
    /// The settings.
    pub settings: HandshakeSettings,
    /// The certificates of the encrypted addresses, in their order.
    pub default_certificates: DefaultCertificates,
}

/// One core of the proxy.
#[derive(Debug)]
pub struct Worker {
    number: usize,
    /// Its identity at the directory.
    id: SubscriberId,
    settings: Settings,
    clock: Clock,
    poll: Poll,
    wakeup_timer: WakeupTimer,
    route_events: MailboxReceiver<RouteEvent>,
    commands: MailboxReceiver<WorkerCommand>,
    /// Sender of its commands, for threads that reply to it.
    own_commands: MailboxSender<WorkerCommand>,
    service: service::ServiceLink,
    request_mail: request_mail::RequestMailbox,
    listeners: Vec<listeners::WorkerListener>,
    /// The frontends of HAProxy's files.
    frontends: ServedFrontends,
    handoff: HandoffQueue,
    /// Connections stay in the accept queue because the limit of clients is reached.
    waits_for_room: bool,
    idle: idle::Idle,
    /// No search for exchanges with many buffered bytes before this moment: the last one found none.
    no_shedding_until: Option<Moment>,
    /// Shortages, and other warnings that untrusted peers can cause.
    shortage_warnings: Throttle,
    warnings: Throttle,
    failures: FailureLog,
    pending_registration: lazy_registration::PendingRegistration,
    lingering: lingering::Lingering,
    limiter: Option<Arc<ConnectionLimiter>>,
    core: WorkerContext,
    scratch: Box<[u8]>,
    batch: batch::Batch,
    tls_scratch: TlsScratch,
    backend_tls: Option<BackendTls>,
    /// The TLS handshakes; `None` without a TLS listener.
    handshakes: Option<HandshakeTable>,
    clients: GenSlab<Client>,
    jobs: GenSlab<ActiveExchange>,
    upstreams: GenSlab<Upstream>,
    pool: Pool,
    /// The receive buffer of new connections to backends.
    socket_options: SocketOptions,
    /// Exchanges that may open a connection once the name of this backend is resolved.
    awaiting_dns: HashMap<BackendId, Vec<SlotKey>>,
    refreshes: fills::Refreshes,
    routes: route::Cache<Arc<Route>>,
    on_demand: routes::OnDemand,
    unknown_host_limiter: unknown_host_limiter::UnknownHostLimiter,
    /// Exchanges that wait for the directory's response about this host.
    lookups: HashMap<Arc<str>, Vec<SlotKey>>,
    directory: Directory,
    timers: Wheel<Owner>,
    due: Vec<Owner>,
    /// Work that is due before the worker sleeps again.
    deferred: Vec<Deferred>,
    log: Log,
    counters: Arc<Counters>,
    stats: Arc<WorkerStats>,
    turns: stats::Turns,
    tally: stats::Tally,
    tunnel_drain: tunnel_drain::TunnelDrain,
    rejoining: rejoin::Rejoining,
    tenants: Option<tenants::TenantTurns>,
    /// Set by the order to end.
    drain: Option<drain::Drain>,
}

/// Work that was deferred, so that no exchange's step runs inside another's.
#[derive(Clone, Copy, Debug)]
enum Deferred {
    /// There is more to read for an exchange, or an earlier read has left bytes.
    Pump(SlotKey, Side),
    /// An idle client may have sent its next request.
    ReadRequest(SlotKey),
    /// There may be room for pending connections.
    AcceptAll,
    /// This listener may have more pending connections than one turn accepts.
    Accept(usize),
    /// This exchange has waited for a connection to the backend and gets this one.
    AssignConnection { job: SlotKey, connection: SlotKey },
    /// This exchange sends the next piece of a response of the service.
    SendService(SlotKey),
    /// This exchange has waited for a connection to the backend and may open one.
    Dial { job: SlotKey, backend: BackendId },
}

impl Worker {
    /// A worker that has yet to run, and the sender of its commands. The directory knows it until it is dropped.
    pub fn new(config: WorkerConfig) -> io::Result<(Self, MailboxSender<WorkerCommand>)> {
        let now = config.clock.now();
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), Kind::Waker.token(0))?);
        let (route_events_sender, route_events) = mailbox(MAILBOX, Arc::clone(&waker));
        let (commands_sender, commands) = mailbox(MAILBOX, Arc::clone(&waker));
        let wakeup_timer = WakeupTimer::new(poll.registry(), Kind::WakeupTimer.token(0))?;
        let liveness = config.settings.liveness;
        let mut worker = Self {
            number: config.number,
            id: config.directory.join(route_events_sender),
            settings: config.settings,
            clock: config.clock,
            poll,
            wakeup_timer,
            route_events,
            commands,
            own_commands: commands_sender.clone(),
            service: service::ServiceLink::new(config.service),
            request_mail: request_mail::RequestMailbox::new(waker),
            listeners: Vec::new(),
            frontends: config.frontends,
            handoff: config.handoff,
            waits_for_room: false,
            idle: idle::Idle::default(),
            no_shedding_until: None,
            shortage_warnings: Throttle::new(1),
            warnings: Throttle::new(MOST_WARNINGS),
            failures: FailureLog::default(),
            pending_registration: lazy_registration::PendingRegistration::default(),
            lingering: lingering::Lingering::default(),
            limiter: config.limiter,
            core: WorkerContext::new(now, config.exchange, config.pages, fastrand::Rng::new()),
            scratch: vec![0; batch::SCRATCH_BYTES].into_boxed_slice(),
            batch: batch::Batch::default(),
            tls_scratch: TlsScratch::default(),
            backend_tls: config.backend_tls,
            handshakes: config.tls.map(HandshakeTable::new),
            clients: GenSlab::default(),
            jobs: GenSlab::default(),
            upstreams: GenSlab::default(),
            socket_options: SocketOptions {
                receive_buffer: usable_receive_buffer(config.upstream.receive_buffer),
                liveness,
            },
            pool: Pool::new(config.upstream),
            awaiting_dns: HashMap::new(),
            refreshes: fills::Refreshes::default(),
            routes: route::Cache::new(&config.route),
            on_demand: routes::OnDemand::new(&config.directory),
            unknown_host_limiter: unknown_host_limiter::UnknownHostLimiter::new(now),
            lookups: HashMap::new(),
            directory: config.directory,
            timers: Wheel::new(now),
            due: Vec::new(),
            deferred: Vec::new(),
            log: config.log,
            counters: config.counters,
            stats: config.stats,
            turns: stats::Turns::default(),
            tally: stats::Tally::default(),
            tunnel_drain: tunnel_drain::TunnelDrain::default(),
            rejoining: rejoin::Rejoining::default(),
            tenants: config.tenants.clone().map(tenants::TenantTurns::new),
            drain: None,
        };
        worker.core.tenants = config.tenants.and_then(Tenants::limited);
        worker.use_cache(config.cache);
        worker.follow_clock();
        worker.open_listeners(config.listeners)?;
        Ok((worker, commands_sender))
    }

    /// Serves until the drain is complete.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        self.begin();
        while !self.has_drained() {
            self.turn(&mut events)?;
        }
        Ok(())
    }

    /// Imports the clients that arrived earlier. It does so no sooner: if the thread cannot be started, they wait for
    /// another worker.
    fn begin(&mut self) {
        self.core.now = self.clock.now();
        self.receive_arrivals();
    }

    /// Sleeps until an event arrives, and handles it.
    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let wake_at = self.wake_at();
        self.turns.count(self.core.now, self.clock.now());
        // Deferred work does not wait for an event, nor does work that is due.
        let is_free = self.deferred.is_empty() && wake_at > self.core.now && !self.has_turns();
        if is_free {
            self.wakeup_timer.arm(wake_at, self.core.now)?;
        }
        match self.poll.poll(events, (!is_free).then_some(Duration::ZERO)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        self.core.now = self.clock.now();
        self.take_events(events);
        // A deadline set in this turn is looked at in the next one.
        if self.core.now >= wake_at {
            self.keep_time();
        }
        self.catch_up();
        if !self.core.refreshes.is_empty() {
            self.start_refreshes();
        }
        self.shed_buffers();
        if self.drain.is_some() {
            self.continue_drain();
        }
        Ok(())
    }

    /// The moment of the next work that needs no event.
    fn wake_at(&self) -> Moment {
        let leave_by = self.drain.as_ref().map_or(Moment::NEVER, |drain| drain.by);
        let moments = [
            self.timers.next_visit(),
            self.next_resume(),
            self.next_refresh_deadline(),
            self.tunnel_drain.next(),
            self.rejoining.next(),
            self.pending_registration.next(),
            self.lingering.next_look(),
            self.log.flush_at(),
            leave_by,
        ];
        moments.into_iter().fold(Moment::NEVER, Moment::min)
    }

    /// Handles everything that is due.
    fn keep_time(&mut self) {
        self.expire();
        self.resume_listeners();
        self.expire_refreshes();
        self.retire_tunnels();
        self.look_up_missing();
        self.register_late();
        self.look_at_lingering();
        self.log.flush(self.core.now);
    }

    /// Handles an event that is of no connection.
    fn handle(&mut self, event: &Event) {
        match Kind::of(event.token()) {
            (Kind::Waker, _) => self.read_mail(),
            (Kind::Listener, listener) => self.accept(usize::try_from(listener).unwrap_or(usize::MAX)),
            // [`Worker::take_event`] handles the events of connections.
            (Kind::Client | Kind::Upstream, _) => {}
            // This event only wakes the worker.
            (Kind::WakeupTimer, _) => self.wakeup_timer.acknowledge(),
        }
    }

    /// Handles every owner whose deadline has passed.
    fn expire(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        let mut owners = TimerOwners { clients: &mut self.clients, upstreams: &mut self.upstreams };
        self.timers.advance(self.core.now, &mut due, &mut owners);
        for owner in due.drain(..) {
            self.serve_before_deadline(owner);
            let mut owners = TimerOwners { clients: &mut self.clients, upstreams: &mut self.upstreams };
            // The wheel has cleared the deadline. If there is one again, it came from what was handled since.
            if owners.timer_of(owner).is_none_or(|timer| timer.deadline() != Moment::NEVER) {
                continue;
            }
            match owner {
                Owner::Client(key) => self.client_due(key),
                Owner::Upstream(key) => self.upstream_due(key),
            }
        }
        self.due = due;
    }

    /// Does the deferred work; work that it defers waits for the next turn, so that no connection waits for long.
    fn catch_up(&mut self) {
        let put_off = self.deferred.len();
        let has_turns = self.tenants.is_some() && (put_off > 1 || self.has_turns());
        for place in 0..put_off {
            let Some(deferred) = self.deferred.get(place).copied() else { break };
            if has_turns && self.queue_deferred(deferred) {
                continue;
            }
            match deferred {
                Deferred::Pump(job, side) => self.pump(job, side),
                Deferred::ReadRequest(client) => self.try_start_request(client),
                Deferred::AcceptAll => self.accept_all(),
                Deferred::Accept(listener) => self.accept(listener),
                Deferred::SendService(job) => self.dispatch(job, Input::Drained(Side::Client)),
                Deferred::AssignConnection { job, connection } => self.hand_over(job, connection),
                Deferred::Dial { job, backend } => self.use_permit(job, backend),
            }
        }
        self.deferred.drain(..put_off);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.directory.leave(self.id);
    }
}
