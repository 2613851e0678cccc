//! The lobby: TLS clients between the door and their first request. Who says hello is shown the certificate of the
//! name it asks for, if need be once the directory has said which that is: the handshake waits, the core does not.

use super::Worker;
use crate::base::clock::Moment;
use crate::base::counters::Counter;
use crate::base::slots::Key;
use crate::directory::CertificateAnswer;
use crate::net::tls::{Credentials, Reception};
use crate::route::{self, Cached};
use rustls::ServerConfig;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How long a handshake is let alone when a newer client needs its place.
const PATIENCE: Duration = Duration::from_secs(1);

/// What of the lobby can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a handshake may take, the hello included.
    pub handshake_timeout: Duration,
    /// The greatest number of handshakes under way, a core.
    pub max_handshakes: usize,
    /// The greatest number of names whose certificates are at hand, a core.
    pub names: route::Settings,
}

/// The certificates of the doors, by the doors' numbers: for clients that ask for nobody, or for somebody unknown.
pub type DoorCertificates = Arc<[Option<Credentials>]>;

/// A core's lobby.
#[derive(Debug)]
pub(super) struct Lobby {
    settings: Settings,
    reception: Arc<Reception>,
    doors: Vec<Option<Standing>>,
    names: route::Cache<Arc<ServerConfig>>,
    /// Clients that wait for the directory's answer about this name.
    waiting: HashMap<Arc<str>, Vec<Key>>,
    /// Those who shake hands, in the order in which they came; and those who have left since.
    order: VecDeque<(Moment, Key)>,
    under_way: usize,
}

/// A door's own certificate.
#[derive(Clone, Debug)]
struct Standing {
    credentials: Credentials,
    config: Arc<ServerConfig>,
}

/// What becomes of a client that has said hello.
enum Verdict {
    Show(Arc<ServerConfig>),
    Refuse,
    Wait,
}

impl Lobby {
    pub(super) fn new(settings: Settings, reception: Arc<Reception>, doors: &DoorCertificates) -> Self {
        let names = route::Cache::new(&settings.names);
        let mut lobby = Self {
            settings,
            reception,
            doors: Vec::new(),
            names,
            waiting: HashMap::new(),
            order: VecDeque::new(),
            under_way: 0,
        };
        lobby.furnish(doors);
        lobby
    }

    fn furnish(&mut self, doors: &DoorCertificates) {
        let standing = |credentials: &Credentials| Standing {
            credentials: credentials.clone(),
            config: self.reception.config(credentials),
        };
        self.doors = doors.iter().map(|credentials| credentials.as_ref().map(standing)).collect();
    }

    fn standing(&self, door: u32) -> Option<&Standing> {
        self.doors.get(door as usize)?.as_ref()
    }

    /// What is shown to those whose name has no certificate of its own.
    fn fallback(&self, door: u32) -> Verdict {
        self.standing(door).map_or(Verdict::Refuse, |standing| Verdict::Show(Arc::clone(&standing.config)))
    }
}

impl Worker {
    /// Whether as many shake hands as may.
    pub(super) fn is_lobby_full(&self) -> bool {
        self.lobby.as_ref().is_some_and(|lobby| lobby.under_way >= lobby.settings.max_handshakes)
    }

    /// Makes room for one more handshake: the one that has been under way the longest gives way, unless it is still
    /// young; then all are, and new clients have to wait outside. Whether there is room.
    pub(super) fn make_room_in_lobby(&mut self) -> bool {
        let now = self.core.now;
        let Some(lobby) = &mut self.lobby else { return true };
        while lobby.under_way >= lobby.settings.max_handshakes {
            let Some((since, key)) = lobby.order.front().copied() else { return true };
            let is_there = self.clients.get(key).is_some_and(|client| client.is_shaking_hands);
            if is_there && now.since(since) < PATIENCE {
                return false;
            }
            lobby.order.pop_front();
            if is_there {
                self.close_client(key);
                return true;
            }
        }
        true
    }

    /// A client has come in that has to shake hands.
    pub(super) fn enter_lobby(&mut self, key: Key) {
        let now = self.core.now;
        let Some(lobby) = &mut self.lobby else { return };
        lobby.under_way += 1;
        // Those who have left since are cleared away at a cost that the new ones pay for.
        if lobby.order.len() >= 2 * lobby.settings.max_handshakes {
            lobby.order.retain(|(_, key)| self.clients.get(*key).is_some_and(|client| client.is_shaking_hands));
        }
        lobby.order.push_back((now, key));
        if let Some(client) = self.clients.get_mut(key) {
            self.timers.set(&mut client.timer, now + lobby.settings.handshake_timeout);
        }
    }

    /// A client has left, or hands are shaken.
    pub(super) fn leave_lobby(&mut self) {
        if let Some(lobby) = &mut self.lobby {
            lobby.under_way -= 1;
            if lobby.under_way == 0 {
                lobby.order.clear();
            }
        }
    }

    /// A client says whom it wants to talk to.
    pub(super) fn meet(&mut self, key: Key) {
        let (Some(lobby), Some(client)) = (&mut self.lobby, self.clients.get_mut(key)) else { return };
        let verdict = match client.stream.transport.wanted_name() {
            None => lobby.fallback(client.door),
            Some(name) => match lobby.names.get(name) {
                Some(Cached::Found(config)) => Verdict::Show(config),
                Some(Cached::Unknown) => lobby.fallback(client.door),
                None => {
                    let name: Arc<str> = name.into();
                    self.ask_for_certificate(key, name)
                }
            },
        };
        self.proceed(key, verdict);
    }

    fn ask_for_certificate(&mut self, key: Key, name: Arc<str>) -> Verdict {
        self.counters.count(Counter::CertificateMisses);
        let Some(lobby) = &mut self.lobby else { return Verdict::Refuse };
        if let Some(waiting) = lobby.waiting.get_mut(&name) {
            // Those who have left wait here too, until the answer comes: a slow one must not gather them without end.
            if waiting.len() >= 2 * lobby.settings.max_handshakes {
                return Verdict::Refuse;
            }
            waiting.push(key);
        } else if self.directory.lookup_certificate(self.id, Arc::clone(&name)) {
            lobby.waiting.insert(name, vec![key]);
        } else {
            return self.verdict_without_directory(key);
        }
        Verdict::Wait
    }

    /// The directory cannot say which certificate it is. The door's own will do where it is for that name.
    fn verdict_without_directory(&self, key: Key) -> Verdict {
        let (Some(lobby), Some(client)) = (&self.lobby, self.clients.get(key)) else { return Verdict::Refuse };
        match (lobby.standing(client.door), client.stream.transport.wanted_name()) {
            (Some(standing), Some(name)) if standing.credentials.cover(name) => lobby.fallback(client.door),
            _ => Verdict::Refuse,
        }
    }

    fn proceed(&mut self, key: Key, verdict: Verdict) {
        let Some(client) = self.clients.get_mut(key) else { return };
        match verdict {
            Verdict::Show(config) => {
                client.stream.transport.accept(config);
                self.greet(key);
            }
            Verdict::Refuse => {
                self.counters.count(Counter::UnknownNames);
                client.stream.transport.refuse();
                self.start_lingering_close(key, true);
            }
            Verdict::Wait => {}
        }
    }

    /// The directory has said which certificate it is.
    pub(super) fn take_certificate(&mut self, name: Arc<str>, answer: &CertificateAnswer) {
        let Some(lobby) = &mut self.lobby else { return };
        let config = match answer {
            CertificateAnswer::Found(credentials) => {
                let config = lobby.reception.config(credentials);
                lobby.names.put_found(Arc::clone(&name), Arc::clone(&config));
                Some(config)
            }
            CertificateAnswer::Unknown => {
                lobby.names.put_unknown(Arc::clone(&name));
                None
            }
            CertificateAnswer::Failed => None,
        };
        for key in lobby.waiting.remove(&name).unwrap_or_default() {
            let Some(client) = self.clients.get(key) else { continue };
            let verdict = match (&config, answer) {
                (Some(config), _) => Verdict::Show(Arc::clone(config)),
                (None, CertificateAnswer::Failed) => self.verdict_without_directory(key),
                (None, _) => self.lobby.as_ref().map_or(Verdict::Refuse, |lobby| lobby.fallback(client.door)),
            };
            self.proceed(key, verdict);
        }
    }

    /// The certificates under these patterns are others now.
    pub(super) fn forget_certificates(&mut self, patterns: &[Arc<str>]) {
        let Some(lobby) = &mut self.lobby else { return };
        if patterns.iter().all(|pattern| !pattern.starts_with('*')) {
            patterns.iter().for_each(|name| drop(lobby.names.evict(name)));
            return;
        }
        lobby
            .names
            .evict_all(|name| route::patterns(name).any(|rung| patterns.iter().any(|pattern| **pattern == *rung)));
    }

    /// News was lost: nothing at hand can be trusted, and what was asked is asked again.
    pub(super) fn ask_for_certificates_again(&mut self) {
        let Some(lobby) = &mut self.lobby else { return };
        lobby.names.clear();
        let lost: Vec<Arc<str>> = lobby.waiting.keys().cloned().collect();
        for name in lost {
            if !self.directory.lookup_certificate(self.id, Arc::clone(&name)) {
                self.take_certificate(name, &CertificateAnswer::Failed);
            }
        }
    }

    /// Clients are shown or asked for something else from now on. Those who are known stay.
    pub(super) fn refurnish(&mut self, reception: Arc<Reception>, doors: &DoorCertificates) {
        let Some(lobby) = &mut self.lobby else { return };
        if !Arc::ptr_eq(&lobby.reception, &reception) {
            lobby.reception = reception;
            // What is at hand was agreed on with the one before.
            lobby.names.clear();
        }
        lobby.furnish(doors);
    }

    /// A client is ready for its first request.
    pub(super) fn hands_shaken(&mut self, key: Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.is_shaking_hands = false;
        client.peer.subject = client.stream.transport.client_subject();
        self.timers.set(&mut client.timer, self.core.now + self.settings.idle_timeout);
        match (client.stream.transport.fault(), client.stream.transport.is_resumed()) {
            (Some(fault), _) => {
                log::debug!("{}: shaking hands: {fault}", client.peer.address);
                self.counters.count(Counter::FailedHandshakes);
            }
            (None, Some(true)) => {
                self.counters.count(Counter::Handshakes);
                self.counters.count(Counter::ResumedHandshakes);
            }
            (None, Some(false)) => self.counters.count(Counter::Handshakes),
            // It speaks plainly, and is told so.
            (None, None) => self.counters.count(Counter::FailedHandshakes),
        }
        self.leave_lobby();
        self.may_move(key);
    }

    /// Hands that were not shaken in time.
    pub(super) fn handshake_due(&mut self, key: Key) {
        self.counters.count(Counter::FailedHandshakes);
        self.close_client(key);
    }
}
