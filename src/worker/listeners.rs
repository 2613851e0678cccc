//! Listeners: new clients are accepted, and closed clients make room.

use super::connection::{Admitted, BufferedConnection, Client};
use super::haproxy::Entry;
use super::overload::{Need, is_shortage};
use super::proxy_protocol::{HeaderUse, ProxyNetworks, every_network, header_use};
use super::read_size::ClientReadSize;
use super::{Deferred, Kind, Owner, Worker};
use crate::base::clock::Moment;
use crate::base::counters::Counter;
use crate::base::gen_slab::SlotKey;
use crate::net::connection_limiter::{ConnectionPermit, Exhausted};
use crate::net::listener::{NO_ADDRESS, accept_local, has_pending};
use crate::net::transport::Transport;
use crate::wire::forwarded::Peer;
use mio::Interest;
use mio::net::{TcpListener, TcpStream};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The time a listener is paused when there is no room for more TLS handshakes, or when the system has no descriptor or
/// memory for another connection and no idle connection can be evicted.
const PAUSE: Duration = Duration::from_millis(100);

/// Number of clients accepted at one listener before others have their turn.
const MOST_AT_ONCE: usize = 256;

/// A socket to accept from.
#[derive(Debug)]
pub struct ListenerSocket {
    /// The socket.
    pub socket: TcpListener,
    /// Index of the address's certificate among [`super::DefaultCertificates`], if connections are encrypted.
    pub secure: Option<u32>,
    /// Whether requests at this socket are for this node itself ([`super::ServiceCall`]).
    pub is_for_service: bool,
    /// Whether rules of HAProxy files choose the cluster of requests at this socket.
    pub is_ruled: bool,
    /// Whether it is a socket of the file system, for processes of this machine.
    pub is_local: bool,
}

/// A listening socket.
#[derive(Debug)]
pub(super) struct WorkerListener {
    socket: TcpListener,
    address: SocketAddr,
    /// The value of [`WorkerListener::secure`] that came with the socket.
    own_secure: Option<u32>,
    /// Its index among the encrypted listeners, if it is one of them.
    secure: Option<u32>,
    /// Requests here are for this node itself.
    is_for_service: bool,
    /// It is a socket of the file system.
    is_local: bool,
    /// The number of the frontend in HAProxy files, from 1; 0 if hosts choose the route.
    frontend: u16,
    /// Networks whose PROXY header is trusted; every connection has to begin with one.
    proxies: Option<ProxyNetworks>,
    /// No client is accepted before this moment; [`Moment::NEVER`] until there is room again.
    pub(super) paused_until: Option<Moment>,
}

impl Worker {
    pub(super) fn open_listeners(&mut self, listener_sockets: Vec<ListenerSocket>) -> io::Result<()> {
        for (number, opened) in listener_sockets.into_iter().enumerate() {
            let ListenerSocket { mut socket, secure, is_for_service, is_ruled, is_local } = opened;
            let token = Kind::Listener.token(number as u64);
            self.poll.registry().register(&mut socket, token, Interest::READABLE)?;
            let address = if is_local { NO_ADDRESS } else { socket.local_addr()? };
            let frontend = if is_ruled { self.frontend_at(address) } else { 0 };
            let own_secure = secure;
            let (secure, proxies) = self.entrance(address, own_secure, frontend);
            let paused_until = None;
            self.listeners.push(WorkerListener {
                socket,
                address,
                own_secure,
                secure,
                is_for_service,
                is_local,
                frontend,
                proxies,
                paused_until,
            });
        }
        Ok(())
    }

    /// Number of the frontend whose rules apply to connections to this address; 0 if the host chooses the route.
    pub(super) fn frontend_of(&self, local: SocketAddr) -> u16 {
        let is_it = |listener: &&WorkerListener| {
            let address = listener.address;
            address == local || (address.ip().is_unspecified() && address.port() == local.port())
        };
        self.listeners.iter().find(is_it).map_or_else(|| self.frontend_at(local), |listener| listener.frontend)
    }

    /// Whether an address has TLS, and the networks that may send a PROXY header there.
    fn entrance(
        &self,
        address: SocketAddr,
        own_secure: Option<u32>,
        frontend: u16,
    ) -> (Option<u32>, Option<ProxyNetworks>) {
        let served = self.frontend(frontend);
        let secure = if served.is_some_and(|served| served.tls.is_some()) { Some(0) } else { own_secure };
        let is_told = served.is_some_and(|served| served.accepts_proxy);
        (secure, self.settings.proxies.get(&address).cloned().or_else(|| is_told.then(every_network)))
    }

    /// The frontends have changed: sets TLS and PROXY networks of every listener for the next clients, also at
    /// addresses that stay.
    pub(super) fn renew_entrances(&mut self) {
        for number in 0..self.listeners.len() {
            let Some(WorkerListener { address, own_secure, frontend, .. }) = self.listeners.get(number) else { return };
            let (secure, proxies) = self.entrance(*address, *own_secure, *frontend);
            if let Some(listener) = self.listeners.get_mut(number) {
                (listener.secure, listener.proxies) = (secure, proxies);
            }
        }
    }

    /// Accepts at these listeners, and at no others. An order to stop takes precedence.
    pub(super) fn replace_listeners(&mut self, listener_sockets: Vec<ListenerSocket>) {
        if self.drain.is_some() {
            return;
        }
        self.close_listeners();
        if let Err(error) = self.open_listeners(listener_sockets) {
            log::error!("worker {}: watching a listening socket: {error}", self.number);
        }
    }

    /// Accepts nothing more. The sockets stay open where another handle exists, so they are deregistered explicitly.
    pub(super) fn close_listeners(&mut self) {
        for mut listener in self.listeners.drain(..) {
            if let Err(error) = self.poll.registry().deregister(&mut listener.socket) {
                log::warn!("worker {}: leaving a listening socket: {error}", self.number);
            }
        }
    }

    /// Accepts all pending connections of a listener: the poll reports them once. Other listeners have their turn in
    /// between.
    pub(super) fn accept(&mut self, listener: usize) {
        if self.accept_some(listener) {
            self.deferred.push(Deferred::Accept(listener));
        }
    }

    /// Accepts some pending connections of a listener. Returns whether there may be more.
    pub(super) fn accept_some(&mut self, listener: usize) -> bool {
        // Requests of new clients are read at once, and belong to no tenant yet.
        let most = if self.tenants.is_some() { 1 } else { MOST_AT_ONCE };
        (0..most).all(|_| self.accept_one(listener))
    }

    /// Accepts the next pending connection of a listener. Returns whether there may be another.
    fn accept_one(&mut self, listener: usize) -> bool {
        let Some(WorkerListener { socket, secure, is_for_service, frontend, paused_until: None, .. }) =
            self.listeners.get(listener)
        else {
            return false;
        };
        let (is_for_service, frontend) = (*is_for_service, *frontend);
        let is_crowded = if is_for_service { self.is_service_full() } else { self.is_crowded() };
        let has_too_many_handshakes = secure.is_some() && self.is_handshake_table_full();
        // Evict an idle client only if a connection is really pending; the next arrival raises a new event.
        if (is_crowded || has_too_many_handshakes) && !has_pending(socket) {
            return false;
        }
        // The others wait in the system's queue, as in HAProxy.
        if frontend != 0 && self.is_frontend_full(frontend) {
            return self.pause_listener(listener, self.core.now + PAUSE);
        }
        if has_too_many_handshakes && !self.make_room_for_handshake() {
            self.counters.count(Counter::HandshakePauses);
            return self.pause_listener(listener, self.core.now + PAUSE);
        }
        if is_for_service {
            if is_crowded && !self.give_up_service_client() {
                return self.pause_listener(listener, self.core.now + PAUSE);
            }
        } else if self.is_crowded() && (!self.give_up_client() || self.is_crowded()) {
            self.counters.count(Counter::AcceptPauses);
            self.waits_for_room = true;
            let next_to_go = self.idle.next_to_go(&self.clients).min(self.lingering.next_to_go());
            return self.pause_listener(listener, next_to_go);
        }
        let Some(WorkerListener { socket, is_local, .. }) = self.listeners.get(listener) else { return false };
        let accepted = match is_local {
            false => socket.accept(),
            true => accept_local(socket).map(|(stream, user)| (stream, Peer::address_of_user(user))),
        };
        match accepted {
            Ok((stream, address)) => self.on_accept(stream, address, listener),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return false,
                // The client was gone before it was accepted.
                io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                // The kernel allocates a descriptor before it looks for a pending connection.
                _ if is_shortage(&error) && !has_pending(socket) => return false,
                _ if is_shortage(&error) && self.shed_idle(Need::Client, &error) => {}
                _ => return self.pause_listener(listener, self.core.now + PAUSE),
            },
        }
        true
    }

    /// Whether the limit of clients is reached.
    fn is_crowded(&self) -> bool {
        self.traffic_clients() >= self.settings.max_connections
    }

    /// Pauses a listener until this moment.
    fn pause_listener(&mut self, listener: usize, until: Moment) -> bool {
        if let Some(listener) = self.listeners.get_mut(listener) {
            listener.paused_until = Some(until);
        }
        false
    }

    /// The moment at which the next listener is resumed; [`Moment::NEVER`] if none has one.
    pub(super) fn next_resume(&self) -> Moment {
        self.listeners.iter().filter_map(|listener| listener.paused_until).fold(Moment::NEVER, Moment::min)
    }

    /// Resumes the listeners whose pause is over.
    pub(super) fn resume_listeners(&mut self) {
        for number in 0..self.listeners.len() {
            if let Some(listener) = self.listeners.get_mut(number)
                && listener.paused_until.is_some_and(|until| until <= self.core.now)
            {
                listener.paused_until = None;
                self.accept(number);
            }
        }
    }

    /// There may be room for a new client: one has left, or become idle.
    pub(super) fn note_room(&mut self) {
        if std::mem::take(&mut self.waits_for_room) {
            self.deferred.push(Deferred::AcceptAll);
        }
    }

    /// Resumes all listeners, since there may be room again.
    pub(super) fn accept_all(&mut self) {
        for number in 0..self.listeners.len() {
            if let Some(listener) = self.listeners.get_mut(number) {
                listener.paused_until = None;
            }
            self.accept(number);
        }
    }

    fn on_accept(&mut self, stream: TcpStream, address: SocketAddr, listener: usize) {
        let Some(WorkerListener { address: local, secure, is_for_service, frontend, proxies, .. }) =
            self.listeners.get(listener)
        else {
            return;
        };
        let (local_port, secure, is_secure, frontend) = (local.port(), *secure, secure.is_some(), *frontend);
        let is_for_service = *is_for_service;
        let visit = if frontend == 0 { None } else { self.visit(frontend) };
        let ip = address.ip().to_canonical();
        let awaits_header = match proxies.as_ref().map(|proxies| header_use(proxies, ip)) {
            Some(None) => {
                log::debug!("{ip}: is in no network that may send a PROXY header");
                return self.counters.count(Counter::UntrustedProxies);
            }
            None | Some(Some(HeaderUse::Ignored)) => None,
            Some(expected) => expected,
        };
        // With PROXY protocol, the per-address limit is applied once the header has named the client.
        let permit = if awaits_header.is_some() || is_for_service { Ok(None) } else { self.admit(ip) };
        let Ok(permit) = permit else { return self.counters.count(Counter::PerIpRejections) };
        self.tally.sessions += usize::from(is_secure);
        let transport = if is_secure { Transport::accepted_tls(stream) } else { Transport::accepted(stream) };
        let peer = Peer { address: ip, local_port, secure: is_secure, tls: None };
        let now = self.core.now;
        let (clients, timers) = (&mut self.clients, &mut self.timers);
        let key = clients.insert_with(|key| {
            let mut timer = timers.insert(Owner::Client(key));
            timers.set(&mut timer, now + self.settings.idle_timeout);
            Client {
                stream: BufferedConnection::new(transport),
                peer,
                timer,
                job: None,
                idle_since: Moment::NEVER,
                served: 0,
                read_size: ClientReadSize::default(),
                admitted: Admitted::new(permit, visit),
                entry: if frontend == 0 { Entry::of_hosts(secure) } else { Entry::of_frontend(frontend) },
                is_shaking_hands: is_secure,
                awaits_header,
                is_for_service,
                is_registered: false,
                is_lingering: false,
                has_session: is_secure,
                told: None,
            }
        });
        if is_for_service {
            self.service.add(key);
        } else {
            self.counters.count(Counter::Accepted);
        }
        self.note_idle(key);
        if awaits_header.is_some() {
            self.await_header(key);
        }
        if is_secure {
            self.add_handshake(key);
        }
        // An exchange that begins with the first bytes only never ends soon.
        if is_secure || awaits_header.is_some() { self.register_client(key) } else { self.read_at_once(key) }
    }

    /// The permit of a new connection among those of its address, or an error where the address has used all. Proxies
    /// in front of this node are not limited: their connections belong to many clients.
    pub(super) fn admit(&self, address: IpAddr) -> Result<Option<ConnectionPermit>, Exhausted> {
        match &self.limiter {
            Some(limiter) if !self.core.settings.forwarded.trusts(address) => limiter.acquire(address).map(Some),
            _ => Ok(None),
        }
    }

    /// Ends a client's connection. Its exchange, if it had one, is over.
    pub(super) fn close_client(&mut self, key: SlotKey) {
        if let Some(mut client) = self.clients.remove(key) {
            self.timers.remove(&mut client.timer);
            self.tally.sessions -= usize::from(client.has_session);
            drop(client.admitted);
            client.stream.close(&mut self.core.buffers);
            if client.is_shaking_hands {
                self.remove_handshake();
            }
            if client.is_lingering {
                self.lingering.forget(key);
            }
            if client.is_for_service {
                self.service.remove(key);
            }
            self.note_room();
        }
    }

    /// A client was idle for too long, or an exchange waited for too long.
    #[cold]
    pub(super) fn client_due(&mut self, key: SlotKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        match client.job {
            None if client.is_lingering => self.lingering_due(key),
            None if client.awaits_header.is_some() => self.header_due(key),
            None if client.is_shaking_hands => self.handshake_due(key),
            None if client.stream.has_more() => {
                // The bytes there need not be a request.
                self.timers.set(&mut client.timer, self.core.now + PAUSE);
                self.deferred.push(Deferred::ReadRequest(key));
            }
            None => {
                self.counters.count(Counter::IdleTimeouts);
                self.close_idle_client(key);
            }
            Some(job) => self.job_due(job),
        }
    }
}
