//! The listening sockets of all addresses, and the workers that accept from them. A socket is bound here, or taken over
//! from the service manager or a predecessor.

use super::Error;
use super::privileges::{Account, Fault};
use crate::admin::Bind;
use crate::config::Settings;
use crate::directory::{Refusal, State};
use crate::net::listener::{Listener, NO_ADDRESS};
use crate::worker::ListenerSocket;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Every address with its sockets.
#[derive(Debug)]
pub(super) struct Listeners {
    listeners: Vec<AddressSockets>,
    /// The addresses of the HAProxy files. Those that cannot be opened are retried.
    ruled: Vec<SocketAddr>,
    /// Ports of on-demand clusters that could not be opened at the start. They are retried.
    missing: BTreeSet<u16>,
    /// The greatest number of sockets for ports of on-demand clusters.
    max_on_demand: usize,
    workers: usize,
    /// The path of the admin socket, if this process has made it and has to set its owner.
    new_socket: Option<PathBuf>,
}

/// The reason for which an address is open. Only its owner closes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// `http.bind` and `https.bind`.
    Configuration,
    /// Requests at this address are for this node itself.
    Service,
    /// The HAProxy files, whose rules apply there.
    Haproxy,
    /// On-demand clusters.
    OnDemand,
}

/// The sockets of an address.
#[derive(Debug)]
struct AddressSockets {
    address: SocketAddr,
    /// The index of its certificate, if it speaks TLS.
    secure: Option<u32>,
    owner: Owner,
    /// One socket for each worker, so that the kernel spreads the connections; or any number of inherited ones. Never
    /// empty.
    sockets: Vec<Listener>,
}

impl Listeners {
    /// Takes over the sockets of `inherited` whose address is in the settings, and binds the missing ones, so that
    /// faults of an address appear early. Ports of on-demand clusters get at most `max_on_demand` sockets. Also returns
    /// the inherited sockets that are not used.
    pub(super) fn open(
        settings: &Settings,
        (ruled, on_demand, max_on_demand): (&[SocketAddr], impl Iterator<Item = u16>, usize),
        workers: usize,
        mut inherited: Vec<Listener>,
    ) -> Result<(Self, Vec<Listener>), Error> {
        let mut listeners = Vec::new();
        let configured = addresses(settings).map(|(address, secure)| (address, secure, Owner::Configuration));
        let ruled_addresses = ruled.iter().map(|address| (*address, None, Owner::Haproxy));
        for (address, secure, owner) in configured.chain(ruled_addresses) {
            let sockets = take_or_bind(address, workers, &mut inherited, settings);
            let sockets = sockets.map_err(|error| Error::Listen(address, error))?;
            listeners.push(AddressSockets { address, secure, owner, sockets });
        }
        let (of_admin, new_socket) = open_admin(&settings.admin, &mut inherited).unzip();
        listeners.extend(of_admin);
        let (missing, new_socket) = (BTreeSet::new(), new_socket.flatten());
        let mut listeners = Self { listeners, ruled: ruled.to_vec(), missing, max_on_demand, workers, new_socket };
        listeners.open_at_start(settings, &mut inherited, on_demand);
        Ok((listeners, inherited))
    }

    /// Serves the HAProxy files at exactly these addresses from now on. Returns whether anything changed. An address
    /// that cannot be opened is logged, and [`Listeners::retry`] tries it again.
    pub(super) fn serve_at(&mut self, addresses: &[SocketAddr], settings: &Settings) -> bool {
        let is_gone = |here: &mut AddressSockets| here.owner == Owner::Haproxy && !addresses.contains(&here.address);
        let gone = self.listeners.extract_if(.., is_gone).count();
        self.ruled = addresses.to_vec();
        let mut opened = 0;
        for (address, result) in self.open_ruled(settings) {
            match result {
                Ok(()) => opened += 1,
                Err(problem) => {
                    log::error!("HAProxy's files: listening on {address}: {problem}; it is retried periodically");
                }
            }
        }
        gone + opened > 0
    }

    /// Retries addresses that could not be opened. Returns whether there are new sockets.
    pub(super) fn retry(&mut self, settings: &Settings) -> bool {
        let ruled = self.open_ruled(settings).into_iter().filter(|(_, result)| result.is_ok()).count();
        let mut opened = 0;
        for port in self.missing.clone() {
            if self.open_port(port, settings).is_ok() {
                log::info!("listening on port {port} for clusters on demand");
                opened += 1;
            }
        }
        ruled + opened > 0
    }

    /// Opens the addresses of the HAProxy files that are not open, and returns each with its outcome.
    fn open_ruled(&mut self, settings: &Settings) -> Vec<(SocketAddr, Result<(), String>)> {
        let has = |address: &SocketAddr| {
            self.listeners.iter().any(|here| here.owner == Owner::Haproxy && here.address == *address)
        };
        let missing: Vec<_> = self.ruled.iter().copied().filter(|address| !has(address)).collect();
        let mut results = Vec::new();
        for address in missing {
            results.push((address, self.open_one_ruled(address, settings)));
        }
        results
    }

    fn open_one_ruled(&mut self, address: SocketAddr, settings: &Settings) -> Result<(), String> {
        if let Some(other) = self.listeners.iter().find(|here| overlap(here.address, address)) {
            return Err(match other.owner {
                Owner::OnDemand => "a cluster on demand has this port until it gives it up (port=)".to_owned(),
                _ => "the configuration has this address".to_owned(),
            });
        }
        let opened = bind(address, self.workers)
            .and_then(|sockets| sockets.iter().try_for_each(Listener::listen).map(|()| sockets));
        let sockets = opened.map_err(|error| error.to_string())?;
        prepare(&sockets, settings);
        log::info!("listening on {address}");
        self.listeners.push(AddressSockets { address, secure: None, owner: Owner::Haproxy, sockets });
        Ok(())
    }

    /// Makes sockets listen that do not yet. The kernel then assigns connections to them, so workers have to accept
    /// soon. The first address comes last: a client that finds it open finds all of them open.
    pub(super) fn listen(&self) -> Result<(), Error> {
        for listener in self.listeners.iter().rev() {
            let listening = listener.sockets.iter().try_for_each(Listener::listen);
            listening.map_err(|error| Error::Listen(listener.address, error))?;
        }
        Ok(())
    }

    /// Takes over or binds the ports of the on-demand clusters known at the start. A failure does not affect other
    /// addresses.
    fn open_at_start(&mut self, settings: &Settings, inherited: &mut Vec<Listener>, ports: impl Iterator<Item = u16>) {
        for port in ports.collect::<BTreeSet<_>>() {
            if let Err(problem) = self.add_port(port, settings, inherited) {
                log::error!(
                    "clusters on demand at port {port} are not reached there: {problem}; it is retried periodically"
                );
                self.missing.insert(port);
            }
        }
    }

    /// Gives the admin socket to its owner, if this process has made it.
    pub(super) fn own_socket(&self, settings: &Settings, account: Account) -> Result<(), Fault> {
        let owner = settings.admin.socket_owner.as_deref();
        self.new_socket.as_deref().map_or(Ok(()), |path| account.own_socket(path, owner))
    }

    /// Listens on this port, at every address of `http.bind`, unless it is already open. Returns whether there are new
    /// sockets. An error changes nothing.
    pub(super) fn open_port(&mut self, port: u16, settings: &Settings) -> Result<bool, Refusal> {
        let is_new = self.add_port(port, settings, &mut Vec::new())?;
        let is_its = |listener: &&AddressSockets| listener.owner == Owner::OnDemand && listener.address.port() == port;
        let sockets = self.listeners.iter().filter(is_its).flat_map(|listener| &listener.sockets);
        let listening = sockets.into_iter().filter(|_| is_new).try_for_each(Listener::listen);
        if let Err(error) = listening {
            self.close_port(port);
            return Err(Refusal::Conflict(format!("listening on port {port}: {error}")));
        }
        self.missing.remove(&port);
        Ok(is_new)
    }

    /// The sockets of a port, not yet listening.
    fn add_port(&mut self, port: u16, settings: &Settings, inherited: &mut Vec<Listener>) -> Result<bool, Refusal> {
        let is_ruled = self.ruled.iter().any(|address| address.port() == port);
        match self.listeners.iter().find(|listener| listener.address.port() == port).map(|listener| listener.owner) {
            Some(Owner::OnDemand) => return Ok(false),
            Some(Owner::Service) => {
                return Err(Refusal::Conflict(format!("port {port} is that of the admin service")));
            }
            _ if is_ruled => {
                return Err(Refusal::Conflict(format!(
                    "port {port} is one of HAProxy's files, whose rules decide there"
                )));
            }
            Some(Owner::Configuration | Owner::Haproxy) => return Ok(false),
            None => {}
        }
        let range = &settings.on_demand_ports;
        if !range.contains(&port) {
            return Err(Refusal::Conflict(format!(
                "port {port} is not listened on, and server.onDemandPorts ({}-{}) does not have it",
                range.start(),
                range.end()
            )));
        }
        let addresses: BTreeSet<IpAddr> = settings.listeners.iter().map(SocketAddr::ip).collect();
        if addresses.is_empty() {
            return Err(Refusal::Conflict("no address of http.bind to listen at".to_owned()));
        }
        let needed = self.on_demand_sockets() + addresses.len() * self.workers;
        if needed > self.max_on_demand {
            return Err(Refusal::Conflict(format!(
                "port {port} would be socket {needed} of ports on demand, and the limit of open files allows {}: raise it \
                 (LimitNOFILE= of systemd, ulimit -Hn), or close other ports",
                self.max_on_demand
            )));
        }
        let mut opened = Vec::new();
        for address in addresses.into_iter().map(|ip| SocketAddr::new(ip, port)) {
            let sockets = take_or_bind(address, self.workers, inherited, settings);
            let sockets = sockets.map_err(|error| Refusal::Conflict(format!("listening on {address}: {error}")))?;
            opened.push(AddressSockets { address, secure: None, owner: Owner::OnDemand, sockets });
        }
        self.listeners.extend(opened);
        Ok(true)
    }

    /// Number of sockets for ports of on-demand clusters.
    fn on_demand_sockets(&self) -> usize {
        let on_demand = self.listeners.iter().filter(|listener| listener.owner == Owner::OnDemand);
        on_demand.map(|listener| listener.sockets.len()).sum()
    }

    /// Closes a port that only on-demand clusters needed, for all workers at once: it is free after this call, even if
    /// a worker has not read its mail. Returns whether the port was open.
    pub(super) fn close_port(&mut self, port: u16) -> bool {
        self.missing.remove(&port);
        let is_its =
            |listener: &mut AddressSockets| listener.owner == Owner::OnDemand && listener.address.port() == port;
        let closed: Vec<_> = self.listeners.extract_if(.., is_its).collect();
        closed.iter().flat_map(|listener| &listener.sockets).for_each(Listener::stop_listening);
        !closed.is_empty()
    }

    /// The addresses for clients, TLS ones last.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listeners.iter().filter(|listener| listener.owner != Owner::Service).map(|listener| listener.address)
    }

    /// A handle of every socket, with its address.
    pub(super) fn handles(&self) -> io::Result<Vec<(SocketAddr, Listener)>> {
        let sockets =
            self.listeners.iter().flat_map(|listener| listener.sockets.iter().map(|socket| (listener.address, socket)));
        sockets.map(|(address, socket)| Ok((address, socket.try_clone()?))).collect()
    }

    /// The sockets from which this worker accepts. Each socket has a worker: with more sockets than workers, a worker
    /// has several; with fewer, workers share one.
    pub(super) fn of_worker(&self, number: usize) -> io::Result<Vec<ListenerSocket>> {
        let mut listener_sockets = Vec::new();
        for listener in &self.listeners {
            let first = number % listener.sockets.len();
            for socket in listener.sockets.iter().skip(first).step_by(self.workers) {
                listener_sockets.push(ListenerSocket {
                    socket: socket.for_worker()?,
                    secure: listener.secure,
                    is_for_service: listener.owner == Owner::Service,
                    is_ruled: listener.owner == Owner::Haproxy,
                    is_local: listener.address == NO_ADDRESS,
                });
            }
        }
        Ok(listener_sockets)
    }
}

/// The sockets of all addresses. A socket of the service manager without a worker would queue clients and never serve
/// them, so it is an error. A predecessor hands over only its own sockets; one that is no longer configured is closed
/// by the predecessor when its queue is empty.
pub(super) fn open(
    settings: &Settings,
    (ruled, state, max_on_demand): (&[SocketAddr], &State, usize),
    workers: usize,
    activated: Vec<Listener>,
    inherited: Option<Vec<Listener>>,
) -> Result<Listeners, Error> {
    if let Some(inherited) = inherited {
        return Listeners::open(settings, (ruled, state.ports(), max_on_demand), workers, inherited)
            .map(|(listeners, _)| listeners);
    }
    let (listeners, others) = Listeners::open(settings, (ruled, state.ports(), max_on_demand), workers, activated)?;
    match others.first() {
        None => Ok(listeners),
        Some(other) => Err(match other.local_address() {
            Ok(address) => Error::Unnamed(address),
            Err(error) => Error::Activation(error),
        }),
    }
}

/// The admin socket, shared by all workers, and its path if this process has made one. If it cannot be opened, clients
/// are served all the same.
fn open_admin(
    admin: &crate::admin::Settings,
    inherited: &mut Vec<Listener>,
) -> Option<(AddressSockets, Option<PathBuf>)> {
    let bind_to = admin.bind.as_ref()?;
    let (address, path) = match bind_to {
        Bind::Address(address) => (*address, None),
        Bind::Unix(path) => (NO_ADDRESS, Some(path)),
    };
    let is_here = |listener: &mut Listener| {
        listener.local_address().is_ok_and(|here| here == address) && listener.path().as_ref() == path
    };
    let sockets: Vec<_> = inherited.extract_if(.., is_here).collect();
    let is_new = sockets.is_empty();
    let sockets = match path {
        _ if !is_new => Ok(sockets),
        None => bind(address, 1),
        Some(path) => Listener::bind_path(path, admin.socket_mode).map(|socket| vec![socket]),
    };
    match sockets {
        Ok(sockets) => {
            log::info!("the admin service listens on {bind_to}");
            let new_socket = path.filter(|_| is_new).cloned();
            Some((AddressSockets { address, secure: None, owner: Owner::Service, sockets }, new_socket))
        }
        Err(error) => {
            log::warn!(
                "admin.bind: listening on {bind_to}: {error}; this process has no admin service. Name a free address there, \
                 or false"
            );
            None
        }
    }
}

/// Whether a connection can match both addresses.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let is_wide = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && (is_wide || one.ip() == other.ip())
}

/// Each address to listen on, with the index of its certificate if it speaks TLS.
fn addresses(settings: &Settings) -> impl Iterator<Item = (SocketAddr, Option<u32>)> {
    let plain = settings.listeners.iter().map(|address| (*address, None));
    let tls = settings.tls.iter().flat_map(|tls| &tls.listeners).zip(0..);
    plain.chain(tls.map(|(listener, place)| (listener.address, Some(place))))
}

fn prepare(sockets: &[Listener], settings: &Settings) {
    for socket in sockets {
        socket.await_first_bytes(settings.defer_accept);
        socket.set_liveness(&settings.worker.liveness);
    }
}

/// The sockets of an address: those of `inherited`, and new ones if there are fewer than workers.
fn take_or_bind(
    address: SocketAddr,
    workers: usize,
    inherited: &mut Vec<Listener>,
    settings: &Settings,
) -> io::Result<Vec<Listener>> {
    let is_here = |listener: &mut Listener| listener.local_address().is_ok_and(|here| here == address);
    let taken: Vec<_> = inherited.extract_if(.., is_here).collect();
    let sockets = if taken.is_empty() { bind(address, workers)? } else { complete(address, workers, taken) };
    prepare(&sockets, settings);
    Ok(sockets)
}

fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<Listener>> {
    // With SO_REUSEPORT a second process could share the address unnoticed; a bind without it detects that.
    Listener::probe(address)?;
    (0..workers).map(|_| Listener::bind(address)).collect()
}

/// Adds sockets next to inherited ones. That requires that these allow it (`ReusePort=`) and that this process has the
/// account that made them; otherwise workers share the inherited sockets.
fn complete(address: SocketAddr, workers: usize, mut sockets: Vec<Listener>) -> Vec<Listener> {
    let found = sockets.len();
    while sockets.len() < workers {
        match Listener::bind(address) {
            Ok(socket) => sockets.push(socket),
            Err(error) => {
                let there = sockets.len();
                log::info!("{address}: {workers} workers share {there} sockets; another one cannot be bound: {error}");
                break;
            }
        }
    }
    log::debug!("{address}: {found} sockets were there already, and {} are in use", sockets.len());
    sockets
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    fn listener(sockets: usize) -> (AddressSockets, SocketAddr) {
        let first = Listener::open(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = first.local_address().expect("an address");
        let mut all = vec![first];
        all.extend((1..sockets).map(|_| Listener::open(address).expect("the same port")));
        (
            AddressSockets {
                address,
                secure: Some(sockets.try_into().expect("few")),
                owner: Owner::Configuration,
                sockets: all,
            },
            address,
        )
    }

    /// Each worker accepts at every address, and every socket has a worker that accepts from it.
    #[test]
    fn every_worker_gets_a_socket_and_every_socket_a_worker() {
        for workers in 1..=5 {
            for sockets in 1..=5 {
                let (one, address) = listener(sockets);
                let listeners = Listeners {
                    listeners: vec![one],
                    ruled: Vec::new(),
                    missing: BTreeSet::new(),
                    max_on_demand: 0,
                    workers,
                    new_socket: None,
                };
                let inode = |fd: i32| {
                    std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("an open file").display().to_string()
                };
                let mut served = BTreeSet::new();
                for number in 0..workers {
                    let listener_sockets = listeners.of_worker(number).expect("handles");
                    assert!(!listener_sockets.is_empty(), "worker {number} of {workers}, {sockets} sockets");
                    for listener_socket in listener_sockets {
                        assert_eq!(listener_socket.secure, Some(sockets.try_into().expect("few")));
                        assert_eq!(listener_socket.socket.local_addr().expect("an address"), address);
                        served.insert(inode(listener_socket.socket.as_raw_fd()));
                    }
                }
                assert_eq!(served.len(), sockets, "{workers} workers");
            }
        }
    }
}
