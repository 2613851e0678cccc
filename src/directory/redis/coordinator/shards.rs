//! Decisions about the servers of a Redis Cluster. The rules are in [`super::super::shards`].

use super::super::address::Address;
use super::super::connect::{Continuity, Identity, Server};
use super::super::odd_keys::Spellings;
use super::super::shards::slots::{SlotSet, slot_of};
use super::super::shards::topology::{Linked, ShardEvent, Topology};
use super::super::target::Target;
use super::super::watcher::{InvalidationMode, WatchSession};
use super::{Action, Coordinator, HEALTH_START};
use crate::base::clock::Moment;
use crate::route;

/// The cluster that the data comes from.
#[derive(Debug)]
pub(super) struct Shards {
    topology: Topology,
    target: Target,
    spellings: Spellings,
    /// Number of times that its servers were lost and found.
    sessions: u64,
    /// Some slots have no watched owner.
    is_partial: bool,
}

impl Shards {
    /// A cluster that is not known yet. The known routes came from the shards in these lines of a snapshot.
    pub(super) fn new(target: &Target, spellings: &Spellings, lines: &[String]) -> Self {
        let (target, spellings) = (target.clone(), spellings.clone());
        Self { topology: Topology::new(lines), target, spellings, sessions: 0, is_partial: false }
    }

    /// The identities of its shards, in the form of a snapshot.
    pub(super) fn to_lines(&self) -> Vec<String> {
        self.topology.to_lines()
    }

    /// Records positions of data, by server.
    pub(super) fn note_offsets(&mut self, offsets: &[(Box<str>, u64)]) {
        offsets.iter().for_each(|(id, offset)| self.topology.note_offset(id, *offset));
    }

    /// Whether the result of a look-up of a host depends on a key in one of these slots.
    fn depends_on(&self, host: &str, slots: &SlotSet) -> bool {
        let is_in = |key: String| slots.contains(slot_of(key.as_bytes()));
        let is_list_in =
            |pattern: &str| is_in(self.target.frontend_key(pattern)) || is_in(self.target.options_key(pattern));
        is_in(self.target.dead_key(host))
            || is_in(format!("{HEALTH_START}{host}"))
            || route::patterns(host).any(|pattern| {
                is_list_in(&pattern) || self.spellings.of(&pattern).iter().any(|written| is_list_in(written))
            })
    }

    /// Whether some slots have no watched owner.
    pub(super) fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// The relation of the data of all servers to the known data.
    pub(super) fn take_continuity(&mut self) -> Continuity {
        self.topology.take_continuity()
    }
}

impl Coordinator {
    /// Handles an event of a server of the cluster.
    pub(super) fn hear_shards(&mut self, event: ShardEvent, now: Moment) {
        let is_up = self.state.is_up();
        let Some(shards) = &mut self.shards else { return };
        if let ShardEvent::NotFound { problem } = &event
            && !shards.topology.is_linked()
        {
            let problem = problem.clone();
            self.lose(problem, now);
        }
        let Some(shards) = &mut self.shards else { return };
        let change = shards.topology.hear(event, is_up);
        self.actions.extend(change.stop.into_iter().map(Action::Unwatch));
        self.actions.extend(change.map.map(Action::Map));
        let start = change.start.into_iter();
        self.actions.extend(start.map(|(address, number, waits)| Action::Watch { address, number, waits }));
        if let Some((address, problem, is_news)) = change.failed {
            self.not_watched(&address, &problem, is_news, now);
        }
        if let Some((address, problem)) = change.lost {
            self.lost_server(&address, &problem, now);
        }
        match (change.linked, change.moved) {
            (Some(linked), _) => self.linked_server(&linked, is_up),
            (None, Some(moved)) if is_up => self.moved_slots(&moved),
            _ => {}
        }
        if let Some(shards) = self.shards.as_ref().filter(|_| change.find) {
            self.actions.push(Action::Find(shards.topology.addresses()));
        }
        self.note_missing_slots();
        self.connect_to_shards();
    }

    /// Reads from the watched servers, once as many are watched as can be.
    fn connect_to_shards(&mut self) {
        let Some(shards) = self.shards.as_mut().filter(|shards| self.watch.is_none() && shards.topology.is_settled())
        else {
            return;
        };
        shards.sessions += 1;
        let watch = WatchSession {
            number: shards.sessions,
            server: Server::Cluster,
            identity: Identity::default(),
            mode: InvalidationMode::Tracking,
            uses_last: false,
        };
        self.actions.push(Action::Connect(watch.clone()));
        self.watch = Some(watch);
    }

    fn not_watched(&mut self, address: &Address, problem: &str, is_news: bool, now: Moment) {
        let is_linked = self.shards.as_ref().is_some_and(|shards| shards.topology.is_linked());
        if !is_linked {
            self.lose(format!("watching {address}: {problem}"), now);
        } else if is_news {
            log::warn!(
                "redis: watching {address}: {problem}; hosts with keys there keep their routes, and others get a 503"
            );
        } else {
            log::debug!("redis: watching {address}: {problem}");
        }
    }

    fn lost_server(&mut self, address: &Address, problem: &str, now: Moment) {
        if self.shards.as_ref().is_some_and(|shards| shards.topology.is_linked()) {
            log::warn!(
                "redis: {address}, a server of the cluster, is away: {problem}; hosts with keys there keep their routes"
            );
            // No host with keys there is known to have no route.
            self.state.forget_unknowns();
        } else {
            self.watch = None;
            self.lose(format!("{address}: {problem}; no other server of the cluster is watched"), now);
        }
    }

    /// There may have been unreported writes of this server: everything is read again.
    fn linked_server(&mut self, Linked { address, continuity, slots }: &Linked, is_up: bool) {
        log::info!("redis: {address}, a server of the cluster with {} slots, is watched{continuity}", slots.len());
        let Some(shards) = self.shards.as_ref().filter(|_| is_up) else { return };
        if *continuity != Continuity::Same {
            self.state.hold_where(|host| shards.depends_on(host, slots));
        }
        self.state.read_again_where(|_| true);
        self.actions.push(Action::Reread);
    }

    fn moved_slots(&mut self, moved: &SlotSet) {
        let Some(shards) = &self.shards else { return };
        log::info!("redis: {} slots of the cluster have another server", moved.len());
        self.state.read_again_where(|host| shards.depends_on(host, moved));
    }

    /// Records whether the cluster is complete.
    fn note_missing_slots(&mut self) {
        let Some(shards) = &mut self.shards else { return };
        let is_partial = shards.topology.is_linked() && shards.topology.map().missing() > 0;
        if std::mem::replace(&mut shards.is_partial, is_partial) != is_partial {
            self.actions.push(Action::Partial(is_partial));
        }
    }
}

#[cfg(test)]
#[path = "shards_tests.rs"]
mod tests;
