//! Routes from Redis: asked for when a host is asked for, kept until Redis says that they were written to.
//!
//! Four threads. The directory's own runs the [`keeper`], where everything is decided, and never waits for Redis. The
//! [`watcher`] has a connection on which Redis tells of writes, the [`reader`] one for look-ups, the [`writer`] one
//! for dead marks. Each of them may hang for as long as [`connection::DEADLINE`] allows, and nobody hangs with it: what the
//! directory's own thread tells them never waits for room.

mod certificates;
mod connection;
mod jobs;
mod keeper;
mod link;
mod pairs;
mod reader;
mod reading;
mod resp;
mod save;
mod target;
mod watcher;
mod writer;

pub(super) use certificates::Touches;
pub use target::{EXPECTED, Place, Target, TargetFault};

use super::certificates::{Desk as ClerkDesk, Order as ClerkOrder};
use super::names::Names;
use super::texts::Listed;
use super::{Cores, DeadMark, Desk, Error, Lookup, News, Order, Status};
use crate::base::clock::{Clock, Moment};
use crate::route;
use certificates::Clerk;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, select};
use jobs::JobGiver;
use keeper::{Keeper, Output, OwnMark, Replies, Touched};
use link::Identity;
use reader::Reader;
use reading::Reading;
use save::{Routes, Saver};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use watcher::{Means, Watch, Watcher};
use writer::Writer;

/// Where an active checker leaves its sign of life, in seconds since 1970. No prefix stands before it.
const CHECKER_KEY: &str = "hchecker_ping";
/// Letters of the other threads that are not yet read.
const MAX_EVENTS: usize = 4096;
/// Letters that are read before what comes of them is done.
const DRAIN: usize = 512;
/// Keyspace notifications do not tell of everything (FLUSHALL is silent), so now and then all is read again.
const KEYSPACE_REFRESH: Duration = Duration::from_secs(60);
/// The pauses between attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_millis(800);

/// What can be set of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where routes and marks are read.
    pub read: Target,
    /// Where marks are written and published; the same, unless there is a replica to read from.
    pub write: Target,
    /// How often everything is read again where Redis does not tell of changes (`server.lruCache.ttl`).
    pub ttl: Duration,
    /// How many look-ups a second may find nothing (`server.unknownHostRate`).
    pub unknown_rate: u32,
    /// Where what is known is kept for a start without Redis (`server.snapshot`).
    pub snapshot: Option<PathBuf>,
    /// Whether certificates and their keys are kept too, in a file beside it (`server.snapshotCertificates`).
    pub keeps_certificates: bool,
}

/// What the other threads tell.
#[derive(Debug)]
enum Event {
    Watching(Watch),
    WatchLost {
        number: u64,
        problem: String,
    },
    Touched(Vec<Touched>),
    Reading {
        number: u64,
        identity: Identity,
    },
    ReaderLost {
        number: u64,
        problem: String,
    },
    /// It tries again by itself.
    Unreadable {
        number: u64,
        problem: String,
    },
    Replies(Replies),
}

/// A connection of a tool's own, opened and asked without long waits.
pub fn connect(target: &Target) -> ::redis::RedisResult<::redis::Connection> {
    link::open_for_tool(target)
}

/// What replies about a host mean, for [`super::texts`].
pub(super) fn read_listing(host: &str, replies: &[::redis::Value]) -> Result<Option<Listed>, String> {
    let patterns: Vec<_> = route::patterns(host).collect();
    let (pattern, listing, dead) = match reading::read(patterns.iter().map(|pattern| &**pattern), replies) {
        Reading::Unknown => return Ok(None),
        Reading::Bad(problem) => return Err(problem.into()),
        Reading::Unread(_) => return Err("the list was not read".to_owned()),
        Reading::Found { pattern, listing, dead } => (pattern, listing, dead),
    };
    let urls = listing.record.backends.iter().enumerate();
    Ok(Some(Listed {
        pattern: pattern.into(),
        id: listing.record.id.clone().into(),
        backends: urls.map(|(index, url)| (listing.place_of(index), url.as_str().to_owned())).collect(),
        total: listing.total,
        faults: listing.faults,
        https_redirect: listing.record.options.https_redirect,
        option_faults: listing.option_faults,
        dead: dead.indexes,
        ttl: dead.ttl,
    }))
}

/// Whether a reply has a certificate that can be used, for [`super::texts`].
pub(super) fn read_certificate(reply: &::redis::Value) -> Result<bool, String> {
    certificates::read(reply)
}

/// Starts the clerk who knows the certificates.
pub(super) fn start_clerk(
    settings: &Settings,
    desk: ClerkDesk,
    cores: Cores,
    clock: Clock,
    touches: &Arc<Touches>,
) -> Result<JoinHandle<()>, Error> {
    let clerk = Clerk::new(settings, cores, clock, Arc::clone(touches))?;
    spawn("certificates", move || clerk.run(&desk))
}

/// Starts to serve at once, whether Redis is there or not.
pub(super) fn start(
    settings: &Settings,
    desk: Desk,
    cores: Cores,
    names: Names,
    clock: Clock,
    (status, touches): (Arc<Status>, Arc<Touches>),
) -> Result<JoinHandle<()>, Error> {
    let (guard, stop) = crossbeam_channel::bounded(0);
    let stop = Stop(stop);
    let (events_out, events) = crossbeam_channel::bounded(MAX_EVENTS);
    let (jobs, jobs_in) = jobs::jobs();
    let (marks, marks_in) = crossbeam_channel::bounded(writer::MAX_MARKS);
    let (read, write) = (settings.read.clone(), settings.write.clone());
    let watcher = Watcher { target: read.clone(), events: events_out.clone(), stop: stop.clone() };
    let reader = Reader { target: read, jobs: jobs_in, events: events_out, stop: stop.clone(), clock };
    let writer = Writer { target: write, marks: marks_in, stop, clock };
    spawn("redis-watch", move || watcher.run())?;
    spawn("redis-read", move || reader.run())?;
    spawn("redis-write", move || writer.run())?;
    let (remembered, saver) = save::start_routes(settings.snapshot.as_deref(), clock)?;
    if !remembered.routes.is_empty() {
        status.warm();
    }
    let now = clock.now();
    let server = Server {
        keeper: Keeper::new(settings.unknown_rate, remembered.routes),
        identity: (!remembered.histories.is_empty())
            .then(|| Identity { run_id: String::new(), histories: remembered.histories }),
        cores,
        names,
        clock,
        jobs,
        marks,
        watch: None,
        refresh_at: now,
        is_away: false,
        saver,
        settings: settings.clone(),
        status,
        touches,
        clerk: desk.certificates.clone(),
        _guard: guard,
    };
    spawn("directory", move || server.run(&desk, &events))
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(|error| Error::Thread(Arc::new(error)))
}

/// The directory's thread.
struct Server {
    keeper: Keeper,
    /// Of the Redis that what is known came from.
    identity: Option<Identity>,
    cores: Cores,
    names: Names,
    clock: Clock,
    jobs: JobGiver,
    marks: Sender<OwnMark>,
    watch: Option<Watch>,
    refresh_at: Moment,
    is_away: bool,
    saver: Option<Saver<Routes>>,
    settings: Settings,
    status: Arc<Status>,
    /// What the clerk who knows the certificates has to be told, and how to wake him.
    touches: Arc<Touches>,
    clerk: Sender<ClerkOrder>,
    /// The other threads end when this is dropped.
    _guard: Sender<Infallible>,
}

impl Server {
    fn run(mut self, desk: &Desk, events: &Receiver<Event>) {
        loop {
            let now = self.clock.now();
            let patience = self.next_moment().map_or(Duration::from_secs(3600), |moment| moment.since(now));
            select! {
                recv(desk.lookups) -> lookup => match lookup {
                    Ok(lookup) => self.ask(lookup),
                    // Whoever could ask is gone.
                    Err(_) => return,
                },
                recv(desk.marks) -> mark => if let Ok(mark) = mark { self.mark(&mark) },
                recv(events) -> event => if let Ok(event) = event { self.hear(event) },
                recv(desk.orders) -> order => match order {
                    Ok(Order::Reload) => self.keeper.refresh(),
                    Ok(Order::Retire) => self.saver = None,
                    Ok(Order::Stop) | Err(_) => return self.end(),
                },
                default(patience) => {}
            }
            desk.lookups.try_iter().take(DRAIN).for_each(|lookup| self.ask(lookup));
            events.try_iter().take(DRAIN).for_each(|event| self.hear(event));
            desk.marks.try_iter().take(DRAIN).for_each(|mark| self.mark(&mark));
            self.tick();
            self.perform();
        }
    }

    fn next_moment(&self) -> Option<Moment> {
        let refresh = self.keeper.is_up().then_some(self.refresh_at).filter(|moment| *moment != Moment::NEVER);
        let save = self.saver.as_ref().and_then(Saver::due);
        [refresh, self.keeper.next_tick(), save].into_iter().flatten().min()
    }

    fn ask(&mut self, Lookup { core, host }: Lookup) {
        let now = self.clock.now();
        self.keeper.ask(core, host, now);
    }

    fn mark(&mut self, mark: &DeadMark) {
        let now = self.clock.now();
        let url = mark.frontend.members[mark.member].backend.url();
        if let Some(own) = self.keeper.mark_dead(&mark.frontend.host, url, mark.until, now)
            && self.marks.try_send(own).is_err()
        {
            log::debug!("redis: too many dead marks wait to be written; one is dropped");
        }
    }

    fn hear(&mut self, event: Event) {
        let now = self.clock.now();
        match event {
            Event::Watching(watch) => {
                self.jobs.connect(watch.clone());
                self.watch = Some(watch);
            }
            Event::WatchLost { number, problem } => {
                if self.watch.as_ref().is_none_or(|watch| watch.number == number) {
                    self.watch = None;
                    self.lose(&problem, now);
                }
            }
            Event::ReaderLost { number, problem } => {
                if let Some(watch) = self.watch.clone().filter(|watch| watch.number == number) {
                    self.lose(&problem, now);
                    self.jobs.connect(watch);
                }
            }
            Event::Unreadable { number, problem } => {
                if self.watch.as_ref().is_some_and(|watch| watch.number == number) {
                    self.lose(&problem, now);
                }
            }
            Event::Reading { number, identity } => {
                if let Some(watch) = self.watch.clone().filter(|watch| watch.number == number) {
                    self.connected(&watch, identity, now);
                }
            }
            Event::Touched(touched) => {
                touched.iter().for_each(|touched| self.keeper.touch(touched, now));
                self.touch_certificates(&touched);
            }
            Event::Replies(replies) => {
                if self.keeper.replied(replies, now)
                    && let Some(saver) = &mut self.saver
                {
                    saver.note_change(now);
                }
            }
        }
    }

    fn connected(&mut self, watch: &Watch, identity: Identity, now: Moment) {
        let same = self.identity.as_ref().map_or(!self.keeper.knows_any(), |before| identity.continues(before));
        let note = if same { "" } else { "; its data is not what it was, so no route is dropped until it is complete" };
        log::info!("redis: connected to {}; changes are known by {}{note}", watch.server, watch.means);
        self.identity = Some(identity);
        self.is_away = false;
        self.refresh_at = now + self.refresh_every(watch.means);
        self.status.connected(watch.means.number());
        // Nobody has told what was written in between.
        self.touch_certificates(&[Touched::All]);
        self.keeper.up(same, now);
    }

    /// Tells the clerk who knows the certificates. He may be waiting for Redis; nobody waits for him.
    fn touch_certificates(&self, touched: &[Touched]) {
        let mut is_news = false;
        for touched in touched {
            match touched {
                Touched::Certificate(pattern) => self.touches.add(pattern),
                Touched::All => self.touches.add_all(),
                _ => continue,
            }
            is_news = true;
        }
        if is_news {
            // If there is no room, he has an order to read after which he looks at what was touched.
            let _ = self.clerk.try_send(ClerkOrder::Reread);
        }
    }

    fn refresh_every(&self, means: Means) -> Duration {
        match means {
            Means::Tracking => Duration::MAX,
            Means::Keyspace => KEYSPACE_REFRESH.max(self.settings.ttl),
            Means::Rereading => self.settings.ttl,
        }
    }

    fn lose(&mut self, problem: &str, now: Moment) {
        if !self.is_away {
            self.is_away = true;
            self.status.lost(now);
            log::warn!("redis: {} is away: {problem}; what is known serves on", self.settings.read);
        } else {
            log::debug!("redis: {} is still away: {problem}", self.settings.read);
        }
        self.keeper.down();
    }

    fn tick(&mut self) {
        let now = self.clock.now();
        self.keeper.tick(now);
        if self.keeper.is_up()
            && self.refresh_at <= now
            && let Some(watch) = &self.watch
        {
            self.refresh_at = now + self.refresh_every(watch.means);
            self.keeper.refresh();
            self.touch_certificates(&[Touched::All]);
        }
        if self.keeper.is_up() && self.saver.as_ref().and_then(Saver::due).is_some_and(|due| due <= now) {
            let routes = self.routes();
            if let Some(saver) = &mut self.saver {
                saver.save(routes, now);
            }
        }
    }

    /// What is known, for the snapshot.
    fn routes(&self) -> Routes {
        let histories = self.identity.as_ref().map_or_else(Vec::new, |identity| identity.histories.clone());
        Routes { frontends: self.keeper.routes(), histories }
    }

    /// Tells and does what there is to tell and do, and asks the next questions.
    fn perform(&mut self) {
        for backend in self.keeper.take_unresolved() {
            self.names.add(&backend);
        }
        for output in self.keeper.take_outputs() {
            match output {
                Output::Answer { core, host, answer, keep } => {
                    self.cores.tell(core, News::Answer { host, answer, keep });
                }
                Output::Changed { hosts, unknowns } => {
                    if unknowns || !hosts.is_empty() {
                        self.cores.tell_all(&News::Changed { hosts: hosts.into(), unknowns });
                    }
                }
                Output::Checker { until } => self.cores.tell_all(&News::Checker { until }),
            }
        }
        if let Some(batch) = self.keeper.take_batch() {
            self.jobs.read(batch);
        }
    }

    fn end(mut self) {
        if let Some(saver) = self.saver.take() {
            saver.finish(self.keeper.is_up().then(|| self.routes()));
        }
    }
}

/// Tells a thread when to end: when nobody holds the other side any more.
#[derive(Clone, Debug)]
struct Stop(Receiver<Infallible>);

impl Stop {
    fn is_set(&self) -> bool {
        self.0.try_recv() == Err(TryRecvError::Disconnected)
    }
}

/// Longer from attempt to attempt, and never the same for two nodes.
#[derive(Debug, Default)]
struct Pause(u32);

impl Pause {
    /// Lets time pass. Returns whether to end.
    fn wait(&mut self, stop: &Stop) -> bool {
        let most = (FIRST_PAUSE * 2_u32.saturating_pow(self.0)).min(LAST_PAUSE);
        self.0 = (self.0 + 1).min(16);
        let pause = most.mul_f64(0.5 + fastrand::f64() / 2.0);
        stop.0.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected)
    }

    fn reset(&mut self) {
        self.0 = 0;
    }
}
