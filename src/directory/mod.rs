//! The sources of routes. One thread serves all cores; requests and replies go by mail.
//!
//! The source is behind an interface ([`Source`]): a file, or Redis. The types that cores use, [`Directory`] and
//! [`RouteEvent`], are the same for every source. A source is one file next to `file.rs`. It takes a
//! [`RequestChannels`], which delivers look-ups and commands, the [`Subscribers`] to notify, and the
//! [`dns::DnsResolver`]. [`catalog`] turns its data into routes and reports changes; [`table`] serves sources that know
//! all lists in advance.

mod backends;
mod catalog;
mod certificate_index;
mod certificates;
mod core_messages;
mod dns;
mod file;
mod fleet;
mod handover;
mod named;
mod nothing;
mod ondemand;
mod out_of_service;
mod parse;
pub mod redis;
mod snapshot;
mod status;
mod subscribers;
mod table;
pub mod test_api;
mod views;
mod watch;

pub use certificates::CertificateResult;
pub use dns::DnsServers;
pub use fleet::Membership;
pub use handover::Inherited;
pub use named::{NamedCluster, NamedClusters};
pub use ondemand::{
    Arguments, BackendDefinition, ClusterDefinition, ClusterView, OnDemandEdit, OnDemandRoute, Ports, Refusal, State,
};
pub use parse::{Fault, Faults, KeyPattern, key_pattern};
pub use status::Status;
pub use subscribers::SubscriberId;

use crate::base::clock::Clock;
use crate::base::clock::Moment;
use crate::base::reason::FailureReason;
use crate::cluster::{Backend, BackendId, HealthWatcher, Route};
use crate::net::mailbox::MailboxSender;
use crate::net::tls::CertificateInfo;
use catalog::{Catalog, Clusters};
use certificate_index::CertificateIndex;
use core_messages::{DeadMark, Lookup};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use dns::{DnsNames, DnsResolver};
use ondemand::OnDemand;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use subscribers::Subscribers;

/// The greatest number of unread look-ups of all cores. Each core asks once for a host, so this many are unknown hosts.
const MAX_LOOKUPS: usize = 16_384;
/// The greatest number of unread dead marks. Further ones are not published.
const MAX_MARKS: usize = 1024;
/// The greatest number of unread commands.
const MAX_COMMANDS: usize = 8;
/// The same for the certificate service.
const MAX_CERTIFICATE_COMMANDS: usize = 8;

/// The limit of a view's wait for a thread of the directory.
const MAX_VIEW: Duration = Duration::from_secs(2);

/// The limit of the wait for files of on-demand clusters at the end.
const MAX_WRITE: Duration = Duration::from_secs(15);

/// The limit of the wait for the threads. The process then ends, whatever they wait for.
const MAX_STOP: Duration = Duration::from_secs(5);

/// Settings of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the routes come from.
    pub source: Source,
    /// The interval at which backend names are resolved again.
    pub dns_refresh: Duration,
    /// The servers of names that are asked (`server.dnsServers`); `None` for the system's resolver.
    pub dns_servers: Option<DnsServers>,
    /// The folder for files of on-demand clusters (`server.stateDir`); `None` if the clusters end with the process.
    pub state_dir: Option<PathBuf>,
}

/// A source of routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// None: no host has a route.
    Nothing,
    /// A JSON file, watched for changes.
    File(PathBuf),
    /// Redis, queried for each host.
    Redis(Box<redis::Settings>),
}

/// An event for cores. Mail to a core is in order: a result from before a change arrives before the event of the
/// change.
#[derive(Clone, Debug)]
pub enum RouteEvent {
    /// The result of [`Directory::lookup`].
    LookedUp {
        /// The host of the look-up.
        host: Arc<str>,
        /// Its result.
        result: LookupResult,
        /// Whether the result may be cached until an event says otherwise. A result that a change has overtaken serves
        /// only the requests that asked before.
        keep: bool,
    },
    /// The routes have changed. One message for each change, however many hosts it affects.
    Changed {
        /// Earlier results for these hosts are no longer valid.
        hosts: Arc<[Arc<str>]>,
        /// Whether every [`LookupResult::Unknown`] is invalid too.
        unknowns: bool,
    },
    /// An on-demand cluster was edited.
    OnDemand(OnDemandEdit),
    /// It is dropped when it is read, which tells its sender that all earlier mail was read.
    Barrier(Sender<Infallible>),
    /// The result of [`Directory::lookup_certificate`].
    Certificate {
        /// The server name of the look-up.
        name: Arc<str>,
        /// The certificate for clients that ask for it.
        result: CertificateResult,
    },
    /// Earlier results for names with one of these candidate patterns are no longer valid.
    CertificatesChanged {
        /// The patterns.
        patterns: Arc<[Arc<str>]>,
    },
    /// An active health checker is at work until this moment, unless a later event says otherwise.
    Checker {
        /// The moment.
        until: Moment,
    },
    /// The name of a backend was resolved for the first time, or has other addresses now.
    Addresses {
        /// The backend.
        backend: BackendId,
    },
}

/// The result of a look-up of a host.
#[derive(Clone, Debug)]
pub enum LookupResult {
    /// The route. Its cluster may have no members. The user of a member must hold the route: only then is the member
    /// marked as removed when its URL leaves the list.
    Found(Arc<Route>),
    /// No candidate pattern of the host has a list.
    Unknown,
    /// The look-up failed; the result must not be cached.
    Failed(FailureReason),
}

/// Why the directory does not start, or an edit is refused.
#[derive(Clone, Debug)]
pub enum Error {
    /// The routes file could not be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: Arc<io::Error>,
    },
    /// The routes file is invalid.
    Bad {
        /// The file.
        path: PathBuf,
        /// All its faults.
        faults: Arc<Faults>,
    },
    /// A thread could not be started.
    Thread(Arc<io::Error>),
}

impl fmt::Display for Error {
    /// One line for each fault.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, error } => write!(f, "reading the routes file {}: {error}", path.display()),
            Self::Bad { path, faults } => {
                for (number, fault) in faults.faults.iter().enumerate() {
                    let newline = if number == 0 { "" } else { "\n" };
                    write!(f, "{newline}{}: {fault}", path.display())?;
                }
                match faults.more {
                    0 => Ok(()),
                    more => write!(f, "\n{}: {more} more faults", path.display()),
                }
            }
            Self::Thread(error) => write!(f, "starting a thread of the directory: {error}"),
        }
    }
}

impl std::error::Error for Error {}

/// Starts the directory; cores then join it ([`Directory::join`]). Invalid routes at the start are an error; later ones
/// are logged and change nothing.
pub fn start(settings: &Settings, clock: Clock) -> Result<Directory, Error> {
    start_after(settings, Inherited::default(), clock)
}

/// Starts the directory with data handed over by another process, valid until the source says otherwise.
pub fn start_after(settings: &Settings, inherited: Inherited, clock: Clock) -> Result<Directory, Error> {
    let subscribers = Subscribers::default();
    let (lookups, lookups_in) = crossbeam_channel::bounded(MAX_LOOKUPS);
    let (commands, commands_in) = crossbeam_channel::bounded(MAX_COMMANDS);
    let (marks, marks_in) = crossbeam_channel::bounded(MAX_MARKS);
    let (certificate_lookups, certificate_lookups_in) = crossbeam_channel::bounded(MAX_LOOKUPS);
    let (certificate_commands, certificate_commands_in) = crossbeam_channel::bounded(MAX_CERTIFICATE_COMMANDS);
    let (alive, ended) = crossbeam_channel::bounded(0);
    let certificate_service = certificates::CertificateChannels {
        certificate_lookups: certificate_lookups_in,
        commands: certificate_commands_in,
        own_commands: certificate_commands.clone(),
        index: CertificateIndex::default(),
        _alive: alive.clone(),
    };
    let (certificates, changed_certificates) = (certificate_service.index.clone(), Arc::default());
    let certificate_service = match &settings.source {
        Source::File(_) | Source::Nothing => certificates::start(certificate_service, subscribers.clone(), clock)?,
        Source::Redis(settings) => redis::start_certificate_service(
            settings,
            certificate_service,
            subscribers.clone(),
            clock,
            (&changed_certificates, inherited.certificates),
        )?,
    };
    let channels = RequestChannels {
        lookups: lookups_in,
        marks: marks_in,
        commands: commands_in,
        own_commands: commands.clone(),
        certificates: certificate_commands.clone(),
        _alive: alive,
    };
    let (status, clusters) = (Status::new(!matches!(settings.source, Source::Redis(_))), Clusters::default());
    let resolve = dns::resolver(settings.dns_servers.clone(), clock);
    let resolver = DnsResolver::start(resolve, settings.dns_refresh, subscribers.clone(), clock)
        .map_err(|error| Error::Thread(Arc::new(error)))?;
    let names = resolver.names();
    let on_demand = OnDemand::start(settings, inherited.state, &subscribers, &names, clock)?;
    let thread = match &settings.source {
        Source::File(path) => file::start(path, channels, subscribers.clone(), resolver, (clock, clusters.clone()))?,
        Source::Nothing => nothing::start(channels, subscribers.clone(), resolver)?,
        Source::Redis(settings) => redis::start(
            settings,
            channels,
            subscribers.clone(),
            resolver,
            (clock, clusters.clone()),
            (Arc::clone(&status), changed_certificates, inherited.routes),
        )?,
    };
    Ok(Directory {
        subscribers,
        clusters,
        names,
        clock,
        on_demand,
        wakes: fleet::start_wakes(&settings.source, clock)?,
        fleet: fleet::target(&settings.source),
        lookups,
        marks,
        commands,
        certificate_lookups,
        certificate_commands,
        certificates,
        status,
        threads: Arc::new(Mutex::new(vec![thread, certificate_service])),
        ended,
    })
}

/// A frontend of a routes file, in the form that it has in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The list: the identifier and the URLs.
    pub items: Vec<String>,
    /// The hash of its options.
    pub options: BTreeMap<String, String>,
}

/// The frontends of a routes file by pattern, for tools that copy them.
pub fn read_routes(path: &Path) -> Result<BTreeMap<String, Entry>, Error> {
    file::read_records(path).map(test_api::entries)
}

/// Reports when a file is replaced or rewritten, until the result is dropped.
pub fn watch_file(path: &Path, on_change: impl Fn() + Send + 'static) -> io::Result<impl Sized> {
    watch::Watch::new(path)?.start(on_change)
}

/// The handle to the directory, for cores and the supervisor. Its threads end with [`Directory::stop`], or when the
/// last copy is dropped.
#[derive(Clone, Debug)]
pub struct Directory {
    subscribers: Subscribers,
    clusters: Clusters,
    names: DnsNames,
    clock: Clock,
    on_demand: OnDemand,
    fleet: Option<redis::Target>,
    wakes: Option<Sender<redis::Sleeper>>,
    lookups: Sender<Lookup>,
    marks: Sender<DeadMark>,
    commands: Sender<SourceCommand>,
    certificate_lookups: Sender<certificates::CertificateLookup>,
    certificate_commands: Sender<certificates::CertificateCommand>,
    certificates: CertificateIndex,
    status: Arc<Status>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    /// It disconnects when the threads have ended.
    ended: Receiver<Infallible>,
}

impl Directory {
    /// Sends events to a core from now on. Results of look-ups before it has joined are not delivered.
    pub fn join(&self, event: MailboxSender<RouteEvent>) -> SubscriberId {
        self.subscribers.join(event)
    }

    /// Removes a core. Its id may be reused for another core, which may then get results that it did not ask for: they
    /// are in order with all other events, so they are valid for it as well.
    pub fn leave(&self, core: SubscriberId) {
        self.subscribers.leave(core);
    }

    /// Looks up the route of `host` (lower case, no port, no trailing dot) for this core; [`RouteEvent::LookedUp`]
    /// delivers the result. Never waits: returns `false` if too many look-ups are pending.
    ///
    /// Look-ups of unknown hosts are limited, and shared fairly by `client` address; `None` does not count.
    pub fn lookup(&self, core: SubscriberId, host: Arc<str>, client: Option<IpAddr>) -> bool {
        self.lookups.try_send(Lookup { core, host, client }).is_ok()
    }

    /// Looks up the certificate for clients that ask for `name` (lower case, no trailing dot) for this core;
    /// [`RouteEvent::Certificate`] delivers the result. Never waits, as [`Directory::lookup`].
    pub fn lookup_certificate(&self, core: SubscriberId, name: Arc<str>) -> bool {
        self.certificate_lookups.try_send(certificates::CertificateLookup { core, name }).is_ok()
    }

    /// Publishes that a member was marked dead here. Never waits: beyond a limit some marks are not published, and a
    /// source without other nodes drops all.
    pub fn mark_dead(&self, host: &str, backend: &Arc<Backend>, until: Moment) {
        let _ = self.marks.try_send(DeadMark { host: host.into(), backend: Arc::clone(backend), until });
    }

    /// A holder of clusters that rules select by name.
    pub fn named_clusters(&self) -> NamedClusters {
        NamedClusters::new(Catalog::new(self.clusters.clone()), self.names.clone(), self.clock)
    }

    /// Publishes that a mark of this node ends early. Never waits, as [`Directory::mark_dead`].
    pub fn end_mark(&self, host: &str, backend: &Arc<Backend>) {
        self.mark_dead(host, backend, Moment::ZERO);
    }

    /// Passes all clusters to the thread of health probes, now and from now on.
    pub fn set_watcher(&self, watcher: Arc<dyn HealthWatcher>) {
        self.clusters.set_watcher(Arc::clone(&watcher));
        self.on_demand.set_watcher(watcher);
    }

    /// The certificates of the source in use, in no order, for views. It takes a lock.
    pub fn certificates(&self) -> Vec<CertificateInfo> {
        self.certificates.list()
    }

    /// Makes the source look up this host again, and all cores ask again. Returns whether the host is in use; `None` if
    /// the source is overloaded.
    pub fn flush(&self, host: &str) -> Option<bool> {
        let (answer, answers) = crossbeam_channel::bounded(1);
        self.commands.send_timeout(SourceCommand::Flush(host.into(), answer), MAX_VIEW).ok()?;
        answers.recv_timeout(MAX_VIEW).ok()
    }

    /// The state of the source.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Makes the source and the certificate files be read again.
    pub fn reload(&self) {
        let _ = self.certificate_commands.try_send(certificates::CertificateCommand::Reread);
        // If the queue is full, it holds a pending reload.
        let _ = self.commands.try_send(SourceCommand::Reload);
    }

    /// Writes the known data for a successor, which reads it with [`start_after`]. Nothing is written if the successor
    /// reads the source itself. Waits at most `patience` for each of the two.
    pub fn hand_over(
        &self,
        routes: &mut impl Write,
        certificates: &mut impl Write,
        patience: Duration,
    ) -> Result<(), String> {
        let busy = || "the directory is too busy".to_owned();
        let (to, exports) = crossbeam_channel::bounded(1);
        self.commands.send_timeout(SourceCommand::Export(to), patience).map_err(|_| busy())?;
        let (to, certificate_exports) = crossbeam_channel::bounded(1);
        self.certificate_commands
            .send_timeout(certificates::CertificateCommand::Export(to), patience)
            .map_err(|_| busy())?;
        let routes = handover::write(&exports, routes, patience).map_err(|problem| format!("routes: {problem}"));
        let certificates = handover::write(&certificate_exports, certificates, patience);
        routes.and(certificates.map_err(|problem| format!("certificates: {problem}")))
    }

    /// The process serves: it owns the files of its state from now on. Until then it changes none of them.
    pub fn begin(&self) {
        self.on_demand.begin();
    }

    /// Another process owns the snapshot and the files from now on.
    pub fn retire(&self) {
        self.on_demand.retire();
        // If the queue is full, the snapshot is written once more at the end.
        let _ = self.certificate_commands.try_send(certificates::CertificateCommand::Retire);
        let _ = self.commands.try_send(SourceCommand::Retire);
    }

    /// Ends the directory's threads and waits for them, at most [`MAX_STOP`]: one may be waiting for a slow server.
    /// Earlier results stay valid.
    pub fn stop(&self) {
        self.on_demand.stop(MAX_WRITE);
        // It fails only if the thread has ended, or is stuck.
        let _ = self.commands.send_timeout(SourceCommand::Stop, MAX_STOP);
        let _ = self.certificate_commands.send_timeout(certificates::CertificateCommand::Stop, MAX_STOP);
        if self.ended.recv_timeout(MAX_STOP) == Err(RecvTimeoutError::Timeout) {
            log::warn!("the directory did not end within {MAX_STOP:?}; the process ends without it");
            return;
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                log::error!("a thread of the directory had panicked");
            }
        }
    }
}

#[derive(Debug)]
enum SourceCommand {
    Reload,
    /// Read this host again. The reply is whether the host was in use.
    Flush(Arc<str>, Sender<bool>),
    /// The same; the reply is whether all cores are notified of the present state, once they are.
    Confirm(Arc<str>, Sender<bool>),
    /// Another process owns the snapshot from now on.
    Retire,
    /// Export the known routes to the successor process.
    Export(Sender<handover::Export>),
    Stop,
}

/// The channels of a source.
#[derive(Debug)]
struct RequestChannels {
    /// It disconnects when no [`Directory`] is left.
    lookups: Receiver<Lookup>,
    marks: Receiver<DeadMark>,
    commands: Receiver<SourceCommand>,
    /// For commands of a source to itself.
    own_commands: Sender<SourceCommand>,
    /// The certificate service.
    certificates: Sender<certificates::CertificateCommand>,
    /// Dropped when the thread ends.
    _alive: Sender<Infallible>,
}
