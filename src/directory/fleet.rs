//! This process as a node of a fleet: it reports to Redis that it is alive, and acknowledges receipts.
//!
//! A receipt for a host is acknowledged when every core serves the state that Redis had when the receipt was requested:
//! edits of on-demand clusters up to then are taken over, the host is read again, and all cores have read their mail.

use super::redis::{self, Fleet, Node, Pause, ProbeSharer, Receipt, Sleeper, Stop, Target};
use super::{Directory, Error, RouteEvent, Source, SourceCommand};
use crate::base::clock::{Clock, Moment};
use crate::cluster::Cluster;
use crate::health::ProbeSharing;
use ::redis::RedisResult;
use crossbeam_channel::{RecvTimeoutError, Sender};
use std::convert::Infallible;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

/// The interval of heartbeats.
const BEAT: Duration = Duration::from_secs(2);
/// The limit of a core, or of the source, for a receipt, before a retry.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time for which an unacknowledged receipt is retried.
const RECEIPT_LIFE: Duration = Duration::from_secs(60);
/// The greatest number of receipts that wait.
const MAX_WAITING: usize = 1000;

/// The membership of this process in the fleet. It ends when this is dropped.
#[derive(Debug)]
pub struct Membership {
    guard: Option<Sender<Infallible>>,
    target: Target,
    id: String,
    /// Whether the last heartbeat has arrived.
    is_known: Arc<AtomicBool>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.guard = None;
        // The thread may be waiting for Redis now. If Redis is away, the entry expires.
        if self.is_known.load(Ordering::Relaxed)
            && let Err(error) = Fleet::new(&self.target).leave(&self.id)
        {
            log::debug!("redis: {}: leaving the fleet: {error}", self.target);
        }
    }
}

impl Directory {
    /// The Redis of the fleet; `None` if routes come from another source.
    pub fn fleet(&self) -> Option<&Target> {
        self.fleet.as_ref()
    }

    /// Makes one node of the fleet probe each backend of a shared cluster. `None` without Redis.
    pub fn share_probes(&self, sharing: &Arc<ProbeSharing>) -> Option<ProbeSharer> {
        let share = redis::share(self.fleet.as_ref()?, sharing, self.clock);
        share.inspect_err(|error| log::error!("this node probes backends for itself: starting a thread: {error}")).ok()
    }

    /// Has a message published that wakes the application of this frontend, unless one was a moment ago, and again while
    /// requests of it wait. Never waits. Without a Redis there is none.
    pub fn wake(&self, cluster: &Cluster) {
        if let Some(wakes) = &self.wakes {
            let admission = Arc::downgrade(&cluster.admission);
            let has_waiters = move || admission.upgrade().is_some_and(|admission| admission.waiting() > 0);
            // Where there is no room, the next request asks again.
            let _ = wakes.try_send(Sleeper { key: cluster.key.clone(), has_waiters: Box::new(has_waiters) });
        }
    }

    /// Makes this process a node of the fleet, after all cores have joined. `address` is the address for clients.
    /// `None` if there is no Redis.
    pub fn join_fleet(&self, address: String) -> Option<Membership> {
        let target = self.fleet.clone()?;
        let ((guard, stop), is_known) = (Stop::new(), Arc::<AtomicBool>::default());
        let now = self.clock.wall(self.clock.now()).duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let node = Node {
            id: format!("{:016x}", fastrand::u64(..)),
            name: name.trim().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address,
            load: 0,
            epoch: now.as_secs(),
        };
        let id = node.id.clone();
        let mut member = Member {
            fleet: Fleet::new(&target),
            directory: self.clone(),
            node,
            stop,
            is_known: Arc::clone(&is_known),
            clock: self.clock,
            seen: None,
            next_beat: Moment::ZERO,
            waiting: Vec::new(),
        };
        let run = move || member.run();
        if let Err(error) = thread::Builder::new().name("redis-fleet".into()).spawn(run) {
            log::error!("this node does not join the fleet: {error}");
        }
        Some(Membership { guard: Some(guard), target, id, is_known })
    }

    /// Waits until every core serves the present state of this host in the source. Returns whether it does.
    fn confirm(&self, host: &str) -> bool {
        if !self.on_demand.catch_up(PATIENCE) {
            return false;
        }
        let (to, confirmed) = crossbeam_channel::bounded(1);
        let order = SourceCommand::Confirm(host.into(), to);
        self.commands.send_timeout(order, PATIENCE).is_ok()
            && confirmed.recv_timeout(PATIENCE) == Ok(true)
            && self.wait_for_cores()
    }

    /// Waits until every core has read its present mail.
    fn wait_for_cores(&self) -> bool {
        let (to, read) = crossbeam_channel::bounded(0);
        let has_room = self.subscribers.reach_all(&RouteEvent::Barrier(to));
        // The last copy is dropped with the last message.
        has_room && read.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Disconnected)
    }

    /// Requests in flight to backends.
    fn load(&self) -> u64 {
        let clusters = self.clusters();
        let members = clusters.iter().flat_map(|cluster| cluster.members.iter());
        members.map(|member| member.state.in_flight() as u64).sum()
    }
}

/// State of the thread.
struct Member {
    fleet: Fleet,
    directory: Directory,
    node: Node,
    stop: Stop,
    is_known: Arc<AtomicBool>,
    clock: Clock,
    /// The newest receipt read.
    seen: Option<String>,
    next_beat: Moment,
    /// Receipts that are not acknowledged yet, with the end of their retries.
    waiting: Vec<(Receipt, Moment)>,
}

impl Member {
    fn run(&mut self) {
        let mut pause = Pause::default();
        while let Err(error) = self.serve(&mut pause) {
            if self.is_known.swap(false, Ordering::Relaxed) || self.next_beat == Moment::ZERO {
                log::warn!("redis: {error}; receipts and `sluice nodes` are without this node");
            }
            self.next_beat = self.clock.now();
            if pause.wait(&self.stop) {
                return;
            }
        }
    }

    /// Sends heartbeats and acknowledges receipts, until the process ends or Redis is lost.
    fn serve(&mut self, pause: &mut Pause) -> RedisResult<()> {
        // This comes before the first heartbeat: a client that sees this node expects it to acknowledge later receipts.
        let mut seen = match self.seen.take() {
            Some(seen) => seen,
            None => self.fleet.newest()?,
        };
        while !self.stop.is_set() {
            self.beat()?;
            pause.reset();
            self.seen = Some(seen.clone());
            let receipts = self.fleet.wait(&seen)?;
            if let Some(newest) = receipts.last() {
                seen.clone_from(&newest.entry);
            }
            let until = self.clock.now() + RECEIPT_LIFE;
            self.waiting.extend(receipts.into_iter().map(|receipt| (receipt, until)));
            self.seen = Some(seen.clone());
            self.acknowledge()?;
        }
        Ok(())
    }

    /// Sends a heartbeat if it is due.
    fn beat(&mut self) -> RedisResult<()> {
        let now = self.clock.now();
        if self.next_beat <= now && !self.stop.is_set() {
            self.node.load = self.directory.load();
            self.fleet.register(&self.node)?;
            self.is_known.store(true, Ordering::Relaxed);
            self.next_beat = now + BEAT;
        }
        Ok(())
    }

    fn acknowledge(&mut self) -> RedisResult<()> {
        let (now, mut place) = (self.clock.now(), 0);
        while let Some((receipt, until)) = self.waiting.get(place) {
            if self.directory.confirm(&receipt.host) {
                self.fleet.acknowledge(receipt, &self.node.id)?;
                self.waiting.remove(place);
            } else if now < *until && place < MAX_WAITING {
                place += 1;
            } else {
                self.waiting.remove(place);
            }
            // A stuck core must not make this node appear dead while it waits.
            self.beat()?;
        }
        Ok(())
    }
}

/// The way to the thread that publishes messages which wake applications; `None` where there is no Redis.
pub(super) fn start_wakes(source: &Source, clock: Clock) -> Result<Option<Sender<Sleeper>>, Error> {
    let start = |target: Target| redis::start_wake(&target, clock).map_err(|error| Error::Thread(Arc::new(error)));
    target(source).map(start).transpose()
}

/// The Redis in which nodes of this source meet.
pub(super) fn target(source: &Source) -> Option<Target> {
    match source {
        Source::Redis(settings) => Some(settings.write.clone()),
        Source::File(_) | Source::Nothing => None,
    }
}
