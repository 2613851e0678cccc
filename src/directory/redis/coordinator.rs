//! Decisions about the events of this source's threads: connections that come and go, the data behind them, and when
//! known data is read again. Pure: no thread, no socket, no clock.

mod shards;

use super::address::Address;
use super::connect::{Continuity, Identity};
use super::odd_keys::Spellings;
use super::route_state::{ChangedKey, RouteState};
use super::save::Routes;
use super::shards::topology::SlotMap;
use super::target::Target;
use super::watcher::{InvalidationMode, WatchSession};
use super::{Event, HEALTH_START};
use crate::base::clock::Moment;
use shards::Shards;
use std::sync::Arc;
use std::time::Duration;

/// Keyspace notifications are incomplete (FLUSHALL sends none), so everything is read again at this interval.
pub(super) const KEYSPACE_REFRESH: Duration = Duration::from_secs(60);

/// An action to perform, in this order.
#[derive(Debug)]
pub(super) enum Action {
    /// Open the reading connection, to the server of this session.
    Connect(WatchSession),
    /// Redis is connected.
    Connected(InvalidationMode),
    /// Redis is away, for this reason.
    Lost {
        /// It was connected until now.
        is_new: bool,
        problem: String,
    },
    /// There may have been unreported writes: certificates are to be read again.
    Reread,
    /// The known data has changed.
    Learned,
    /// Find the servers of a cluster; these are known.
    Find(Vec<Address>),
    /// Watch a server of a cluster in a thread with this number, which waits before if it was lost a moment ago.
    Watch { address: Address, number: u64, waits: bool },
    /// End this watching thread.
    Unwatch(u64),
    /// Look up keys at these servers.
    Map(Arc<SlotMap>),
    /// Whether a part of a cluster is away.
    Partial(bool),
}

/// Two connections, and the data known from them. See the module.
#[derive(Debug)]
pub(super) struct Coordinator {
    pub(super) state: RouteState,
    /// The identity of the Redis that the known data came from.
    identity: Option<Identity>,
    watch: Option<WatchSession>,
    /// The interval at which everything is read again, if Redis does not report changes.
    ttl: Duration,
    refresh_at: Moment,
    is_away: bool,
    /// The servers, if the data comes from a cluster.
    shards: Option<Shards>,
    actions: Vec<Action>,
}

impl Coordinator {
    /// A coordinator without a connection. The data in `state` came from the Redis of `identity`.
    pub(super) fn new(state: RouteState, identity: Option<Identity>, ttl: Duration) -> Self {
        let refresh_at = Moment::NEVER;
        Self { state, identity, watch: None, ttl, refresh_at, is_away: false, shards: None, actions: Vec::new() }
    }

    /// The same for a cluster.
    pub(super) fn of_cluster(
        state: RouteState,
        identity: Option<Identity>,
        ttl: Duration,
        (target, spellings): (&Target, &Spellings),
    ) -> Self {
        let lines = identity.map_or_else(Vec::new, |identity| identity.histories);
        let shards = Some(Shards::new(target, spellings, &lines));
        Self { shards, actions: vec![Action::Find(Vec::new())], ..Self::new(state, None, ttl) }
    }

    /// Handles an event of a thread.
    pub(super) fn hear(&mut self, event: Event, now: Moment) {
        match event {
            Event::Watching(watch) => {
                self.actions.push(Action::Connect(watch.clone()));
                self.watch = Some(watch);
            }
            Event::WatchLost { number, problem } => {
                if self.watch.as_ref().is_none_or(|watch| watch.number == number) {
                    self.watch = None;
                    self.lose(problem, now);
                }
            }
            Event::ReaderLost { number, problem } => {
                if let Some(watch) = self.session(number) {
                    self.lose(problem, now);
                    self.actions.push(Action::Connect(watch));
                }
            }
            Event::Unreadable { number, problem } => {
                if self.session(number).is_some() {
                    self.lose(problem, now);
                }
            }
            Event::Reading { number, identity } => {
                if let Some(watch) = self.session(number) {
                    self.connected(&watch, identity, now);
                }
            }
            Event::ChangedKey(changed) => self.changed(&changed, now),
            Event::Scanned => self.state.note_scan(),
            Event::Shard(event) => self.hear_shards(event, now),
            Event::Replies(replies) => {
                if let (Some(identity), Some(offset)) = (&mut self.identity, replies.offset) {
                    identity.offset = Some(offset);
                }
                if let Some(shards) = &mut self.shards {
                    shards.note_offsets(&replies.shard_offsets);
                }
                if self.state.replied(replies, now) {
                    self.actions.push(Action::Learned);
                }
            }
        }
    }

    /// The session with this number, if it is the present one.
    fn session(&self, number: u64) -> Option<WatchSession> {
        self.watch.clone().filter(|watch| watch.number == number)
    }

    fn changed(&mut self, changed: &[ChangedKey], now: Moment) {
        changed.iter().for_each(|changed| self.state.touch(changed, now));
        // The database was emptied: by a command, or in a replica that loads another master's data.
        if changed.contains(&ChangedKey::All)
            && self.state.is_up()
            && let Some(watch) = self.watch.clone()
        {
            self.state.pause();
            self.actions.push(Action::Connect(watch));
        }
    }

    fn connected(&mut self, watch: &WatchSession, identity: Identity, now: Moment) {
        let continuity = match (&self.identity, &mut self.shards) {
            (_, Some(shards)) => shards.take_continuity(),
            (Some(before), None) => identity.continues(before),
            (None, None) if self.state.knows_any() => Continuity::Other,
            (None, None) => Continuity::Same,
        };
        log::info!("redis: connected to {}; changes are known by {}{continuity}", watch.server, watch.mode);
        self.identity = Some(identity);
        self.is_away = false;
        self.refresh_at = now + self.refresh_every(watch.mode);
        self.actions.push(Action::Connected(watch.mode));
        if self.shards.as_ref().is_some_and(Shards::is_partial) {
            self.actions.push(Action::Partial(true));
        }
        // Writes in between were not reported.
        self.actions.push(Action::Reread);
        self.state.up(continuity == Continuity::Same, now);
    }

    fn refresh_every(&self, mode: InvalidationMode) -> Duration {
        match mode {
            InvalidationMode::Tracking => Duration::MAX,
            InvalidationMode::Keyspace => KEYSPACE_REFRESH.max(self.ttl),
            InvalidationMode::Rereading => self.ttl,
        }
    }

    fn lose(&mut self, problem: String, now: Moment) {
        let is_new = !std::mem::replace(&mut self.is_away, true);
        self.actions.push(Action::Lost { is_new, problem });
        self.state.down(now);
    }

    /// The time of the next [`Coordinator::tick`].
    pub(super) fn next_tick(&self) -> Option<Moment> {
        let refresh = self.state.is_up().then_some(self.refresh_at).filter(|moment| *moment != Moment::NEVER);
        refresh.into_iter().chain(self.state.next_tick()).min()
    }

    /// Performs actions that are due.
    pub(super) fn tick(&mut self, now: Moment) {
        self.state.tick(now);
        if self.state.is_up()
            && self.refresh_at <= now
            && let Some(watch) = &self.watch
        {
            self.refresh_at = now + self.refresh_every(watch.mode);
            self.state.refresh();
            self.actions.push(Action::Reread);
        }
    }

    /// The known routes, for a snapshot.
    pub(super) fn routes(&self) -> Routes {
        // Held hosts do not belong to the present data: the next process has to hold them too.
        let identity = self.identity.as_ref().filter(|_| !self.state.is_holding());
        let histories = match &self.shards {
            Some(_) if self.state.is_holding() => Vec::new(),
            Some(shards) => shards.to_lines(),
            None => identity.map_or_else(Vec::new, Identity::to_lines),
        };
        Routes { known: self.state.routes(), histories }
    }

    /// The actions since the last call.
    pub(super) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }
}
