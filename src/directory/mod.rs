//! Where routes come from. One thread serves all cores: they ask by mail and are answered by mail.
//!
//! The source of the routes is behind a seam ([`Source`]): a file, or Redis. What cores see, [`Directory`] and [`RouteEvent`], is
//! the same for every source. A source is one file beside `file.rs` that takes a [`RequestChannels`], where the questions and
//! orders arrive, the [`Subscribers`] to answer, and the [`dns::DnsResolver`] to look up; [`catalog`] is what it tells the
//! changes by, and [`table`] where it knows all lists in advance.

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
pub use fleet::Membership;
pub use handover::Inherited;
pub use named::{NamedCluster, NamedClusters};
pub use ondemand::{
    Arguments, BackendDefinition, ClusterDefinition, ClusterView, OnDemandEdit, OnDemandRoute, Ports, Refusal, State,
};
pub use parse::{Fault, Faults, pattern_problem};
pub use status::Status;
pub use subscribers::SubscriberId;

use crate::base::clock::Clock;
use crate::base::clock::Moment;
use crate::base::reason::FailureReason;
use crate::cluster::{Backend, BackendId, Cluster, HealthWatcher, Member, Route};
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

/// Questions of all cores that are not yet read. Each core asks once for a host, so this is many unknown hosts.
const MAX_LOOKUPS: usize = 16_384;
/// Dead marks that are not yet read. More than that are not told to others.
const MAX_MARKS: usize = 1024;
/// Orders that are not yet read.
const MAX_COMMANDS: usize = 8;
/// The same of the certificates' clerk.
const MAX_CERTIFICATE_COMMANDS: usize = 8;

/// How long a view may wait for a thread of the directory.
const MAX_VIEW: Duration = Duration::from_secs(2);

/// How long the end waits for files of clusters on demand.
const MAX_WRITE: Duration = Duration::from_secs(15);

/// How long the threads may take to end. The process ends then, whatever they wait for.
const MAX_STOP: Duration = Duration::from_secs(5);

/// What of the directory can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the routes come from.
    pub source: Source,
    /// How often the names of backends are looked up again.
    pub dns_refresh: Duration,
    /// The folder of the files of clusters on demand (`server.stateDir`); `None` where they end with the process.
    pub state_dir: Option<PathBuf>,
}

/// A source of routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// There is none: no host has a route.
    Nothing,
    /// A JSON file, watched for changes.
    File(PathBuf),
    /// Redis, asked host by host.
    Redis(Box<redis::Settings>),
}

/// What the directory tells the cores. Mail to a core is in order: an answer that was true before a change arrives
/// before the news of the change.
#[derive(Clone, Debug)]
pub enum RouteEvent {
    /// The answer to [`Directory::lookup`].
    LookedUp {
        /// The host that was asked for.
        host: Arc<str>,
        /// What it resolves to.
        result: LookupResult,
        /// Whether it may be kept until news says otherwise. What was overtaken by a change while it was asked for may
        /// be used just by those who asked before.
        keep: bool,
    },
    /// The routes have changed. One letter a change, however many hosts it touches.
    Changed {
        /// Whatever was answered for these hosts before is no longer true.
        hosts: Arc<[Arc<str>]>,
        /// Whether every [`LookupResult::Unknown`] is no longer true either.
        unknowns: bool,
    },
    /// A cluster on demand was edited.
    OnDemand(OnDemandEdit),
    /// Dropped when it is read: so its sender learns that all mail before it was.
    Barrier(Sender<Infallible>),
    /// The answer to [`Directory::lookup_certificate`].
    Certificate {
        /// The name that was asked for.
        name: Arc<str>,
        /// What is shown to clients that ask for it.
        result: CertificateResult,
    },
    /// Whatever was answered for names that have one of these patterns on their ladder is no longer true.
    CertificatesChanged {
        /// The patterns.
        patterns: Arc<[Arc<str>]>,
    },
    /// An active health checker is at work until this moment, unless news says otherwise.
    Checker {
        /// The moment.
        until: Moment,
    },
    /// The name of a backend was looked up for the first time, or has other addresses now.
    Addresses {
        /// The backend.
        backend: BackendId,
    },
}

/// What a host resolves to.
#[derive(Clone, Debug)]
pub enum LookupResult {
    /// The route. Its cluster may have no members. Whoever uses a member holds the route too: only then is the member
    /// retired when its URL leaves the list.
    Found(Arc<Route>),
    /// No pattern of the host's ladder has a list.
    Unknown,
    /// The look-up failed; not to be cached.
    Failed(FailureReason),
}

/// Why the directory does not start, or an edit is not taken.
#[derive(Clone, Debug)]
pub enum Error {
    /// The routes file could not be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: Arc<io::Error>,
    },
    /// The routes file is not good.
    Bad {
        /// The file.
        path: PathBuf,
        /// All that is wrong with it.
        faults: Arc<Faults>,
    },
    /// A thread could not be started.
    Thread(Arc<io::Error>),
}

impl fmt::Display for Error {
    /// One line a fault.
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

/// Starts the directory; cores then join it ([`Directory::join`]). Routes that are not good at the start are an error;
/// later ones are logged and change nothing.
pub fn start(settings: &Settings, clock: Clock) -> Result<Directory, Error> {
    start_after(settings, Inherited::default(), clock)
}

/// Starts the directory with what another process has handed over, which counts until the source says otherwise.
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
    let (status, clusters) = (Arc::new(Status::default()), Clusters::default());
    if !matches!(settings.source, Source::Redis(_)) {
        status.warm();
    }
    let resolver = DnsResolver::start(dns::system_resolver(), settings.dns_refresh, subscribers.clone(), clock)
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

/// A frontend of a routes file, as it stands in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The list: the identifier and the URLs.
    pub items: Vec<String>,
    /// The hash of its options.
    pub options: BTreeMap<String, String>,
}

/// The frontends of a routes file by their pattern: for tools that carry them elsewhere.
pub fn read_routes(path: &Path) -> Result<BTreeMap<String, Entry>, Error> {
    file::read_records(path).map(test_api::entries)
}

/// Tells when a file was replaced or rewritten, until what it returns is dropped.
pub fn watch_file(path: &Path, on_change: impl Fn() + Send + 'static) -> io::Result<impl Sized> {
    watch::Watch::new(path)?.start(on_change)
}

/// The way to the directory, for cores and the supervisor. Its threads end with [`Directory::stop`], or when the last
/// copy is dropped.
#[derive(Clone, Debug)]
pub struct Directory {
    subscribers: Subscribers,
    clusters: Clusters,
    names: DnsNames,
    clock: Clock,
    on_demand: OnDemand,
    fleet: Option<redis::Target>,
    lookups: Sender<Lookup>,
    marks: Sender<DeadMark>,
    commands: Sender<SourceCommand>,
    certificate_lookups: Sender<certificates::CertificateLookup>,
    certificate_commands: Sender<certificates::CertificateCommand>,
    certificates: CertificateIndex,
    status: Arc<Status>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    /// Tells when the threads have ended: there is no sender any more.
    ended: Receiver<Infallible>,
}

impl Directory {
    /// Has a core told of the news from now on, at this address. What it asks for before it has joined is not answered.
    pub fn join(&self, event: MailboxSender<RouteEvent>) -> SubscriberId {
        self.subscribers.join(event)
    }

    /// A core is gone. Its identity may be given to another one, which then gets answers that it has not asked for: they
    /// are in order with all other news, so they are as true for it.
    pub fn leave(&self, core: SubscriberId) {
        self.subscribers.leave(core);
    }

    /// Asks which frontend serves `host` (lower case, no port, no trailing dot) for the core of this identity,
    /// which is told by [`RouteEvent::LookedUp`]. Never waits: returns `false` if too many questions are not yet answered.
    ///
    /// Look-ups that find nothing are limited, and shared fairly by `client` address; `None` is one that does not count.
    pub fn lookup(&self, core: SubscriberId, host: Arc<str>, client: Option<IpAddr>) -> bool {
        self.lookups.try_send(Lookup { core, host, client }).is_ok()
    }

    /// Asks which certificate is shown to clients that ask for `name` (lower case, no trailing dot), for the core of this
    /// identity, which is told by [`RouteEvent::Certificate`]. Never waits, as [`Directory::lookup`].
    pub fn lookup_certificate(&self, core: SubscriberId, name: Arc<str>) -> bool {
        self.certificate_lookups.try_send(certificates::CertificateLookup { core, name }).is_ok()
    }

    /// Tells others that a member was marked dead here. Never waits; of too many at once some are not told, and a source
    /// that has nobody to tell drops them all.
    pub fn mark_dead(&self, host: &str, backend: &Arc<Backend>, until: Moment) {
        let _ = self.marks.try_send(DeadMark { host: host.into(), backend: Arc::clone(backend), until });
    }

    /// A keeper of clusters that rules lead to by name.
    pub fn named_clusters(&self) -> NamedClusters {
        NamedClusters::new(Catalog::new(self.clusters.clone()), self.names.clone(), self.clock)
    }

    /// Takes a member of a cluster out of service on behalf of an operator, or puts it back: also when it leaves its list and
    /// comes back. [`Cluster::serve`] is to follow. Returns whether there was room to note that.
    pub fn set_out_of_service(&self, cluster: &Cluster, member: &Member, is_out: bool, now: Moment) -> bool {
        let is_noted = self.clusters.out_of_service.set(&cluster.key, member.url.endpoint(), is_out);
        if is_noted {
            member.state.set_disabled(is_out, now);
        }
        is_noted
    }

    /// What operators have taken out of service, for the log.
    pub fn out_of_service(&self) -> Vec<String> {
        self.clusters.out_of_service.list()
    }

    /// Tells others that a mark of this node is over before its time. Never waits, as [`Directory::mark_dead`].
    pub fn end_mark(&self, host: &str, backend: &Arc<Backend>) {
        self.mark_dead(host, backend, Moment::ZERO);
    }

    /// Has the thread that probes know of all clusters, now and from now on.
    pub fn set_watcher(&self, watcher: Arc<dyn HealthWatcher>) {
        self.clusters.set_watcher(watcher);
    }

    /// The certificates in use that the source has, in no order, for views. It takes a lock.
    pub fn certificates(&self) -> Vec<CertificateInfo> {
        self.certificates.list()
    }

    /// Has the source be asked for the route of this host again, and then all cores ask here again. Returns whether the host
    /// is in use; `None` where the source has too much else to do.
    pub fn flush(&self, host: &str) -> Option<bool> {
        let (answer, answers) = crossbeam_channel::bounded(1);
        self.commands.send_timeout(SourceCommand::Flush(host.into(), answer), MAX_VIEW).ok()?;
        answers.recv_timeout(MAX_VIEW).ok()
    }

    /// How the source of the routes is.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Has the source read again, and the files of certificates.
    pub fn reload(&self) {
        let _ = self.certificate_commands.try_send(certificates::CertificateCommand::Reread);
        // If there is no room, an order to reload is still to be read, and it will do.
        let _ = self.commands.try_send(SourceCommand::Reload);
    }

    /// Writes what is known, for a process that takes this one's place and reads it by [`start_after`]. Nothing is
    /// written where that reads the source again. Waits for `patience` at most for each of the two.
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

    /// Leaves the snapshot to another process from now on.
    pub fn retire(&self) {
        // If there is no room, it is written once more at the end.
        let _ = self.certificate_commands.try_send(certificates::CertificateCommand::Retire);
        let _ = self.commands.try_send(SourceCommand::Retire);
    }

    /// Ends the directory's threads and waits for them, but no longer than [`MAX_STOP`]: one may be in the middle of a
    /// question to a server that takes its time. What was answered stays good.
    pub fn stop(&self) {
        self.on_demand.stop(MAX_WRITE);
        // Fails only if the thread has ended, or does not come to read what it is told.
        let _ = self.commands.send_timeout(SourceCommand::Stop, MAX_STOP);
        let _ = self.certificate_commands.send_timeout(certificates::CertificateCommand::Stop, MAX_STOP);
        if self.ended.recv_timeout(MAX_STOP) == Err(RecvTimeoutError::Timeout) {
            log::warn!("the directory did not end within {MAX_STOP:?}; it is left behind");
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
    /// Whatever is known of this host is to be read again. The answer is whether anything was.
    Flush(Arc<str>, Sender<bool>),
    /// The same, and the answer is whether all cores are told what it says now, once they are.
    Confirm(Arc<str>, Sender<bool>),
    /// The snapshot is another process's.
    Retire,
    /// What is known goes to the process that takes this one's place.
    Export(Sender<handover::Export>),
    Stop,
}

/// Where a source finds what it is asked and told to do.
#[derive(Debug)]
struct RequestChannels {
    /// Ends when no [`Directory`] is left.
    lookups: Receiver<Lookup>,
    marks: Receiver<DeadMark>,
    commands: Receiver<SourceCommand>,
    /// For a source that gives orders to itself.
    own_commands: Sender<SourceCommand>,
    /// The clerk who knows the certificates.
    certificates: Sender<certificates::CertificateCommand>,
    /// Dropped when the thread ends.
    _alive: Sender<Infallible>,
}
