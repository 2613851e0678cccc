//! A response that is being filled, as those see it who wait for it: the head, the body so far, and what follows.
//!
//! One request writes, and any number read, each at its own pace. The bytes are those that are stored afterwards. Where
//! they turn out not to be storable, those who read get them all the same: the writer is held back then while one of
//! them is more than [`WINDOW`] behind.

use super::body::{Body, BodyBudget, BodyBuilder, BodyFault};
use super::object::Object;
use super::purge::Ticket;
use crate::base::clock::Moment;
use crate::base::slice_ext::SliceExt;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many bytes of a body that is not stored are kept for those who read it.
pub const WINDOW: u64 = 256 * 1024;

/// The way to the requests of one worker.
pub trait Wake: Send + Sync + fmt::Debug {
    /// Tells a request that there is more to read, or room to write.
    fn wake(&self, exchange: u64);
}

/// A request that can be woken.
#[derive(Clone, Debug)]
pub struct Sleeper {
    /// The way to its worker.
    pub sink: Arc<dyn Wake>,
    /// The request there.
    pub exchange: u64,
}

impl Sleeper {
    fn wake(&self) {
        self.sink.wake(self.exchange);
    }
}

/// A response whose body is still to come.
#[derive(Debug)]
pub struct LiveFill {
    /// The response, without a body.
    pub head: Object,
    /// The length of its body, where the head states one.
    pub len: Option<u64>,
    /// When the fill began: what was purged since is not served to those who come later.
    pub ticket: Ticket,
    body: Arc<LiveBody>,
}

impl LiveFill {
    /// When the last byte came, or the head.
    pub fn moved_at(&self) -> Moment {
        Moment::from_micros(self.body.moved_at.load(Relaxed))
    }
}

/// A body while it comes.
#[derive(Debug)]
struct LiveBody {
    state: Mutex<State>,
    moved_at: AtomicU64,
}

#[derive(Debug)]
struct State {
    builder: BodyBuilder,
    end: Option<LiveEnd>,
    /// Those who read; a place is free once its reader has left.
    readers: Vec<Option<Place>>,
    /// How many readers there are, and how many of them wait.
    count: usize,
    waiting: usize,
    /// The body is not stored, and kept for its readers alone.
    is_passing: bool,
    /// The one who writes waits for its readers.
    writer: Option<Sleeper>,
}

#[derive(Debug)]
struct Place {
    at: u64,
    sleeper: Option<Sleeper>,
}

/// How a body has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveEnd {
    /// All of it has come.
    Whole,
    /// Nothing more comes: the fill has died.
    Cut,
}

impl LiveBody {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake_readers(&mut self) {
        if std::mem::take(&mut self.waiting) > 0 {
            let sleepers = self.readers.iter_mut().flatten().filter_map(|place| place.sleeper.take());
            sleepers.for_each(|sleeper| sleeper.wake());
        }
    }

    /// Drops what all have read of a body that is not stored.
    fn pass(&mut self) {
        if self.is_passing {
            self.builder.drop_before(self.least());
        }
    }

    /// How far the slowest reader is.
    fn least(&self) -> u64 {
        self.readers.iter().flatten().map(|place| place.at).min().unwrap_or(self.builder.received())
    }

    fn is_full(&self) -> bool {
        self.is_passing && self.builder.received() - self.least() > WINDOW
    }

    fn wake_writer(&mut self) {
        if self.writer.is_some() && !self.is_full() {
            self.writer.take().iter().for_each(Sleeper::wake);
        }
    }
}

/// The one who writes. One that is dropped without an end has died.
#[derive(Debug)]
pub struct LiveWriter {
    body: Arc<LiveBody>,
    is_over: bool,
}

impl LiveWriter {
    /// A body of which nothing has come.
    pub fn new(builder: BodyBuilder) -> Self {
        let (readers, writer) = (Vec::new(), None);
        let state = State { builder, end: None, readers, count: 0, waiting: 0, is_passing: false, writer };
        let body = LiveBody { state: Mutex::new(state), moved_at: AtomicU64::new(0) };
        Self { body: Arc::new(body), is_over: false }
    }

    /// What those see who wait for it.
    pub fn publish(&self, head: Object, ticket: Ticket, now: Moment) -> Arc<LiveFill> {
        // The head has come, if nothing else.
        self.body.moved_at.fetch_max(now.as_micros(), Relaxed);
        let len = self.body.lock().builder.stated();
        Arc::new(LiveFill { head, len, ticket, body: Arc::clone(&self.body) })
    }

    /// See [`BodyBuilder::limit_to`].
    pub fn limit_to(&mut self, bytes: u64, budget: &Arc<BodyBudget>) -> Result<(), BodyFault> {
        self.body.lock().builder.limit_to(bytes, budget)
    }

    /// Adds bytes. A fault is told once: the body is not stored. Those who read it get the bytes all the same, if there are
    /// any ([`LiveWriter::has_readers`]).
    pub fn push(&mut self, bytes: &[u8], now: Moment) -> Result<(), BodyFault> {
        self.body.moved_at.store(now.as_micros(), Relaxed);
        let mut state = self.body.lock();
        let before = state.builder.received();
        let pushed = state.builder.push(bytes);
        if pushed.is_err() && state.count > 0 && !state.is_passing {
            state.is_passing = true;
            state.builder.lift_limits();
            let added = usize::try_from(state.builder.received() - before).unwrap_or(bytes.len());
            // Only more bytes than the head states are refused now, and there are none.
            let _ = state.builder.push(bytes.suffix(added.min(bytes.len())));
        }
        state.pass();
        state.wake_readers();
        pushed
    }

    /// Whether somebody reads.
    pub fn has_readers(&self) -> bool {
        self.body.lock().count > 0
    }

    /// Whether those who read have yet to catch up. Then `sleeper` is woken once they have.
    pub fn is_held(&self, sleeper: Option<&Sleeper>) -> bool {
        let mut state = self.body.lock();
        let is_held = state.is_full();
        state.writer = sleeper.filter(|_| is_held).cloned();
        is_held
    }

    /// All has come: the body as it is stored.
    pub fn finish(mut self) -> Result<Body, BodyFault> {
        let mut state = self.body.lock();
        let finished = if state.is_passing { Err(BodyFault::TooLarge) } else { state.builder.finish() };
        let is_whole = state.builder.stated().is_none_or(|stated| stated == state.builder.received());
        state.end = Some(if is_whole { LiveEnd::Whole } else { LiveEnd::Cut });
        state.wake_readers();
        drop(state);
        self.is_over = true;
        finished
    }
}

impl Drop for LiveWriter {
    fn drop(&mut self) {
        if !self.is_over {
            let mut state = self.body.lock();
            state.end = Some(LiveEnd::Cut);
            state.wake_readers();
        }
    }
}

/// A request that reads. It leaves when dropped.
#[derive(Debug)]
pub struct LiveReader {
    fill: Arc<LiveFill>,
    place: usize,
    sleeper: Sleeper,
}

/// What a read gives.
#[derive(Debug)]
pub struct LiveRead {
    /// The bytes; none where nothing has come. Then the reader is woken once something does.
    pub bytes: Body,
    /// The end, where it follows these bytes.
    pub end: Option<LiveEnd>,
}

impl LiveReader {
    /// One that reads from the beginning. `None` where the fill has died already, or is beyond the beginning: nothing of the
    /// response may leave then.
    pub fn new(fill: Arc<LiveFill>, sleeper: Sleeper) -> Option<Self> {
        let mut state = fill.body.lock();
        if state.end == Some(LiveEnd::Cut) || state.is_passing {
            return None;
        }
        state.count += 1;
        let place = state.readers.iter().position(Option::is_none).unwrap_or_else(|| {
            state.readers.push(None);
            state.readers.len() - 1
        });
        if let Some(free) = state.readers.get_mut(place) {
            *free = Some(Place { at: 0, sleeper: None });
        }
        drop(state);
        Some(Self { fill, place, sleeper })
    }

    /// The response.
    pub fn fill(&self) -> &LiveFill {
        &self.fill
    }

    /// Takes the next bytes, at most so many.
    pub fn read(&mut self, most: u64) -> LiveRead {
        let mut state = self.fill.body.lock();
        let (len, end) = (state.builder.received(), state.end);
        let at = state.readers.get(self.place).and_then(Option::as_ref).map_or(len, |place| place.at);
        let bytes = state.builder.part(at, most);
        let next = at + bytes.len();
        let sleeps = bytes.is_empty() && end.is_none();
        if let Some(Some(place)) = state.readers.get_mut(self.place) {
            let slept = place.sleeper.is_some();
            (place.at, place.sleeper) = (next, sleeps.then(|| self.sleeper.clone()));
            state.waiting = state.waiting + usize::from(sleeps) - usize::from(slept);
        }
        state.pass();
        state.wake_writer();
        LiveRead { bytes, end: end.filter(|_| next == len) }
    }
}

impl Drop for LiveReader {
    fn drop(&mut self) {
        let mut state = self.fill.body.lock();
        if let Some(place) = state.readers.get_mut(self.place).and_then(Option::take) {
            state.count -= 1;
            state.waiting -= usize::from(place.sleeper.is_some());
        }
        state.pass();
        state.wake_writer();
    }
}
