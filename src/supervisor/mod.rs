//! The process as a whole: binds and keeps the listening sockets, starts and pins the workers, hears the signals,
//! ends in good order.

mod affinity;
mod certificates;
mod cgroup;
mod doors;
mod limits;
mod loops;
mod memory;
mod notify;
mod panics;
mod pid_file;
mod privileges;
mod report;
#[cfg(test)]
mod tests;
mod watchdog;

use crate::base::clock::Clock;
use crate::base::counters::Counter;
use crate::base::reason::Reason;
use crate::config::Settings;
use crate::net::activation;
use crate::net::listener::Listener;
use crate::net::quota::Quota;
use crate::net::tls::DAY;
use crate::page::Pages;
use crate::worker::Order;
use crate::{access_log, directory};
use crossbeam_channel::{Receiver, Sender, select, tick};
use doors::Doors;
use loops::{LoopId, Loops, Stock};
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
    WorkerEnded(LoopId, Result<(), String>),
    /// All workers have been renewed and the process holds too much memory all the same: it is to be renewed itself.
    Renew,
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
    panics::log_them();
    let mut house = House::furnish(settings, &cpus, doors, &events_out)?;
    house.loops.start()?;
    for address in house.loops.doors.iter().flat_map(Doors::addresses) {
        log::info!("listening on {address} with {} workers", cpus.len());
    }
    notify::ready();
    house.serve(&events);
    house.tear_down();
    Ok(())
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

fn is_end(signal: i32) -> bool {
    matches!(signal, SIGTERM | SIGINT)
}

/// All that runs.
struct House {
    loops: Loops,
    log: access_log::Control,
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
        let stock = Stock {
            settings: settings.clone(),
            directory: directory::start(&settings.directory, clock).map_err(Error::Directory)?,
            log: cores_log,
            pages: Arc::new(Pages::load(&settings.page)),
            certificates: certificates::Keeper::new(settings, events, clock)?,
            quota: settings.max_per_address.map(Quota::new).map(Arc::new),
            clock,
        };
        Ok(Self { loops: Loops::new(stock, doors, cpus, events.clone()), log })
    }

    /// Waits for what happens, looks after the workers, and waits for their ends at last.
    fn serve(&mut self, events: &Receiver<Event>) {
        let (ticks, daily) = (tick(self.loops.interval()), tick(DAY));
        while !self.loops.have_ended() {
            select! {
                recv(events) -> event => match event {
                    Ok(Event::Signal(signal)) if is_end(signal) && self.loops.is_stopping() => {
                        log::warn!("told to stop a second time: not waiting any longer");
                        return;
                    }
                    Ok(event) => self.handle(event),
                    Err(_) => return,
                },
                recv(ticks) -> _ => self.loops.look(),
                recv(daily) -> _ => self.loops.stock.certificates.warn_of_expiry(),
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Signal(SIGHUP) => self.reload(),
            Event::Signal(SIGUSR1) => self.log.reopen(),
            Event::Signal(_) => {
                notify::stopping();
                self.loops.stop();
            }
            Event::Files => self.renew_certificates(),
            Event::WorkerEnded(id, how) => self.loops.ended(id, how),
            Event::Renew => {}
        }
    }

    fn reload(&mut self) {
        notify::reloading("reading routes, certificates and pages again");
        self.loops.stock.directory.reload();
        self.renew_certificates();
        let pages = Arc::new(Pages::load(&self.loops.stock.settings.page));
        self.loops.stock.pages = Arc::clone(&pages);
        self.loops.tell_all(|| Order::Pages(Arc::clone(&pages)));
        notify::ready();
    }

    fn renew_certificates(&mut self) {
        if let Some(parts) = self.loops.stock.certificates.renew_parts() {
            self.loops.tell_all(|| Order::Tls(parts.clone()));
        }
        if let Some(tls) = self.loops.stock.certificates.renew_backend_tls() {
            self.loops.tell_all(|| Order::BackendTls(tls.clone()));
        }
    }

    fn tear_down(self) {
        let counters = self.loops.counters();
        self.loops.stock.directory.stop();
        drop(self.loops);
        let lost_lines = self.log.stop();
        let totals = Counter::ALL.iter().map(|counter| (counter.name(), counters.get(*counter)));
        let reasons = Reason::ALL.iter().map(|reason| (reason.name(), counters.get_reason(*reason)));
        let counted: Vec<String> = totals
            .chain(reasons)
            .chain([("lost_log_lines", lost_lines)])
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        log::info!("stopped; {}", counted.join(", "));
    }
}
