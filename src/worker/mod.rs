//! One core: accept, pump, the match that performs effects, mail, drain.
//!
//! Three slabs hold what lives: clients, jobs (an exchange and what it is tied to) and upstream connections. They know
//! each other by generational keys only, so an event for what is gone finds nothing.

// What a stranger sends passes here: nothing of it may stop a core.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::todo,
    clippy::unimplemented
)]
#![deny(clippy::indexing_slicing, clippy::string_slice)]

mod accept;
mod batch;
mod connection;
mod drain;
mod guesses;
mod handover;
mod idle;
mod introduction;
mod lingering;
mod link;
mod lobby;
mod news;
mod orders;
mod perform;
mod pressure;
mod pump;
mod read_limit;
mod record;
mod retire;
#[cfg(test)]
mod tests;
mod vitals;
mod watch;

use crate::access_log::Log;
use crate::base::clock::{Clock, Moment};
use crate::base::counters::Counters;
use crate::base::slots::{Key, Slots};
use crate::base::throttle::Throttle;
use crate::base::wheel::{Owners, Timer, Wheel};
use crate::cluster::{BackendId, Frontend};
use crate::directory::{CoreId, Directory, News};
use crate::exchange::{self, Core, Side};
use crate::net::alarm::Alarm;
use crate::net::mailbox::{Inbox, Post, mailbox};
use crate::net::quota::Quota;
use crate::net::tls::{BackendTls, Bench, Reception};
use crate::net::transport::usable_receive_buffer;
use crate::page::Pages;
use crate::route;
use crate::upstream::{self, Pool};
use connection::{Client, Job, Upstream};
use ipnet::IpNet;
use lobby::Lobby;
use mio::event::Event;
use mio::{Events, Poll, Token, Waker};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// Events that one poll can tell.
const EVENTS: usize = 1024;

/// How many warnings that requests bring about are told in ten seconds.
const MOST_WARNINGS: u32 = 100;

/// The greatest number of client connections of one worker, where nobody says otherwise.
pub const DEFAULT_MAX_CONNECTIONS: usize = 100_000;

/// Letters that wait for a core. What does not fit makes the core drop its routes and ask anew.
const MAILBOX: usize = 32 * 1024;

pub use accept::Entrance;
pub use handover::{Heir, Landing, Passenger, PlainClient};
pub use lobby::{DoorCertificates, Settings as LobbySettings};
#[cfg(test)]
pub use orders::Deed;
pub use orders::Order;
pub use vitals::{Holdings, Vitals};

/// What of a worker can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a client's connection may be idle between two requests.
    pub idle_timeout: Duration,
    /// The greatest number of client connections of one worker. Behind it, idle ones make room for new ones.
    pub max_connections: usize,
    /// By how many bytes the buffers of one worker may grow (`server.maxBufferBytes`).
    pub max_buffer_bytes: usize,
    /// The greatest number of requests of one connection (`server.maxRequestsPerConnection`); `None` for any.
    pub max_requests: Option<NonZeroU32>,
    /// How many look-ups of one client address may find nothing in ten seconds; `None` for any, where they cost nothing
    /// (`server.unknownHostRate`).
    pub max_guesses: Option<u32>,
    /// How long requests and tunnels may go on after the order to stop (`server.gracefulWait`).
    pub graceful_wait: Duration,
    /// How long a tunnel may go on when its backend has left the list; `None` for as long as it likes
    /// (`server.tunnelDrain`).
    pub tunnel_drain: Option<Duration>,
    /// The addresses at which every connection begins with a header of the PROXY protocol, and the networks that may
    /// send one (`http.proxyProtocol`, `https.proxyProtocol`).
    pub proxies: BTreeMap<SocketAddr, Arc<[IpNet]>>,
}

/// What a worker is made of.
#[derive(Debug)]
pub struct Parts {
    /// Its number, from 0.
    pub number: usize,
    /// Its sockets to accept from.
    pub listeners: Vec<Entrance>,
    /// Where clients of other workers arrive; who waits there is taken on at once.
    pub landing: Landing,
    /// What those of its sockets need that are encrypted.
    pub tls: Option<TlsParts>,
    /// What is agreed on with backends of `https://`; `None` where nothing can be.
    pub backend_tls: Option<BackendTls>,
    /// How many connections a client's address may have; one for all workers. `None` for any.
    pub quota: Option<Arc<Quota>>,
    /// The settings of the rooms it runs.
    pub settings: Settings,
    /// Those of its exchanges.
    pub exchange: exchange::Settings,
    /// Those of its connections to backends.
    pub upstream: upstream::Settings,
    /// Those of its routes.
    pub route: route::Settings,
    /// The way to the directory.
    pub directory: Directory,
    /// Its access log.
    pub log: Log,
    /// The pages.
    pub pages: Arc<Pages>,
    /// Its counters.
    pub counters: Arc<Counters>,
    /// Where it answers the supervisor.
    pub vitals: Arc<Vitals>,
    /// The clock.
    pub clock: Clock,
}

/// What a worker that shakes hands is made of.
#[derive(Clone, Debug)]
pub struct TlsParts {
    /// What is agreed on with clients.
    pub reception: Arc<Reception>,
    /// The settings.
    pub settings: LobbySettings,
    /// The certificates of the encrypted addresses, in their order.
    pub doors: DoorCertificates,
}

/// One core's worth of proxy.
#[derive(Debug)]
pub struct Worker {
    number: usize,
    /// Who it is to the directory.
    id: CoreId,
    settings: Settings,
    clock: Clock,
    poll: Poll,
    alarm: Alarm,
    news: Inbox<News>,
    orders: Inbox<Order>,
    listeners: Vec<accept::Door>,
    landing: Landing,
    /// Clients wait outside because there are as many inside as may be.
    waits_for_room: bool,
    idle: idle::Idle,
    /// Before this moment nobody is looked for who holds many bytes: there was none.
    no_relief_until: Option<Moment>,
    /// Shortages, and what else is told in the log of what strangers can bring about.
    complaints: Throttle,
    warnings: Throttle,
    unwatched: watch::Unwatched,
    lingering: lingering::Lingering,
    quota: Option<Arc<Quota>>,
    core: Core,
    scratch: Box<[u8]>,
    batch: batch::Batch,
    bench: Bench,
    backend_tls: Option<BackendTls>,
    /// Where clients shake hands; `None` where no door is encrypted.
    lobby: Option<Lobby>,
    clients: Slots<Client>,
    jobs: Slots<Job>,
    upstreams: Slots<Upstream>,
    pool: Pool,
    /// The receive buffer of new connections to backends.
    receive_buffer: Option<usize>,
    /// Exchanges that may open a connection once the name of this backend is known.
    awaiting_name: HashMap<BackendId, Vec<Key>>,
    routes: route::Cache<Arc<Frontend>>,
    guesses: guesses::Guesses,
    /// Exchanges that wait for the directory's answer about this host.
    lookups: HashMap<Arc<str>, Vec<Key>>,
    directory: Directory,
    timers: Wheel<Owner>,
    due: Vec<Owner>,
    /// What is to be done before the worker sleeps again.
    again: Vec<Again>,
    log: Log,
    counters: Arc<Counters>,
    vitals: Arc<Vitals>,
    retiring: retire::Retiring,
    /// Set by the order to end.
    leave: Option<drain::Leave>,
}

/// Whose deadline it is.
#[derive(Clone, Copy, Debug)]
enum Owner {
    Client(Key),
    Upstream(Key),
}

/// Where the timers of all owners are.
struct TimerOwners<'w> {
    clients: &'w mut Slots<Client>,
    upstreams: &'w mut Slots<Upstream>,
}

impl Owners<Owner> for TimerOwners<'_> {
    fn timer_of(&mut self, owner: Owner) -> Option<&mut Timer> {
        match owner {
            Owner::Client(key) => self.clients.get_mut(key).map(|client| &mut client.timer),
            Owner::Upstream(key) => self.upstreams.get_mut(key).map(|upstream| &mut upstream.timer),
        }
    }
}

/// Something that was put off, so that no exchange's step runs inside another's.
#[derive(Clone, Copy, Debug)]
enum Again {
    /// There is more to read for an exchange, or something is left of an earlier read.
    Pump(Key, Side),
    /// An idle client may have sent its next request.
    Greet(Key),
    /// There may be room for clients that wait outside.
    Accept,
    /// At this door more clients may wait than were let in at once.
    Door(usize),
    /// This exchange has waited for a connection to the backend and gets this one.
    HandOver { job: Key, connection: Key },
    /// This exchange has waited for a connection to the backend and may open one.
    Permit { job: Key, backend: BackendId },
}

/// What a poll token stands for; it is in the token's high bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Waker,
    Listener,
    Client,
    Upstream,
    Alarm,
}

impl Kind {
    const SHIFT: u32 = 60;

    fn token(self, low: u64) -> Token {
        const { assert!(usize::BITS == 64, "a token is a word of 64 bits") };
        #[expect(clippy::cast_possible_truncation, reason = "there are 64 bits")]
        Token((((self as u64) << Self::SHIFT) | low) as usize)
    }

    fn of(token: Token) -> (Self, u64) {
        let word = token.0 as u64;
        let kind = match word >> Self::SHIFT {
            0 => Self::Waker,
            1 => Self::Listener,
            2 => Self::Client,
            3 => Self::Upstream,
            _ => Self::Alarm,
        };
        (kind, word & ((1 << Self::SHIFT) - 1))
    }
}

impl Worker {
    /// A worker that has yet to run, and the way to give it orders. It is known to the directory until it is dropped.
    pub fn new(parts: Parts) -> io::Result<(Self, Post<Order>)> {
        let now = parts.clock.now();
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), Kind::Waker.token(0))?);
        let (news_post, news) = mailbox(MAILBOX, Arc::clone(&waker));
        let (orders_post, orders) = mailbox(MAILBOX, waker);
        let alarm = Alarm::new(poll.registry(), Kind::Alarm.token(0))?;
        let mut worker = Self {
            number: parts.number,
            id: parts.directory.join(news_post),
            settings: parts.settings,
            clock: parts.clock,
            poll,
            alarm,
            news,
            orders,
            listeners: Vec::new(),
            landing: parts.landing,
            waits_for_room: false,
            idle: idle::Idle::default(),
            no_relief_until: None,
            complaints: Throttle::new(1),
            warnings: Throttle::new(MOST_WARNINGS),
            unwatched: watch::Unwatched::default(),
            lingering: lingering::Lingering::default(),
            quota: parts.quota,
            core: Core::new(now, parts.exchange, parts.pages, fastrand::Rng::new()),
            scratch: vec![0; batch::SCRATCH_BYTES].into_boxed_slice(),
            batch: batch::Batch::default(),
            bench: Bench::default(),
            backend_tls: parts.backend_tls,
            lobby: parts.tls.map(|tls| Lobby::new(tls.settings, tls.reception, &tls.doors)),
            clients: Slots::default(),
            jobs: Slots::default(),
            upstreams: Slots::default(),
            receive_buffer: usable_receive_buffer(parts.upstream.receive_buffer),
            pool: Pool::new(parts.upstream),
            awaiting_name: HashMap::new(),
            routes: route::Cache::new(&parts.route),
            guesses: guesses::Guesses::new(now),
            lookups: HashMap::new(),
            directory: parts.directory,
            timers: Wheel::new(now),
            due: Vec::new(),
            again: Vec::new(),
            log: parts.log,
            counters: parts.counters,
            vitals: parts.vitals,
            retiring: retire::Retiring::default(),
            leave: None,
        };
        worker.open_doors(parts.listeners)?;
        Ok((worker, orders_post))
    }

    /// Serves until the order to end is carried out.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        self.begin();
        while !self.has_left() {
            self.turn(&mut events)?;
        }
        Ok(())
    }

    /// Takes on who has arrived before. Not sooner: where its thread cannot be had, they wait for another worker.
    fn begin(&mut self) {
        self.core.now = self.clock.now();
        self.receive_arrivals();
    }

    /// Sleeps until something happens, and does what is to be done then.
    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let wake_at = self.wake_at();
        // What was put off does not wait for anything, nor does what is due.
        let is_free = self.again.is_empty() && wake_at > self.core.now;
        if is_free {
            self.alarm.ring_for(wake_at, self.core.now)?;
        }
        match self.poll.poll(events, (!is_free).then_some(Duration::ZERO)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        self.core.now = self.clock.now();
        for event in &*events {
            self.take_event(event);
        }
        self.finish_batch();
        // What was given a time in this turn is looked at in the next one.
        if self.core.now >= wake_at {
            self.keep_time();
        }
        self.catch_up();
        self.relieve_buffers();
        if self.leave.is_some() {
            self.go_on_leaving();
        }
        Ok(())
    }

    /// When there is something to do even if nothing happens.
    fn wake_at(&self) -> Moment {
        let leave_by = self.leave.as_ref().map_or(Moment::NEVER, |leave| leave.by);
        let moments = [
            self.timers.next_visit(),
            self.next_opening(),
            self.retiring.next(),
            self.unwatched.next(),
            self.lingering.next_look(),
            self.log.flush_at(),
            leave_by,
        ];
        moments.into_iter().fold(Moment::NEVER, Moment::min)
    }

    /// Does whatever has a time that has come.
    fn keep_time(&mut self) {
        self.expire();
        self.reopen_doors();
        self.retire_tunnels();
        self.watch_late();
        self.look_at_lingering();
        self.log.flush(self.core.now);
    }

    fn handle(&mut self, event: &Event) {
        match Kind::of(event.token()) {
            (Kind::Waker, _) => self.read_mail(),
            (Kind::Listener, door) => self.accept(usize::try_from(door).unwrap_or(usize::MAX)),
            (Kind::Client, word) => self.client_ready(Key::unpack(word), event),
            (Kind::Upstream, word) => self.upstream_ready(Key::unpack(word), event),
            // It has woken the worker; that is all.
            (Kind::Alarm, _) => self.alarm.has_rung(),
        }
    }

    /// Tells everybody whose deadline has come.
    fn expire(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        let mut owners = TimerOwners { clients: &mut self.clients, upstreams: &mut self.upstreams };
        self.timers.advance(self.core.now, &mut due, &mut owners);
        for owner in due.drain(..) {
            match owner {
                Owner::Client(key) => self.client_due(key),
                Owner::Upstream(key) => self.upstream_due(key),
            }
        }
        self.due = due;
    }

    /// Does what was put off; what that puts off waits for the next turn, so that nobody else has to wait for long.
    fn catch_up(&mut self) {
        let put_off = self.again.len();
        for place in 0..put_off {
            let Some(again) = self.again.get(place).copied() else { break };
            match again {
                Again::Pump(job, side) => self.pump(job, side),
                Again::Greet(client) => self.greet(client),
                Again::Accept => self.accept_all(),
                Again::Door(door) => self.accept(door),
                Again::HandOver { job, connection } => self.hand_over(job, connection),
                Again::Permit { job, backend } => self.use_permit(job, backend),
            }
        }
        self.again.drain(..put_off);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.directory.leave(self.id);
    }
}
