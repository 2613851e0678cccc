//! The listening sockets of all addresses, and who accepts from which: bound here, or taken over from the service
//! manager or a predecessor, which have them already.

use super::{Error, Predecessor};
use crate::config::Settings;
use crate::directory::State;
use crate::net::listener::Listener;
use crate::worker::ListenerSocket;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// Every address with its sockets.
#[derive(Debug)]
pub(super) struct Listeners {
    listeners: Vec<AddressSockets>,
    /// The addresses of HAProxy's files, among them.
    ruled: Vec<SocketAddr>,
    workers: usize,
}

/// The sockets of an address.
#[derive(Debug)]
struct AddressSockets {
    address: SocketAddr,
    /// The place of its certificate, where connections are encrypted.
    secure: Option<u32>,
    /// Requests on this address are for this node itself.
    is_for_service: bool,
    /// A cluster on demand needs it, and the configuration does not have it.
    is_on_demand: bool,
    /// One a worker, so that the kernel spreads the connections; or, of those that were taken over, however many there
    /// are. Not empty.
    sockets: Vec<Listener>,
}

impl Listeners {
    /// Takes over those sockets of `inherited` whose address is in the settings, and binds what is missing, so that what is
    /// wrong with an address is known early. Returns the others too.
    pub(super) fn open(
        settings: &Settings,
        (ruled, on_demand): (&[SocketAddr], impl Iterator<Item = u16>),
        workers: usize,
        mut inherited: Vec<Listener>,
    ) -> Result<(Self, Vec<Listener>), Error> {
        let mut listeners = Vec::new();
        let ruled_addresses = ruled.iter().map(|address| (*address, None));
        for (address, secure) in addresses(settings).chain(ruled_addresses) {
            let is_here = |listener: &mut Listener| listener.local_address().is_ok_and(|here| here == address);
            let sockets: Vec<_> = inherited.extract_if(.., is_here).collect();
            let sockets =
                if sockets.is_empty() { bind(address, workers) } else { Ok(complete(address, workers, sockets)) };
            let sockets = sockets.map_err(|error| Error::Listen(address, error))?;
            prepare(&sockets, settings);
            listeners.push(AddressSockets { address, secure, is_for_service: false, is_on_demand: false, sockets });
        }
        listeners.extend(settings.admin.bind.and_then(|address| open_admin(address, &mut inherited)));
        let mut listeners = Self { listeners, ruled: ruled.to_vec(), workers };
        listeners.open_at_start(settings, &mut inherited, on_demand);
        Ok((listeners, inherited))
    }

    /// Serves HAProxy's files at these addresses from now on, and no longer at others. Returns whether there was anything
    /// to do. An address that cannot be listened on is named in the log.
    pub(super) fn serve_at(&mut self, addresses: &[SocketAddr], settings: &Settings) -> bool {
        let before = self.listeners.len();
        let ruled = std::mem::take(&mut self.ruled);
        self.listeners.retain(|listener| !ruled.contains(&listener.address) || addresses.contains(&listener.address));
        let mut has_changed = self.listeners.len() != before;
        for address in addresses {
            if self.listeners.iter().any(|listener| listener.address == *address) {
                continue;
            }
            let opened = bind(*address, self.workers)
                .and_then(|sockets| sockets.iter().try_for_each(Listener::listen).map(|()| sockets));
            match opened {
                Ok(sockets) => {
                    prepare(&sockets, settings);
                    log::info!("listening on {address}");
                    self.listeners.push(AddressSockets {
                        address: *address,
                        secure: None,
                        is_for_service: false,
                        is_on_demand: false,
                        sockets,
                    });
                    has_changed = true;
                }
                Err(error) => {
                    let error = Error::Listen(*address, error);
                    log::error!("{error}; everything else is served, and this address after a restart or an upgrade");
                }
            }
        }
        self.ruled = addresses.to_vec();
        has_changed
    }

    /// Makes the sockets listen that do not yet. From then on the kernel gives them connections, so workers have to
    /// accept soon. The first address comes last: a client that finds it open finds all of them open.
    pub(super) fn listen(&self) -> Result<(), Error> {
        for listener in self.listeners.iter().rev() {
            let listening = listener.sockets.iter().try_for_each(Listener::listen);
            listening.map_err(|error| Error::Listen(listener.address, error))?;
        }
        Ok(())
    }

    /// Takes over or binds the ports of the clusters on demand that are known at the start. Where one cannot be had, all else
    /// is served all the same.
    fn open_at_start(&mut self, settings: &Settings, inherited: &mut Vec<Listener>, ports: impl Iterator<Item = u16>) {
        for port in ports.collect::<BTreeSet<_>>() {
            if let Err(problem) = self.add_port(port, settings, inherited) {
                log::error!("clusters on demand at port {port} are not reached there: {problem}");
            }
        }
    }

    /// Listens at this port, at every address of `http.bind`, unless clients are accepted there already. Returns whether
    /// there are new sockets. An error leaves all as it was.
    pub(super) fn open_port(&mut self, port: u16, settings: &Settings) -> Result<bool, String> {
        let is_new = self.add_port(port, settings, &mut Vec::new())?;
        let is_its = |listener: &&AddressSockets| listener.is_on_demand && listener.address.port() == port;
        let sockets = self.listeners.iter().filter(is_its).flat_map(|listener| &listener.sockets);
        let listening = sockets.into_iter().filter(|_| is_new).try_for_each(Listener::listen);
        if let Err(error) = listening {
            self.close_port(port);
            return Err(format!("listening on port {port}: {error}"));
        }
        Ok(is_new)
    }

    /// The sockets of a port, which do not listen yet.
    fn add_port(&mut self, port: u16, settings: &Settings, inherited: &mut Vec<Listener>) -> Result<bool, String> {
        match self.listeners.iter().find(|listener| listener.address.port() == port) {
            Some(listener) if listener.is_for_service => {
                return Err(format!("port {port} is that of the admin service"));
            }
            Some(listener) if self.ruled.contains(&listener.address) => {
                return Err(format!("port {port} is one of HAProxy's files, whose rules decide there"));
            }
            Some(_) => return Ok(false),
            None => {}
        }
        let range = &settings.on_demand_ports;
        if !range.contains(&port) {
            return Err(format!(
                "port {port} is not listened on, and server.onDemandPorts ({}-{}) does not have it",
                range.start(),
                range.end()
            ));
        }
        let addresses: BTreeSet<IpAddr> = settings.listeners.iter().map(SocketAddr::ip).collect();
        if addresses.is_empty() {
            return Err("no address of http.bind to listen at".to_owned());
        }
        let mut opened = Vec::new();
        for address in addresses.into_iter().map(|ip| SocketAddr::new(ip, port)) {
            let is_here = |listener: &mut Listener| listener.local_address().is_ok_and(|here| here == address);
            let sockets: Vec<_> = inherited.extract_if(.., is_here).collect();
            let sockets = if sockets.is_empty() {
                bind(address, self.workers)
            } else {
                Ok(complete(address, self.workers, sockets))
            };
            let sockets = sockets.map_err(|error| format!("listening on {address}: {error}"))?;
            prepare(&sockets, settings);
            opened.push(AddressSockets { address, secure: None, is_for_service: false, is_on_demand: true, sockets });
        }
        self.listeners.extend(opened);
        Ok(true)
    }

    /// Lets go of a port that only clusters on demand needed. Returns whether there was one.
    pub(super) fn close_port(&mut self, port: u16) -> bool {
        let before = self.listeners.len();
        self.listeners.retain(|listener| !(listener.is_on_demand && listener.address.port() == port));
        self.listeners.len() < before
    }

    /// The addresses of clients, encrypted ones last.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listeners.iter().filter(|listener| !listener.is_for_service).map(|listener| listener.address)
    }

    /// A handle of every socket, with its address.
    pub(super) fn handles(&self) -> io::Result<Vec<(SocketAddr, Listener)>> {
        let sockets =
            self.listeners.iter().flat_map(|listener| listener.sockets.iter().map(|socket| (listener.address, socket)));
        sockets.map(|(address, socket)| Ok((address, socket.try_clone()?))).collect()
    }

    /// The sockets from which the worker of this number accepts. Each socket has a worker: with more sockets than
    /// workers, a worker has several; with fewer, workers share one.
    pub(super) fn of_worker(&self, number: usize) -> io::Result<Vec<ListenerSocket>> {
        let mut listener_sockets = Vec::new();
        for listener in &self.listeners {
            let first = number % listener.sockets.len();
            for socket in listener.sockets.iter().skip(first).step_by(self.workers) {
                let (secure, is_for_service) = (listener.secure, listener.is_for_service);
                listener_sockets.push(ListenerSocket { socket: socket.for_worker()?, secure, is_for_service });
            }
        }
        Ok(listener_sockets)
    }
}

/// The sockets of all addresses. A socket of the service manager from which no worker accepts would take clients and
/// never serve them, so it is an error. A socket of a predecessor that is no longer configured is closed by the
/// predecessor when its queue is empty.
pub(super) fn open(
    settings: &Settings,
    (ruled, state): (&[SocketAddr], &State),
    workers: usize,
    activated: Vec<Listener>,
    predecessor: Option<&Predecessor>,
) -> Result<Listeners, Error> {
    if let Some(predecessor) = predecessor {
        let inherited = predecessor.sockets().map_err(Error::Predecessor)?;
        return Listeners::open(settings, (ruled, state.ports()), workers, inherited).map(|(listeners, _)| listeners);
    }
    let (listeners, others) = Listeners::open(settings, (ruled, state.ports()), workers, activated)?;
    match others.first() {
        None => Ok(listeners),
        Some(other) => Err(match other.local_address() {
            Ok(address) => Error::Unnamed(address),
            Err(error) => Error::Activation(error),
        }),
    }
}

/// The socket of the admin service, which all workers share: whichever of them turns accepts. Where the address cannot be
/// had, the process serves its clients all the same.
fn open_admin(address: SocketAddr, inherited: &mut Vec<Listener>) -> Option<AddressSockets> {
    let is_here = |listener: &mut Listener| listener.local_address().is_ok_and(|here| here == address);
    let sockets: Vec<_> = inherited.extract_if(.., is_here).collect();
    let sockets = if sockets.is_empty() { bind(address, 1) } else { Ok(sockets) };
    match sockets {
        Ok(sockets) => {
            log::info!("the admin service listens on {address}");
            Some(AddressSockets { address, secure: None, is_for_service: true, is_on_demand: false, sockets })
        }
        Err(error) => {
            log::warn!(
                "admin.bind: listening on {address}: {error}; this process has no admin service. Name a free address there, \
                 or false"
            );
            None
        }
    }
}

/// An address to listen on, and the index of its certificate if connections are encrypted.
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

fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<Listener>> {
    // With SO_REUSEPORT a second process could share the address unseen; one plain probe finds it out.
    Listener::probe(address)?;
    (0..workers).map(|_| Listener::bind(address)).collect()
}

/// Beside sockets that are there already, new ones can be bound only where these allow it (`ReusePort=`) and this process
/// has the account that made them; where it cannot be done, workers share what there is.
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
                is_for_service: false,
                is_on_demand: false,
                sockets: all,
            },
            address,
        )
    }

    /// Each worker accepts at every address, and every socket has a worker that accepts from it.
    #[test]
    fn nobody_goes_without_and_nothing_is_left_over() {
        for workers in 1..=5 {
            for sockets in 1..=5 {
                let (one, address) = listener(sockets);
                let listeners = Listeners { listeners: vec![one], ruled: Vec::new(), workers };
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
