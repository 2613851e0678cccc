//! TLS clients between the accept and their first request. A client gets the certificate of the name in its
//! ClientHello, if need be once the directory has found it: the handshake waits, the core does not.

use super::{Worker, WorkerTlsConfig};
use crate::base::clock::Moment;
use crate::base::counters::Counter;
use crate::base::gen_slab::SlotKey;
use crate::base::reason::FailureReason;
use crate::directory::CertificateResult;
use crate::exchange::Input;
use crate::net::tls::{Credentials, TlsServerContext};
use crate::route::{self, Cached};
use crate::wire::forwarded::TlsPeer;
use rustls::ServerConfig;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The time for which a handshake is protected when a newer client needs its place.
const PATIENCE: Duration = Duration::from_secs(1);

/// Settings of TLS handshakes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The time limit of a handshake, the ClientHello included.
    pub handshake_timeout: Duration,
    /// The greatest number of handshakes under way on one core.
    pub max_handshakes: usize,
    /// The greatest number of names whose certificates are cached on one core.
    pub names: route::Settings,
}

/// Default certificates, by the listeners' numbers: for clients that name no host, or an unknown one.
pub type DefaultCertificates = Arc<[Option<Credentials>]>;

/// The TLS handshakes of a core.
#[derive(Debug)]
pub(super) struct HandshakeTable {
    settings: Settings,
    tls_server: Arc<TlsServerContext>,
    default_certificates: Vec<Option<Arc<ReadyCertificate>>>,
    names: route::Cache<Arc<ReadyCertificate>>,
    /// Clients that wait for the directory's response about this name.
    waiting: HashMap<Arc<str>, Vec<SlotKey>>,
    /// Requests that wait for this name because their host is not the one of their connection.
    requests: HashMap<Arc<str>, Vec<SlotKey>>,
    /// Clients with a handshake under way, in order of arrival; some have left since.
    order: VecDeque<(Moment, SlotKey)>,
    under_way: usize,
}

/// An available certificate.
#[derive(Debug)]
struct ReadyCertificate {
    credentials: Credentials,
    /// The host names in it.
    names: Arc<[String]>,
    config: Arc<ServerConfig>,
}

impl ReadyCertificate {
    fn new(credentials: &Credentials, tls_server: &TlsServerContext) -> Arc<Self> {
        let (names, config) = (credentials.names().into(), tls_server.config(credentials));
        Arc::new(Self { credentials: credentials.clone(), names, config })
    }
}

/// Decision about a client after its ClientHello.
enum CertificateDecision {
    Show(Arc<ReadyCertificate>),
    /// The certificates of a frontend, which selects them by name.
    ShowOfFrontend(Arc<ServerConfig>),
    Refuse,
    Wait,
}

impl HandshakeTable {
    pub(super) fn new(config: WorkerTlsConfig) -> Self {
        let WorkerTlsConfig { settings, tls_server, default_certificates } = config;
        let names = route::Cache::new(&settings.names);
        let mut handshakes = Self {
            settings,
            tls_server,
            default_certificates: Vec::new(),
            names,
            waiting: HashMap::new(),
            requests: HashMap::new(),
            order: VecDeque::new(),
            under_way: 0,
        };
        handshakes.set_defaults(&default_certificates);
        handshakes
    }

    fn set_defaults(&mut self, default_certificates: &DefaultCertificates) {
        let ready = |credentials: &Credentials| ReadyCertificate::new(credentials, &self.tls_server);
        self.default_certificates =
            default_certificates.iter().map(|credentials| credentials.as_ref().map(ready)).collect();
    }

    fn default_certificate(&self, listener: u32) -> Option<&Arc<ReadyCertificate>> {
        self.default_certificates.get(listener as usize)?.as_ref()
    }

    /// The certificate for names without one of their own.
    fn fallback(&self, listener: u32) -> CertificateDecision {
        self.default_certificate(listener).map_or(CertificateDecision::Refuse, |default_certificate| {
            CertificateDecision::Show(Arc::clone(default_certificate))
        })
    }
}

impl Worker {
    /// Whether the limit of handshakes is reached.
    pub(super) fn is_handshake_table_full(&self) -> bool {
        self.handshakes.as_ref().is_some_and(|handshakes| handshakes.under_way >= handshakes.settings.max_handshakes)
    }

    /// Makes room for one more handshake: the oldest one is dropped, unless it is still young. If it is young, new
    /// clients wait in the accept queue. Returns whether there is room.
    pub(super) fn make_room_for_handshake(&mut self) -> bool {
        let now = self.core.now;
        let Some(handshakes) = &mut self.handshakes else { return true };
        while handshakes.under_way >= handshakes.settings.max_handshakes {
            let Some((since, key)) = handshakes.order.front().copied() else { return true };
            let is_there = self.clients.get(key).is_some_and(|client| client.is_shaking_hands);
            if is_there && now.since(since) < PATIENCE {
                return false;
            }
            handshakes.order.pop_front();
            if is_there {
                self.close_client(key);
                return true;
            }
        }
        true
    }

    /// A client was accepted that needs a TLS handshake.
    pub(super) fn add_handshake(&mut self, key: SlotKey) {
        let now = self.core.now;
        let Some(handshakes) = &mut self.handshakes else { return };
        handshakes.under_way += 1;
        // Entries of clients that have left are removed at a cost that new clients pay for.
        if handshakes.order.len() >= 2 * handshakes.settings.max_handshakes {
            handshakes.order.retain(|(_, key)| self.clients.get(*key).is_some_and(|client| client.is_shaking_hands));
        }
        handshakes.order.push_back((now, key));
        if let Some(client) = self.clients.get_mut(key) {
            self.timers.set(&mut client.timer, now + handshakes.settings.handshake_timeout);
        }
    }

    /// A client has left, or its TLS handshake is complete.
    pub(super) fn remove_handshake(&mut self) {
        if let Some(handshakes) = &mut self.handshakes {
            handshakes.under_way -= 1;
            if handshakes.under_way == 0 {
                handshakes.order.clear();
            }
        }
    }

    /// A client has sent its ClientHello.
    pub(super) fn on_client_hello(&mut self, key: SlotKey) {
        let number = self.clients.get(key).map_or(0, |client| client.entry.frontend());
        if let Some(config) = self.frontend(number).and_then(|frontend| frontend.tls.as_ref()) {
            return self.proceed(key, CertificateDecision::ShowOfFrontend(Arc::clone(config)));
        }
        let (Some(handshakes), Some(client)) = (&mut self.handshakes, self.clients.get_mut(key)) else { return };
        let name = client.stream.transport.wanted_name();
        client.peer.tls = name.map(|name| Arc::new(TlsPeer { server_name: Some(name.into()), ..TlsPeer::default() }));
        let decision = match name {
            None => handshakes.fallback(client.entry.certificate()),
            Some(name) => match handshakes.names.get(name) {
                Some(Cached::Found(certificate)) => CertificateDecision::Show(certificate),
                Some(Cached::Unknown) => handshakes.fallback(client.entry.certificate()),
                None => {
                    let name: Arc<str> = name.into();
                    self.ask_for_certificate(key, name)
                }
            },
        };
        self.proceed(key, decision);
    }

    fn ask_for_certificate(&mut self, key: SlotKey, name: Arc<str>) -> CertificateDecision {
        self.counters.count(Counter::CertificateMisses);
        let Some(handshakes) = &mut self.handshakes else { return CertificateDecision::Refuse };
        if let Some(waiting) = handshakes.waiting.get_mut(&name) {
            // Entries of clients that have left stay until the response comes: their number has to be bounded while it
            // is slow.
            if waiting.len() >= 2 * handshakes.settings.max_handshakes {
                return CertificateDecision::Refuse;
            }
            waiting.push(key);
        } else if self.directory.lookup_certificate(self.id, Arc::clone(&name)) {
            handshakes.waiting.insert(name, vec![key]);
        } else {
            return self.decide_without_directory(key);
        }
        CertificateDecision::Wait
    }

    /// The directory cannot find the certificate. The listener's default is used if it covers the name.
    fn decide_without_directory(&self, key: SlotKey) -> CertificateDecision {
        let (Some(handshakes), Some(client)) = (&self.handshakes, self.clients.get(key)) else {
            return CertificateDecision::Refuse;
        };
        match (handshakes.default_certificate(client.entry.certificate()), client.stream.transport.wanted_name()) {
            (Some(default_certificate), Some(name)) if default_certificate.credentials.cover(name) => {
                handshakes.fallback(client.entry.certificate())
            }
            _ => CertificateDecision::Refuse,
        }
    }

    fn proceed(&mut self, key: SlotKey, decision: CertificateDecision) {
        let Some(client) = self.clients.get_mut(key) else { return };
        match decision {
            CertificateDecision::Show(certificate) => {
                if let Some(tls) = &mut client.peer.tls {
                    Arc::make_mut(tls).shown = Some(Arc::clone(&certificate.names));
                }
                client.stream.transport.accept(Arc::clone(&certificate.config));
                self.try_start_request(key);
            }
            CertificateDecision::ShowOfFrontend(config) => {
                client.stream.transport.accept(config);
                self.try_start_request(key);
            }
            CertificateDecision::Refuse => {
                self.counters.count(Counter::UnknownNames);
                client.stream.transport.refuse();
                self.start_lingering_close(key, true);
            }
            CertificateDecision::Wait => {}
        }
    }

    /// The directory has found the certificate.
    pub(super) fn take_certificate(&mut self, name: Arc<str>, result: &CertificateResult) {
        let Some(handshakes) = &mut self.handshakes else { return };
        let certificate = match result {
            CertificateResult::Found(credentials) => {
                let certificate = ReadyCertificate::new(credentials, &handshakes.tls_server);
                handshakes.names.put_found(Arc::clone(&name), Arc::clone(&certificate));
                Some(certificate)
            }
            CertificateResult::Unknown => {
                handshakes.names.put_unknown(Arc::clone(&name));
                None
            }
            CertificateResult::Failed => None,
        };
        for key in handshakes.waiting.remove(&name).unwrap_or_default() {
            let Some(client) = self.clients.get(key) else { continue };
            let decision = match (&certificate, result) {
                (Some(certificate), _) => CertificateDecision::Show(Arc::clone(certificate)),
                (None, CertificateResult::Failed) => self.decide_without_directory(key),
                (None, _) => self
                    .handshakes
                    .as_ref()
                    .map_or(CertificateDecision::Refuse, |handshakes| handshakes.fallback(client.entry.certificate())),
            };
            self.proceed(key, decision);
        }
        self.resume_for_another_name(&name, certificate.is_some());
    }

    /// Finds the route of a request whose connection was opened for another host ([`Request::is_for_another_name`]). A host
    /// with a certificate of its own is not served there; whether it has one, the directory may have to say.
    ///
    /// [`Request::is_for_another_name`]: crate::exchange::Request::is_for_another_name
    #[cold]
    pub(super) fn resolve_for_another_name(&mut self, job: SlotKey) {
        let host =
            self.jobs.get(job).and_then(|job| job.exchange.request()).map(|request| Arc::<str>::from(request.host()));
        let (Some(host), Some(handshakes)) = (host, &mut self.handshakes) else { return self.resolve_host(job) };
        match handshakes.names.get(&host) {
            Some(Cached::Found(_)) => {
                self.step_only(job, Input::Route(Err(FailureReason::MisdirectedRequest)));
            }
            Some(Cached::Unknown) => self.resolve_host(job),
            None => {
                let is_asked = handshakes.waiting.contains_key(&host) || handshakes.requests.contains_key(&host);
                if is_asked || self.directory.lookup_certificate(self.id, Arc::clone(&host)) {
                    handshakes.requests.entry(host).or_default().push(job);
                } else {
                    self.resolve_host(job);
                }
            }
        }
    }

    /// The directory has reported whether a name has a certificate. If it could not tell, requests are served.
    fn resume_for_another_name(&mut self, name: &str, has_certificate: bool) {
        let Some(handshakes) = &mut self.handshakes else { return };
        for job in handshakes.requests.remove(name).unwrap_or_default() {
            if self.jobs.get(job).is_none() {
                continue;
            }
            if has_certificate {
                self.dispatch(job, Input::Route(Err(FailureReason::MisdirectedRequest)));
            } else {
                self.resolve_host(job);
                self.resume_exchange(job);
            }
        }
    }

    /// The certificates under these patterns have changed.
    pub(super) fn forget_certificates(&mut self, patterns: &[Arc<str>]) {
        let Some(handshakes) = &mut self.handshakes else { return };
        if patterns.iter().all(|pattern| !pattern.starts_with('*')) {
            patterns.iter().for_each(|name| drop(handshakes.names.evict(name)));
            return;
        }
        handshakes.names.evict_all(|name| {
            route::patterns(name).any(|candidate| patterns.iter().any(|pattern| **pattern == *candidate))
        });
    }

    /// Messages were lost: cached certificates may be stale, and pending look-ups are issued again.
    pub(super) fn ask_for_certificates_again(&mut self) {
        let Some(handshakes) = &mut self.handshakes else { return };
        handshakes.names.clear();
        let lost: Vec<Arc<str>> = handshakes.waiting.keys().chain(handshakes.requests.keys()).cloned().collect();
        for name in lost {
            if !self.directory.lookup_certificate(self.id, Arc::clone(&name)) {
                self.take_certificate(name, &CertificateResult::Failed);
            }
        }
    }

    /// Replaces the TLS settings for clients. Established connections stay.
    pub(super) fn set_certificates(
        &mut self,
        tls_server: Arc<TlsServerContext>,
        default_certificates: &DefaultCertificates,
    ) {
        let Some(handshakes) = &mut self.handshakes else { return };
        if !Arc::ptr_eq(&handshakes.tls_server, &tls_server) {
            handshakes.tls_server = tls_server;
            // The cached ones were built for the previous settings.
            handshakes.names.clear();
        }
        handshakes.set_defaults(default_certificates);
    }

    /// A client is ready for its first request.
    pub(super) fn on_handshake_done(&mut self, key: SlotKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.is_shaking_hands = false;
        if let Some(subject) = client.stream.transport.client_subject() {
            Arc::make_mut(client.peer.tls.get_or_insert_default()).subject = Some(subject);
        }
        self.timers.set(&mut client.timer, self.core.now + self.settings.idle_timeout);
        match (client.stream.transport.fault(), client.stream.transport.is_resumed()) {
            (Some(fault), _) => {
                log::debug!("{}: TLS handshake: {fault}", client.peer.address);
                self.counters.count(Counter::FailedHandshakes);
            }
            (None, Some(true)) => {
                self.counters.count(Counter::Handshakes);
                self.counters.count(Counter::ResumedHandshakes);
            }
            (None, Some(false)) => self.counters.count(Counter::Handshakes),
            // It speaks plaintext, and gets a response that says so.
            (None, None) => self.counters.count(Counter::FailedHandshakes),
        }
        self.remove_handshake();
        self.may_move(key);
    }

    /// A handshake was not complete in time.
    pub(super) fn handshake_due(&mut self, key: SlotKey) {
        self.counters.count(Counter::FailedHandshakes);
        self.close_client(key);
    }
}
