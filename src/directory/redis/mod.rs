//! Routes from Redis: looked up when a host is requested, and cached until Redis reports a write.
//!
//! There are five threads. The directory's own thread runs the [`coordinator`] and its [`route_state`], which make all
//! decisions, and never waits for Redis. The [`watcher`] has a connection on which Redis reports writes, the [`reader`]
//! one for look-ups, the [`writer`] one for dead marks. The fifth thread receives [`purges`] of the object cache;
//! a sixth one, the [`checker`], shares health probes with other nodes. Each
//! of these may hang for as long as [`connection::DEADLINE`] allows, without delaying the others: sending to them never
//! waits for room.

mod address;
mod certificates;
mod channel;
mod checker;
mod connect;
mod connection;
mod coordinator;
mod fleet;
mod jobs;
mod key_pairs;
mod link;
mod odd_keys;
mod pause;
pub mod purges;
mod reader;
mod reading;
mod reports;
mod resp;
mod route_state;
mod save;
mod shards;
mod shared_clusters;
#[cfg(test)]
mod simulation;
mod sources;
mod target;
mod tool_connection;
mod tools;
mod wake;
mod watcher;
mod writer;

pub(super) use certificates::ChangedCertificates;
pub use checker::ProbeSharer;
pub(super) use checker::share;
pub(super) use fleet::{Fleet, Receipt};
pub use fleet::{Node, Served, nodes, wait_until_served};
pub(super) use pause::{Pause, Stop};
pub(super) use shared_clusters::{Edit, LoggedEdit, MAX_RECORD, Outcome, Record, SharedClusters};
pub use target::{EXPECTED, Location, Target, TargetFault};
pub use tool_connection::ToolConnection;
pub use tools::{ParsedListing, connect};
pub(super) use tools::{read_certificate, read_listing};
pub(super) use wake::{Sleeper, start as start_wake};

use super::catalog::Clusters;
use super::certificates::{CertificateChannels, CertificateCommand};
use super::dns::DnsResolver;
use super::{DeadMark, Error, Lookup, RequestChannels, RouteEvent, SourceCommand, Status, Subscribers};
use crate::base::clock::{Clock, Moment};
use certificates::RedisCertificateService;
use connect::Identity;
use coordinator::{Action, Coordinator};
use crossbeam_channel::{Receiver, Sender, select};
use jobs::JobGiver;
use odd_keys::OddKeys;
use reader::RouteReader;
use route_state::{ChangedKey, Limits, Output, OwnMark, Replies, RouteState};
use save::{Routes, Saver};
use shards::client::WatchedMap;
use shards::threads::ShardThreads;
use shards::topology::ShardEvent;
use sources::Sources;
use std::cell::Cell;
use std::convert::Infallible;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use watcher::{WatchSession, Watcher};
use writer::MarkWriter;

/// The prefix of the keys of planb's health checks; the host follows.
const HEALTH_START: &str = "healthcheck:";

/// Time for which a key whose reply was too long is not read.
const TOO_LONG_FOR: Duration = Duration::from_secs(10);

/// The key of an active checker's heartbeat, in seconds since 1970. It has no prefix.
const CHECKER_KEY: &str = "hchecker_ping";
/// The greatest number of unread events of the other threads.
const MAX_EVENTS: usize = 4096;
/// The number of events that are read before their actions are performed.
const DRAIN: usize = 512;

/// Settings of this source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The server that routes and marks are read from.
    pub read: Target,
    /// The server that marks are written to and published at; the same, unless there is a replica to read from.
    pub write: Target,
    /// The interval at which everything is read again, if Redis does not report changes (`server.lruCache.ttl`).
    pub ttl: Duration,
    /// The greatest number of look-ups a second that find nothing (`server.unknownHostRate`).
    pub unknown_rate: u32,
    /// Duration of a dead mark that has no expiry in Redis (`server.deadBackendTTL`).
    pub dead_ttl: Duration,
    /// The longest time for which hosts stay in service that Redis lacks since it came back with other or older data
    /// (`server.resyncHold`).
    pub resync_hold: Duration,
    /// The file of known routes for a start without Redis (`server.snapshot`).
    pub snapshot: Option<PathBuf>,
    /// Whether certificates and their keys are saved too, in a file next to it (`server.snapshotCertificates`).
    pub keeps_certificates: bool,
}

/// An event of the other threads.
#[derive(Debug)]
enum Event {
    Watching(WatchSession),
    WatchLost {
        number: u64,
        problem: String,
    },
    ChangedKey(Vec<ChangedKey>),
    Reading {
        number: u64,
        identity: Identity,
    },
    ReaderLost {
        number: u64,
        problem: String,
    },
    /// The thread retries by itself.
    Unreadable {
        number: u64,
        problem: String,
    },
    Replies(Replies),
    /// The keys of other spellings are known.
    Scanned,
    /// An event of a server of a cluster.
    Shard(ShardEvent),
}

/// Starts the certificate service.
pub(super) fn start_certificate_service(
    settings: &Settings,
    channels: CertificateChannels,
    subscribers: Subscribers,
    clock: Clock,
    (changed_certificates, inherited): (&Arc<ChangedCertificates>, Option<File>),
) -> Result<JoinHandle<()>, Error> {
    let changed_certificates = Arc::clone(changed_certificates);
    let inherited = (inherited, &channels.index);
    let certificate_service =
        RedisCertificateService::new(settings, subscribers, clock, changed_certificates, inherited)?;
    spawn("certificates", move || certificate_service.run(&channels))
}

/// Starts to serve at once, whether Redis is available or not.
pub(super) fn start(
    settings: &Settings,
    channels: RequestChannels,
    subscribers: Subscribers,
    resolver: DnsResolver,
    (clock, clusters): (Clock, Clusters),
    (status, changed_certificates, inherited): (Arc<Status>, Arc<ChangedCertificates>, Option<File>),
) -> Result<JoinHandle<()>, Error> {
    let (guard, stop) = Stop::new();
    let (events_out, events) = crossbeam_channel::bounded(MAX_EVENTS);
    let (jobs, jobs_in) = jobs::jobs();
    let (marks, marks_in) = crossbeam_channel::bounded(writer::MAX_MARKS);
    let sources = Sources::new(&settings.read, &settings.write);
    if sources.has_last() {
        let (sources, stop) = (sources.clone(), stop.clone());
        spawn("redis-choose", move || sources.choose(&stop))?;
    }
    let map = WatchedMap::default();
    let shards = ShardThreads::start(&settings.read, &map, (&events_out, &stop), clock);
    let shards = shards.map_err(|error| Error::Thread(Arc::new(error)))?;
    let watcher = Watcher {
        sources: sources.clone(),
        events: events_out.clone(),
        stop: stop.clone(),
        target: settings.read.clone(),
        uses_last: false,
        is_stale: Cell::default(),
    };
    let odd_keys = OddKeys::new(&settings.read, changed_certificates.spellings(), (&events_out, &stop));
    let reader = RouteReader {
        target: settings.read.clone(),
        sources: sources.clone(),
        spellings: odd_keys.frontends.clone(),
        map,
        jobs: jobs_in,
        events: events_out,
        stop: stop.clone(),
        clock,
    };
    let writer = MarkWriter { target: settings.write.clone(), marks: marks_in, stop, clock };
    if shards.is_none() {
        spawn("redis-watch", move || watcher.run())?;
    }
    spawn("redis-read", move || reader.run())?;
    spawn("redis-write", move || writer.run())?;
    let (known, saver) = save::start_routes(settings.snapshot.as_deref(), inherited, clock)?;
    if !known.routes.is_empty() {
        status.warm();
    }
    let limits =
        Limits { unknown_rate: settings.unknown_rate, resync_hold: settings.resync_hold, mark_life: settings.dead_ttl };
    let mut state = RouteState::new(&limits, known.routes, clusters);
    state.await_scan();
    let coordinator = match &shards {
        Some(_) => {
            let place = (&settings.read, &odd_keys.frontends);
            Coordinator::of_cluster(state, known.identity, settings.ttl, place)
        }
        None => Coordinator::new(state, known.identity, settings.ttl),
    };
    let server = Server {
        coordinator,
        shards,
        subscribers,
        resolver,
        clock,
        jobs,
        marks,
        sources,
        saver,
        status,
        changed_certificates,
        odd_keys,
        confirmations: Vec::new(),
        certificate_service: channels.certificates.clone(),
        _guard: guard,
    };
    spawn("directory", move || server.run(&channels, &events))
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(|error| Error::Thread(Arc::new(error)))
}

/// The directory's thread.
struct Server {
    coordinator: Coordinator,
    /// The threads of a cluster.
    shards: Option<ShardThreads>,
    subscribers: Subscribers,
    resolver: DnsResolver,
    clock: Clock,
    jobs: JobGiver,
    marks: Sender<OwnMark>,
    sources: Sources,
    saver: Option<Saver<Routes>>,
    status: Arc<Status>,
    /// Changed certificates, and the means to wake the certificate service.
    changed_certificates: Arc<ChangedCertificates>,
    odd_keys: OddKeys,
    /// Hosts that are read again, with the receivers of the result.
    confirmations: Vec<(Arc<str>, Sender<bool>)>,
    certificate_service: Sender<CertificateCommand>,
    /// Dropping it ends the other threads.
    _guard: Sender<Infallible>,
}

impl Server {
    fn run(mut self, channels: &RequestChannels, events: &Receiver<Event>) {
        self.perform();
        loop {
            let now = self.clock.now();
            let patience = self.next_moment().map_or(Duration::from_secs(3600), |moment| moment.since(now));
            select! {
                recv(channels.lookups) -> lookup => match lookup {
                    Ok(lookup) => self.ask(lookup),
                    // All clients of the directory are gone.
                    Err(_) => return,
                },
                recv(channels.marks) -> mark => if let Ok(mark) = mark { self.mark(&mark) },
                recv(events) -> event => if let Ok(event) = event { self.hear(event) },
                recv(channels.commands) -> command => match command {
                    Ok(SourceCommand::Reload) => self.coordinator.state.refresh(),
                    // It fails only if the caller no longer waits.
                    Ok(SourceCommand::Flush(host, answer)) => drop(answer.send(self.coordinator.state.flush(host))),
                    Ok(SourceCommand::Confirm(host, to)) => {
                        self.coordinator.state.flush(Arc::clone(&host));
                        self.confirmations.push((host, to));
                    }
                    Ok(SourceCommand::Retire) => self.saver = None,
                    // It fails only if the caller no longer waits.
                    Ok(SourceCommand::Export(to)) => drop(to.send(save::export(self.coordinator.routes(), self.clock.now()))),
                    Ok(SourceCommand::Stop) | Err(_) => return self.end(),
                },
                default(patience) => {}
            }
            channels.lookups.try_iter().take(DRAIN).for_each(|lookup| self.ask(lookup));
            events.try_iter().take(DRAIN).for_each(|event| self.hear(event));
            channels.marks.try_iter().take(DRAIN).for_each(|mark| self.mark(&mark));
            self.tick();
            self.perform();
        }
    }

    fn next_moment(&self) -> Option<Moment> {
        let save = self.saver.as_ref().and_then(Saver::due);
        self.coordinator.next_tick().into_iter().chain(save).min()
    }

    fn ask(&mut self, Lookup { core, host, client }: Lookup) {
        let now = self.clock.now();
        self.coordinator.state.ask(core, host, client, now);
    }

    fn mark(&mut self, mark: &DeadMark) {
        let now = self.clock.now();
        let DeadMark { host, backend, until } = mark;
        if let Some(own) = self.coordinator.state.mark_dead(host, backend.endpoint(), *until, now)
            && self.marks.try_send(own).is_err()
        {
            log::debug!("redis: too many dead marks wait to be written; one is dropped");
        }
    }

    fn hear(&mut self, mut event: Event) {
        if let Event::ChangedKey(changed) = &mut event {
            // A spelling is known before its pattern is read again.
            *changed = std::mem::take(changed).into_iter().map(|changed| self.odd_keys.written(changed)).collect();
            self.touch_certificates(changed);
        }
        let now = self.clock.now();
        self.coordinator.hear(event, now);
    }

    fn act(&mut self, action: Action) {
        let now = self.clock.now();
        match action {
            Action::Connect(watch) => self.jobs.connect(watch),
            Action::Connected(mode) => {
                self.status.connected(mode.number());
                if self.shards.is_none() && !self.odd_keys.scan() {
                    // Without the thread fewer keys are known.
                    self.coordinator.state.note_scan();
                }
            }
            Action::Lost { is_new, problem } => {
                if is_new {
                    self.status.lost(now);
                    log::warn!("redis: {} is away: {problem}; known routes stay in use", self.sources.current());
                } else {
                    log::debug!("redis: {} is still away: {problem}", self.sources.current());
                }
                if let Some(saver) = &mut self.saver {
                    saver.hurry(now);
                }
            }
            Action::Reread => {
                self.touch_certificates(&[ChangedKey::All]);
                // Spellings at a server of a cluster that was away are not known.
                if self.shards.is_some() && !self.odd_keys.scan_again() {
                    self.coordinator.state.note_scan();
                }
            }
            Action::Learned => {
                if let Some(saver) = &mut self.saver {
                    saver.note_change(now);
                }
            }
            Action::Partial(is_partial) => self.status.set_partial(is_partial, now),
            action => self.act_on_shards(action),
        }
    }

    fn act_on_shards(&mut self, action: Action) {
        let Some(shards) = &mut self.shards else { return };
        match action {
            Action::Find(known) => shards.find(known),
            Action::Watch { address, number, waits } => shards.watch(address, number, waits),
            Action::Unwatch(number) => shards.unwatch(number),
            Action::Map(map) => shards.set_map(map),
            _ => {}
        }
    }

    /// Notifies the certificate service, which may be waiting for Redis. This never waits.
    fn touch_certificates(&self, changed: &[ChangedKey]) {
        let mut is_news = false;
        for changed in changed {
            match changed {
                ChangedKey::Certificate(pattern) => self.changed_certificates.add(pattern),
                ChangedKey::All => self.changed_certificates.add_all(),
                _ => continue,
            }
            is_news = true;
        }
        if is_news {
            // If there is no room, a pending command makes it look at the changes anyway.
            let _ = self.certificate_service.try_send(CertificateCommand::Reread);
        }
    }

    fn tick(&mut self) {
        let now = self.clock.now();
        self.coordinator.tick(now);
        if self.saver.as_ref().and_then(Saver::due).is_some_and(|due| due <= now) {
            let routes = self.coordinator.routes();
            if let Some(saver) = &mut self.saver {
                saver.save(routes, now);
            }
        }
    }

    /// Sends events, performs actions, and requests the next reads.
    fn perform(&mut self) {
        for action in self.coordinator.take_actions() {
            self.act(action);
        }
        self.status.set_held(self.coordinator.state.held_total());
        let state = &mut self.coordinator.state;
        for backend in state.take_unresolved() {
            self.resolver.add(&backend);
        }
        // A core is woken once for all its results: a flood of unknown hosts brings many.
        let mut told = Vec::new();
        for output in state.take_outputs() {
            match output {
                Output::LookedUp { core, host, result, keep } => {
                    self.subscribers.leave_word(core, RouteEvent::LookedUp { host, result, keep });
                    if !told.contains(&core) {
                        told.push(core);
                    }
                }
                Output::Changed { hosts, unknowns } => {
                    if unknowns || !hosts.is_empty() {
                        self.subscribers.tell_all(&RouteEvent::Changed { hosts: hosts.into(), unknowns });
                    }
                }
                Output::Checker { until } => self.subscribers.tell_all(&RouteEvent::Checker { until }),
            }
        }
        told.into_iter().for_each(|core| self.subscribers.wake(core));
        if let Some(batch) = self.coordinator.state.take_batch() {
            self.jobs.read(batch);
        }
        let state = &self.coordinator.state;
        self.confirmations.retain(|(host, to)| match state.is_newest(host) {
            // It fails only if the caller no longer waits.
            Some(is_newest) => to.send(is_newest).is_ok_and(|()| false),
            None => true,
        });
    }

    fn end(mut self) {
        if let Some(saver) = self.saver.take() {
            saver.finish(|| self.coordinator.routes());
        }
    }
}
