//! The process as a whole: binds and keeps the listening sockets, starts and pins the workers, handles signals, and
//! shuts down in order.

mod admin;
mod affinity;
mod certificates;
mod cgroup;
mod check;
mod error;
mod haproxy;
mod limits;
mod listeners;
mod memory;
mod notify;
mod panics;
mod pid_file;
mod privileges;
mod probes;
mod report;
mod stop;
mod succession;
#[cfg(test)]
mod tests;
mod upgrade;
mod watchdog;
mod worker_pool;

pub use check::{Findings, check};
pub use error::Error;
pub use upgrade::{Predecessor, order as order_upgrade};

use crate::admin::Roster;
use crate::base::clock::{Clock, Moment};
use crate::cache::purge::{PurgeMode, Selector};
use crate::cluster::Tenants;
use crate::cluster::set_session_secret;
use crate::config::{Origin, Settings};
use crate::directory::{Inherited, Membership, Refusal, State};
use crate::net::activation;
use crate::net::connection_limiter::ConnectionLimiter;
use crate::net::tls::DAY;
use crate::page::Pages;
use crate::worker::{PortableClient, WorkerCommand};
use crate::{access_log, directory, disk};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, after, never, select, tick};
use haproxy::HaproxyManager;
use listeners::Listeners;
use memory::WorkerId;
use pid_file::PidFile;
use privileges::Account;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use upgrade::{PredecessorLink, SuccessorEvent, UpgradeState};
use worker_pool::{WorkerDeps, WorkerPool};

/// The least age at which a process is replaced for its memory, in intervals of `server.memoryCheckInterval`: ten
/// minutes by default.
const LEAST_AGE: u32 = 600;

/// How long the objects that are to be on the disk may take at the end.
const DISK_TIMEOUT: Duration = Duration::from_secs(5);

/// The interval at which a successor checks whether the source of routes is available.
const WARM_UP_LOOK: Duration = Duration::from_millis(5);

/// An event that wakes the supervisor.
enum Event {
    Signal(i32),
    /// Files of certificates may have changed.
    Files,
    /// HAProxy files may have changed.
    HaproxyFiles,
    WorkerEnded(WorkerId, Result<(), String>),
    /// All workers have been replaced and the process still uses too much memory: the process is to be replaced.
    Renew,
    /// An event of the successor.
    Successor(SuccessorEvent),
    /// An operator requests an action.
    Action(crate::admin::Action, Sender<crate::admin::ActionResult>),
    /// An on-demand cluster needs this port; the outcome is sent back.
    OpenPort(u16, Sender<Result<(), Refusal>>),
    /// No on-demand cluster needs this port any more.
    ClosePort(u16),
    /// A client of the predecessor; `None` after the last one.
    Client(Option<PortableClient>),
}

/// Serves until a signal or a successor ends it. Every request in progress then gets its response first, within
/// `server.drainTimeout`. If there is a predecessor, this process replaces it. `origin` is the file of the settings, if
/// there is one.
pub fn run(settings: &Settings, origin: Option<Origin>, mut predecessor: Option<Predecessor>) -> Result<(), Error> {
    let (events_out, events) = crossbeam_channel::unbounded();
    let begun = prepare(settings, predecessor.as_ref(), &events_out).and_then(|mut supervisor| {
        match &mut predecessor {
            Some(predecessor) => supervisor.succeed(predecessor, &events)?,
            None => supervisor.begin()?,
        }
        Ok(supervisor)
    });
    let mut supervisor = begun.inspect_err(|error| {
        if let Some(predecessor) = &predecessor {
            predecessor.refuse(&error.to_string());
        }
    })?;
    for address in supervisor.pool.listeners.iter().flat_map(Listeners::addresses) {
        log::info!("listening on {address} with {} workers", supervisor.pool.slots());
    }
    supervisor.origin = origin;
    let address = supervisor.pool.listeners.iter().flat_map(Listeners::addresses).next();
    let address = address.map(|address| address.to_string()).unwrap_or_default();
    supervisor.membership = supervisor.pool.deps.directory.join_fleet(address);
    supervisor.serve(&events);
    supervisor.wait_for_handoff(&events);
    supervisor.shutdown();
    Ok(())
}

/// Makes everything except the workers.
fn prepare(
    settings: &Settings,
    predecessor: Option<&Predecessor>,
    events: &Sender<Event>,
) -> Result<Supervisor, Error> {
    // This comes before the process listens on sockets of its own.
    let activated = activation::take_sockets().map_err(Error::Activation)?;
    let cpus = affinity::choose(settings).map_err(Error::Cpus)?;
    let open_files = limits::raise_open_files();
    if let Some(bytes) = cgroup::memory_limit() {
        log::info!("the control group grants {} MiB of memory", bytes >> 20);
    }
    let mut settings = settings.clone();
    let on_demand = settings.admin.bind.as_ref().map_or(0, |_| limits::on_demand_sockets(open_files));
    let max_connections = limits::connections(settings.max_connections, cpus.len(), open_files, 2 * on_demand);
    settings.worker.max_connections = max_connections;
    // From here on a signal is a command and does not end the process. This comes before the first client can have
    // connected.
    hear_signals(events.clone()).map_err(|error| Error::System("hearing signals", error))?;
    let readings = haproxy::read(&settings)?;
    let ruled: Vec<_> = readings.iter().flat_map(haproxy::Reading::addresses).collect();
    let state = State::load(&settings.directory);
    let inherited = predecessor.map(Predecessor::sockets).transpose().map_err(Error::Predecessor)?;
    let listeners = listeners::open(&settings, (&ruled, &state, on_demand), cpus.len(), activated, inherited)?;
    let account = Account::find(&settings).map_err(Error::Privileges)?;
    listeners.own_socket(&settings, account).map_err(Error::Privileges)?;
    // The predecessor keeps its pid file until this process serves.
    let path = settings.pid_file.as_ref().filter(|_| predecessor.is_none());
    let pid_file = path.map(|path| PidFile::write(path, account).map_err(Error::pid_file(path))).transpose()?;
    if predecessor.is_none() {
        // Listening starts early, or another process could bind the same address unnoticed. New connections wait until
        // everything is loaded.
        listeners.listen()?;
    }
    // The account may have no permission to open it, for example in /var/log.
    let log_file =
        access_log::open(&settings.access_log).map_err(|error| Error::System("opening the access log", error))?;
    account.own_log(log_file.as_ref()).map_err(|error| Error::System("giving the access log to the user", error))?;
    account.take_on().map_err(Error::Privileges)?;
    privileges::warn_of_log_folder(&settings.access_log);
    panics::log_them();
    let inherited = Inherited { state, ..predecessor.map(Predecessor::known).unwrap_or_default() };
    let supervisor = Supervisor::assemble(&settings, &cpus, (listeners, log_file, readings), inherited, events)?;
    Ok(Supervisor { pid_file, ..supervisor })
}

fn hear_signals(events: Sender<Event>) -> io::Result<()> {
    // A log that exceeds a limit of the process (RLIMIT_FSIZE) should fail to write, as on a full disk, and not end the
    // process.
    signal_hook::flag::register(libc::SIGXFSZ, Arc::default())?;
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2])?;
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

/// The running process.
struct Supervisor {
    pool: WorkerPool,
    log: access_log::Control,
    events: Sender<Event>,
    started: Moment,
    /// The file with this process's id.
    pid_file: Option<PidFile>,
    /// The file of the settings.
    origin: Option<Origin>,
    upgrade_state: UpgradeState,
    /// This process's entry among the nodes of its Redis.
    membership: Option<Membership>,
    /// The predecessor, which finishes its requests.
    predecessor_link: Option<PredecessorLink>,
    /// A stop was ordered.
    is_ordered_to_stop: bool,
    /// The start of the shutdown: connections are accepted until then (`server.lameDuck`).
    stop_at: Option<Moment>,
    /// An immediate stop was ordered.
    is_hurried: bool,
    /// The time until which clients of the predecessor are forwarded, once this process has a successor.
    passes_on_until: Option<Moment>,
}

impl Supervisor {
    fn assemble(
        settings: &Settings,
        cpus: &[affinity::CpuPlacement],
        (listeners, log_file, readings): (Listeners, Option<File>, Vec<haproxy::Reading>),
        inherited: Inherited,
        events: &Sender<Event>,
    ) -> Result<Self, Error> {
        let clock = Clock::new();
        let (log, cores_log) = access_log::start(&settings.access_log, log_file, cpus.len(), clock)
            .map_err(|error| Error::System("starting the thread of the access log", error))?;
        if let Some(secret) = &settings.cookie_secret {
            set_session_secret(secret.reveal());
        }
        let directory = directory::start_after(&settings.directory, inherited, clock).map_err(Error::Directory)?;
        directory.set_ports(Arc::new(admin::PortsByEvent(events.clone())));
        let roster = Arc::new(Roster::new(clock.now()));
        let (asked_for, memory) = (settings.supervision.cache_bytes, settings.supervision.memory_limit);
        let cache =
            limits::cache(asked_for, memory).map(|bytes| disk::store(bytes, settings.supervision.cache_disk.as_ref()));
        let tenants = settings.tenants.as_ref().map(Tenants::new).map(Arc::new);
        if let Some(store) = cache.clone() {
            // The next cluster of its name may be another application.
            directory.on_cluster_removed(move |name| {
                store.purge(&Selector::Frontend(name.into()), PurgeMode::Hard);
            });
        }
        let service = admin::start(settings, &directory, &roster, cache.as_ref(), tenants.as_ref(), events, clock)?;
        let certificates = certificates::CertificateManager::new(settings, events, clock)?;
        roster.set_certificates(certificates.list());
        let haproxy = HaproxyManager::new(settings, readings, &directory, events)?;
        let probes = probes::start(settings, &directory, &roster, certificates.backend_tls(), clock)?;
        let deps = WorkerDeps {
            probes,
            settings: settings.clone(),
            directory,
            log: cores_log.in_format(&settings.access_log_format, settings.access_log_sample),
            pages: Arc::new(Pages::load(&settings.page)),
            certificates,
            haproxy,
            limiter: settings.max_per_address.map(ConnectionLimiter::new).map(Arc::new),
            tenants,
            roster,
            cache,
            service,
            clock,
        };
        Ok(Self {
            pool: WorkerPool::new(deps, listeners, cpus, events.clone()),
            log,
            events: events.clone(),
            started: clock.now(),
            pid_file: None,
            origin: None,
            upgrade_state: UpgradeState::default(),
            membership: None,
            predecessor_link: None,
            is_ordered_to_stop: false,
            stop_at: None,
            is_hurried: false,
            passes_on_until: None,
        })
    }

    /// Serves, without a predecessor.
    fn begin(&mut self) -> Result<(), Error> {
        self.pool.start()?;
        self.pool.deps.directory.begin();
        self.pool.deps.roster.note_ready();
        notify::ready();
        Ok(())
    }

    /// Serves in place of the predecessor, once requests can be routed and the predecessor permits it. If the
    /// predecessor has ended, no permission is needed: its sockets are here.
    fn succeed(&mut self, predecessor: &mut Predecessor, events: &Receiver<Event>) -> Result<(), Error> {
        let is_there = self.warm_up(predecessor, events)? && predecessor.ask_leave().map_err(Error::Predecessor)?;
        let events = self.events.clone();
        // It fails only after the supervisor has ended.
        let take = move |client| drop(events.send(Event::Client(client)));
        let predecessor_link = is_there.then(|| predecessor.follow(take)).transpose();
        let predecessor_link = predecessor_link.map_err(|error| Error::System("following the predecessor", error))?;
        if let Err(error) = self.pool.listeners.iter().try_for_each(Listeners::listen) {
            // The upgrade cannot be undone, and the available sockets are served.
            log::error!("{error}");
        }
        if let Some(store) = &self.pool.deps.cache {
            predecessor.take_objects(store);
        }
        if let Err(error) = self.pool.start() {
            // The other workers retry for those that could not start.
            if self.pool.begun() == 0 {
                return Err(error);
            }
            log::error!("{error}");
        }
        if let Some(path) = &self.pool.deps.settings.pid_file {
            // A failure does not affect clients.
            let written = PidFile::write(path, Account::default()).map_err(Error::pid_file(path));
            self.pid_file = written.inspect_err(|error| log::error!("{error}")).ok();
        }
        log::info!("upgrade: replacing process {}", predecessor.pid());
        self.pool.deps.roster.note_ready();
        match &predecessor_link {
            Some(predecessor_link) => predecessor_link.say_serving(),
            None => notify::ready(),
        }
        self.pool.deps.directory.begin();
        self.predecessor_link = predecessor_link;
        Ok(())
    }

    /// Waits until requests can be routed. Returns whether the predecessor still exists: without it no other process
    /// serves, so the wait ends.
    fn warm_up(&self, predecessor: &Predecessor, events: &Receiver<Event>) -> Result<bool, Error> {
        let mut later = Vec::new();
        let is_there = loop {
            if self.pool.deps.directory.status().is_warm() {
                break true;
            }
            if predecessor.is_silent() {
                if predecessor.has_ended() {
                    log::warn!("upgrade: process {} has ended; this one serves at once", predecessor.pid());
                    break false;
                }
                return Err(Error::Predecessor("the predecessor has cancelled the upgrade".to_owned()));
            }
            match events.recv_timeout(WARM_UP_LOOK) {
                Ok(Event::Signal(signal)) if is_end(signal) => {
                    return Err(Error::Predecessor("told to stop before it could serve".to_owned()));
                }
                Ok(event) => later.push(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break true,
            }
        };
        // It fails only after the supervisor has ended.
        later.into_iter().for_each(|event| drop(self.events.send(event)));
        Ok(is_there)
    }

    /// Whether the process can end. Clients of the predecessor that arrive late are forwarded to the successor for a
    /// while.
    fn has_ended(&self) -> bool {
        let is_messenger =
            self.upgrade_state.is_replaced() && !self.is_ordered_to_stop && self.predecessor_link.is_some();
        let now = self.pool.deps.clock.now();
        self.pool.have_ended() && !(is_messenger && self.passes_on_until.is_some_and(|until| now < until))
    }

    /// Handles events, checks the workers, and waits for their ends.
    fn serve(&mut self, events: &Receiver<Event>) {
        let (ticks, daily) = (tick(self.pool.interval()), tick(DAY));
        while !self.has_ended() {
            let lame_duck = self.stop_at.map_or_else(never, |at| after(at.since(self.pool.deps.clock.now())));
            select! {
                recv(lame_duck) -> _ => self.end_lame_duck(),
                recv(events) -> event => match event {
                    Ok(Event::Signal(signal)) if is_end(signal) && self.is_ordered_to_stop => {
                        log::warn!("told to stop a second time: stopping at once");
                        self.is_hurried = true;
                        return;
                    }
                    Ok(event) => self.handle(event),
                    Err(_) => return,
                },
                recv(ticks) -> _ => {
                    self.pool.deps.roster.note_lost_log_lines(self.log.lost_lines());
                    self.follow_clock();
                    self.pool.look();
                    if self.upgrade_state.is_none() {
                        self.pool.retry_listeners();
                    }
                }
                recv(daily) -> _ => self.pool.deps.certificates.warn_of_expiry(),
            }
        }
    }

    /// Follows the system's clock where it was set: times of the logs, ages in the cache, and heartbeats depend on it.
    fn follow_clock(&self) {
        if let Some(micros) = self.pool.deps.clock.follow() {
            let seconds = Duration::from_micros(micros.unsigned_abs()).as_secs_f64();
            let direction = if micros < 0 { "back" } else { "ahead" };
            log::warn!("the system's clock was set {seconds:.3} s {direction}; times follow it");
        }
    }

    /// Waits for a limited time until the last clients have moved to a successor, but not after an immediate stop.
    fn wait_for_handoff(&mut self, events: &Receiver<Event>) {
        let Some(is_over) = self.upgrade_state.say_end() else { return };
        let too_late = after(upgrade::HANDOFF_TIMEOUT);
        while !self.is_hurried {
            select! {
                recv(is_over) -> _ => return,
                recv(too_late) -> _ => return,
                recv(events) -> event => match event {
                    Ok(Event::Signal(signal)) if is_end(signal) => {
                        self.is_hurried = std::mem::replace(&mut self.is_ordered_to_stop, true);
                    }
                    Ok(_) => {}
                    Err(_) => return,
                },
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Signal(SIGHUP) => self.reload(),
            Event::Signal(SIGUSR1) => {
                self.reopen_log();
                report::tell_totals("so far", &self.pool.counters(), &self.pool.accepted(), self.log.lost_lines());
            }
            Event::Signal(SIGUSR2) => self.upgrade(),
            Event::Renew => self.renew(),
            Event::Signal(_) => self.stop(),
            // It fails if the caller no longer waits for the outcome.
            Event::Action(action, answer) => drop(answer.send(self.act(&action))),
            // It fails if the caller no longer waits.
            Event::OpenPort(port, reply) => drop(reply.send(self.open_port(port))),
            Event::ClosePort(port) => self.pool.close_port(port),
            Event::Files => self.renew_certificates(),
            Event::HaproxyFiles => self.renew_haproxy(),
            Event::WorkerEnded(id, how) => self.pool.ended(id, how),
            Event::Successor(event) => self.hear_of_successor(event),
            Event::Client(Some(client)) => self.take(client),
            Event::Client(None) => self.predecessor_link = None,
        }
    }

    fn reopen_log(&mut self) {
        self.log.reopen();
        self.predecessor_link.iter().for_each(PredecessorLink::reopen_log);
    }

    fn reload(&mut self) {
        // The service manager ignores messages of a process that is no longer the service.
        let is_service = !self.upgrade_state.is_replaced();
        if is_service {
            notify::reloading("reading routes, certificates and pages again");
        }
        self.origin.iter().for_each(report::tell_changed_settings);
        self.pool.deps.directory.reload();
        self.renew_haproxy();
        self.renew_certificates();
        let pages = Arc::new(Pages::load(&self.pool.deps.settings.page));
        self.pool.deps.pages = Arc::clone(&pages);
        self.pool.tell_all(|| WorkerCommand::Pages(Arc::clone(&pages)));
        if is_service {
            notify::ready();
        }
    }

    fn shutdown(mut self) {
        self.stop_probes();
        let (counters, accepted) = (self.pool.counters(), self.pool.accepted());
        let cache = self.pool.deps.cache.clone();
        self.membership = None;
        self.pool.deps.directory.stop();
        drop(self.pool);
        if let Some(store) = &cache
            && !store.settle(DISK_TIMEOUT)
        {
            log::warn!("server.cacheDisk: not all objects were written within {DISK_TIMEOUT:?}");
        }
        self.upgrade_state.finish();
        report::tell_totals("stopped", &counters, &accepted, self.log.stop());
    }
}
