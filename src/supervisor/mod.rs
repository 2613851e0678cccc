//! The process as a whole: binds and keeps the listening sockets, starts and pins the workers, hears the signals,
//! ends in good order.

mod affinity;
mod certificates;
mod cgroup;
mod doors;
mod limits;
mod notify;
mod pid_file;
mod privileges;

use crate::base::clock::Clock;
use crate::base::counters::{Counter, Counters};
use crate::base::reason::Reason;
use crate::config::Settings;
use crate::directory::Directory;
use crate::net::activation;
use crate::net::listener::Listener;
use crate::net::mailbox::Post;
use crate::net::tls::DAY;
use crate::page::Pages;
use crate::worker::{Landing, Order, Parts, Worker};
use crate::{access_log, directory};
use crossbeam_channel::{Receiver, Sender, select};
use doors::Doors;
use pid_file::PidFile;
use privileges::Account;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

/// Why the process cannot serve, or no longer.
#[derive(Debug)]
pub enum Error {
    /// An address could not be listened on.
    Listen(SocketAddr, io::Error),
    /// The account to run as could not be taken on.
    Privileges(privileges::Fault),
    /// A processor of `server.cpus` is not there.
    Cpus(affinity::Fault),
    /// What the service manager handed over cannot be listened on.
    Activation(io::Error),
    /// The service manager listens on an address that the configuration does not have.
    Unnamed(SocketAddr),
    /// The number of the process could not be written.
    PidFile(PathBuf, io::Error),
    /// The routes could not be had.
    Directory(directory::Error),
    /// The access log could not be opened, or a thread or poll not be made.
    System(&'static str, io::Error),
    /// What was to be agreed on with clients over TLS is nothing that can be.
    Tls(String),
    /// A worker ended although nobody had told it to.
    Worker(usize, String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(address, error) => {
                write!(f, "listening on {address}: {error}")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => f.write_str("; another program has this address"),
                    io::ErrorKind::PermissionDenied => f.write_str("; ports below 1024 need root"),
                    _ => Ok(()),
                }
            }
            Self::Privileges(fault) => fault.fmt(f),
            Self::Cpus(fault) => fault.fmt(f),
            Self::Activation(error) => write!(f, "sockets of the service manager: {error}"),
            Self::Unnamed(address) => write!(
                f,
                "the service manager listens on {address}, which is no address of http.bind or https.bind: name it there, \
                 or take it out of the unit"
            ),
            Self::PidFile(path, error) => write!(f, "server.pidFile: writing {}: {error}", path.display()),
            Self::Directory(error) => error.fmt(f),
            Self::Tls(problem) => write!(f, "https: {problem}"),
            Self::System(what, error) => write!(f, "{what}: {error}"),
            Self::Worker(number, how) => write!(f, "worker {number} ended: {how}"),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    fn pid_file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        |error| Self::PidFile(path.to_owned(), error)
    }
}

/// What wakes the supervisor.
enum Event {
    Signal(i32),
    /// Files of certificates may have changed.
    Files,
    WorkerEnded(usize, Result<(), String>),
}

/// Serves until a signal ends it; every request that is under way then is answered first, up to
/// `server.gracefulWait`.
pub fn run(settings: &Settings) -> Result<(), Error> {
    let activated = activation::take_sockets().map_err(Error::Activation)?;
    let cpus = affinity::choose(settings).map_err(Error::Cpus)?;
    let open_files = limits::raise_open_files();
    if let Some(bytes) = cgroup::memory_limit() {
        log::info!("the control group grants {} MiB of memory", bytes >> 20);
    }
    let mut settings = settings.clone();
    settings.worker.max_connections = limits::connections(settings.max_connections, cpus.len(), open_files);
    let settings = &settings;
    let (events_out, events) = crossbeam_channel::unbounded();
    // From here on a signal is an order, not the end of the process: before the first client can have connected.
    hear_signals(events_out.clone()).map_err(|error| Error::System("hearing signals", error))?;
    let doors = open_doors(settings, cpus.len(), activated)?;
    let account = Account::find(settings).map_err(Error::Privileges)?;
    let pid_file = settings.pid_file.as_ref().map(|path| PidFile::write(path, account).map_err(Error::pid_file(path)));
    let _pid_file = pid_file.transpose()?;
    account.take_on().map_err(Error::Privileges)?;
    let mut house = House::furnish(settings, &cpus, doors, &events_out)?;
    house.start(&cpus, events_out)?;
    for address in house.doors.iter().flat_map(Doors::addresses) {
        log::info!("listening on {address} with {} workers", cpus.len());
    }
    notify::ready();
    let result = house.serve(settings, &events);
    house.tear_down();
    result
}

/// The sockets of all addresses. One that the service manager listens on, and that nobody here accepts from, would take
/// in clients for nobody.
fn open_doors(settings: &Settings, workers: usize, activated: Vec<Listener>) -> Result<Doors, Error> {
    let (doors, others) = Doors::open(settings, workers, activated)?;
    match others.first() {
        None => Ok(doors),
        Some(other) => Err(match other.local_address() {
            Ok(address) => Error::Unnamed(address),
            Err(error) => Error::Activation(error),
        }),
    }
}

fn hear_signals(events: Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// All that runs.
struct House {
    /// Those who have yet to be started.
    workers: Vec<Worker>,
    /// The listening sockets, until the end begins. The workers accept from handles of their own: a socket listens while
    /// any handle is left.
    doors: Option<Doors>,
    /// How the others are told what to do.
    orders: Vec<Post<Order>>,
    counters: Vec<Arc<Counters>>,
    directory: Directory,
    log: access_log::Control,
    /// The certificates of the addresses.
    certificates: certificates::Keeper,
    running: usize,
}

impl House {
    fn furnish(
        settings: &Settings,
        cpus: &[affinity::Place],
        doors: Doors,
        events: &Sender<Event>,
    ) -> Result<Self, Error> {
        let clock = Clock::new();
        let (log, cores_log) = access_log::start(&settings.access_log, cpus.len(), clock)
            .map_err(|error| Error::System("opening the access log", error))?;
        let directory = directory::start(&settings.directory, clock).map_err(Error::Directory)?;
        let pages = Arc::new(Pages::load(&settings.page));
        let mut house = Self {
            workers: Vec::new(),
            doors: Some(doors),
            orders: Vec::new(),
            counters: Vec::new(),
            directory,
            log,
            certificates: certificates::Keeper::new(settings, events, clock)?,
            running: 0,
        };
        for number in 0..cpus.len() {
            let counters = Arc::new(Counters::default());
            house.counters.push(Arc::clone(&counters));
            let furniture = Furniture { number, log: cores_log.clone(), counters, pages: Arc::clone(&pages), clock };
            let (worker, orders) = house.make_worker(settings, furniture)?;
            house.orders.push(orders);
            house.workers.push(worker);
        }
        Ok(house)
    }

    fn make_worker(&self, settings: &Settings, furniture: Furniture) -> Result<(Worker, Post<Order>), Error> {
        let listeners = self.doors.as_ref().map_or_else(|| Ok(Vec::new()), |doors| doors.of_worker(furniture.number));
        let worker = listeners.and_then(|listeners| {
            Worker::new(Parts {
                number: furniture.number,
                listeners,
                landing: Landing::default(),
                tls: self.certificates.parts(),
                backend_tls: self.certificates.backend_tls(),
                settings: settings.worker.clone(),
                exchange: settings.exchange.clone(),
                upstream: settings.upstream.clone(),
                route: settings.route.clone(),
                directory: self.directory.clone(),
                log: furniture.log,
                pages: furniture.pages,
                counters: furniture.counters,
                clock: furniture.clock,
            })
        });
        worker.map_err(|error| Error::System("making a worker", error))
    }

    fn start(&mut self, cpus: &[affinity::Place], events: Sender<Event>) -> Result<(), Error> {
        for (number, (worker, place)) in self.workers.drain(..).zip(cpus.iter().copied()).enumerate() {
            let events = events.clone();
            let work = move || {
                place.take();
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker.run()));
                let result = match result {
                    Ok(result) => result.map_err(|error| error.to_string()),
                    Err(_) => Err("it panicked".to_owned()),
                };
                // Fails only when the supervisor has gone, and then nobody is left to be told.
                let _ = events.send(Event::WorkerEnded(number, result));
            };
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(work)
                .map_err(|error| Error::System("starting a worker", error))?;
            self.running += 1;
        }
        Ok(())
    }

    /// Waits for signals, and at last for the workers' ends.
    fn serve(&mut self, settings: &Settings, events: &Receiver<Event>) -> Result<(), Error> {
        let mut stopping = false;
        let mut result = Ok(());
        let daily = crossbeam_channel::tick(DAY);
        while self.running > 0 {
            let event = select! {
                recv(events) -> event => event,
                recv(daily) -> _ => {
                    self.certificates.warn_of_expiry();
                    continue;
                }
            };
            let Ok(event) = event else { break };
            match event {
                Event::Signal(SIGHUP) => {
                    notify::reloading("reading routes, certificates and pages again");
                    self.directory.reload();
                    self.renew_certificates();
                    let pages = Arc::new(Pages::load(&settings.page));
                    self.tell_all(|| Order::Pages(Arc::clone(&pages)));
                    notify::ready();
                }
                Event::Files => self.renew_certificates(),
                Event::Signal(SIGUSR1) => self.log.reopen(),
                Event::Signal(_) if stopping => {
                    log::warn!("told to stop a second time: not waiting any longer");
                    return result;
                }
                Event::Signal(_) => {
                    stopping = true;
                    self.begin_stop();
                }
                Event::WorkerEnded(number, how) => {
                    self.running -= 1;
                    if let Err(how) = how {
                        // Its sockets would take connections that nobody accepts: rather a whole end than half a one.
                        stopping = true;
                        self.begin_stop();
                        result = Err(Error::Worker(number, how));
                    }
                }
            }
        }
        result
    }

    fn renew_certificates(&mut self) {
        if let Some(parts) = self.certificates.renew_parts() {
            self.tell_all(|| Order::Tls(parts.clone()));
        }
        if let Some(tls) = self.certificates.renew_backend_tls() {
            self.tell_all(|| Order::BackendTls(tls.clone()));
        }
    }

    fn begin_stop(&mut self) {
        notify::stopping();
        self.doors = None;
        self.tell_all(|| Order::Stop);
    }

    fn tell_all(&self, order: impl Fn() -> Order) {
        self.orders.iter().for_each(|orders| orders.send(order()));
    }

    fn tear_down(self) {
        self.directory.stop();
        self.log.stop();
        let sum = |counter| self.counters.iter().map(|counters| counters.get(counter)).sum::<u64>();
        let totals = Counter::ALL.iter().map(|counter| (counter.name(), sum(*counter)));
        let of_reason = |reason| self.counters.iter().map(|counters| counters.get_reason(reason)).sum::<u64>();
        let reasons = Reason::ALL.iter().map(|reason| (reason.name(), of_reason(*reason)));
        let counted: Vec<String> = totals
            .chain(reasons)
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        log::info!("stopped; {}", counted.join(", "));
    }
}

/// What one worker alone gets.
struct Furniture {
    number: usize,
    log: access_log::Log,
    counters: Arc<Counters>,
    pages: Arc<Pages>,
    clock: Clock,
}
