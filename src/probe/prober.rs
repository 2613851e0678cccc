//! The probe thread: its poll, and the connections of running probes.

use super::connection::{Connection, End, READ_BYTES, Shared};
use super::inbox::Inbox;
use super::notice::Notice;
use super::schedule::{Action, Schedule};
use super::{OnAlive, ProbeConfig};
use crate::base::clock::{Clock, Moment};
use crate::base::counters::{Counter, Counters};
use crate::base::gen_slab::SlotKey;
use crate::base::throttle::Throttle;
use crate::health::ProbeSharing;
use crate::net::tls::{BackendTls, TlsScratch};
use crate::net::transport::SocketOptions;
use mio::{Events, Poll, Token};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

/// The greatest number of events of one poll.
const EVENTS: usize = 256;

/// The greatest number of log lines in ten seconds.
const MAX_LINES: u32 = 100;

/// The token of the inbox's waker: keys of slots have only 60 bits.
pub(super) const WAKER: Token = Token(usize::MAX);

/// The state of the thread.
pub(super) struct Prober {
    poll: Poll,
    inbox: Arc<Inbox>,
    counters: Arc<Counters>,
    clock: Clock,
    options: SocketOptions,
    schedule: Schedule,
    connections: HashMap<SlotKey, Connection>,
    tls: Option<BackendTls>,
    scratch: TlsScratch,
    room: Box<[u8]>,
    lines: Throttle,
    on_alive: OnAlive,
    sharing: Option<Arc<ProbeSharing>>,
}

impl Prober {
    pub(super) fn new(poll: Poll, inbox: Arc<Inbox>, counters: Arc<Counters>, config: ProbeConfig) -> Self {
        let mut prober = Self {
            poll,
            inbox,
            counters,
            clock: config.clock,
            options: SocketOptions { receive_buffer: None, liveness: config.liveness },
            schedule: Schedule::new(config.clock.now(), fastrand::Rng::new()),
            connections: HashMap::new(),
            tls: None,
            scratch: TlsScratch::default(),
            room: vec![0; READ_BYTES].into(),
            lines: Throttle::new(MAX_LINES),
            on_alive: config.on_alive,
            sharing: config.sharing,
        };
        prober.share();
        prober
    }

    fn share(&mut self) {
        if let Some(sharing) = &self.sharing {
            self.schedule.share(sharing);
        }
    }

    /// Starts again with all clusters, after an internal fault.
    pub(super) fn restart(&mut self) {
        self.schedule = Schedule::new(self.clock.now(), fastrand::Rng::new());
        self.connections.clear();
        if let Some(sharing) = &self.sharing {
            sharing.leave_all();
        }
        self.share();
        self.inbox.renew();
    }

    /// Probes until it is told to stop.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.inbox.is_stopped() {
            let now = self.clock.now();
            self.tls = self.inbox.take_tls().or(self.tls.take());
            for admission in self.inbox.take() {
                self.schedule.look_at(&admission, now);
            }
            let news = self.sharing.as_deref().map(ProbeSharing::take_news).unwrap_or_default();
            news.iter().for_each(|news| self.schedule.hear(news, now));
            self.schedule.advance(now);
            self.act(now);
            let next = self.schedule.next_visit();
            let wait = (next != Moment::NEVER).then(|| next.since(self.clock.now()));
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            let now = self.clock.now();
            for event in events.iter().filter(|event| event.token() != WAKER) {
                self.on_event(event, now);
            }
            self.act(now);
        }
        Ok(())
    }

    fn on_event(&mut self, event: &mio::event::Event, now: Moment) {
        let key = SlotKey::unpack(event.token().0 as u64);
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let mut shared = Shared {
            registry: self.poll.registry(),
            options: self.options,
            tls: self.tls.as_ref(),
            scratch: &mut self.scratch,
            room: &mut self.room,
        };
        if let Some(end) = connection.on_event(event, &mut shared) {
            self.end(key, end, now);
        }
    }

    /// Performs the actions of the schedule.
    fn act(&mut self, now: Moment) {
        loop {
            let actions = self.schedule.take_actions();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                match action {
                    Action::Start { target, backend, options, host } => {
                        let mut shared = Shared {
                            registry: self.poll.registry(),
                            options: self.options,
                            tls: self.tls.as_ref(),
                            scratch: &mut self.scratch,
                            room: &mut self.room,
                        };
                        #[expect(clippy::cast_possible_truncation, reason = "a token is a word of 64 bits")]
                        let token = Token(target.pack() as usize);
                        match Connection::open(&backend, (&options, host.as_deref()), token, now, &mut shared) {
                            Ok(connection) => drop(self.connections.insert(target, connection)),
                            Err(end) => self.end(target, end, now),
                        }
                    }
                    Action::Expire(target) => {
                        let fault = self.connections.get(&target).map(Connection::expire);
                        self.end(target, fault.map(Err), now);
                    }
                    Action::Alive { hosts, backend } => hosts.iter().for_each(|host| (self.on_alive)(host, &backend)),
                    Action::Cancel(target) => drop(self.connections.remove(&target)),
                    Action::Tell(notice) => self.log(&notice, now),
                }
            }
        }
    }

    fn end(&mut self, target: SlotKey, end: End, now: Moment) {
        self.connections.remove(&target);
        if let Some(outcome) = end {
            self.counters.count(Counter::Probes);
            if outcome.is_err() {
                self.counters.count(Counter::FailedProbes);
            }
        }
        self.schedule.ended(target, end, now);
    }

    fn log(&mut self, Notice { is_down, is_warning, text }: &Notice, now: Moment) {
        if *is_down {
            self.counters.count(Counter::ProbedDown);
        }
        let Some(suppressed) = self.lines.admit(now) else { return };
        let more = if suppressed == 0 {
            String::new()
        } else {
            format!("; {suppressed} more lines of this kind were suppressed")
        };
        let level = if *is_warning { log::Level::Warn } else { log::Level::Info };
        log::log!(level, "{text}{more}");
    }
}
